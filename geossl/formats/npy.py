"""NumPy arrays, never pickled objects."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from geossl.formats.atomic import write_bytes_atomic
from geossl.formats.errors import FormatError


def read_npy(path: str | Path) -> np.ndarray:
    """Reads an array of numbers.

    Raises:
        FormatError: If the file is no .npy file, is cut off, or holds pickled objects (they are never loaded).
        OSError: If it cannot be opened.
    """
    data = Path(path).read_bytes()
    if not data.startswith(b"\x93NUMPY"):
        raise FormatError(path, "is not a .npy file; write it with numpy.save.")
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FormatError(path, f"cannot be read as an array of numbers: {error}") from None


def write_npy(path: str | Path, array: np.ndarray) -> None:
    """Writes an array of numbers."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    write_bytes_atomic(path, buffer.getvalue())
