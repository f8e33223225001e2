"""What one view can see of another. All results are without gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.geometry.pixels import in_image, pixel_grid_like
from geossl.geometry.precision import float32_island
from geossl.geometry.warping import splat, warp_by_flow


@torch.no_grad()
@float32_island
def in_view(flow: Tensor) -> Tensor:
    """(B, 2, H, W) flow -> (B, 1, H, W) bool, True where it leads to a place inside the image."""
    pixels = pixel_grid_like(flow) + flow
    return in_image(pixels, *flow.shape[-2:])


@torch.no_grad()
@float32_island
def forward_backward_check(
    flow: Tensor, backward_flow: Tensor, relative: float = 0.01, absolute: float = 0.5
) -> Tensor:
    """True where following the flow forth and back returns near the start.

    visible iff |f + b_w|^2 <= relative (|f|^2 + |b_w|^2) + absolute, b_w(x) = b(x + f(x)), in pixels of this level.

    Args:
        flow: (B, 2, H, W) first to second. backward_flow: (B, 2, H, W) second to first.

    Returns:
        (B, 1, H, W) bool; False where the flow leaves the image.

    Source: Meister et al., AAAI 2018, eq. 1.
    """
    warped, inside = warp_by_flow(backward_flow, flow)
    residual = (flow + warped).square().sum(1, keepdim=True)
    size = flow.square().sum(1, keepdim=True) + warped.square().sum(1, keepdim=True)
    return (residual <= relative * size + absolute) & inside


@torch.no_grad()
def range_map(backward_flow: Tensor) -> Tensor:
    """How many pixels of the second view land on each pixel of the first: about 1 where it is seen, 0 where hidden.

    Args:
        backward_flow: (B, 2, H, W) second to first.

    Returns:
        (B, 1, H, W) >= 0.

    Source: Wang et al., CVPR 2018 (Occlusion aware unsupervised learning of optical flow), eq. 2.
    """
    return splat(torch.ones_like(backward_flow[:, :1]), backward_flow)
