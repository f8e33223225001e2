"""How different two images look, pixel by pixel. Every function returns an unreduced map."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.precision import float32_island
from geossl.kernels import cpu_kernels_run
from geossl.kernels.ssim import ssim_and_l1

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
def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural dissimilarity, clamp((1 - SSIM) / 2, 0, 1), with a 3x3 box window over reflected borders.

    Args:
        a, b: (B, C, H, W) in [0, 1].

    Returns:
        (B, C, H, W) in [0, 1]; 0 where the windows are equal.

    Source: Wang et al., TIP 2004, eq. 13; C1 = 0.01^2, C2 = 0.03^2.
    """
    a, b = F.pad(a, (1, 1, 1, 1), "reflect"), F.pad(b, (1, 1, 1, 1), "reflect")
    # One pooling call for all five moments: each is a mean over the window.
    moments = box_mean(torch.cat([a, b, a * a, b * b, a * b], dim=1))
    mean_a, mean_b, square_a, square_b, product = moments.chunk(5, dim=1)
    mean_ab, mean_aa, mean_bb = mean_a * mean_b, mean_a * mean_a, mean_b * mean_b
    numerator = (2 * mean_ab + C1) * (2 * (product - mean_ab) + C2)
    denominator = (mean_aa + mean_bb + C1) * ((square_a - mean_aa) + (square_b - mean_bb) + C2)
    return ((1 - numerator / denominator) / 2).clamp(0, 1)


@float32_island
def photometric_map(a: Tensor, b: Tensor, ssim_weight: float = 0.85, l1_weight: float | None = None) -> Tensor:
    """The field's photometric error: ssim_weight * SSIM + l1_weight * L1, each averaged over channels.

    Args:
        a, b: (B, C, H, W) in [0, 1].
        ssim_weight: Of `ssim_map`.
        l1_weight: Of `l1_map`; None: what `ssim_weight` leaves of 1.

    Returns:
        (B, 1, H, W).

    Source: Godard et al., ICCV 2019, eq. 2.
    """
    l1_weight = 1 - ssim_weight if l1_weight is None else l1_weight
    if ssim_weight == 0:
        return l1_weight * l1_map(a, b)
    if a.shape == b.shape and a.shape[1] == 3 and min(a.shape[2:]) >= 2 and cpu_kernels_run(a, b):
        return ssim_and_l1(a, b, ssim_weight, l1_weight)
    return ssim_weight * ssim_map(a, b).mean(1, keepdim=True) + l1_weight * l1_map(a, b)
