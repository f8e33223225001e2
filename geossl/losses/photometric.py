"""How different two images look, pixel by pixel. Every function returns an unreduced map."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.precision import float32_island

C1 = 0.01**2
C2 = 0.03**2


@float32_island
def l1_map(a: Tensor, b: Tensor) -> Tensor:
    """(B, C, H, W) twice -> (B, 1, H, W) mean absolute difference over channels."""
    return (a - b).abs().mean(1, keepdim=True)


def box_mean(x: Tensor) -> Tensor:
    """(..., H, W) -> (..., H-2, W-2) mean over every 3x3 window.

    The same as `F.avg_pool2d(x, 3, stride=1)`, which on CPUs takes 3 to 10 times as long.
    """
    return _BoxMean.apply(x)  # type: ignore[no-any-return]


class _BoxMean(torch.autograd.Function):
    """Sums of three shifted copies along each axis; the gradient is the same box over the zero-padded gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _BoxMean.sums(x).mul_(1 / 9)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _BoxMean.sums(F.pad(grad, (2, 2, 2, 2))).mul_(1 / 9)

    @staticmethod
    def sums(x: Tensor) -> Tensor:
        rows = (x[..., :-2] + x[..., 1:-1]).add_(x[..., 2:])
        return (rows[..., :-2, :] + rows[..., 1:-1, :]).add_(rows[..., 2:, :])


@float32_island
def ssim_map(a: Tensor, b: Tensor, border: Literal["reflect", "valid"] = "reflect") -> Tensor:
    """Structural dissimilarity, clamp((1 - SSIM) / 2, 0, 1), with a 3x3 box window.

    Args:
        a, b: (B, C, H, W) in [0, 1].
        border: `reflect` pads by one pixel (Monodepth2) and keeps the size; `valid` (Monodepth) gives H-2 x W-2.

    Returns:
        (B, C, H, W) or (B, C, H-2, W-2) in [0, 1]; 0 where the windows are equal.

    Source: Wang et al., TIP 2004, eq. 13; C1 = 0.01^2, C2 = 0.03^2.
    """
    if border == "reflect":
        a, b = F.pad(a, (1, 1, 1, 1), "reflect"), F.pad(b, (1, 1, 1, 1), "reflect")
    # One pooling call for all five moments: each is a mean over the window.
    moments = box_mean(torch.cat([a, b, a * a, b * b, a * b], dim=1))
    mean_a, mean_b, square_a, square_b, product = moments.chunk(5, dim=1)
    mean_ab, mean_aa, mean_bb = mean_a * mean_b, mean_a * mean_a, mean_b * mean_b
    numerator = (2 * mean_ab + C1) * (2 * (product - mean_ab) + C2)
    denominator = (mean_aa + mean_bb + C1) * ((square_a - mean_aa) + (square_b - mean_bb) + C2)
    return ((1 - numerator / denominator) / 2).clamp(0, 1)


@float32_island
def photometric_map(a: Tensor, b: Tensor, ssim_weight: float = 0.85) -> Tensor:
    """The field's photometric error: ssim_weight * SSIM + (1 - ssim_weight) * L1, averaged over channels.

    Args:
        a, b: (B, C, H, W) in [0, 1].

    Returns:
        (B, 1, H, W).

    Source: Godard et al., ICCV 2019, eq. 2.
    """
    if ssim_weight == 0:
        return l1_map(a, b)
    return ssim_weight * ssim_map(a, b).mean(1, keepdim=True) + (1 - ssim_weight) * l1_map(a, b)
