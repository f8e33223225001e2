"""Point clouds as binary little-endian PLY, which MeshLab, CloudCompare and Open3D show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from geossl.formats.atomic import write_bytes_atomic


def write_ply(
    path: str | Path,
    points: np.ndarray,
    colours: np.ndarray | None = None,
    properties: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes a point cloud.

    Args:
        path: The file to write.
        points: (N, 3) x, y, z. Points that are not finite are left out.
        colours: (N, 3) uint8 RGB, or None for a cloud without colour.
        properties: More numbers of each point by name, (N,) each; written as float32.

    Raises:
        ValueError: If the shapes or the colour's type do not fit.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points has shape {points.shape}; expected (N, 3).")
    if colours is not None and (colours.shape != points.shape or colours.dtype != np.uint8):
        raise ValueError(f"colours is {colours.shape} {colours.dtype}; expected {points.shape} uint8.")
    more = dict(properties or {})
    for name, values in more.items():
        if values.shape != points.shape[:1]:
            raise ValueError(f"property {name} has shape {values.shape}; expected ({len(points)},).")
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    if colours is not None:
        fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    fields += [(name, "<f4") for name in more]
    keep = np.isfinite(points).all(axis=1)
    vertices = np.empty(int(keep.sum()), fields)
    for axis, name in enumerate("xyz"):
        vertices[name] = points[keep, axis]
    if colours is not None:
        for channel, name in enumerate(("red", "green", "blue")):
            vertices[name] = colours[keep, channel]
    for name, values in more.items():
        vertices[name] = values[keep]
    declared = [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in fields]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}", *declared, "end_header"]
    write_bytes_atomic(path, ("\n".join(header) + "\n").encode("ascii") + vertices.tobytes())
