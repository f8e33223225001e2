"""What stands between an encoder and an objective, and is thrown away after the pre-training."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from geossl.networks.blocks import conv_float32


def pooled(features: Sequence[Tensor]) -> Tensor:
    """(B, C) means of the deepest of an encoder's features."""
    return features[-1].mean((2, 3))


def mlp(channels_in: int, hidden: int, channels_out: int, batchnorm: bool = True) -> nn.Sequential:
    """Two layers with batch norm (SimCLR, BYOL) or without (MoCo v2) and a ReLU between."""
    norm = [nn.BatchNorm1d(hidden)] if batchnorm else []
    first = nn.Linear(channels_in, hidden, bias=not batchnorm)
    return nn.Sequential(first, *norm, nn.ReLU(inplace=True), nn.Linear(hidden, channels_out))


class DenseHead(nn.Module):
    """One descriptor for each place, out of all of an encoder's features.

    Each feature is projected to `dim` channels, resized to the map of one stride and added up; so the finest and the
    deepest layers learn alike.

    Args:
        channels: The encoder's; 0 stands for a feature that is not there.
        dim: Channels of the descriptors.
        level: Of the features, whose size the map has: 0 is stride 2, 1 is stride 4, ...
    """

    def __init__(self, channels: Sequence[int], dim: int, level: int) -> None:
        super().__init__()
        self.level = level
        self.laterals = nn.ModuleDict({str(i): nn.Conv2d(c, dim, 1) for i, c in enumerate(channels) if c})
        self.out = nn.Conv2d(dim, dim, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features of (B, channels[i], h_i, w_i) -> (B, dim, h, w) float32."""
        size = features[self.level].shape[-2:]
        maps = [
            F.interpolate(lateral(features[int(i)]), size, mode="bilinear", align_corners=False)
            for i, lateral in self.laterals.items()
        ]
        total = maps[0]
        for one in maps[1:]:
            total = total + one
        return conv_float32(self.out, F.relu(total))
