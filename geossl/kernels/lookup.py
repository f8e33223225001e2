"""RAFT's lookup in a pyramid of correlations on the CPU, forward and backward.

A lookup reads a hundredth of the volume and changes as much of its gradient. Were the gradient of every lookup a
volume of its own, zeros filled in and added up, this would take most of the time: here all lookups add to one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geossl.kernels.library import FLOAT, INT, POINTER, bands, in_parallel, kernel, pointer

MOST_RADIUS = 7  # of csrc/lookup.c


class _Pyramid:
    """Levels, and while a backward pass runs their gradients so far."""

    def __init__(self, levels: Sequence[Tensor], radius: int) -> None:
        self.levels = [level.detach().contiguous() for level in levels]
        self.radius = radius
        self.gradients: list[Tensor] | None = None


def pyramid_lookup(pyramid: Sequence[Tensor], radius: int) -> Callable[[Tensor], Tensor]:
    """What `networks.raft.lookup_in` returns, for maps that are float32 on the CPU and a radius of at most 7.

    Gradients go to the pyramid, none to the places; a second derivative is refused.
    """
    shared = _Pyramid(pyramid, radius)
    token = _Collect.apply(shared, *pyramid)
    return lambda pixels: _Lookup.apply(token, pixels, shared)  # type: ignore[no-any-return]


class _Collect(torch.autograd.Function):
    """Pyramid -> (), on which every lookup depends: its backward pass runs after those of all lookups."""

    @staticmethod
    def forward(ctx: Any, shared: _Pyramid, *pyramid: Tensor) -> Tensor:
        ctx.shared = shared
        return pyramid[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.shared.gradients = ctx.shared.gradients, None
        return None, *gradients


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, pixels: Tensor, shared: _Pyramid) -> Tensor:
        pixels = pixels.detach().contiguous()
        ctx.save_for_backward(pixels)
        ctx.shared = shared
        b, _, h, w = pixels.shape
        found = pixels.new_empty(b, len(shared.levels), (2 * shared.radius + 1) ** 2, h, w)
        _each_level("geossl_lookup", shared.levels, pixels, found, shared.radius)
        return found.flatten(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (pixels,), shared = ctx.saved_tensors, ctx.shared
        if shared.gradients is None:
            shared.gradients = [torch.zeros_like(level) for level in shared.levels]
        of_found = grad.contiguous().unflatten(1, (len(shared.levels), -1))
        _each_level("geossl_lookup_backward", shared.gradients, pixels, of_found, shared.radius)
        return grad.new_zeros(()), None, None


def _each_level(name: str, levels: list[Tensor], pixels: Tensor, found: Tensor, radius: int) -> None:
    """Runs a kernel on every level.

    Args:
        levels: (B h w, 1, h', w'). pixels: (B, 2, h, w) of level 0. found: (B, levels, (2 radius + 1)^2, h, w).
    """
    batch, _, h, w = pixels.shape
    run = kernel(name, *[POINTER] * 3, INT, INT, INT, FLOAT, INT, INT, INT)
    parts = bands(batch, h * w)

    def work(part: int) -> None:
        sample, first, end = parts[part]
        for i, level in enumerate(levels):
            maps = pointer(level[sample * h * w]), pointer(pixels[sample]), pointer(found[sample, i])
            run(*maps, h * w, *level.shape[2:], 0.5**i, radius, first, end)

    in_parallel(work, len(parts))
