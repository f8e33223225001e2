"""Padding images to the sizes a network can halve, and cutting its maps back to the images."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.constants import vector_like
from geossl.geometry.pixels import pixel_grid_like, sample_at_pixels, size_of


def pad_to_multiple(image: Tensor, multiple: int, minimum: int = 1) -> Tensor:
    """Repeats the last row and column until height and width are multiples.

    Padding only below and to the right leaves every pixel where it was, at every level of a pyramid.

    Args:
        image: (B, C, H, W).
        minimum: Least height and width of the result, itself a multiple.

    Returns:
        (B, C, H', W'); the image itself where it fits.
    """
    h, w = size_of(image)
    below, right = (max(-(-n // multiple) * multiple, minimum) - n for n in (h, w))
    return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


def unpad(x: Tensor, padded_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The part of a map, at any level, that belongs to the image before padding; values keep their unit.

    Args:
        x: (B, C, h', w') map that spans the padded image.
        padded_size: (H', W') of the padded image; size: (H, W) of the image.

    Returns:
        (B, C, h, w) map that spans the image: h = H h' / H', w = W w' / W', rounded up.
    """
    ratio = _pixel_ratio(x, padded_size, size)
    cut = x[..., : ratio.kept[0], : ratio.kept[1]]
    if ratio.vertical == ratio.horizontal == 1:
        return cut
    # A new pixel in old ones: ratio * (u + 0.5) - 0.5.
    scale = vector_like(x, ratio.horizontal, ratio.vertical).view(1, 2, 1, 1)
    pixels = ((pixel_grid_like(cut) + 0.5) * scale - 0.5).expand(len(x), -1, -1, -1)
    return sample_at_pixels(x, pixels)


def unpad_flow(flow: Tensor, padded_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The part of a flow, at any level, that belongs to the image before padding.

    Args:
        flow: (B, 2, h', w') pixels of this map, which spans the padded image.
        padded_size: (H', W') of the padded image; size: (H, W) of the image.

    Returns:
        (B, 2, h, w) pixels of this map, which spans the image: h = H h' / H', w = W w' / W', rounded up.

    Convention: 100 columns padded to 128 have 50 columns of 64 at half size, which are cut out; at a 32nd they have 4
    of 4, each 25 instead of 32 columns wide, which are sampled, and du is multiplied by 32 / 25.
    """
    ratio = _pixel_ratio(flow, padded_size, size)
    cut = unpad(flow, padded_size, size)
    if ratio.vertical == ratio.horizontal == 1:
        return cut
    return cut / vector_like(flow, ratio.horizontal, ratio.vertical).view(1, 2, 1, 1)


class _Ratio(NamedTuple):
    """Rows and columns of an un-padded map, and how many of the padded map's pixels one of its own spans."""

    kept: tuple[int, int]
    vertical: float
    horizontal: float


def _pixel_ratio(x: Tensor, padded_size: tuple[int, int], size: tuple[int, int]) -> _Ratio:
    (full_h, full_w), (h, w), (map_h, map_w) = padded_size, size, size_of(x)
    kept_h, kept_w = -(-h * map_h // full_h), -(-w * map_w // full_w)
    return _Ratio((kept_h, kept_w), h * map_h / (full_h * kept_h), w * map_w / (full_w * kept_w))
