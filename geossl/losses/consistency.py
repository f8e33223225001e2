"""Agreement between two predictions of the same thing, unreduced."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from geossl.geometry.precision import float32_island
from geossl.geometry.warping import warp_by_disparity


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
