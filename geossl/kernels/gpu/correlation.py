"""The cost volume of two feature maps on the GPU, forward and backward, without shifted or padded copies of them."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

PIXELS = 64  # of a program: consecutive ones of the whole map, so that narrow maps waste nothing
SHIFTS = 16  # displacements of a program
CHANNELS = 16  # of a program of the gradient


def scaled_correlation(a: Tensor, b: Tensor, max_displacement: int, stride: int, scale: float) -> Tensor:
    """As `geossl.kernels.correlation.scaled_correlation`, of tensors that `gpu_kernels_run` takes."""
    return _Correlation.apply(a, b, max_displacement // stride, stride, scale)  # type: ignore[no-any-return]


class _Correlation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, reach: int, step: int, scale: float) -> Tensor:
        a, b = a.contiguous(), b.contiguous()
        ctx.save_for_backward(a, b)
        ctx.reach, ctx.step, ctx.scale = reach, step, scale
        batch, channels, h, w = a.shape
        count = (2 * reach + 1) ** 2
        costs = a.new_empty(batch, count, h, w)
        grid = triton.cdiv(h * w, PIXELS), triton.cdiv(count, SHIFTS), batch
        with torch.cuda.device_of(a):
            cost_kernel[grid](a, b, costs, channels, h, w, reach, step, scale, PIXELS=PIXELS, SHIFTS=SHIFTS)
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
    of_map = torch.empty_like(other)
    grid = triton.cdiv(h * w, PIXELS), triton.cdiv(channels, CHANNELS), batch
    sizes = channels, h, w, reach, step, scale
    with torch.cuda.device_of(other):
        gradient_kernel[grid](other, of_costs, of_map, *sizes, BY_B=by_b, PIXELS=PIXELS, CHANNELS=CHANNELS)
    return of_map


@triton.jit
def cost_kernel(
    a: tl.tensor,
    b: tl.tensor,
    costs: tl.tensor,
    channels: int,
    height: int,
    width: int,
    reach: int,
    step: int,
    scale: float,
    PIXELS: tl.constexpr,
    SHIFTS: tl.constexpr,
) -> None:
    """a, b: (B, C, H, W). costs: (B, n * n, H, W), n = 2 reach + 1."""
    sample = tl.program_id(2).to(tl.int64)
    plane = height * width
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[None, :]
    shift = tl.program_id(1) * SHIFTS + tl.arange(0, SHIFTS)[:, None]
    n = 2 * reach + 1
    dy, dx = (shift // n - reach) * step, (shift % n - reach) * step  # (SHIFTS, 1)
    v, u = pixel // width + dy, pixel % width + dx  # (SHIFTS, PIXELS)
    exists = pixel < plane
    wanted = (shift < n * n) & exists
    seen = wanted & (v >= 0) & (v < height) & (u >= 0) & (u < width)
    at_a = a + sample * channels * plane + pixel
    # This is v * width + u, so written that the compiler sees pixels side by side.
    at_b = b + sample * channels * plane + (pixel + (dy * width + dx))
    total = tl.full((SHIFTS, PIXELS), 0.0, tl.float32)
    for _ in range(channels):
        total += tl.load(at_a, mask=exists, other=0.0) * tl.load(at_b, mask=seen, other=0.0)
        at_a += plane
        at_b += plane
    # A volume of one sample may exceed 2^31 values, too.
    tl.store(costs + (sample * n * n + shift) * plane + pixel, total * scale, mask=wanted)


@triton.jit
def gradient_kernel(
    other: tl.tensor,
    of_costs: tl.tensor,
    of_map: tl.tensor,
    channels: int,
    height: int,
    width: int,
    reach: int,
    step: int,
    scale: float,
    BY_B: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """other, of_map: (B, C, H, W). of_costs: (B, n * n, H, W)."""
    sample = tl.program_id(2).to(tl.int64)
    plane = height * width
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[None, :]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    y, x = pixel // width, pixel % width
    exists, known = pixel < plane, channel < channels
    n = 2 * reach + 1
    at_other = other + (sample * channels + channel) * plane  # (CHANNELS, 1)
    at_cost = of_costs + sample * n * n * plane
    total = tl.full((CHANNELS, PIXELS), 0.0, tl.float32)
    for row in range(n):
        dy = (row - reach) * (-step if BY_B else step)
        row_seen = exists & (y + dy >= 0) & (y + dy < height)
        for column in range(n):
            dx = (column - reach) * (-step if BY_B else step)
            seen, there = row_seen & (x + dx >= 0) & (x + dx < width), pixel + (dy * width + dx)
            # b here was compared with a at the opposite displacement, and the cost stands there.
            cost = tl.load(at_cost + (there if BY_B else pixel), mask=seen, other=0.0)
            total += cost * tl.load(at_other + there, mask=known & seen, other=0.0)
            at_cost += plane
    tl.store(of_map + (sample * channels + channel) * plane + pixel, total * scale, mask=known & exists)
