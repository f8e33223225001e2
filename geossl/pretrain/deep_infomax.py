"""Deep InfoMax, local: a picture's summary belongs to each of its places, and to no place of another picture.

Source: Hjelm, Fedorov, Lavoie-Marchildon, Grewal, Bachman, Trischler, Bengio: Learning deep representations by mutual
information estimation and maximization, ICLR 2019 (DIM(L): alpha 0, beta 1). https://arxiv.org/abs/1808.06670

Differs:
    * The critic is the product of linear embeddings of both (the paper's "encode and dot-product").
    * The representation is matched to no prior (paper: adversarially, with weight 0.1).
    * Samples recorded within `near_frames` of each other are no negatives.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from geossl.networks.blocks import conv_float32
from geossl.pretrain.heads import mlp, pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions
from geossl.pretrain.mutual_information import jensen_shannon
from geossl.pretrain.pairs import moments
from geossl.types import Batch, Objective


class DeepInfoMaxOptions(PretrainingOptions):
    level: int = Field(2, ge=0, le=3, description="Of the local features: 0 is stride 2, 1 stride 4, ...")
    hidden: int = Field(512, ge=1, description="Of the summary's embedding.")
    dim: int = Field(128, ge=1, description="Of both embeddings; 2048 in the paper.")
    near_frames: int = Field(20, ge=0, description="Samples of one recording this close are no negatives.")


class DeepInfoMax(Pretraining):
    """The Jensen-Shannon bound between pooled and local features."""

    Options = DeepInfoMaxOptions

    def __init__(self, options: DeepInfoMaxOptions) -> None:
        super().__init__(options)
        self.summary = mlp(self.encoder.channels[-1], options.hidden, options.dim)
        self.local = nn.Conv2d(self.encoder.channels[options.level], options.dim, 1)

    def forward(self, batch: Batch) -> Objective:
        self.require_pairs(batch)
        features = self.encoder(batch.target.image)
        summary = self.summary(pooled(features)).float()  # (B, dim)
        local = conv_float32(self.local, features[self.options.level]).flatten(2)  # (B, dim, P)
        scores = torch.einsum("id,jdp->ijp", summary, local)
        when = moments(batch.names, scores.device)
        itself = torch.eye(len(batch), dtype=torch.bool, device=scores.device)
        apart = ~(itself | when.near(when, self.options.near_frames))
        places = scores.shape[2]
        keep = apart.flatten().repeat_interleave(places)
        bound = jensen_shannon(scores.diagonal(dim1=0, dim2=1).flatten(), scores.flatten(), keep)
        right = (scores.detach().mean(2).argmax(1) == torch.arange(len(batch), device=scores.device)).float()
        return Objective({"infomax": -bound}, {"target": batch.target.image}, {"accuracy": right.mean()})
