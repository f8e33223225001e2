"""Split-brain auto-encoder: lightness predicts colour, and colour predicts lightness.

Source: Zhang, Isola, Efros: Split-brain autoencoders: unsupervised learning by cross-channel prediction, CVPR 2017.
https://arxiv.org/abs/1611.09842

It needs colour cameras, as `geossl.pretrain.colourisation`.

Differs:
    * Both halves are the one encoder that is handed over, which sees a picture of the lightness and one of the colour
      (paper: two halves of the channels, each with its own input).
    * Both losses are squared errors (paper: also classes).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import area_mean
from geossl.networks.blocks import conv_float32
from geossl.pretrain.heads import DenseHead
from geossl.pretrain.lab import colour_image, lightness_image, to_lab
from geossl.pretrain.method import Pretraining, PretrainingOptions
from geossl.types import Batch, Objective

LEVEL = 1  # stride 4
L_MIDDLE, L_HALF, AB_HALF = 50.0, 50.0, 50.0  # by which channels are brought to about -1..1


class SplitBrainOptions(PretrainingOptions):
    dim: int = Field(128, ge=1, description="Channels before the prediction.")


class SplitBrain(Pretraining):
    """Two predictions across channels, added up."""

    Options = SplitBrainOptions

    def __init__(self, options: SplitBrainOptions) -> None:
        super().__init__(options)
        self.colour_head = DenseHead(self.encoder.channels, options.dim, LEVEL)
        self.lightness_head = DenseHead(self.encoder.channels, options.dim, LEVEL)
        self.colour = nn.Conv2d(options.dim, 2, 1)
        self.lightness = nn.Conv2d(options.dim, 1, 1)

    def forward(self, batch: Batch) -> Objective:
        lab, count = to_lab(batch.target.image), len(batch)
        features = self.encoder(torch.cat([lightness_image(lab), colour_image(lab)]))
        of_lightness, of_colour = ([x[part] for x in features] for part in (slice(count), slice(count, None)))
        ab = conv_float32(self.colour, F.relu(self.colour_head(of_lightness)))
        lightness = conv_float32(self.lightness, F.relu(self.lightness_head(of_colour)))
        true = area_mean(lab, size_of(ab))
        terms = {
            "colour": F.mse_loss(ab, true[:, 1:] / AB_HALF),
            "lightness": F.mse_loss(lightness, (true[:, :1] - L_MIDDLE) / L_HALF),
        }
        maps = {
            "target": batch.target.image,
            "lightness": (lightness.detach() * L_HALF + L_MIDDLE).clamp(0, 100) / 100,
        }
        return Objective(terms, maps)
