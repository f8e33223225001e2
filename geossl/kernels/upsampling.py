"""Bilinear upsampling whose gradient is summed row by row, on the CPU: torch's adds value by value."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from geossl.kernels.library import INT, POINTER, in_parallel, kernel, pointer


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """As `geometry.transforms.upsample`, of (B, C, h, w) float32 on the CPU."""
    return _Upsample.apply(x, size)  # type: ignore[no-any-return]


class _Upsample(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.shape = x.shape
        return F.interpolate(x, size, mode="bilinear", align_corners=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.contiguous()
        planes, result = grad.flatten(0, 1), grad.new_empty(ctx.shape)
        results = result.flatten(0, 1)
        sizes = *planes.shape[1:], *results.shape[1:]
        run = kernel("geossl_upsample_backward", POINTER, POINTER, *[INT] * 4)
        in_parallel(lambda i: run(pointer(planes[i]), pointer(results[i]), *sizes), len(planes))
        return result, None
