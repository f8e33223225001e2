"""Metric learning: the two views of a sample are a class, told from other samples by one of four classical losses.

Sources:
    * contrastive: Hadsell, Chopra, LeCun: Dimensionality reduction by learning an invariant mapping, CVPR 2006.
    * triplet: Schroff, Kalenichenko, Philbin: FaceNet, CVPR 2015. https://arxiv.org/abs/1503.03832
    * lifted: Song, Xiang, Jegelka, Savarese: Deep metric learning via lifted structured feature embedding, CVPR 2016.
      https://arxiv.org/abs/1511.06452
    * n_pair: Sohn: Improved deep metric learning with multi-class N-pair loss objective, NeurIPS 2016.

Differs:
    * Classes are samples and their members views (papers: labels, or neighbours in the input).
    * As in `geossl.pretrain.simclr`, samples recorded within `near_frames` of each other are no negatives, and the
      others come from the process's own part of the batch.
    * Of each anchor the nearest of FaceNet's semi-hard negatives counts; the paper leaves open which.
    * The weight of N-pair's penalty on lengths is ours.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from geossl.pretrain.heads import mlp, pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions, embedding_health
from geossl.pretrain.metric_losses import contrastive, lifted_structured, n_pair, semi_hard, triplet
from geossl.pretrain.pairs import moments
from geossl.pretrain.views import Views, draw_view
from geossl.types import Batch, Objective

LENGTH_WEIGHT = 1e-3  # of the mean squared length, without which N-pair's cosines are won by growing


class MetricOptions(PretrainingOptions):
    loss: Literal["contrastive", "triplet", "lifted", "n_pair"] = Field(
        "contrastive", description="Of pairs, triplets, a pair and all negatives of both, a view and all others."
    )
    views: Views = Views()
    hidden: int = Field(512, ge=1, description="Of the head.")
    dim: int = Field(128, ge=1, description="Of the embedding.")
    near_frames: int = Field(20, ge=0, description="Samples of one recording this close are no negatives.")


class Metric(Pretraining):
    """A classical loss on pooled features behind a two-layer head."""

    Options = MetricOptions

    def __init__(self, options: MetricOptions) -> None:
        super().__init__(options)
        self.head = mlp(self.encoder.channels[-1], options.hidden, options.dim)

    def forward(self, batch: Batch) -> Objective:
        self.require_pairs(batch)
        views = [draw_view(batch.target.image, self.options.views).image for _ in range(2)]
        embedded = self.head(pooled(self.encoder(torch.cat(views)))).float()
        first, second = embedded.chunk(2)
        when = moments(batch.names, embedded.device)
        terms = TERMS[self.options.loss](first, second, when.near(when, self.options.near_frames))
        health = embedding_health(*F.normalize(embedded, dim=1).chunk(2))
        return Objective(terms, {"first": views[0], "second": views[1]}, health)


def of_pairs(first: Tensor, second: Tensor, near: Tensor) -> dict[str, Tensor]:
    """Every first view with every second one."""
    count = len(first)
    itself = torch.eye(count, dtype=torch.bool, device=first.device)
    pairs = first.repeat_interleave(count, 0), second.repeat(count, 1)
    return {"contrastive": contrastive(*pairs, ~itself.flatten(), keep=(itself | ~near).flatten())}


def of_triplets(first: Tensor, second: Tensor, near: Tensor) -> dict[str, Tensor]:
    """Every view as an anchor, with the other view and one of the other samples' views."""
    anchor, positive = torch.cat([first, second]), torch.cat([second, first])
    negative = ~near.repeat(2, 2)
    chosen = semi_hard(anchor, positive, anchor, negative)
    return {"triplet": triplet(anchor, positive, anchor[chosen], keep=negative.any(1))}


def of_lifted_pairs(first: Tensor, second: Tensor, near: Tensor) -> dict[str, Tensor]:
    """All views of the batch."""
    labels = torch.arange(len(first), device=first.device).repeat(2)
    return {"lifted": lifted_structured(torch.cat([first, second]), labels, excluded=near.repeat(2, 2))}


def of_n_pairs(first: Tensor, second: Tensor, near: Tensor) -> dict[str, Tensor]:
    """First views as anchors among the second ones, and a penalty on lengths."""
    length = torch.cat([first, second]).square().sum(1).mean()
    return {"n_pair": n_pair(first, second, near), "length": LENGTH_WEIGHT * length}


TERMS = {"contrastive": of_pairs, "triplet": of_triplets, "lifted": of_lifted_pairs, "n_pair": of_n_pairs}
"""Embeddings (B, D) of first and second views, and (B, B) bool which samples show the same -> terms of the loss."""
