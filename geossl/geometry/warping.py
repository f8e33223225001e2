"""Synthesising one view from another: by depth and motion, disparity, flow or scene flow; and the splat, its adjoint.

Every warp here samples backwards: the result has the geometry of the target, each of its pixels asks where it lies in
the source. Every warp returns what it could see.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from geossl.geometry.camera import reproject
from geossl.geometry.conversion import scene_flow_to_flow
from geossl.geometry.pixels import in_image, pixel_grid_like, sample_at_pixels
from geossl.geometry.precision import float32_island
from geossl.types import Frame


@float32_island
def synthesize_target(
    source: Frame,
    depth: Tensor,
    target_K: Tensor,
    T_source_target: Tensor,
    padding: Literal["border", "zeros"] = "border",
) -> tuple[Tensor, Tensor]:
    """Reconstructs the target image by sampling the source where the target's points project.

    Args:
        source: Frame to sample; `source.image` is (B, C, H', W').
        depth: (B, 1, H, W) z-depth of the target, in the unit of `T_source_target`.
        target_K: (B, 3, 3) pixels.
        T_source_target: (B, 4, 4), maps target-camera points to the source camera.
        padding: What is seen outside the source: its border repeated, or zeros.

    Returns:
        image: (B, C, H, W).
        visible: (B, 1, H, W) bool, True where the point is in front of and inside the source image.
            Occlusion by other surfaces is not considered.

    Raises:
        ValueError: If depth is not (B, 1, H, W).

    Convention: integer pixels are centres; identity motion returns the source.
    Source: Zhou et al., CVPR 2017, eq. 2. https://arxiv.org/abs/1704.07813
    """
    if depth.dim() != 4 or depth.shape[1] != 1:
        raise ValueError(f"depth has shape {tuple(depth.shape)}; expected (B, 1, H, W).")
    pixels, in_front = reproject(depth, target_K, T_source_target, source.K)
    return sample_at_pixels(source.image, pixels, padding), in_front & in_image(pixels, source.height, source.width)


@float32_island
def warp_by_disparity(
    image: Tensor, disparity_px: Tensor, target_side: Literal["left", "right"] = "left"
) -> tuple[Tensor, Tensor]:
    """Reconstructs one view of a rectified pair from the other.

    Args:
        image: (B, C, H, W) of the other side.
        disparity_px: (B, 1, H, W) of the target side, >= 0, pixels of this image.
        target_side: u_right = u_left - disparity: a left target looks left in the right image.

    Returns:
        image (B, C, H, W), border repeated, and in_view (B, 1, H, W) bool.
    """
    if disparity_px.shape[1] != 1 or disparity_px.dim() != 4:
        raise ValueError(f"disparity_px has shape {tuple(disparity_px.shape)}; expected (B, 1, H, W).")
    sign = -1 if target_side == "left" else 1
    return warp_by_flow(image, torch.cat([sign * disparity_px, torch.zeros_like(disparity_px)], dim=1))


@float32_island
def warp_by_flow(
    image: Tensor, flow: Tensor, padding: Literal["border", "zeros"] = "border", origin: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Reconstructs the first image from the second by the flow from first to second.

    Args:
        image: (B, C, H', W') second image.
        flow: (B, 2, H, W) = (du, dv) pixels, of the first image.
        padding: What is seen outside the second image: its border repeated, or zeros.
        origin: (B, 2) pixel (u, v) of the second image at which the flow's top-left pixel lies, for a flow of a crop
            (each sample its own) and an uncropped second image: what leaves the crop is still found. None: (0, 0).

    Returns:
        image (B, C, H, W) and in_view (B, 1, H, W) bool, True inside the second image.

    Raises:
        ValueError: If `origin` is not (B, 2).

    Convention: origin (3, 1) and flow 0 return `image[..., 1 : 1 + H, 3 : 3 + W]`.
    Source: with origin, the full-image warp of Stone et al. (SMURF), CVPR 2021, and Luo et al. (UPFlow), CVPR 2021.
    """
    pixels = pixel_grid_like(flow) + flow
    if origin is not None:
        if origin.shape != (flow.shape[0], 2):
            raise ValueError(f"origin has shape {tuple(origin.shape)}; expected ({flow.shape[0]}, 2), (u, v) each.")
        pixels = pixels + origin.to(pixels)[:, :, None, None]
    return sample_at_pixels(image, pixels, padding), in_image(pixels, *image.shape[-2:])


def warp_by_scene_flow(
    image: Tensor, depth: Tensor, scene_flow: Tensor, K: Tensor, K_b: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Reconstructs the first image from the second by the first's depth and 3-D motion.

    Args:
        image: (B, C, H', W') second image.
        depth: (B, 1, H, W) of the first. scene_flow: (B, 3, H, W) in camera 1, in the unit of depth.
        K: (B, 3, 3) of the first. K_b: of the second, if different.

    Returns:
        image (B, C, H, W) and visible (B, 1, H, W) bool (in front and in view).

    Convention: f 100 px, points 10 m ahead that move 0.3 m to the right are 3 px further right in the second.
    """
    flow, in_front = scene_flow_to_flow(depth, scene_flow, K, K_b)
    warped, in_view = warp_by_flow(image, flow)
    return warped, in_front & in_view


@float32_island
def splat(values: Tensor, flow: Tensor) -> Tensor:
    """Adds every pixel's values at the place its flow leads to, spread bilinearly over four neighbours.

    Args:
        values: (B, C, H, W).
        flow: (B, 2, H, W) pixels.

    Returns:
        (B, C, H, W) sums; what lands outside is lost, what lands inside keeps its sum exactly.

    Convention: a one at u = 1 with du = 0.25 adds 0.75 at u = 1 and 0.25 at u = 2.
    """
    b, c, h, w = values.shape
    u, v = (pixel_grid_like(flow) + flow).unbind(1)  # each (B, H, W)
    u0, v0 = u.detach().floor(), v.detach().floor()
    out = values.new_zeros(b, c, h * w)
    for du, dv in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = u0 + du, v0 + dv
        weight = (1 - (u - column).abs()) * (1 - (v - row).abs())
        inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
        index = torch.where(inside, row * w + column, torch.zeros_like(u0)).long().flatten(1)  # (B, H*W)
        share = torch.where(inside, weight, torch.zeros_like(weight))[:, None] * values
        out = out.scatter_add(2, index[:, None].expand(-1, c, -1), share.flatten(2))
    return out.view(b, c, h, w)
