"""How rough a map is, unreduced: first differences with edge weights, and plain second differences."""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.geometry.precision import float32_island


def gradient_x(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W-1) forward differences along rows."""
    return x[..., 1:] - x[..., :-1]


def gradient_y(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H-1, W) forward differences along columns."""
    return x[..., 1:, :] - x[..., :-1, :]


@float32_island
def edge_aware_smoothness(x: Tensor, image: Tensor, edge: float = 1.0) -> tuple[Tensor, Tensor]:
    """|dx| exp(-edge mean_c |dI|) along x and y.

    Args:
        x: (B, C, H, W) map to smooth. image: (B, 3, H, W) that says where edges may be.

    Returns:
        (B, C, H, W-1) and (B, C, H-1, W).

    Source: Godard et al., CVPR 2017, eq. 3.
    """
    along_x = gradient_x(x).abs() * torch.exp(-edge * gradient_x(image).abs().mean(1, keepdim=True))
    along_y = gradient_y(x).abs() * torch.exp(-edge * gradient_y(image).abs().mean(1, keepdim=True))
    return along_x, along_y


@float32_island
def second_order_smoothness(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Absolute second differences |d2/dx2|, |d2/dxdy|, |d2/dydx|, |d2/dy2|.

    Args:
        x: (B, C, H, W).

    Source: Zhou et al., CVPR 2017, section 3.1 and released code.
    """
    dx, dy = gradient_x(x), gradient_y(x)
    return gradient_x(dx).abs(), gradient_y(dx).abs(), gradient_x(dy).abs(), gradient_y(dy).abs()


def mean_of(maps: tuple[Tensor, ...]) -> Tensor:
    """Sum of the maps' own means."""
    return torch.stack([m.mean() for m in maps]).sum()
