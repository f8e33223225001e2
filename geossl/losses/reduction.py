"""From maps to numbers."""

from __future__ import annotations

from torch import Tensor

from geossl.geometry.precision import float32_island


@float32_island
def masked_mean(x: Tensor, keep: Tensor, eps: float = 1e-6) -> Tensor:
    """Mean of (B, C, H, W) over the pixels where (B, 1, H, W) bool `keep` is True; 0 where there is none.

    Masked values carry no gradient, even if they are not finite.
    """
    weight = keep.expand_as(x)
    return x.where(weight, x.new_zeros(())).sum() / (weight.sum() + eps)
