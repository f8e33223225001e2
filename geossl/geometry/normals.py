"""Surface normals: which way the surface at a pixel faces, read off a map of depth.

A worked number: the road, seen by a level camera, faces up: (0, -1, 0). A wall across the road faces the camera:
(0, 0, -1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.camera import backproject
from geossl.geometry.precision import float32_island


@float32_island
def depth_to_normals(depth: Tensor, K: Tensor, valid: Tensor, bend: float = 0.2) -> tuple[Tensor, Tensor]:
    """Normals of the surface through each pixel's point and its four neighbours' points.

    They are exact on planes of any slant, whose points' differences lie in the plane.

    Args:
        depth: (B, 1, H, W) z-depth in any unit, any value where it is not valid. K: (B, 3, 3) pixels.
        valid: (B, 1, H, W) bool, where the depth is known.
        bend: Greatest change of the surface's slope dz/dx or dz/dy, as a surface that faces the camera has it, from
            one side of a pixel to the other.

    Returns:
        normals: (B, 3, H, W) unit vectors in camera coordinates, towards the camera; 0 where not known.
        known: (B, 1, H, W) bool, True where the pixel and its four neighbours are valid and of one surface, without an
            edge of depth or a crease between them. The image's border has too few neighbours.

    Convention: on a plane inverse depth is linear in the pixels, so that z / z_left + z / z_right - 2 is 0; a step of
    1 % at fx = 100 changes the slope by 1.
    """
    depth = torch.where(valid, depth, torch.ones_like(depth))
    points = backproject(depth, K)
    along_row = points[:, :, 1:-1, 2:] - points[:, :, 1:-1, :-2]
    along_column = points[:, :, 2:, 1:-1] - points[:, :, :-2, 1:-1]
    normals = F.normalize(torch.linalg.cross(along_column, along_row, dim=1), dim=1)
    inner = points[:, :, 1:-1, 1:-1]
    normals = torch.where((normals * inner).sum(1, keepdim=True) > 0, -normals, normals)

    (left, z, right), (above, _, below) = around(depth)
    fx, fy = (K[:, i, i].view(-1, 1, 1, 1) for i in (0, 1))
    smooth = ((z / left + z / right - 2).abs() * fx <= bend) & ((z / above + z / below - 2).abs() * fy <= bend)
    row, column = around(valid)
    known = torch.stack([*row, *column]).all(0) & smooth
    normals = torch.where(known, normals, torch.zeros_like(normals))
    return F.pad(normals, (1, 1, 1, 1)), F.pad(known, (1, 1, 1, 1))


def around(x: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """(B, C, H, W) -> left, own and right, and above, own and below values of its inner pixels, (B, C, H-2, W-2)."""
    rows, columns = x[:, :, 1:-1], x[:, :, :, 1:-1]
    own = rows[..., 1:-1]
    return (rows[..., :-2], own, rows[..., 2:]), (columns[:, :, :-2], own, columns[:, :, 2:])
