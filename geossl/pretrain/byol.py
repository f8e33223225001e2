"""BYOL: one view predicts what a slowly moving copy of the network makes of the other; there are no negatives.

Predictor, moving average and the stop of the gradient are the method: without one of them all embeddings collapse.

Source: Grill et al.: Bootstrap your own latent: a new approach to self-supervised learning, NeurIPS 2020.
https://arxiv.org/abs/2006.07733

Differs: the optimiser is `train.optimizer` (paper: LARS with batches of 4096), heads are smaller, and both views are
drawn alike (paper: less blur and some solarisation in the second).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field

from geossl.pretrain.heads import mlp
from geossl.pretrain.memory import Ema
from geossl.pretrain.method import Pretraining, PretrainingOptions, embedding_health
from geossl.pretrain.moco import Embedder
from geossl.pretrain.objectives import byol_loss
from geossl.pretrain.views import Views, draw_view
from geossl.types import Batch, Objective


class BYOLOptions(PretrainingOptions):
    views: Views = Views()
    hidden: int = Field(512, ge=1, description="Of both heads; 4096 in the paper.")
    dim: int = Field(128, ge=1, description="Of the projection; 256 in the paper.")
    momentum: float = Field(0.996, ge=0, le=1, description="Of the target network at first; 1 at the end.")


class BYOL(Pretraining):
    """Prediction of the other view's projection, both ways."""

    Options = BYOLOptions

    def __init__(self, options: BYOLOptions) -> None:
        super().__init__(options)
        self.head = mlp(self.encoder.channels[-1], options.hidden, options.dim)
        self.predictor = mlp(options.dim, options.hidden, options.dim)
        self.target = Ema(self.online)

    @property
    def online(self) -> Embedder:
        """What learns by gradients, and is handed over without its head."""
        return Embedder(self.encoder, self.head)

    def forward(self, batch: Batch) -> Objective:
        self.require_pairs(batch)
        views = [draw_view(batch.target.image, self.options.views).image for _ in range(2)]
        both = torch.cat(views)
        predicted = self.predictor(self.online(both)).float()
        targets = self.target(both).roll(len(batch), 0)  # of the other view
        loss = byol_loss(predicted, targets).mean()
        health = embedding_health(*F.normalize(predicted, dim=1).chunk(2))
        return Objective({"prediction": loss}, {"first": views[0], "second": views[1]}, health)

    @torch.no_grad()
    def after_step(self) -> None:
        """The target network follows."""
        self.target.follow(self.online, momentum_at(self.progress, self.options.momentum))


def momentum_at(progress: float, first: float) -> float:
    """1 - (1 - first) (cos(pi progress) + 1) / 2: from `first` to 1 (section 3.2)."""
    return 1 - (1 - first) * (math.cos(math.pi * progress) + 1) / 2
