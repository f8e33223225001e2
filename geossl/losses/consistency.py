"""Agreement between two predictions of the same thing, unreduced."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from geossl.geometry.precision import float32_island
from geossl.geometry.warping import warp_by_disparity, warp_by_flow


@float32_island
def left_right_consistency(
    disparity: Tensor, other_disparity: Tensor, side: Literal["left", "right"], px_per_unit: float = 1.0
) -> Tensor:
    """|d(x) - d_other(x -+ d(x))|: the other view's disparity, seen from this view, against this view's.

    Args:
        disparity: (B, 1, H, W) of `side`; other_disparity: of the other side. In the same unit.
        px_per_unit: Pixels of this image in one unit (the width, for fractions of the width).

    Returns:
        (B, 1, H, W) in the unit of the disparities.

    Source: Godard et al., CVPR 2017, eq. 4.
    """
    seen, _ = warp_by_disparity(other_disparity, disparity * px_per_unit, target_side=side)
    return (disparity - seen).abs()


@float32_island
def forward_backward_residual(flow: Tensor, backward_flow: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) + b(x + f(x)): where a pixel ends after following the flow forth and back, minus where it began.

    Args:
        flow: (B, 2, H, W) pixels, first to second. backward_flow: (B, 2, H, W) second to first.

    Returns:
        residual: (B, 2, H, W) pixels, signed, with gradient to both flows; 0 where they agree.
        in_view: (B, 1, H, W) bool, True where the flow leads to a place inside the image.

    Source: Meister et al., AAAI 2018, section 3 (consistency term).
    """
    warped, in_view = warp_by_flow(backward_flow, flow)
    return flow + warped, in_view
