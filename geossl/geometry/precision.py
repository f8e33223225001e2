"""Float32 islands: geometry and losses keep full precision whatever the networks run in.

bfloat16 has 8 bits of mantissa: a pixel coordinate of 399 would be 400, and SSIM's variance E[x^2] - E[x]^2 would
turn negative.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from geossl.types import Frame

F = TypeVar("F", bound=Callable[..., Any])


def float32_island(function: F) -> F:
    """Runs `function` with autocast off and its half-precision tensor arguments promoted to float32.

    float64 passes through, so that gradients can be checked.
    """

    @functools.wraps(function)
    def island(*args: Any, **kwargs: Any) -> Any:
        devices = filter(None, map(device_of, (*args, *kwargs.values())))
        with torch.autocast(next(devices, "cpu"), enabled=False):
            return function(*map(promote, args), **{name: promote(a) for name, a in kwargs.items()})

    return island  # type: ignore[return-value]


def promote(value: Any) -> Any:
    """A half-precision tensor (or a frame's, or a list's) as float32; anything else unchanged."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, Frame):
        return value.map(promote)
    if isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
        return type(value)(map(promote, value))
    return value


def device_of(value: Any) -> str | None:
    if isinstance(value, Frame):
        value = value.image
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return value.device.type if isinstance(value, Tensor) else None
