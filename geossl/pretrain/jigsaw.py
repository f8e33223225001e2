"""Jigsaw: the nine tiles of an image come in one of many orders; which?

Source: Noroozi, Favaro: Unsupervised learning of visual representations by solving jigsaw puzzles, ECCV 2016.
https://arxiv.org/abs/1603.09246

Differs:
    * Orders are chosen one after the other so that the least distance to those before is greatest, and then the sum of
      distances (paper: the sum alone, from a random start): no two differ in two tiles only.
    * Cells are ninths of the whole image, of whatever shape, and tiles keep the paper's 64 / 85 of them.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from geossl.geometry.pixels import size_of
from geossl.pretrain.anti_shortcut import draw_tiles, lose_colour, shift_channels, standardized, windows
from geossl.pretrain.heads import mlp, pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions, accuracy
from geossl.types import Batch, Objective

GRID = (3, 3)


class JigsawOptions(PretrainingOptions):
    orders: int = Field(100, ge=2, le=10000, description="Classes; 1000 in the paper, for a million images.")
    tile: float = Field(64 / 85, gt=0, le=1, description="Side of a tile, as a share of its cell's.")
    grey: float = Field(0.3, ge=0, le=1, description="Probability that an image loses its colour.")
    channel_shift_px: int = Field(2, ge=0, description="Greatest shift of a channel, against chromatic aberration.")
    dim: int = Field(64, ge=1, description="Numbers that each tile is reduced to.")
    hidden: int = Field(512, ge=1, description="Of the classifier.")


class Jigsaw(Pretraining):
    """Which order, by the pooled features of all tiles."""

    Options = JigsawOptions
    orders: Tensor

    def __init__(self, options: JigsawOptions) -> None:
        super().__init__(options)
        tiles = GRID[0] * GRID[1]
        self.reduce = nn.Linear(self.encoder.channels[-1], options.dim)
        self.head = mlp(tiles * options.dim, options.hidden, options.orders)
        orders = torch.from_numpy(distant_orders(tiles, options.orders)).long()
        self.register_buffer("orders", orders, persistent=False)

    def forward(self, batch: Batch) -> Objective:
        image, options = batch.target.image, self.options
        tiles = cut_tiles(shift_channels(lose_colour(image, options.grey), options.channel_shift_px), options.tile)
        label = torch.randint(options.orders, (len(batch),)).to(image.device)
        order = self.orders[label][:, :, None, None, None]
        mixed = tiles.gather(1, order.expand_as(tiles))  # (B, 9, 3, h, w)
        features = F.relu(self.reduce(pooled(self.encoder(mixed.flatten(0, 1))))).unflatten(0, mixed.shape[:2])
        logits = self.head(features.flatten(1)).float()
        maps = {"target": image, "first_tile": mixed[:, 0].clamp(0, 1)}
        return Objective({"jigsaw": F.cross_entropy(logits, label)}, maps, {"accuracy": accuracy(logits, label)})


def cut_tiles(image: Tensor, share: float) -> Tensor:
    """(B, 3, H, W) -> (B, 9, 3, h, w), a standardised tile of each ninth of the image, row by row."""
    return standardized(windows(image, *draw_tiles(len(image), size_of(image), GRID, share)))


@lru_cache
def distant_orders(tiles: int, count: int) -> np.ndarray:
    """Orders that differ in as many places as they can, chosen greedily; always the same ones.

    Args:
        tiles: Number of things to order. count: Of orders, at most tiles!.

    Returns:
        (count, tiles) uint8, the first one 0, 1, 2, ...; where choices are equally far, the first in alphabetical
        order is taken.

    Raises:
        ValueError: If there are not so many orders.
    """
    pool = np.array(list(permutations(range(tiles))), np.uint8).T.copy()  # (tiles, tiles!)
    if count > pool.shape[1]:
        raise ValueError(f"there are {pool.shape[1]} orders of {tiles} tiles; {count} are asked for.")
    chosen = [0]
    least, total = np.full(pool.shape[1], tiles, np.int64), np.zeros(pool.shape[1], np.int64)
    while len(chosen) < count:
        distance = (pool != pool[:, chosen[-1], None]).sum(0)
        least, total = np.minimum(least, distance), total + distance
        chosen.append(int((least * (tiles * count + 1) + total).argmax()))
    return pool[:, chosen].T.copy()
