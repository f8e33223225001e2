"""How different the neighbourhoods of two images look, whatever their brightness: the soft census distance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from geossl.geometry.constants import vector_like
from geossl.geometry.precision import float32_island
from geossl.kernels import kernels_run
from geossl.kernels.census import census_distance

RADIUS = 3
PATCH = (2 * RADIUS + 1) ** 2  # pixels
GREY = (0.2989, 0.5870, 0.1140)  # ITU-R 601-2 luma
SIGN = 0.81  # (grey levels of 255)^2 at which the soft sign bends
HAMMING = 0.1  # squared difference of signs at which the soft Hamming distance bends


@float32_island
def census_map(
    a: Tensor, b: Tensor, radius: int = RADIUS, reduction: Literal["sum", "mean"] = "sum"
) -> tuple[Tensor, Tensor]:
    """Soft Hamming distance between the ternary transforms of two images.

    Every neighbour y of a pixel x gives t = d / sqrt(0.81 + d^2) with d = grey(y) - grey(x), grey in 0..255, and the
    distance is the sum or mean over the neighbours of (t_a - t_b)^2 / (0.1 + (t_a - t_b)^2).

    Args:
        a, b: (B, 3, H, W) RGB in [0, 1].
        radius: Of the patch, (2 radius + 1)^2 pixels; 3 in DDFlow, UFlow and SMURF, 1 in ARFlow.
        reduction: `sum` over the patch (UnFlow, DDFlow, UFlow, SMURF) or its `mean` (ARFlow). They differ by the
            49 pixels of a 7x7 patch, so that weights do not carry over.

    Returns:
        distance: (B, 1, H, W), 0 where not valid.
        valid: (B, 1, H, W) bool, False in the outermost `radius` rows and columns, where the patch leaves the image.
            Mask with it, and with visibility, after the comparison: a mask on the images would draw edges.

    Raises:
        ValueError: If the images are not RGB of one shape, or the radius is not positive.

    Convention: adding a constant to an image leaves it at distance 0. One neighbour that is 9 grey levels brighter in
        one image and 9 darker in the other (t = 0.995 and -0.995) adds 0.975.
    Source: Meister et al., AAAI 2018, section 3; Stein, DAGM 2004; constants as released with both UnFlow and DDFlow.
    """
    if a.shape != b.shape or a.dim() != 4 or a.shape[1] != 3:
        raise ValueError(f"a and b have shapes {tuple(a.shape)} and {tuple(b.shape)}; expected (B, 3, H, W) twice.")
    if radius < 1:
        raise ValueError(f"radius is {radius}; expected at least 1.")
    if kernels_run(a, b):
        distance = census_distance(a, b, radius)[:, None]
    else:
        distance = _CensusDistance.apply(torch.stack([grey_255(a), grey_255(b)]), radius)[:, None]  # type: ignore[index]
    if reduction == "mean":
        distance = distance / (2 * radius + 1) ** 2
    valid = torch.zeros_like(distance, dtype=torch.bool)
    valid[..., radius:-radius, radius:-radius] = True
    return distance, valid


def grey_255(image: Tensor) -> Tensor:
    """(B, 3, H, W) RGB in [0, 1] -> (B, H, W) grey levels in 0..255."""
    return torch.einsum("bchw,c->bhw", image, 255 * vector_like(image, *GREY))


def half_offsets(radius: int) -> Iterator[tuple[int, int]]:
    """(dy, dx) to half of the neighbours in a patch: of every two opposite ones the later in reading order."""
    for dy in range(radius + 1):
        for dx in range(-radius if dy else 1, radius + 1):
            yield dy, dx


class _CensusDistance(torch.autograd.Function):
    """(2, B, H, W) grey levels of two images -> (B, H, W) summed distance, 0 in the border.

    Keeps no map of a neighbour for the gradient: 48 of them, for a 7x7 patch at 320x832 and batch 4, would take over
    1 GB. A pixel and its neighbour see the same difference with opposite signs, so each pair is compared once.
    """

    @staticmethod
    def forward(ctx: Any, grey: Tensor, radius: int) -> Tensor:
        ctx.save_for_backward(grey)
        ctx.radius = radius
        total = torch.zeros_like(grey[0])
        for dy, dx in half_offsets(radius):
            here, there = _pair(grey, dy, dx)
            difference = there - here
            sign = difference.mul_((difference * difference).add_(SIGN).rsqrt_())
            square = (sign[0] - sign[1]).square_()
            distance = square.div_(square + HAMMING)
            for end in _pair(total, dy, dx):
                end.add_(distance)
        return _without_border(total, radius)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (grey,) = ctx.saved_tensors
        grad = _without_border(grad, ctx.radius)
        grad_grey = torch.zeros_like(grey)
        for dy, dx in half_offsets(ctx.radius):
            here, there = _pair(grey, dy, dx)
            difference = there - here
            inverse = (difference * difference).add_(SIGN).rsqrt_()
            sign = difference.mul_(inverse)
            gap = sign[0] - sign[1]
            # d/dgap gap^2 / (c + gap^2) = 2 c gap / (c + gap^2)^2, at both ends of the pair
            at_here, at_there = _pair(grad, dy, dx)
            slope = gap.mul(2 * HAMMING).div_(gap.square_().add_(HAMMING).square_()).mul_(at_here + at_there)
            # dsign/ddifference = s / (s + difference^2)^(3/2)
            change = inverse.pow_(3).mul_(SIGN).mul_(torch.stack([slope, -slope]))
            grad_here, grad_there = _pair(grad_grey, dy, dx)
            grad_there.add_(change)
            grad_here.sub_(change)
        return grad_grey, None


def _pair(x: Tensor, dy: int, dx: int) -> tuple[Tensor, Tensor]:
    """Views of (..., H, W) at every pixel whose neighbour (dy, dx), dy >= 0, is inside, and at that neighbour."""
    h, w = x.shape[-2:]
    rows, columns = max(h - dy, 0), max(w - abs(dx), 0)
    left, right = max(-dx, 0), max(dx, 0)
    here = x.narrow(-2, 0, rows).narrow(-1, min(left, w), columns)
    there = x.narrow(-2, min(dy, h), rows).narrow(-1, min(right, w), columns)
    return here, there


def _without_border(x: Tensor, radius: int) -> Tensor:
    """(..., H, W) with zeros in its outermost `radius` rows and columns."""
    inside = x[..., radius:-radius, radius:-radius]
    return F.pad(inside, (radius,) * 4) if inside.numel() else torch.zeros_like(x)
