"""The cost volume of two feature maps, in plain torch."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from geossl.geometry.precision import float32_island
from geossl.kernels import kernels_run
from geossl.kernels.correlation import scaled_correlation


@float32_island
def correlation(
    a: Tensor, b: Tensor, max_displacement: int, stride: int = 1, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Scalar products of every feature of `a` with those of `b` around the same place.

    out[:, k, v, u] = sum_c a[:, c, v, u] b[:, c, v + dv, u + du], with `b` zero outside. dv and du run over
    -d, -d + stride, ..., d, n = 2d / stride + 1 of each, du fastest: k = (n (dv + d) + (du + d)) / stride.

    Args:
        a, b: (B, C, H, W).
        max_displacement: d, a multiple of `stride`. FlowNetC: 20 at stride 2, 441 channels; PWC: 4, 81 channels.
        reduction: "mean" divides by C.

    Returns:
        (B, n * n, H, W) float32 (float64 for float64).

    Raises:
        ValueError: If the shapes differ, or d is no multiple of `stride`.

    Convention: with d = 4, channel 40 is no displacement and channel 41 compares with the pixel to the right (du = 1).
    Source: Dosovitskiy et al., ICCV 2015 (FlowNet), eq. 1, patches of one pixel. https://arxiv.org/abs/1504.06852
    """
    if a.dim() != 4 or a.shape != b.shape:
        raise ValueError(f"a and b have shapes {tuple(a.shape)} and {tuple(b.shape)}; expected the same (B, C, H, W).")
    if stride < 1 or max_displacement < 0 or max_displacement % stride:
        raise ValueError(f"max_displacement is {max_displacement}; expected a multiple of the stride {stride}, or 0.")
    if kernels_run(a, b):
        return scaled_correlation(a, b, max_displacement, stride, 1 / a.shape[1] if reduction == "mean" else 1.0)
    costs: Tensor = _Correlation.apply(a, b, max_displacement, stride)
    return costs / a.shape[1] if reduction == "mean" else costs


@float32_island
def standardized_pair(a: Tensor, b: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Shifts and scales two feature maps alike: both together have mean 0 and variance 1 in every channel.

    Features of one sign correlate with everything, and faint ones with nothing: in a network that has learned nothing
    yet, neither tells displacements apart.

    Args:
        a, b: (B, C, H, W).

    Returns:
        Maps of the same shapes.

    Source: Jonschkowski et al. (UFlow), ECCV 2020, section 3.1 (cost volume normalization), as released: the mean of
        both maps' means, and of their variances.
    Differs: UFlow takes the channels together, so that one that is large everywhere still correlates with everything.
        ARFlow on 300 pairs of the street, 1000 steps: EPE of visible pixels 1.18 each by itself, 1.67 together, and
        1.53 of zero flow (seed 0).
    """
    dims = (2, 3)
    mean = (a.mean(dims, keepdim=True) + b.mean(dims, keepdim=True)) / 2
    variance = (a.var(dims, correction=0, keepdim=True) + b.var(dims, correction=0, keepdim=True)) / 2
    scale = (variance + eps).rsqrt()
    return (a - mean) * scale, (b - mean) * scale


def pyramid_costs(own: Tensor, other: Tensor, max_displacement: int, leak: float, normalize: bool) -> Tensor:
    """The cost volume of a pyramid's level, as PWC-Net's estimators see it.

    Args:
        own, other: (B, C, H, W) features, the other image's warped.
        leak: Of the leaky ReLU that costs go through.
        normalize: Correlate standardised features, and give every pixel's costs mean 0 and variance 1 over the
            displacements. Features are smooth and correlate with all of their surroundings, above all in a network
            that has learned nothing yet: a pixel's costs are nearly equal then, and what tells its displacement is a
            small part of them, which is found late.

    Returns:
        (B, (2d + 1)^2, H, W) float32.

    Convention: ARFlow at half its width on the street, 600 steps (seed 0): EPE of visible pixels 1.75 with both, 3.8
        after 300 steps with standardised features alone, where both have 2.3; 6.9 of zero flow. A single volume of
        441 displacements (FlowNetC) gains nothing.
    """
    if normalize:
        own, other = standardized_pair(own, other)
    costs = F.leaky_relu(correlation(own, other, max_displacement), leak)
    if not normalize:
        return costs
    centred = costs - costs.mean(1, keepdim=True)
    return centred * (centred.square().mean(1, keepdim=True) + 1e-6).rsqrt()


class _Correlation(torch.autograd.Function):
    """Sums over shifted views; the gradient adds up in place, which autograd would do by one padded map a shift.

    A loop that autograd records takes 2.6 times as long forward and 5 times backward on a core (B = 4, C = 32,
    80 x 208, d = 4); unfolding takes 9 and 20 times as long and keeps (2d + 1)^2 copies of `b`.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, max_displacement: int, stride: int) -> Tensor:
        padded = F.pad(b, (max_displacement,) * 4)
        ctx.save_for_backward(a, padded)
        ctx.max_displacement, ctx.stride = max_displacement, stride
        shifts = _shifts(max_displacement, stride)
        costs = a.new_empty(a.shape[0], len(shifts), *a.shape[2:])
        for k, (row, column) in enumerate(shifts):
            costs[:, k] = (a * _view(padded, row, column, a)).sum(1)
        return costs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        a, padded = ctx.saved_tensors
        of_a, of_padded = torch.zeros_like(a), torch.zeros_like(padded)
        for k, (row, column) in enumerate(_shifts(ctx.max_displacement, ctx.stride)):
            of_cost = gradient[:, k : k + 1]
            of_a.addcmul_(of_cost, _view(padded, row, column, a))
            _view(of_padded, row, column, a).addcmul_(of_cost, a)
        d = ctx.max_displacement
        return of_a, _view(of_padded, d, d, a), None, None


def _shifts(max_displacement: int, stride: int) -> list[tuple[int, int]]:
    """Top-left corners (row, column) of the displaced views in the padded map, in the order of the channels."""
    steps = range(0, 2 * max_displacement + 1, stride)
    return [(row, column) for row in steps for column in steps]


def _view(padded: Tensor, row: int, column: int, like: Tensor) -> Tensor:
    return padded[..., row : row + like.shape[-2], column : column + like.shape[-1]]
