"""Recorded runs: arrays that took long to compute, each with a page of provenance beside it.

A recording ``NAME`` is two files, ``NAME.npz`` and ``NAME.json``; the second names settings, versions, hardware and the
SHA-256 of the first. They lie in the folder ``book/recorded`` of the repository and travel with the installed package.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amem_core import __version__
from amem_core.files import npz_bytes, replace_files
from amem_core.validation import require

HOME = Path(__file__).resolve().parents[1] / "book" / "recorded"  # in a checkout


def load(name: str, folder: str | os.PathLike | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and provenance of a recording.

    Parameters
    ----------
    folder : where its two files lie; ``None`` for those of the book

    Raises
    ------
    ValueError
        For a recording that is not there, or whose arrays are not those that its provenance names.

    Examples
    --------
    >>> arrays, provenance = load("many-tokens")
    >>> int(arrays["N"]), provenance["settings"]["N"]
    (5000, 5000)
    """
    npz, words = (_find(f"{name}.{kind}", folder) for kind in ("npz", "json"))
    require(npz is not None and words is not None, "name", repr(name), "a recording with its .npz and .json")
    provenance = json.loads(words.read_text(encoding="utf-8"))
    found, wanted = hashlib.sha256(npz.read_bytes()).hexdigest(), provenance["npz_sha256"]
    require(found == wanted, "name", f"{name!r}, an .npz with SHA-256 {found[:16]}", f"the recorded {wanted[:16]}")
    with np.load(npz) as arrays:
        return dict(arrays), provenance


def save(name: str, arrays: Mapping[str, np.ndarray], provenance: Mapping[str, Any], folder: str | os.PathLike) -> None:
    """Write both files of a recording, each under another name first; versions and the hash are added.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save("three", {"x": np.arange(3)}, {"what": "a test"}, folder)
    ...     load("three", folder)[0]["x"]
    array([0, 1, 2])
    """
    npz, words = (Path(folder) / f"{name}.{kind}" for kind in ("npz", "json"))
    content = npz_bytes(arrays)
    everything = {"versions": versions(), **provenance, "npz_sha256": hashlib.sha256(content).hexdigest()}
    replace_files({npz: content, words: (json.dumps(everything, indent=1) + "\n").encode()})


def versions() -> dict[str, str]:
    """Of Python and of the packages that compute."""
    packages = {"amem_core": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return {"python": platform.python_version(), **packages}


def hardware(device: torch.device) -> str:
    """A device in plain words, without the machine's name.

    >>> hardware(torch.device("cpu")).split(" ", 1)[1]
    'thread(s) on ...'
    """
    if device.type == "cuda":
        return f"one GPU, {torch.cuda.get_device_name(device)}"
    return f"{torch.get_num_threads()} thread(s) on an {platform.machine()} processor with {os.cpu_count()} cores"


def _find(file: str, folder: str | os.PathLike | None) -> Path | None:
    """Where a file of a recording lies, or ``None``."""
    place = HOME / file if folder is None else Path(folder) / file
    if place.is_file() or folder is not None:
        return place if place.is_file() else None
    try:
        installed = files("amem-core") or []
    except PackageNotFoundError:
        return None
    return next((Path(entry.locate()) for entry in installed if entry.name == file), None)
