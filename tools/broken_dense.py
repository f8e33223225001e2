"""Dense InfoNCE with correspondences that are wrong on purpose, to see what the right ones are worth."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from geossl.geometry.pixels import pixel_grid_like
from geossl.pretrain.dense_infonce import DenseInfoNCE
from geossl.pretrain.pairs import ViewPair


class Shuffled(DenseInfoNCE):
    """Each place's correspondence is another place's."""

    def descriptors(self, pair: ViewPair, maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        order = torch.randperm(pair.xy[0, 0].numel()).to(pair.xy.device)
        xy, valid = (x.flatten(2)[..., order].view_as(x) for x in (pair.xy, pair.valid))
        return super().descriptors(replace(pair, xy=xy, valid=valid), maps)


class Identity(DenseInfoNCE):
    """Each place's correspondence is the same pixel, though the view has moved."""

    def descriptors(self, pair: ViewPair, maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        xy = pixel_grid_like(pair.xy).expand_as(pair.xy)
        return super().descriptors(replace(pair, xy=xy, valid=torch.ones_like(pair.valid)), maps)
