"""Files that are whole at any moment: written under another name, then renamed."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together; an interruption while writing leaves the old ones.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace_files({Path(folder) / "a": b"1", Path(folder) / "b": b"2"})
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['a', 'b']
    """
    parts = {path: path.with_name(path.name + ".part") for path in contents}
    for path, content in contents.items():
        with parts[path].open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    for path, part in parts.items():
        os.replace(part, path)


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as the content of a compressed .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
