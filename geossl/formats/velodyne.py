"""KITTI's LiDAR scans: float32 x, y, z, reflectance; x forward, y left, z up, metres."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geossl.formats.atomic import write_bytes_atomic
from geossl.formats.errors import FormatError


def read_velodyne(path: str | Path) -> np.ndarray:
    """Reads a scan: (N, 4) float32 x, y, z in metres and reflectance.

    Raises:
        FormatError: If the file's length is no multiple of 16 bytes.
        OSError: If it cannot be opened.
    """
    return decode_velodyne(Path(path).read_bytes(), str(path))


def decode_velodyne(data: bytes, where: str) -> np.ndarray:
    """As `read_velodyne`, from the bytes of a file; `where` names it in messages."""
    if not data or len(data) % 16:
        raise FormatError(
            where, f"has {len(data)} bytes; a scan holds 16 a point (4 float32). Copy or unpack it again."
        )
    return np.frombuffer(data, "<f4").reshape(-1, 4).astype(np.float32)


def write_velodyne(path: str | Path, points: np.ndarray) -> None:
    """Writes (N, 4) x, y, z in metres and reflectance.

    Raises:
        ValueError: If the points have another shape or there are none.
    """
    if points.ndim != 2 or points.shape[1] != 4 or not len(points):
        raise ValueError(f"points has shape {points.shape}; expected (N, 4): x, y, z, reflectance, with N > 0.")
    write_bytes_atomic(path, np.ascontiguousarray(points, "<f4").tobytes())
