"""Small vectors of numbers, made where they are used.

A list of numbers becomes a tensor in the processor's memory first, and its copy to a GPU waits for all that the GPU
still has to do; every step of a training would wait so at each of its warps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def vector_like(x: Tensor, *numbers: float) -> Tensor:
    """(n,) numbers on the device and in the dtype of a tensor."""
    return torch.stack([x.new_full((), number) for number in numbers])
