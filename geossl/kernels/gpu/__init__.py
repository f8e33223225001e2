"""The hot functions as Triton kernels, for CUDA tensors, each file one function with its gradient.

They have not been measured on a GPU yet, nor run on one, and so run only when asked for by name: `use("gpu")`,
`train.kernels=gpu`. What is known: in Triton's interpreter they give what the plain functions give in float64, and
they compile for sm_80 and sm_90.

On a GPU: `pytest tests/kernels` runs them compiled, `geossl benchmark kernels --device cuda` times them beside plain
torch. Tiles and blocks, constants of `launch` and of each file, are the first to try other values of.

Importing this package imports no Triton, which is missing on macOS and Windows; its modules do.

Convention: a program computes a tile of pixels, x along a warp so that loads and stores coalesce. Every gradient is
gathered at the pixel that it belongs to. Sums over an image are written by tile and added up in float64 afterwards.
Only the range map adds atomically; no other result depends on the order in which programs run.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

import torch

__all__ = ["fits", "why_missing"]

# Tests say so, which set TRITON_INTERPRET=1 before anything imports Triton: kernels then take tensors of the CPU.
INTERPRETED = False


def fits(device: torch.device) -> bool:
    """Whether kernels can read tensors of this device: of a GPU, or any in Triton's interpreter."""
    return device.type == "cuda" or INTERPRETED


def why_missing() -> str | None:
    """Why no kernel can run here, and the remedy, in a sentence; None where they can."""
    if not _has_triton():
        return "the GPU kernels need Triton, which comes with torch for CUDA on Linux; it is not installed here."
    if not (torch.cuda.is_available() or INTERPRETED):
        return "the GPU kernels need a CUDA device, and torch finds none."
    return None


@lru_cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
