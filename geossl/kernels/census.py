"""The soft census distance, forward and backward, without maps of the neighbours; here on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geossl.kernels import gpu_kernels_run
from geossl.kernels.library import INT, POINTER, bands, in_parallel, kernel, pointer

ROWS = 32  # of csrc/census.c: rows that are worked on at once, by the radius


def census_distance(a: Tensor, b: Tensor, radius: int) -> Tensor:
    """The distance of `losses.census.census_map`, summed over the patch.

    Args:
        a, b: (B, 3, H, W) RGB in [0, 1], such that `kernels_run`.
        radius: Of the patch, at least 1.

    Returns:
        (B, H, W), 0 in the outermost `radius` rows and columns. Only the images are kept for the gradient.
    """
    if gpu_kernels_run(a, b):
        from geossl.kernels.gpu.census import census_distance as on_gpu

        return on_gpu(a, b, radius)
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
            scratch = a.new_empty(2 * (ROWS + 2) * radius + 1, w)
            images = pointer(a[sample]), pointer(b[sample])
            run(*images, pointer(distance[sample]), pointer(scratch), h, w, radius, first, end)

        in_parallel(work, len(parts))
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b = ctx.saved_tensors
        grad = grad.contiguous()
        of_a, of_b = (
            torch.empty_like(x) if wanted else None for x, wanted in zip((a, b), ctx.needs_input_grad, strict=False)
        )
        if of_a is not None:
            _put_gradients(a, b, grad, of_a, of_b, ctx.radius)
        elif of_b is not None:
            _put_gradients(b, a, grad, of_b, None, ctx.radius)
        return of_a, of_b, None


def _put_gradients(a: Tensor, b: Tensor, of_distance: Tensor, of_a: Tensor, of_b: Tensor | None, radius: int) -> None:
    """Writes the gradients to `a`, and to `b` if wanted; which image is called `a` makes no difference."""
    batch, _, h, w = a.shape
    run = kernel("geossl_census_backward", *[POINTER] * 6, *[INT] * 5)

    parts = bands(batch, h)

    def work(part: int) -> None:
        sample, first, end = parts[part]
        scratch = a.new_empty((5 * ROWS + 6) * radius + 2, w)
        images = pointer(a[sample]), pointer(b[sample]), pointer(of_distance[sample])
        gradients = pointer(of_a[sample]), pointer(None if of_b is None else of_b[sample])
        run(*images, *gradients, pointer(scratch), h, w, radius, first, end)

    in_parallel(work, len(parts))
