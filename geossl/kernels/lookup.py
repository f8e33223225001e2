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


class _Gradients:
    """Those of a pyramid's levels so far, while a backward pass runs; the levels themselves are not kept for it."""

    def __init__(self, levels: Sequence[Tensor], radius: int) -> None:
        self.shapes = [level.shape for level in levels]
        self.radius = radius
        self.so_far: list[Tensor] | None = None


def pyramid_lookup(pyramid: Sequence[Tensor], radius: int) -> Callable[[Tensor], Tensor]:
    """What `networks.raft.lookup_in` returns, for maps that are float32 on the CPU and a radius of at most 7.

    A second derivative is refused.
    """
    levels = [level.detach().contiguous() for level in pyramid]
    gradients = _Gradients(levels, radius)
    token = _Collect.apply(gradients, *pyramid)

    def look_up(pixels: Tensor) -> Tensor:
        if pixels.ndim != 4 or pixels.shape[1] != 2 or pixels[:, 0].numel() != len(levels[0]):
            raise ValueError(
                f"pixels has shape {tuple(pixels.shape)}; expected (B, 2, h, w) with B h w = {len(levels[0])}, "
                "a place for every map of the pyramid."
            )
        places = pixels.detach().float().contiguous()
        return _Lookup.apply(token, places, levels, gradients)  # type: ignore[no-any-return]

    return look_up


class _Collect(torch.autograd.Function):
    """Pyramid -> (), on which every lookup depends: its backward pass runs after those of all lookups."""

    @staticmethod
    def forward(ctx: Any, gradients: _Gradients, *pyramid: Tensor) -> Tensor:
        ctx.gradients = gradients
        return pyramid[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found, ctx.gradients.so_far = ctx.gradients.so_far, None
        return None, *found


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, pixels: Tensor, levels: list[Tensor], gradients: _Gradients) -> Tensor:
        ctx.save_for_backward(pixels)
        ctx.gradients = gradients
        b, _, h, w = pixels.shape
        found = pixels.new_empty(b, len(levels), (2 * gradients.radius + 1) ** 2, h, w)
        _each_level("geossl_lookup", levels, pixels, found, gradients.radius)
        return found.flatten(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (pixels,), gradients = ctx.saved_tensors, ctx.gradients
        if gradients.so_far is None:
            gradients.so_far = [grad.new_zeros(shape) for shape in gradients.shapes]
        of_found = grad.contiguous().unflatten(1, (len(gradients.shapes), -1))
        _each_level("geossl_lookup_backward", gradients.so_far, pixels, of_found, gradients.radius)
        return grad.new_zeros(()), None, None, None


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
