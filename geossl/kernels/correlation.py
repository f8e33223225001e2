"""The cost volume of two feature maps, forward and backward, without shifted or padded copies of them.

Here on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geossl.kernels import gpu_kernels_run
from geossl.kernels.library import FLOAT, INT, POINTER, in_parallel, kernel, pointer

COLUMN, BLOCK, OWN, ROWS, LANES = 16, 64, 80, 3, 8  # of csrc/correlation.c


def scaled_correlation(a: Tensor, b: Tensor, max_displacement: int, stride: int, scale: float) -> Tensor:
    """The sums of `networks.correlation.correlation`, times `scale`.

    Args:
        a, b: (B, C, H, W), such that `kernels_run`. Maps in channels_last are copied first.
        max_displacement: d, a multiple of `stride`.
        scale: 1 for the sum, 1 / C for the mean over the channels.

    Returns:
        (B, n * n, H, W), n = 2d / stride + 1. Only the maps are kept for the gradient.
    """
    if gpu_kernels_run(a, b):
        from geossl.kernels.gpu.correlation import scaled_correlation as on_gpu

        return on_gpu(a, b, max_displacement, stride, scale)
    return _Correlation.apply(a, b, max_displacement // stride, stride, scale)  # type: ignore[no-any-return]


class _Correlation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, reach: int, step: int, scale: float) -> Tensor:
        a, b = a.contiguous(), b.contiguous()
        ctx.save_for_backward(a, b)
        ctx.reach, ctx.step, ctx.scale = reach, step, scale
        batch, channels, h, w = a.shape
        costs = a.new_empty(batch, (2 * reach + 1) ** 2, h, w)
        run = kernel("geossl_correlation", *[POINTER] * 4, *[INT] * 7, FLOAT)
        parts = _parts(batch, w)

        def work(part: int) -> None:
            scratch = a.new_empty(channels * (ROWS * OWN + _around(reach, step)))
            for sample, first, end in parts[part]:
                maps = pointer(a[sample]), pointer(b[sample]), pointer(costs[sample])
                run(*maps, pointer(scratch), channels, h, w, reach, step, first, end, scale)

        in_parallel(work, len(parts))
        return costs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        a, b = ctx.saved_tensors
        grad = grad.contiguous()
        how = ctx.reach, ctx.step, ctx.scale
        of_a = _gradient(b, grad, *how, by_b=False) if ctx.needs_input_grad[0] else None
        of_b = _gradient(a, grad, *how, by_b=True) if ctx.needs_input_grad[1] else None
        return of_a, of_b, None, None, None


def _gradient(other: Tensor, of_costs: Tensor, reach: int, step: int, scale: float, by_b: bool) -> Tensor:
    """The gradient to `b` (by_b) or `a`; `other` is the other of the two."""
    batch, channels, h, w = other.shape
    of_maps = torch.empty_like(other)
    run = kernel("geossl_correlation_backward", *[POINTER] * 4, *[INT] * 8, FLOAT)
    steps = 2 * reach + 1
    parts = _parts(batch, w)

    def work(part: int) -> None:
        scratch = other.new_empty((ROWS * steps + 1) * steps * OWN + channels * _around(reach, step))
        for sample, first, end in parts[part]:
            maps = pointer(other[sample]), pointer(of_costs[sample]), pointer(of_maps[sample])
            run(*maps, pointer(scratch), channels, h, w, reach, step, first, end, by_b, scale)

    in_parallel(work, len(parts))
    return of_maps


def _around(reach: int, step: int) -> int:
    """Floats of one channel that are in use at a time."""
    return (2 * reach + ROWS) * step * (BLOCK + 2 * reach * step + LANES)


def _parts(batch: int, width: int) -> list[list[tuple[int, int, int]]]:
    """(sample, first pixel, last + 1) of blocks of a few columns, by the thread that computes them.

    Fresh memory costs as much as the sums of a column: a thread uses its scratch for all of its blocks.
    """
    columns = -(-width // COLUMN)  # of a sample
    threads = min(torch.get_num_threads(), batch * columns)
    parts: list[list[tuple[int, int, int]]] = [[] for _ in range(threads)]
    for thread, blocks in enumerate(parts):
        at, stop = (batch * columns * i // threads for i in (thread, thread + 1))
        while at < stop:
            sample, column = divmod(at, columns)
            count = min(BLOCK // COLUMN, columns - column, stop - at)
            blocks.append((sample, column * COLUMN, min((column + count) * COLUMN, width)))
            at += count
    return parts
