"""Correspondences: where each pixel of one image lies in another, and whether the other shows it.

Every function returns `xy` (B, 2, H, W), pixels (u, v) of the other image, and `valid` (B, 1, H, W) bool, False where
the place is hidden, outside, behind the camera or unknown: such pixels are never positives. Where `valid` is False,
`xy` means nothing. No gradient passes.

A worked number: disparity 3 at pixel (10, 0) of the left image: xy = (7, 0) in the right one.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from geossl.geometry.affine import affine_flow, affine_visible
from geossl.geometry.camera import backproject, reproject
from geossl.geometry.motion import transform
from geossl.geometry.pixels import in_image, pixel_grid_like, sample_at_pixels, size_of
from geossl.geometry.precision import float32_island
from geossl.geometry.visibility import forward_backward_check

DEPTH_TOLERANCE = 0.05  # of the depth, by which two depths of one point may differ before the nearer one hides it
DISPARITY_TOLERANCE_PX = 1.0
LEAST_DISPARITY_PX = 1e-6  # what is nearer to zero is unknown, or at infinity


def identity(image: Tensor) -> tuple[Tensor, Tensor]:
    """Of (B, C, H, W) images with themselves: every pixel where it is."""
    xy = pixel_grid_like(image).expand(len(image), -1, -1, -1)
    return xy, torch.ones_like(image[:, :1], dtype=torch.bool)


@torch.no_grad()
@float32_island
def from_warp(xy: Tensor, valid: Tensor, A_first: Tensor, A_second: Tensor) -> tuple[Tensor, Tensor]:
    """Correspondences of two images after each was bent by an affine map: xy'(A_first x) = A_second xy(x).

    Args:
        xy, valid: Between the images as they were; `identity` for two views of one image.
        A_first, A_second: (B, 3, 3), pixels of each image to pixels of its view (`geossl.geometry.affine`).

    Returns:
        xy: (B, 2, H, W) pixels of the second view, for every pixel of the first. valid: (B, 1, H, W).
    """
    flow = affine_flow(xy - pixel_grid_like(xy), A_first, A_second)
    moved = pixel_grid_like(flow) + flow
    return moved, affine_visible(valid, A_first) & in_image(moved, *size_of(moved))


@torch.no_grad()
@float32_island
def from_disparity(
    disparity_px: Tensor, side: Literal["left", "right"] = "left", other_disparity_px: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Of a rectified pair.

    Args:
        disparity_px: (B, 1, H, W) >= 0, pixels of this image; 0 where unknown.
        side: Of the image that the disparity belongs to: u_right = u_left - disparity.
        other_disparity_px: (B, 1, H, W) of the other image, which finds what it does not show; None: occlusion is
            not considered.
    """
    sign = -1.0 if side == "left" else 1.0
    xy = pixel_grid_like(disparity_px) + torch.cat([sign * disparity_px, torch.zeros_like(disparity_px)], 1)
    valid = (disparity_px > LEAST_DISPARITY_PX) & in_image(xy, *size_of(xy))
    if other_disparity_px is not None:
        there = sample_at_pixels(other_disparity_px, xy)
        valid = valid & ((there - disparity_px).abs() <= DISPARITY_TOLERANCE_PX)
    return xy, valid


@torch.no_grad()
@float32_island
def from_depth_and_motion(
    depth: Tensor, K: Tensor, T_b_a: Tensor, K_b: Tensor | None = None, depth_b: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Of two cameras that see a scene at rest.

    Args:
        depth: (B, 1, H, W) z-depth of camera a, in the unit of `T_b_a`.
        K: (B, 3, 3) pixels, of camera a. K_b: of camera b, if different.
        T_b_a: (B, 4, 4), maps points of camera a to camera b.
        depth_b: (B, 1, H, W) of camera b, which finds what it does not show; None: occlusion is not considered.
    """
    xy, in_front = reproject(depth, K, T_b_a, K if K_b is None else K_b)
    valid = in_front & in_image(xy, *size_of(xy))
    if depth_b is not None:
        z = transform(T_b_a, backproject(depth, K))[:, 2:]
        valid = valid & ((sample_at_pixels(depth_b, xy) - z).abs() <= DEPTH_TOLERANCE * z)
    return xy, valid


@torch.no_grad()
@float32_island
def from_flow(flow: Tensor, backward_flow: Tensor) -> tuple[Tensor, Tensor]:
    """Of two images of a scene in which things may move.

    Args:
        flow: (B, 2, H, W) pixels, first to second. backward_flow: (B, 2, H, W) second to first; where following both
            does not lead back, the pixel is hidden.
    """
    return pixel_grid_like(flow) + flow, forward_backward_check(flow, backward_flow)
