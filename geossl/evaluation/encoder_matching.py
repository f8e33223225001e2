"""Whether features find the same place again: in the other camera, in the next frame, after a change of viewpoint.

Descriptors are an encoder's features as they are; nothing is trained. The figure is PCK, the percentage (here: share)
of correct keypoints: places whose most similar place of the other image lies within some pixels of the true one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.affine import affine_image, similarity
from geossl.geometry.pixels import pixel_grid, sample_at_pixels, size_of
from geossl.geometry.precision import float32_island
from geossl.geometry.transforms import resize_pixels

ZOOM, ROTATION_DEG = 1.25, 10.0  # of the change of viewpoint
Size = tuple[int, int]


@dataclass(frozen=True)
class Places:
    """Places of one image, and where they truly are in another.

    Attributes:
        here, there: (N, 2) pixels (u, v).
    """

    here: Tensor
    there: Tensor

    def thinned(self, most: int, generator: torch.Generator) -> Places:
        """At most so many of them, drawn."""
        chosen = torch.randperm(len(self.here), generator=generator)[:most].to(self.here.device)
        return Places(self.here[chosen], self.there[chosen])


def places_of(flow: Tensor, valid: Tensor, size: Size) -> Places:
    """The places whose flow to the other image is known and stays inside it, in images resized to `size`.

    Args:
        flow: (2, H, W) pixels. valid: (H, W) bool.
        size: (height, width) of both images that are matched.

    Convention: halved from 4 to 2 columns, pixel 3 with flow -2 becomes 1.25 with flow -1.
    """
    h, w = size_of(flow)
    there = pixel_grid(h, w, flow.device) + flow
    inside = (there[0] >= 0) & (there[0] <= w - 1) & (there[1] >= 0) & (there[1] <= h - 1)
    v, u = (valid & inside).nonzero().unbind(1)
    here = torch.stack([u, v], 1).float()
    return Places(resize_pixels(here, (h, w), size), resize_pixels(there[:, v, u].T.float(), (h, w), size))


def viewpoint(image: Tensor) -> tuple[Tensor, Places]:
    """The image seen closer by 1.25, turned by 10 degrees and by another camera's tones, and its pixels' places.

    Args:
        image: (1, 3, H, W) in [0, 1].
    """
    size = size_of(image)
    scale = torch.tensor([ZOOM], dtype=torch.float64)
    turn = torch.tensor([math.radians(ROTATION_DEG)], dtype=torch.float64)
    A = similarity(scale, scale, turn, torch.zeros(1, 2, dtype=torch.float64), size).to(image)
    grid = pixel_grid(*size, image.device)
    moved = torch.einsum("ij,jhw->ihw", A[0, :2, :2], grid) + A[0, :2, 2, None, None]
    everywhere = torch.ones(size, dtype=torch.bool, device=image.device)
    return other_tones(affine_image(image, A)[0]), places_of(moved - grid, everywhere, size)


def other_tones(image: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] of another gamma and contrast: 0.7 x^0.5 + 0.2."""
    return 0.7 * image.sqrt() + 0.2


@float32_island
def descriptors(features: Sequence[Tensor], level: int) -> Tensor:
    """All features of an encoder as one map.

    Each is centred over its image, brought to the size of one of them, and made of unit length at every place, so that
    all count alike.

    Args:
        features: (B, C_i, h_i, w_i); C_i = 0 stands for a feature that is not there.
        level: Which one's size the map has.

    Returns:
        (B, sum C_i, h, w) of unit length.
    """
    size = size_of(features[level])
    maps = []
    for feature in features:
        if feature.shape[1]:
            centred = feature.float() - feature.float().mean((2, 3), keepdim=True)
            maps.append(F.normalize(F.interpolate(centred, size, mode="bilinear", align_corners=False), dim=1))
    return torch.cat(maps, 1) / math.sqrt(len(maps))


@float32_island
def patch_descriptors(image: Tensor, side: int, stride: int) -> Tensor:
    """Grey patches less their mean, of unit length: zero-normalised cross-correlation, to compare with.

    Args:
        image: (B, 3, H, W). side: Of the patches, odd. stride: Between them, an even divisor of H and W.

    Returns:
        (B, side^2, H / stride, W / stride), patches at the pixels right below the middles of stride x stride blocks.
    """
    grey = image.mean(1, keepdim=True)
    pad = side // 2
    patches = F.unfold(F.pad(grey, (pad,) * 4, mode="replicate"), side).unflatten(2, size_of(grey))
    patches = patches[..., stride // 2 :: stride, stride // 2 :: stride]
    return F.normalize(patches - patches.mean(1, keepdim=True), dim=1)


@float32_island
def matched(first: Tensor, second: Tensor, here: Tensor, size: Size, along_row: bool) -> Tensor:
    """Where the places of one image are in the other, by the most similar descriptor.

    Args:
        first, second: (D, h, w) maps of unit length.
        here: (N, 2) pixels of the first image. size: (height, width) of the images.
        along_row: Look in the row of the place only, as in rectified stereo; else everywhere.

    Returns:
        (N, 2) pixels of the second image, middles of its map's cells.
    """
    cells = size_of(second)
    at = resize_pixels(here, size, cells)
    query = sample_at_pixels(first[None], at.T[None, :, None])[0, :, 0].T  # (N, D)
    scores = (query @ second.flatten(1)).unflatten(1, cells)  # (N, h, w)
    if along_row:
        row = at[:, 1].round().long().clamp(0, cells[0] - 1)
        column = scores[torch.arange(len(row), device=row.device), row].argmax(1)
    else:
        best = scores.flatten(1).argmax(1)
        row, column = torch.div(best, cells[1], rounding_mode="floor"), best % cells[1]
    return resize_pixels(torch.stack([column, row], 1).to(here), cells, size)


def share_within(found: Tensor, there: Tensor, px: float) -> float:
    """Share of (N, 2) places found within `px` pixels of the true ones; NaN where there is none."""
    return float(((found - there).norm(dim=1) <= px).double().mean())
