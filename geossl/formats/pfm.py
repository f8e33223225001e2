"""Portable float maps: `Pf` (one channel) or `PF` (three), rows from the bottom up.

Source: http://www.pauldebevec.com/Research/HDR/PFM/ ; a negative scale says little-endian.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from geossl.formats.atomic import write_bytes_atomic
from geossl.formats.errors import FormatError

_HEADER = re.compile(rb"(P[Ff])\s+(\d{1,9})\s+(\d{1,9})\s+([-+]?[0-9.eE+-]+)\s")


def read_pfm(path: str | Path) -> np.ndarray:
    """Reads a float map: (H, W) or (H, W, 3) float32, top row first.

    Raises:
        FormatError: If the header is no PFM header or the length does not fit it.
        OSError: If the file cannot be opened.
    """
    data = Path(path).read_bytes()
    header = _HEADER.match(data)
    if header is None:
        raise FormatError(path, f"starts with {data[:12]!r}; a .pfm file starts with Pf or PF, its size and a scale.")
    channels = 3 if header[1] == b"PF" else 1
    width, height = int(header[2]), int(header[3])
    try:
        order = "<f4" if float(header[4]) < 0 else ">f4"
    except ValueError:
        raise FormatError(path, f"has the scale {header[4]!r}, which is no number.") from None
    expected = header.end() + 4 * channels * width * height
    if width < 1 or height < 1 or len(data) != expected:
        raise FormatError(
            path,
            f"says {width} x {height} pixels of {channels} channel(s), so {expected} bytes, but has {len(data)}. "
            "Copy or unpack it again.",
        )
    values = np.frombuffer(data, order, offset=header.end()).reshape(height, width, channels)[::-1]
    return np.ascontiguousarray(values if channels == 3 else values[..., 0], np.float32)


def write_pfm(path: str | Path, values: np.ndarray) -> None:
    """Writes (H, W) or (H, W, 3) numbers as float32, little-endian.

    Raises:
        ValueError: If the array has another shape.
    """
    if not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3)) or 0 in values.shape:
        raise ValueError(f"values has shape {values.shape}; expected (H, W) or (H, W, 3).")
    kind = "Pf" if values.ndim == 2 else "PF"
    header = f"{kind}\n{values.shape[1]} {values.shape[0]}\n-1.0\n".encode("ascii")
    write_bytes_atomic(path, header + np.ascontiguousarray(values[::-1], "<f4").tobytes())
