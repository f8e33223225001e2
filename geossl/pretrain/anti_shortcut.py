"""What keeps a network from solving a puzzle of patches without looking at what they show.

Edges that continue from patch to patch, levels of brightness and colour, the lens' chromatic aberration and the
sharpness of the sensor all give a patch's place away. Against them: gaps between patches and jitter of their places,
patches of one mean and spread, channels dropped or moved against each other, and resolution lost and made up.

Draws are from torch's global generator. Source: Doersch et al., ICCV 2015, section 3.1
(https://arxiv.org/abs/1505.05192), and Noroozi & Favaro, ECCV 2016, section 3.3 (https://arxiv.org/abs/1603.09246).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.appearance import grey
from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import area_mean

MEAN, DEVIATION = 0.45, 0.225  # what encoders subtract and divide by: a standardised patch is so inside them
FLATTEST = 1 / 255  # deviation of a patch below which it is not stretched: it shows nothing but noise


def windows(image: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts windows out of images at whole pixels, so that nothing of them is resampled.

    Args:
        image: (B, C, H, W), its border repeated outside.
        corners: (B, N, 2) int64, pixel (u, v) of each window's top-left.
        size: (h, w) of the windows.

    Returns:
        (B, N, C, h, w).
    """
    (h, w), corners = size_of(image), corners.to(image.device)
    v, u = (
        (corners[..., axis, None] + torch.arange(extent, device=image.device)).clamp(0, most - 1)
        for axis, extent, most in ((1, size[0], h), (0, size[1], w))
    )
    index = (v[..., :, None] * w + u[..., None, :]).flatten(1)  # (B, N * h * w)
    found = image.flatten(2).gather(2, index[:, None].expand(-1, image.shape[1], -1))
    return found.unflatten(2, (corners.shape[1], *size)).transpose(1, 2)


def draw_tiles(
    batch_size: int, size: tuple[int, int], grid: tuple[int, int], share: float
) -> tuple[Tensor, tuple[int, int]]:
    """A tile in each cell of a grid over the image, anywhere in its cell: gaps and jitter in one.

    Args:
        batch_size: B. size: (height, width) of the images. grid: (rows, columns) of cells.
        share: Of a cell's height and width that a tile has.

    Returns:
        corners: (B, rows * columns, 2) int64 pixels (u, v), row by row, on the CPU.
        tile: (height, width) of a tile.
    """
    rows, columns = grid
    cell = (size[0] // rows, size[1] // columns)
    tile = (max(1, round(share * cell[0])), max(1, round(share * cell[1])))
    v, u = torch.meshgrid(torch.arange(rows) * cell[0], torch.arange(columns) * cell[1], indexing="ij")
    shift = [torch.randint(cell[axis] - tile[axis] + 1, (batch_size, rows * columns)) for axis in (1, 0)]
    return torch.stack([u.flatten(), v.flatten()], 1) + torch.stack(shift, 2), tile


def standardized(patches: Tensor) -> Tensor:
    """(..., C, h, w) patches, each channel of each with mean 0.45 and deviation 0.225; flat ones stay flat."""
    deviation, mean = torch.std_mean(patches, (-2, -1), correction=0, keepdim=True)
    return (patches - mean) / deviation.clamp_min(FLATTEST) * DEVIATION + MEAN


def drop_channels(image: Tensor, probability: float) -> Tensor:
    """Leaves some (N, 3, H, W) images one channel, drawn for each; the others become noise of a hundredth of its
    deviation about its mean."""
    drawn = (torch.rand(len(image)) < probability).to(image.device)
    kept = F.one_hot(torch.randint(3, (len(image),)), 3).bool().to(image.device)
    channel = (image * kept[:, :, None, None]).sum(1, keepdim=True)
    deviation, mean = torch.std_mean(channel, (1, 2, 3), correction=0, keepdim=True)
    noise = mean + 0.01 * deviation * torch.randn_like(image)
    return torch.where((drawn[:, None] & ~kept)[:, :, None, None], noise, image)


def lose_colour(image: Tensor, probability: float) -> Tensor:
    """(N, 3, H, W), some of them grey."""
    drawn = (torch.rand(len(image)) < probability).to(image.device).view(-1, 1, 1, 1)
    return torch.where(drawn, grey(image).expand_as(image), image)


def shift_channels(image: Tensor, most_px: int) -> Tensor:
    """(N, C, H, W) with each channel of each image moved by up to so many pixels, border repeated."""
    count, channels = image.shape[:2]
    shift = torch.randint(-most_px, most_px + 1, (count * channels, 1, 2))
    return windows(image.flatten(0, 1)[:, None], shift, size_of(image)).view_as(image)


def lower_resolution(image: Tensor, factors: Sequence[int] = (1, 2, 4)) -> Tensor:
    """(N, C, H, W), each image made smaller by one of the factors, drawn for each, and large again."""
    size = size_of(image)
    drawn = torch.randint(len(factors), (len(image),)).to(image.device).view(-1, 1, 1, 1)
    out = image
    for number, factor in enumerate(factors):
        if factor > 1:
            small = area_mean(image, (max(1, size[0] // factor), max(1, size[1] // factor)))
            large = F.interpolate(small, size, mode="bilinear", align_corners=False)
            out = torch.where(drawn == number, large, out)
    return out
