"""What one view can see of another. All results are without gradient."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from geossl.geometry.pixels import in_image, pixel_grid_like
from geossl.geometry.precision import float32_island
from geossl.geometry.warping import splat, warp_by_flow
from geossl.kernels import kernels_run
from geossl.kernels import visibility as fast

Visibility = Literal["none", "forward_backward", "range_map", "soft_range_map"]


@torch.no_grad()
def visible_pair(
    kind: Visibility,
    flow: Tensor,
    backward_flow: Tensor,
    *,
    outside_hidden: bool = True,
    range_threshold: float = 0.2,
) -> tuple[Tensor, Tensor]:
    """What each of two images can see of the other, by a named rule that a training may change as it goes.

    While flows are noise the forward-backward check hides everything, so that nothing is learned: start with `none`
    (DDFlow, SelFlow) or a range map (ARFlow, UFlow).

    Args:
        kind: `none`: everything counts as seen. `forward_backward`: `forward_backward_check`, in pixels of this
            level. `range_map`: more than `range_threshold` of a pixel of the other image lands here.
            `soft_range_map`: how much lands here, at most 1.
        flow: (B, 2, H, W) pixels, first to second. backward_flow: (B, 2, H, W) second to first.
        outside_hidden: Whether pixels whose flow leaves the image count as hidden. False where the other image can
            be sampled beyond this one (the full-image warp of SMURF and UPFlow): they then count as seen.
        range_threshold: Of `range_map`; 0.2 in ARFlow, 0.5 in self-mono-sf.

    Returns:
        visible of the first image and of the second: (B, 1, H, W) bool; float in [0, 1] for `soft_range_map`.

    Raises:
        ValueError: If the flows differ in shape or `kind` is unknown.
    """
    if flow.shape != backward_flow.shape:
        raise ValueError(
            f"flow has shape {tuple(flow.shape)}, backward_flow {tuple(backward_flow.shape)}; they differ."
        )
    if kind == "none":
        pair = all_visible(flow), all_visible(backward_flow)
    elif kind == "forward_backward":
        pair = forward_backward_check(flow, backward_flow), forward_backward_check(backward_flow, flow)
    elif kind == "range_map":
        pair = range_map(backward_flow) > range_threshold, range_map(flow) > range_threshold
    elif kind == "soft_range_map":
        pair = range_map(backward_flow).clamp_max(1), range_map(flow).clamp_max(1)
    else:
        raise ValueError(f"visibility is {kind!r}; expected none, forward_backward, range_map or soft_range_map.")
    first, second = (
        torch.where(in_view(f), visible, torch.full_like(visible, not outside_hidden))
        for visible, f in zip(pair, (flow, backward_flow), strict=True)
    )
    return first, second


@torch.no_grad()
def all_visible(flow: Tensor) -> Tensor:
    """(B, 2, H, W) flow -> (B, 1, H, W) bool, True everywhere, outside the image included."""
    return torch.ones_like(flow[:, :1], dtype=torch.bool)


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
    fits = flow.shape == backward_flow.shape and flow.shape[1] == 2 and flow.shape[3] > 1
    if fits and kernels_run(flow, backward_flow):
        return fast.returns(flow, backward_flow, relative, absolute)
    warped, inside = warp_by_flow(backward_flow, flow)
    residual = (flow + warped).square().sum(1, keepdim=True)
    size = flow.square().sum(1, keepdim=True) + warped.square().sum(1, keepdim=True)
    return (residual <= relative * size + absolute) & inside


@torch.no_grad()
@float32_island
def range_map(backward_flow: Tensor) -> Tensor:
    """How many pixels of the second view land on each pixel of the first: about 1 where it is seen, 0 where hidden.

    Args:
        backward_flow: (B, 2, H, W) second to first.

    Returns:
        (B, 1, H, W) >= 0.

    Source: Wang et al., CVPR 2018 (Occlusion aware unsupervised learning of optical flow), eq. 2.
    """
    if backward_flow.shape[1] == 2 and kernels_run(backward_flow):
        return fast.landed(backward_flow)
    return splat(torch.ones_like(backward_flow[:, :1]), backward_flow)
