"""Middlebury's .flo files: optical flow in float32.

Convention: bytes `PIEH` (202021.25 as float32), width, height (int32), then (du, dv) row by row, little-endian. A
component beyond 1e9 means unknown.
Source: https://vision.middlebury.edu/flow/code/flow-code/README.txt
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from geossl.formats.atomic import write_bytes_atomic
from geossl.formats.errors import FormatError

MAGIC = b"PIEH"
UNKNOWN = 1e9


def read_flo(path: str | Path) -> np.ndarray:
    """Reads a flow map: (H, W, 2) float32 (du, dv) in pixels; unknown pixels are NaN.

    Raises:
        FormatError: If the magic number or the length is wrong.
        OSError: If the file cannot be opened.
    """
    return decode_flo(Path(path).read_bytes(), str(path))


def decode_flo(data: bytes, where: str) -> np.ndarray:
    """As `read_flo`, from the bytes of a file; `where` names it in messages."""
    if len(data) < 12 or data[:4] != MAGIC:
        raise FormatError(where, f"starts with {data[:4]!r}; a .flo file starts with {MAGIC!r}.")
    width, height = struct.unpack("<ii", data[4:12])
    expected = 12 + 8 * width * height
    if width < 1 or height < 1 or len(data) != expected:
        raise FormatError(
            where,
            f"says {width} x {height} pixels, so {expected} bytes, but has {len(data)}. Copy or unpack it again.",
        )
    flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)
    flow[~(np.abs(flow) <= UNKNOWN).all(axis=2)] = np.nan
    return flow


def write_flo(path: str | Path, flow: np.ndarray) -> None:
    """Writes (H, W, 2) flow in pixels; NaN is written as unknown.

    Raises:
        ValueError: If the flow has another shape.
    """
    write_bytes_atomic(path, encode_flo(flow))


def encode_flo(flow: np.ndarray) -> bytes:
    """As `write_flo`: the bytes of the file."""
    if flow.ndim != 3 or flow.shape[2] != 2 or 0 in flow.shape:
        raise ValueError(f"flow has shape {flow.shape}; expected (H, W, 2).")
    height, width, _ = flow.shape
    values = np.where(np.isfinite(flow).all(axis=2, keepdims=True), flow, 10 * UNKNOWN).astype("<f4")
    return MAGIC + struct.pack("<ii", width, height) + values.tobytes()
