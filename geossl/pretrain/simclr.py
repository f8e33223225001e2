"""SimCLR: two views of every image find each other among the batch.

Source: Chen, Kornblith, Norouzi, Hinton: A simple framework for contrastive learning of visual representations, ICML
2020. https://arxiv.org/abs/2002.05709

Differs:
    * The optimiser is `train.optimizer` (paper: LARS with batches of 4096), and views keep the image's size.
    * Samples recorded within `near_frames` of each other are no negatives: in driving they show the same street.
    * With several processes, negatives come from the process's own part of the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from geossl.pretrain.heads import mlp, pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions, embedding_health
from geossl.pretrain.objectives import nt_xent
from geossl.pretrain.pairs import moments
from geossl.pretrain.views import Views, draw_view
from geossl.types import Batch, Objective


class SimCLROptions(PretrainingOptions):
    views: Views = Views()
    hidden: int = Field(512, ge=1, description="Of the head; 2048 for resnet50 in the paper.")
    dim: int = Field(128, ge=1, description="Of the embedding.")
    temperature: float = Field(0.1, gt=0)
    near_frames: int = Field(20, ge=0, description="Samples of one recording this close are no negatives.")


class SimCLR(Pretraining):
    """NT-Xent on pooled features behind a two-layer head."""

    Options = SimCLROptions

    def __init__(self, options: SimCLROptions) -> None:
        super().__init__(options)
        self.head = mlp(self.encoder.channels[-1], options.hidden, options.dim)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, dim) unit vectors, float32."""
        return F.normalize(self.head(pooled(self.encoder(images))).float(), dim=1)

    def forward(self, batch: Batch) -> Objective:
        self.require_pairs(batch)
        views = [draw_view(batch.target.image, self.options.views).image for _ in range(2)]
        first, second = self.embed(torch.cat(views)).chunk(2)
        when = moments(batch.names, first.device)
        loss = nt_xent(first, second, self.options.temperature, when.near(when, self.options.near_frames))
        return Objective({"contrast": loss}, {"first": views[0], "second": views[1]}, embedding_health(first, second))
