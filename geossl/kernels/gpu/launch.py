"""Tiles of an image, as the kernels that look at neighbours cut it."""

from __future__ import annotations

import triton

# Pixels of a program, and a thread for each: with four a thread the photometric gradient runs out of registers.
TILE = {"TILE_Y": 16, "TILE_X": 32, "num_warps": 16}


def tiles(height: int, width: int, maps: int) -> tuple[int, int, int]:
    """The grid of programs over all tiles of so many maps."""
    return triton.cdiv(width, TILE["TILE_X"]), triton.cdiv(height, TILE["TILE_Y"]), maps
