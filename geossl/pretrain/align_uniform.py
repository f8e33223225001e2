"""Alignment and uniformity: views of one image draw together, all images spread over the sphere.

Source: Wang & Isola: Understanding contrastive representation learning through alignment and uniformity on the
hypersphere, ICML 2020. https://arxiv.org/abs/2005.10242

Differs: as `geossl.pretrain.simclr`, but nothing is left out of the uniformity: a few samples of one street among many
only shift what "spread" means.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field

from geossl.pretrain.heads import mlp, pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions, embedding_health
from geossl.pretrain.objectives import alignment, uniformity
from geossl.pretrain.views import Views, draw_view
from geossl.types import Batch, Objective


class AlignUniformOptions(PretrainingOptions):
    views: Views = Views()
    hidden: int = Field(512, ge=1, description="Of the head.")
    dim: int = Field(128, ge=1, description="Of the embedding.")
    align_weight: float = Field(1.0, ge=0)
    uniform_weight: float = Field(1.0, ge=0)
    align_exponent: float = Field(2.0, gt=0)
    uniform_t: float = Field(2.0, gt=0)


class AlignUniform(Pretraining):
    """Both losses on pooled features behind a two-layer head."""

    Options = AlignUniformOptions

    def __init__(self, options: AlignUniformOptions) -> None:
        super().__init__(options)
        self.head = mlp(self.encoder.channels[-1], options.hidden, options.dim)

    def forward(self, batch: Batch) -> Objective:
        self.require_pairs(batch)
        options = self.options
        views = [draw_view(batch.target.image, options.views).image for _ in range(2)]
        embedded = self.head(pooled(self.encoder(torch.cat(views)))).float()
        first, second = F.normalize(embedded, dim=1).chunk(2)
        spread = (uniformity(first, options.uniform_t) + uniformity(second, options.uniform_t)) / 2
        terms = {
            "align": options.align_weight * alignment(first, second, options.align_exponent),
            "uniform": options.uniform_weight * spread,
        }
        return Objective(terms, {"first": views[0], "second": views[1]}, embedding_health(first, second))
