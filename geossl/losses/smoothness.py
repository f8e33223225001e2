"""How rough a map is, unreduced: first and second differences, with edge weights and plain."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.precision import float32_island
from geossl.kernels import smoothness as fast
from geossl.losses.robust import Robust


def gradient_x(x: Tensor, stride: int = 1) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W-stride) forward differences along rows, over `stride` pixels."""
    return x[..., stride:] - x[..., :-stride]


def gradient_y(x: Tensor, stride: int = 1) -> Tensor:
    """(B, C, H, W) -> (B, C, H-stride, W) forward differences along columns, over `stride` pixels."""
    return x[..., stride:, :] - x[..., :-stride, :]


def edge_weights(image: Tensor, edge: float, stride: int = 1) -> tuple[Tensor, Tensor]:
    """exp(-edge mean_c |dI|) along x and y: 1 where an image is flat, near 0 at its edges.

    Args:
        image: (B, 3, H, W). edge: >= 0, how much edges matter. stride: Pixels that are compared are so far apart.

    Returns:
        (B, 1, H, W-stride) and (B, 1, H-stride, W).
    """
    if fast.edge_weights_fit(image, edge, stride):
        return fast.edge_weights(image, edge, stride)
    along_x, along_y = (
        torch.exp(-edge * difference.abs().mean(1, keepdim=True))
        for difference in (gradient_x(image, stride), gradient_y(image, stride))
    )
    return along_x, along_y


@float32_island
def edge_aware_smoothness(
    x: Tensor, image: Tensor, edge: float = 1.0, robust: Robust = torch.abs
) -> tuple[Tensor, Tensor]:
    """|dx| exp(-edge mean_c |dI|) along x and y.

    Args:
        x: (B, C, H, W) map to smooth. image: (B, 3, H, W) that says where edges may be.
        edge: 1 for depth, 10 in ARFlow (Sintel), 150 in UFlow and SMURF (Sintel, FlyingChairs).
        robust: Penalty of the differences; `charbonnier` in UFlow and SMURF.

    Returns:
        (B, C, H, W-1) and (B, C, H-1, W).

    Source: Godard et al., CVPR 2017, eq. 3; Jonschkowski et al., ECCV 2020, section 3.
    """
    weight_x, weight_y = edge_weights(image, edge)
    return robust(gradient_x(x)) * weight_x, robust(gradient_y(x)) * weight_y


@float32_island
def edge_aware_second_order(
    x: Tensor, image: Tensor, edge: float, image_stride: Literal[1, 2] = 2, robust: Robust = torch.abs
) -> tuple[Tensor, Tensor]:
    """|d2x| exp(-edge mean_c |dI|) along x and y: planes are free, and bends at the image's edges are cheap.

    Args:
        x: (B, C, H, W) map to smooth. image: (B, 3, H, W) that says where edges may be.
        edge: 10 in ARFlow (KITTI), 150 in UFlow and SMURF (KITTI).
        image_stride: 2 compares the outer two of the three pixels (UFlow, SMURF); 1 the last two (ARFlow).
        robust: Penalty of the differences; `charbonnier` in UFlow and SMURF.

    Returns:
        (B, C, H, W-2) and (B, C, H-2, W). ARFlow, UFlow and SMURF take half the sum of their means.

    Source: Jonschkowski et al., ECCV 2020, section 3; Liu et al. (ARFlow), CVPR 2020, section 3.
    """
    weight_x, weight_y = edge_weights(image, edge, image_stride)
    if image_stride == 1:
        weight_x, weight_y = weight_x[..., 1:], weight_y[..., 1:, :]
    return robust(gradient_x(gradient_x(x))) * weight_x, robust(gradient_y(gradient_y(x))) * weight_y


@float32_island
def second_order_smoothness(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Absolute second differences |d2/dx2|, |d2/dxdy|, |d2/dydx|, |d2/dy2|.

    Args:
        x: (B, C, H, W).

    Source: Zhou et al., CVPR 2017, section 3.1 and released code.
    """
    dx, dy = gradient_x(x), gradient_y(x)
    return gradient_x(dx).abs(), gradient_y(dx).abs(), gradient_x(dy).abs(), gradient_y(dy).abs()


@float32_island
def four_line_smoothness(x: Tensor, robust: Robust = torch.abs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Second differences along rows, columns and both diagonals: robust(x(s) - 2 x(t) + x(r)), s, t, r on a line.

    Args:
        x: (B, C, H, W).
        robust: Penalty of the differences; `charbonnier` with exponent 0.45 in UnFlow.

    Returns:
        Four maps (B, C, H, W), 0 where a neighbour is missing: their means are over all pixels. UnFlow takes half
        the sum of the means of a flow's four maps (the sum over its two channels, the mean over the four lines).

    Source: Meister et al., AAAI 2018, section 3 (smoothness term).
    """
    twice = 2 * x
    rows = robust(x[..., :-2] - twice[..., 1:-1] + x[..., 2:])
    columns = robust(x[..., :-2, :] - twice[..., 1:-1, :] + x[..., 2:, :])
    centre = twice[..., 1:-1, 1:-1]
    falling = robust(x[..., :-2, :-2] - centre + x[..., 2:, 2:])
    rising = robust(x[..., 2:, :-2] - centre + x[..., :-2, 2:])
    return _framed(rows, x), _framed(columns, x), _framed(falling, x), _framed(rising, x)


def _framed(inner: Tensor, like: Tensor) -> Tensor:
    """The map in the middle of zeros, at the size of `like`."""
    if not inner.numel():  # less than three pixels along the line
        return torch.zeros_like(like)
    rows, columns = (like.shape[-2] - inner.shape[-2]) // 2, (like.shape[-1] - inner.shape[-1]) // 2
    return F.pad(inner, (columns, columns, rows, rows))


def mean_of(maps: tuple[Tensor, ...]) -> Tensor:
    """Sum of the maps' own means; a map without pixels, as of an image one row high, counts 0."""
    return torch.stack([m.sum() / max(m.numel(), 1) for m in maps]).sum()
