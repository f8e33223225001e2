"""The pinhole camera: x right, y down, z forward; K = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels, no skew.

A worked number: fx = 100, cx = 50, the point (1, 0, 10) m projects to u = 100 * 1 / 10 + 50 = 60.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.geometry.pixels import pixel_grid, pixel_grid_like
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


@float32_island
def reproject(depth: Tensor, target_K: Tensor, T_source_target: Tensor, source_K: Tensor) -> tuple[Tensor, Tensor]:
    """Where each target pixel lies in the source: project(transform(T, backproject(depth))) in one product.

    Returns:
        pixels: (B, 2, H, W) in the source; meaningless where not in front.
        in_front: (B, 1, H, W) bool.
    """
    b, _, h, w = depth.shape
    homography, epipole = (x.to(depth.dtype) for x in projection(target_K, T_source_target, source_K))
    grid = pixel_grid_like(depth).flatten(1)
    homogeneous = torch.cat([grid, torch.ones_like(grid[:1])])  # (3, H*W)
    x, y, z = ((homography @ homogeneous) * depth.flatten(2) + epipole[..., None]).unbind(1)  # each (B, H*W)
    in_front = z > MIN_Z
    inverse_z = 1 / torch.where(in_front, z, torch.ones_like(z))
    pixels = torch.stack([x * inverse_z, y * inverse_z], dim=1)
    return pixels.view(b, 2, h, w), in_front.view(b, 1, h, w)


def projection(target_K: Tensor, T_source_target: Tensor, source_K: Tensor) -> tuple[Tensor, Tensor]:
    """The motion between two cameras as it acts on pixels: pixel p of depth d projects to d (homography p) + epipole.

    K_s (R K_t^-1 d p + t) = d (K_s R K_t^-1) p + K_s t. In float64, so that identity motion maps every pixel to itself
    to the last bits.

    Args:
        target_K, source_K: (B, 3, 3) pixels. T_source_target: (B, 4, 4).

    Returns:
        homography: (B, 3, 3) float64, of the plane at infinity.
        epipole: (B, 3) float64, homogeneous.
    """
    K_s, T = source_K.double(), T_source_target.double()
    return K_s @ T[:, :3, :3] @ torch.linalg.inv(target_K.double()), (K_s @ T[:, :3, 3:])[..., 0]
