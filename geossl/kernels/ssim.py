"""SSIM and L1 of two images on the CPU, forward and backward: only the images are kept for the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geossl.kernels.library import FLOAT, INT, POINTER, bands, in_parallel, kernel, pointer

COLOURS = 3  # of csrc/rows.h


def ssim_and_l1(a: Tensor, b: Tensor, ssim_weight: float, l1_weight: float) -> Tensor:
    """The error of `losses.photometric.photometric_map`.

    Args:
        a, b: (B, 3, H, W), float32 on the CPU; H and W at least 2.

    Returns:
        (B, 1, H, W).
    """
    return _SsimAndL1.apply(a, b, ssim_weight / COLOURS, l1_weight / COLOURS)  # type: ignore[no-any-return]


class _SsimAndL1(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, of_ssim: float, of_l1: float) -> Tensor:
        a, b = a.contiguous(), b.contiguous()
        ctx.save_for_backward(a, b)
        ctx.weights = of_ssim, of_l1
        batch, _, h, w = a.shape
        error = a.new_empty(batch, 1, h, w)
        run = kernel("geossl_ssim_l1", *[POINTER] * 3, INT, INT, FLOAT, FLOAT, INT, INT)
        parts = bands(batch, h)

        def work(part: int) -> None:
            sample, first, end = parts[part]
            run(*(pointer(x[sample]) for x in (a, b, error)), h, w, of_ssim, of_l1, first, end)

        in_parallel(work, len(parts))
        return error

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        a, b = ctx.saved_tensors
        of_a, of_b = ctx.needs_input_grad[:2]
        grad = grad.contiguous()
        return (
            _gradient(a, b, grad, *ctx.weights) if of_a else None,
            _gradient(b, a, grad, *ctx.weights) if of_b else None,  # the error is symmetric
            None,
            None,
        )


def _gradient(a: Tensor, b: Tensor, grad: Tensor, of_ssim: float, of_l1: float) -> Tensor:
    """(B, 3, H, W) gradient to `a`."""
    batch, _, h, w = a.shape
    result = torch.empty_like(a)
    run = kernel("geossl_ssim_l1_backward", *[POINTER] * 4, INT, INT, FLOAT, FLOAT, INT, INT)
    parts = bands(batch, h)

    def work(part: int) -> None:
        sample, first, end = parts[part]
        run(*(pointer(x[sample]) for x in (a, b, grad, result)), h, w, of_ssim, of_l1, first, end)

    in_parallel(work, len(parts))
    return result
