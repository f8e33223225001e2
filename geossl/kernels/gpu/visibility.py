"""Range map and forward-backward check on the GPU in one pass over the flow, without gradient."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from geossl.kernels.gpu.launch import TILE, tiles

TOLERANCE = tl.constexpr(1e-3)  # pixel; as geometry.pixels.in_image


def landed(flow: Tensor) -> Tensor:
    """As `geossl.kernels.visibility.landed`. Sums are atomic: their last bits depend on the order of programs."""
    batch, _, h, w = flow.shape
    sums = flow.new_zeros(batch, 1, h, w)
    with torch.cuda.device_of(flow):
        landed_kernel[tiles(h, w, batch)](flow.contiguous(), sums, h, w, **TILE)
    return sums


def returns(flow: Tensor, backward_flow: Tensor, relative: float, absolute: float) -> Tensor:
    """As `geossl.kernels.visibility.returns`."""
    batch, _, h, w = flow.shape
    visible = torch.empty(batch, 1, h, w, dtype=torch.uint8, device=flow.device)
    flows = flow.contiguous(), backward_flow.contiguous()
    with torch.cuda.device_of(flow):
        returns_kernel[tiles(h, w, batch)](*flows, visible, relative, absolute, h, w, **TILE)
    return visible.view(torch.bool)


@triton.jit
def landed_kernel(
    flow: tl.tensor, sums: tl.tensor, height: int, width: int, TILE_Y: tl.constexpr, TILE_X: tl.constexpr
) -> None:
    """flow: (B, 2, H, W). sums: (B, H, W), zeros."""
    sample = tl.program_id(2).to(tl.int64)
    y = tl.program_id(1) * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = tl.program_id(0) * TILE_X + tl.arange(0, TILE_X)[None, :]
    inside = (y < height) & (x < width)
    plane, here = height * width, y * width + x
    u = x + tl.load(flow + sample * 2 * plane + here, mask=inside, other=0.0)
    v = y + tl.load(flow + (sample * 2 + 1) * plane + here, mask=inside, other=0.0)
    lands = inside & (u > -1) & (u < width) & (v > -1) & (v < height)
    u, v = tl.where(lands, u, 0.0), tl.where(lands, v, 0.0)
    left, top = tl.floor(u), tl.floor(v)
    to_right, to_below = u - left, v - top
    column, row = left.to(tl.int32), top.to(tl.int32)
    at = sums + sample * plane + row * width + column
    has_left, has_right = lands & (column >= 0), lands & (column < width - 1)
    has_top, has_below = row >= 0, row < height - 1
    tl.atomic_add(at, (1 - to_right) * (1 - to_below), mask=has_left & has_top)
    tl.atomic_add(at + 1, to_right * (1 - to_below), mask=has_right & has_top)
    tl.atomic_add(at + width, (1 - to_right) * to_below, mask=has_left & has_below)
    tl.atomic_add(at + width + 1, to_right * to_below, mask=has_right & has_below)


@triton.jit
def returns_kernel(
    flow: tl.tensor,
    backward_flow: tl.tensor,
    visible: tl.tensor,
    relative: float,
    absolute: float,
    height: int,
    width: int,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
) -> None:
    """flow, backward_flow: (B, 2, H, W). visible: (B, H, W)."""
    sample = tl.program_id(2).to(tl.int64)
    y = tl.program_id(1) * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = tl.program_id(0) * TILE_X + tl.arange(0, TILE_X)[None, :]
    inside = (y < height) & (x < width)
    plane, here = height * width, y * width + x
    first = sample * 2 * plane
    du = tl.load(flow + first + here, mask=inside, other=0.0)
    dv = tl.load(flow + first + plane + here, mask=inside, other=0.0)
    u, v = x + du, y + dv
    seen = inside & (u >= -TOLERANCE) & (u <= width - 1 + TOLERANCE)
    seen = seen & (v >= -TOLERANCE) & (v <= height - 1 + TOLERANCE)
    du, dv = tl.where(seen, du, 0.0), tl.where(seen, dv, 0.0)
    u = tl.minimum(tl.maximum(tl.where(seen, u, 0.0), 0.0), width - 1.0)
    v = tl.minimum(tl.maximum(tl.where(seen, v, 0.0), 0.0), height - 1.0)
    column, row = u.to(tl.int32), v.to(tl.int32)
    to_right, to_below = u - column, v - row
    corner = row * width + column
    right = tl.where(column < width - 1, 1, 0)
    below = tl.where(row < height - 1, width, 0)
    residual = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
    size = du * du + dv * dv
    for axis in tl.static_range(2):
        at = backward_flow + first + axis * plane + corner
        upper_left, upper_right = tl.load(at, mask=seen, other=0.0), tl.load(at + right, mask=seen, other=0.0)
        lower_left = tl.load(at + below, mask=seen, other=0.0)
        lower_right = tl.load(at + below + right, mask=seen, other=0.0)
        upper = (1 - to_right) * upper_left + to_right * upper_right
        lower = (1 - to_right) * lower_left + to_right * lower_right
        back = (1 - to_below) * upper + to_below * lower
        gap = back + (du if axis == 0 else dv)
        residual += gap * gap
        size += back * back
    back_again = seen & (residual <= relative * size + absolute)
    tl.store(visible + sample * plane + here, back_again.to(tl.uint8), mask=inside)
