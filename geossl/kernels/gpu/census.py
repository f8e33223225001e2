"""The soft census distance on the GPU, forward and backward, without maps of the neighbours."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from geossl.kernels.gpu.launch import TILE, tiles

# As in losses/census.py: luma weights of RGB in 0..1 for grey levels in 0..255, and where the soft functions bend.
RED, GREEN, BLUE = tl.constexpr(255 * 0.2989), tl.constexpr(255 * 0.5870), tl.constexpr(255 * 0.1140)
SIGN, HAMMING, SLOPE = tl.constexpr(0.81), tl.constexpr(0.1), tl.constexpr(2 * 0.1 * 0.81)


def census_distance(a: Tensor, b: Tensor, radius: int) -> Tensor:
    """As `geossl.kernels.census.census_distance`, of tensors that `gpu_kernels_run` takes.

    Each pixel is compared with every neighbour, twice as often as needed: pairs would have to be added atomically.
    """
    return _CensusDistance.apply(a, b, radius)  # type: ignore[no-any-return]


class _CensusDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, radius: int) -> Tensor:
        batch, _, h, w = a.shape
        grey = a.new_empty(2, batch, h, w)
        distance = a.new_empty(batch, h, w)
        grid = tiles(h, w, batch)
        with torch.cuda.device_of(a):
            for image, of_image in zip((a.contiguous(), b.contiguous()), grey, strict=True):
                grey_kernel[grid](image, of_image, h, w, **TILE)
            distance_kernel[grid](*grey, distance, h, w, RADIUS=radius, **TILE)
        ctx.save_for_backward(grey)
        ctx.radius = radius
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grey,) = ctx.saved_tensors
        _, batch, h, w = grey.shape
        of_a, of_b = (grey.new_empty(batch, 3, h, w) if wanted else None for wanted in ctx.needs_input_grad[:2])
        with torch.cuda.device_of(grey):
            gradient_kernel[tiles(h, w, batch)](*grey, grad.contiguous(), of_a, of_b, h, w, RADIUS=ctx.radius, **TILE)
        return of_a, of_b, None


@triton.jit
def grey_kernel(
    image: tl.tensor, grey: tl.tensor, height: int, width: int, TILE_Y: tl.constexpr, TILE_X: tl.constexpr
) -> None:
    """image: (B, 3, H, W). grey: (B, H, W)."""
    sample = tl.program_id(2).to(tl.int64)
    y = tl.program_id(1) * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = tl.program_id(0) * TILE_X + tl.arange(0, TILE_X)[None, :]
    inside = (y < height) & (x < width)
    plane = height * width
    here = y * width + x
    at = image + sample * 3 * plane + here
    red = tl.load(at, mask=inside, other=0.0)
    green = tl.load(at + plane, mask=inside, other=0.0)
    blue = tl.load(at + 2 * plane, mask=inside, other=0.0)
    tl.store(grey + sample * plane + here, red * RED + green * GREEN + blue * BLUE, mask=inside)


@triton.jit
def distance_kernel(
    a: tl.tensor,
    b: tl.tensor,
    distance: tl.tensor,
    height: int,
    width: int,
    RADIUS: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
) -> None:
    """a, b: (B, H, W) grey levels. distance: (B, H, W)."""
    sample = tl.program_id(2).to(tl.int64)
    y = tl.program_id(1) * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = tl.program_id(0) * TILE_X + tl.arange(0, TILE_X)[None, :]
    # A pixel that counts has all of its neighbours inside the image.
    counts = (y >= RADIUS) & (y < height - RADIUS) & (x >= RADIUS) & (x < width - RADIUS)
    first, here = sample * height * width, y * width + x
    a, b = a + first, b + first
    centre_a = tl.load(a + here, mask=counts, other=0.0)
    centre_b = tl.load(b + here, mask=counts, other=0.0)
    total = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
    for dy in range(-RADIUS, RADIUS + 1):  # 7 rows unrolled would fill the instruction cache
        row = here + dy * width
        for dx in tl.static_range(-RADIUS, RADIUS + 1):
            in_a = tl.load(a + row + dx, mask=counts, other=0.0) - centre_a
            in_b = tl.load(b + row + dx, mask=counts, other=0.0) - centre_b
            gap = in_a * tl.rsqrt(in_a * in_a + SIGN) - in_b * tl.rsqrt(in_b * in_b + SIGN)
            square = gap * gap
            total += square / (square + HAMMING)
    tl.store(distance + first + here, total, mask=(y < height) & (x < width))


@triton.jit
def gradient_kernel(
    a: tl.tensor,
    b: tl.tensor,
    of_distance: tl.tensor,
    of_a: tl.tensor,
    of_b: tl.tensor,
    height: int,
    width: int,
    RADIUS: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
) -> None:
    """a, b: (B, H, W) grey levels. of_distance: (B, H, W). of_a, of_b: (B, 3, H, W) or None."""
    sample = tl.program_id(2).to(tl.int64)
    y = tl.program_id(1) * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = tl.program_id(0) * TILE_X + tl.arange(0, TILE_X)[None, :]
    inside = (y < height) & (x < width)
    counts = (y >= RADIUS) & (y < height - RADIUS) & (x >= RADIUS) & (x < width - RADIUS)
    plane, here = height * width, y * width + x
    a, b, of_distance = a + sample * plane, b + sample * plane, of_distance + sample * plane
    centre_a = tl.load(a + here, mask=inside, other=0.0)
    centre_b = tl.load(b + here, mask=inside, other=0.0)
    weight = tl.load(of_distance + here, mask=counts, other=0.0)
    sum_a = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
    sum_b = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
    for dy in range(-RADIUS, RADIUS + 1):
        row, v = here + dy * width, y + dy
        row_counts = (v >= RADIUS) & (v < height - RADIUS)
        for dx in tl.static_range(-RADIUS, RADIUS + 1):
            # The pair is in this pixel's distance and in the neighbour's, where either counts.
            u = x + dx
            other = row_counts & (u >= RADIUS) & (u < width - RADIUS)
            paired = counts | other
            there = row + dx
            in_a = tl.load(a + there, mask=paired, other=0.0) - centre_a
            in_b = tl.load(b + there, mask=paired, other=0.0) - centre_b
            both = weight + tl.load(of_distance + there, mask=other, other=0.0)
            inverse_a, inverse_b = tl.rsqrt(in_a * in_a + SIGN), tl.rsqrt(in_b * in_b + SIGN)
            gap = in_a * inverse_a - in_b * inverse_b
            bent = gap * gap + HAMMING
            # d/dgap gap^2 / (c + gap^2) = 2 c gap / (c + gap^2)^2; dsign/ddifference = s / (s + difference^2)^1.5
            slope = gap * both * SLOPE / (bent * bent)
            sum_a -= slope * inverse_a * inverse_a * inverse_a
            sum_b += slope * inverse_b * inverse_b * inverse_b
    first = sample * 3 * plane
    if of_a is not None:
        tl.store(of_a + first + here, sum_a * RED, mask=inside)
        tl.store(of_a + first + plane + here, sum_a * GREEN, mask=inside)
        tl.store(of_a + first + 2 * plane + here, sum_a * BLUE, mask=inside)
    if of_b is not None:
        tl.store(of_b + first + here, sum_b * RED, mask=inside)
        tl.store(of_b + first + plane + here, sum_b * GREEN, mask=inside)
        tl.store(of_b + first + 2 * plane + here, sum_b * BLUE, mask=inside)
