"""Errors and roughness of 3-D motion, unreduced."""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.geometry.pixels import sample_at_pixels
from geossl.geometry.precision import float32_island
from geossl.losses.smoothness import edge_aware_second_order

LEAST_SQUARE = 1e-12  # of a length, which is then at least 1e-6: a square root has no gradient at 0


@float32_island
def point_distance(points: Tensor, scene_flow: Tensor, other_points: Tensor, pixels: Tensor) -> Tensor:
    """How far the moved points are from the surface that the other image has where they appear: |P + s - P'| / |P|.

    Args:
        points: (B, 3, H, W) what the first image shows, in camera 1.
        scene_flow: (B, 3, H, W) in the unit of the points.
        other_points: (B, 3, H', W') what the second image shows, in camera 2.
        pixels: (B, 2, H, W) where the moved points appear in the second image.

    Returns:
        (B, 1, H, W) distance as a share of the point's distance from the camera.

    Source: Hur and Roth, CVPR 2020, section 3.2 (3D point reconstruction loss).
    """
    found = sample_at_pixels(other_points, pixels)
    return length(points + scene_flow - found) / length(points)


@float32_island
def scene_flow_roughness(
    scene_flow: Tensor, points: Tensor, image: Tensor, edge: float = 10.0
) -> tuple[Tensor, Tensor]:
    """|d2s| exp(-edge mean_c |dI|) / |P| along x and y: far points may move less alike.

    Args:
        scene_flow, points: (B, 3, H, W), in one unit. image: (B, 3, H, W) that says where edges may be.

    Returns:
        (B, 3, H, W-2) and (B, 3, H-2, W).

    Source: Hur and Roth, CVPR 2020, section 3.2 (3D scene flow smoothness loss).
    """
    distance = length(points)
    along_x, along_y = edge_aware_second_order(scene_flow, image, edge, image_stride=1)
    return along_x / distance[..., 1:-1], along_y / distance[..., 1:-1, :]


def length(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H, W) Euclidean length of the channels, with a gradient of 0 at 0.

    The same as `x.norm(dim=1, keepdim=True)`, which on CPUs takes over ten times as long.
    """
    return (x.square().sum(1, keepdim=True) + LEAST_SQUARE).sqrt()


@torch.no_grad()
def equal_factors(*losses: Tensor) -> list[Tensor]:
    """Factors that make () losses as large as the largest of them: max / loss each, without gradient.

    Source: Hur and Roth, CVPR 2020, section 3.2: losses that are balanced at every step.
    """
    values = torch.stack([loss.detach().float() for loss in losses])
    return list(values.max() / values.clamp_min(1e-8))
