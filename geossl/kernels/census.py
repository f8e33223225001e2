"""The soft census distance on the CPU, forward and backward, without maps of the neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geossl.kernels.library import INT, POINTER, bands, in_parallel, kernel, pointer


def census_distance(a: Tensor, b: Tensor, radius: int) -> Tensor:
    """The distance of `losses.census.census_map`, summed over the patch.

    Args:
        a, b: (B, 3, H, W) RGB in [0, 1], float32 on the CPU.
        radius: Of the patch, at least 1.

    Returns:
        (B, H, W), 0 in the outermost `radius` rows and columns. Only the images are kept for the gradient.
    """
    return _CensusDistance.apply(a, b, radius)  # type: ignore[no-any-return]


class _CensusDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, radius: int) -> Tensor:
        a, b = a.contiguous(), b.contiguous()
        ctx.save_for_backward(a, b)
        ctx.radius = radius
        batch, _, h, w = a.shape
        distance = a.new_empty(batch, h, w)
        run = kernel("geossl_census", *[POINTER] * 4, *[INT] * 5)

        parts = bands(batch, h)

        def work(part: int) -> None:
            sample, first, end = parts[part]
            scratch = a.new_empty(2 * (end - first + 2 * radius) + 1, w)
            images = pointer(a[sample]), pointer(b[sample])
            run(*images, pointer(distance[sample]), pointer(scratch), h, w, radius, first, end)

        in_parallel(work, len(parts))
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b = ctx.saved_tensors
        grad = grad.contiguous()
        of_a = _gradient(a, b, grad, ctx.radius) if ctx.needs_input_grad[0] else None
        of_b = _gradient(b, a, grad, ctx.radius) if ctx.needs_input_grad[1] else None
        return of_a, of_b, None


def _gradient(image: Tensor, other: Tensor, of_distance: Tensor, radius: int) -> Tensor:
    """The gradient to one of two (B, 3, H, W) images; which is the first makes no difference to the distance."""
    batch, _, h, w = image.shape
    of_image = torch.empty_like(image)
    run = kernel("geossl_census_backward", *[POINTER] * 5, *[INT] * 5)

    parts = bands(batch, h)

    def work(part: int) -> None:
        sample, first, end = parts[part]
        scratch = image.new_empty(4 * (end - first) + 6 * radius + 1, w)
        images = pointer(image[sample]), pointer(other[sample])
        gradients = pointer(of_distance[sample]), pointer(of_image[sample])
        run(*images, *gradients, pointer(scratch), h, w, radius, first, end)

    in_parallel(work, len(parts))
    return of_image
