"""From one description of a scene's geometry to another: depth, inverse depth, disparity, flow, scene flow.

A worked number: fx = 700 px, baseline 0.5 m, depth 10 m: disparity_px = 700 * 0.5 / 10 = 35; in an image 1400 px wide
disparity_fraction = 0.025.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.geometry.camera import backproject, project, reproject
from geossl.geometry.motion import transform
from geossl.geometry.pixels import pixel_grid_like, sample_at_pixels
from geossl.geometry.precision import float32_island


@float32_island
def unit_inverse_depth_to_depth(unit_inverse_depth: Tensor, min_depth: float, max_depth: float) -> Tensor:
    """Maps a sigmoid linearly to inverse depth: 0 is `max_depth`, 1 is `min_depth`.

    Source: Godard et al., ICCV 2019, section 4 and supplement: D = 1 / (a sigma + b).
    """
    nearest, farthest = 1 / min_depth, 1 / max_depth
    return 1 / (farthest + (nearest - farthest) * unit_inverse_depth)


@float32_island
def depth_to_disparity_px(depth: Tensor, fx: Tensor | float, baseline: Tensor | float) -> Tensor:
    """Depth in metres -> disparity in pixels of the image that `fx` belongs to. `fx` (B,) or a number."""
    return per_sample(fx, depth) * per_sample(baseline, depth) / depth


@float32_island
def disparity_px_to_depth(disparity_px: Tensor, fx: Tensor | float, baseline: Tensor | float) -> Tensor:
    """Disparity in pixels -> depth in metres; where the disparity is 0 the depth is infinite."""
    return per_sample(fx, disparity_px) * per_sample(baseline, disparity_px) / disparity_px


def per_sample(value: Tensor | float, like: Tensor) -> Tensor | float:
    """(B,) -> (B, 1, 1, 1) so that it multiplies (B, C, H, W); numbers pass."""
    return value.view(-1, *[1] * (like.dim() - 1)) if isinstance(value, Tensor) and value.dim() else value


@float32_island
def rigid_flow(depth: Tensor, K: Tensor, T_b_a: Tensor, K_b: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Optical flow that the camera's motion alone induces.

    Args:
        depth: (B, 1, H, W) z-depth of view a, in the unit of `T_b_a`.
        K: (B, 3, 3) of view a. K_b: of view b, if different.
        T_b_a: (B, 4, 4).

    Returns:
        flow: (B, 2, H, W) pixels.
        in_front: (B, 1, H, W) bool, True where the moved point is in front of camera b.
    """
    pixels, in_front = reproject(depth, K, T_b_a, K if K_b is None else K_b)
    return pixels - pixel_grid_like(depth), in_front


@float32_island
def scene_flow_to_flow(
    depth: Tensor, scene_flow: Tensor, K: Tensor, K_b: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Projects 3-D motion to optical flow.

    Args:
        depth: (B, 1, H, W) z-depth of the first view.
        scene_flow: (B, 3, H, W) metres in camera 1: where each point is in the second view, minus where it was.
        K: (B, 3, 3) of the first view. K_b: of the second, if different.

    Returns:
        flow (B, 2, H, W) pixels and in_front (B, 1, H, W) bool.
    """
    pixels, _, in_front = project(backproject(depth, K) + scene_flow, K if K_b is None else K_b)
    return pixels - pixel_grid_like(depth), in_front


@float32_island
def scene_flow_from_parts(
    depth: Tensor, next_depth: Tensor, flow: Tensor, visible: Tensor, K: Tensor, T_b_a: Tensor | None = None
) -> Tensor:
    """3-D motion from the depths of both views and the optical flow between them.

    Where a point is seen in the second view, its depth there is read at the place that the flow leads to (bilinearly
    in inverse depth, which is linear over a plane's picture). Where it is hidden or out of view nothing can be read:
    the point is then taken to stand still, if the camera's motion is given, or else to keep its depth along the flow.

    Args:
        depth: (B, 1, H, W) z-depth of the first view. next_depth: (B, 1, H', W') of the second, in the same unit.
        flow: (B, 2, H, W) pixels, first to second.
        visible: (B, 1, H, W) bool, True where the second view shows the point.
        K: (B, 3, 3) of both views.
        T_b_a: (B, 4, 4) the camera's motion, in the unit of depth.

    Returns:
        (B, 3, H, W) in camera 1: where each point is in the second view, minus where it was.

    Convention: depth 10 m becomes 7 m and no flow at the principal point: (0, 0, -3).
    """
    points, pixels = backproject(depth, K), pixel_grid_like(depth) + flow
    seen_depth = 1 / sample_at_pixels(1 / next_depth, pixels)
    z = seen_depth if T_b_a is not None else torch.where(visible, seen_depth, depth)
    focal, centre = (torch.stack([K[:, 0, i], K[:, 1, j]], 1)[:, :, None, None] for i, j in ((0, 1), (2, 2)))
    moved = torch.cat([(pixels - centre) / focal * z, z], dim=1)
    if T_b_a is not None:
        moved = torch.where(visible, moved, transform(T_b_a, points))
    return moved - points


@float32_island
def mean_normalized(inverse_depth: Tensor) -> Tensor:
    """(B, 1, H, W) divided by each image's mean: smoothness then does not shrink the depth to please itself.

    Source: Wang et al., CVPR 2018, eq. 4 (used by Monodepth2).
    """
    return inverse_depth / (inverse_depth.mean((2, 3), keepdim=True) + torch.finfo(inverse_depth.dtype).eps)
