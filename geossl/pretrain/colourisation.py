"""Colourisation: which colours has a picture of which only the lightness is given?

Source: Zhang, Isola, Efros: Colorful image colorization, ECCV 2016. https://arxiv.org/abs/1603.08511

It needs colour cameras: KITTI's image_02 and image_03, not the grey image_00 and image_01.

Differs:
    * The frequencies of colours, for the rebalancing, are those of the training so far (paper: of ImageNet, counted
      before), spread as the labels are instead of smoothed apart.
    * The encoder's three channels are all the lightness, so that it is handed over unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import area_mean
from geossl.networks.blocks import conv_float32
from geossl.pretrain.heads import DenseHead
from geossl.pretrain.lab import (
    annealed_mean,
    colour_bins,
    lightness_image,
    rebalancing,
    soft_bins,
    to_lab,
    to_rgb,
)
from geossl.pretrain.memory import gathered
from geossl.pretrain.method import Pretraining, PretrainingOptions
from geossl.types import Batch, Objective

LEVEL = 1  # stride 4, a quarter of the image as in the paper


class ColourisationOptions(PretrainingOptions):
    dim: int = Field(128, ge=1, description="Channels before the classifier.")
    rebalancing: float = Field(0.5, gt=0, le=1, description="Share of the uniform in the weights; 1 does without.")
    momentum: float = Field(0.99, ge=0, lt=1, description="Of the frequencies of colours.")


class Colourisation(Pretraining):
    """Cross-entropy of softly encoded colours, rare ones weighted up."""

    Options = ColourisationOptions
    bins: Tensor
    frequency: Tensor

    def __init__(self, options: ColourisationOptions) -> None:
        super().__init__(options)
        bins = colour_bins()
        self.head = DenseHead(self.encoder.channels, options.dim, LEVEL)
        self.classify = nn.Conv2d(options.dim, len(bins), 1)
        self.register_buffer("bins", bins.clone(), persistent=False)
        self.register_buffer("frequency", torch.full((len(bins),), 1 / len(bins)))
        self._fresh: Tensor | None = None

    def forward(self, batch: Batch) -> Objective:
        lab = to_lab(batch.target.image)
        logits = conv_float32(self.classify, F.relu(self.head(self.encoder(lightness_image(lab)))))  # (B, Q, h, w)
        true = area_mean(lab[:, 1:], size_of(logits)).movedim(1, -1).flatten(0, 2)  # (B h w, 2)
        label = soft_bins(true, self.bins)
        weight = rebalancing(self.frequency, self.options.rebalancing)[label.argmax(1)]
        losses = -(label * logits.log_softmax(1).movedim(1, -1).flatten(0, 2)).sum(1)
        self._fresh = label.mean(0)
        return Objective({"colour": (weight * losses).mean()}, self.pictures(lab, logits.detach()))

    @torch.no_grad()
    def pictures(self, lab: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """The image with its own colours and with those that were found."""
        found = F.interpolate(annealed_mean(logits, self.bins), size_of(lab), mode="bilinear", align_corners=False)
        return {"target": to_rgb(lab), "found": to_rgb(torch.cat([lab[:, :1], found.to(lab)], 1))}

    @torch.no_grad()
    def after_step(self) -> None:
        """The frequencies take in this step's colours."""
        if self._fresh is not None:
            self.frequency.lerp_(gathered(self._fresh[None]).mean(0), 1 - self.options.momentum)
            self._fresh = None
