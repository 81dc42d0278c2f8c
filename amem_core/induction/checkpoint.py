"""The file a training run can go on from: whole at any moment, and refused when it is not this run's.

One line that names the format, 64 hexadecimal digits (SHA-256 of the rest), and the rest, which ``torch.load`` reads
without executing anything. It is written under another name and renamed, so that a run killed at any moment leaves the
old file or the new one.
"""

import hashlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amem_core.files import replace_files
from amem_core.validation import require

MAGIC = b"amem training checkpoint 1\n"


@dataclass(kw_only=True)
class Records:
    """The next step of a run, and what was recorded so far: the part of its state that every training has.

    >>> records = Records(step=3)
    >>> records.record({"loss": torch.tensor(0.5)})
    >>> records.steps, records.history
    ([3], {'loss': [tensor(0.5000)]})
    """

    step: int = 0
    steps: list[int] = field(default_factory=list)
    history: dict[str, list[Tensor]] = field(default_factory=dict)

    def record(self, values: dict[str, Tensor]) -> None:
        """One row of the history; ``ValueError`` when other things were recorded before."""
        known = not self.steps or set(values) == set(self.history)
        require(known, "observe", sorted(values), f"what is recorded so far, {sorted(self.history)}")
        self.steps.append(self.step)
        for name, value in values.items():
            self.history.setdefault(name, []).append(value.detach().cpu())


def checkpoint_path(checkpoint: object) -> Path | None:
    """The path of a checkpoint that can be written, ``None`` for none, or ``ValueError``.

    >>> checkpoint_path("run.checkpoint").name, checkpoint_path(None)
    ('run.checkpoint', None)
    """
    named = checkpoint is None or isinstance(checkpoint, str | os.PathLike)
    require(named, "checkpoint", repr(checkpoint), "the path of a file, or None")
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    require(path.parent.is_dir(), "checkpoint", str(path), "a file in a folder that exists")
    return path


def write_checkpoint(path: Path, digest: str, content: dict[str, Any]) -> None:
    """Write a checkpoint of the run whose configuration has this digest.

    Parameters
    ----------
    path : the file; one that is there is replaced at once, by a rename
    digest : of the configuration
    content : tensors, numbers, texts, and lists and dictionaries of them
    """
    buffer = io.BytesIO()
    torch.save({"digest": digest, **content}, buffer)
    payload = buffer.getvalue()
    replace_files({path: MAGIC + hashlib.sha256(payload).hexdigest().encode() + payload})


def read_checkpoint(path: Path, digest: str) -> dict[str, Any]:
    """What a checkpoint of this run holds; the file stays as it is.

    Raises
    ------
    ValueError
        For a path that is no file, no checkpoint of this version, a truncated or damaged one, or one of a run with
        another configuration.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "run.checkpoint"
    ...     write_checkpoint(path, "digest of a configuration", {"step": 3})
    ...     read_checkpoint(path, "digest of a configuration")["step"]
    3
    """
    require(path.is_file(), "checkpoint", str(path), "a file")
    content = path.read_bytes()
    require(content.startswith(MAGIC), "checkpoint", f"{path}, no checkpoint of this version", "one written by train")
    begin = len(MAGIC) + 64
    digits, payload = content[len(MAGIC) : begin], content[begin:]
    whole = hashlib.sha256(payload).hexdigest().encode() == digits
    require(whole, "checkpoint", f"{path}, truncated or damaged ({len(content)} bytes)", "a whole file, or none")
    held = torch.load(io.BytesIO(payload), weights_only=True)
    same = held["digest"] == digest
    require(same, "checkpoint", f"{path}, of another configuration", "one of this configuration, or a new name")
    return held
