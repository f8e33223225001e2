"""The pinhole camera: x right, y down, z forward; K = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels, no skew.

A worked number: fx = 100, cx = 50, the point (1, 0, 10) m projects to u = 100 * 1 / 10 + 50 = 60.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.geometry.pixels import pixel_grid
from geossl.geometry.precision import float32_island

MIN_Z = 1e-3
"""Points nearer than this (in the unit of depth), or behind the camera, have no projection."""


def rays(K: Tensor, height: int, width: int) -> Tensor:
    """(B, 3, H, W) viewing rays with z = 1 of every pixel centre."""
    u, v = pixel_grid(height, width, K.device, K.dtype)
    fx, fy, cx, cy = (K[:, i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x = (u - cx) / fx
    y = (v - cy) / fy
    return torch.stack([x, y, torch.ones_like(x)], dim=1)


@float32_island
def backproject(depth: Tensor, K: Tensor) -> Tensor:
    """Lifts every pixel to its point in camera coordinates.

    Args:
        depth: (B, 1, H, W) z-depth.
        K: (B, 3, 3) pixels.

    Returns:
        (B, 3, H, W) points, in the unit of depth.
    """
    return depth * rays(K, *depth.shape[-2:])


@float32_island
def project(points: Tensor, K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Projects camera points to pixels.

    Args:
        points: (B, 3, H, W) in camera coordinates.
        K: (B, 3, 3) pixels.

    Returns:
        pixels: (B, 2, H, W); finite everywhere, meaningless where not in front.
        z: (B, 1, H, W) depth of the points.
        in_front: (B, 1, H, W) bool, True where z exceeds `MIN_Z`.
    """
    x, y, z = points[:, :1], points[:, 1:2], points[:, 2:]
    fx, fy, cx, cy = (K[:, i, j, None, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    in_front = z > MIN_Z
    safe_z = torch.where(in_front, z, torch.ones_like(z))
    pixels = torch.cat([fx * (x / safe_z) + cx, fy * (y / safe_z) + cy], dim=1)
    return pixels, z, in_front
