"""Instance discrimination: every sample is a class of its own, whose weight is what was last seen of it.

Source: Wu, Xiong, Yu, Lin: Unsupervised feature learning via non-parametric instance discrimination, CVPR 2018.
https://arxiv.org/abs/1805.01978

Differs:
    * The partition function is estimated from each batch's noise, eq. 7, instead of from the first batch's for good.
    * Samples of one street are told apart too: the method's classes are samples, by definition.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from geossl.pretrain.heads import pooled
from geossl.pretrain.memory import SampleBank
from geossl.pretrain.method import Pretraining, PretrainingOptions, check_index, embedding_health
from geossl.pretrain.objectives import instance_logits, nce
from geossl.pretrain.views import Views, draw_view
from geossl.types import Batch, Objective


class InstanceOptions(PretrainingOptions):
    samples: int = Field(description="Of the data set; `geossl check CONFIG` counts them.", ge=1)
    views: Views = Views()
    dim: int = Field(128, ge=1, description="Of the embedding.")
    temperature: float = Field(0.07, gt=0)
    noise: int = Field(4096, ge=1, description="Samples drawn as noise, with replacement.")
    bank_momentum: float = Field(0.5, ge=0, lt=1)
    proximal_weight: float = Field(30.0, ge=0, description="Of the distance from what the bank holds of a sample.")


class InstanceDiscrimination(Pretraining):
    """NCE against a bank of all samples, and a pull towards each sample's own past."""

    Options = InstanceOptions

    def __init__(self, options: InstanceOptions) -> None:
        super().__init__(options)
        self.head = nn.Linear(self.encoder.channels[-1], options.dim)
        self.bank = SampleBank(options.samples, options.dim, options.bank_momentum)
        self._fresh: tuple[Tensor, Tensor] | None = None

    def forward(self, batch: Batch) -> Objective:
        options = self.options
        check_index(batch, options.samples)
        view = draw_view(batch.target.image, options.views).image
        found = F.normalize(self.head(pooled(self.encoder(view))).float(), dim=1)
        bank = self.bank.vectors.clone()
        own = bank[batch.index]
        logits = instance_logits(found, bank, options.temperature)  # (B, samples) log of P, up to log Z
        drawn = torch.randint(options.samples, (len(batch), options.noise)).to(view.device)
        noise = logits.gather(1, drawn)
        log_mean = noise.detach().flatten().logsumexp(0) - math.log(noise.numel())  # eq. 7: Z = n times this mean
        # P_noise = 1 / n, so log P - log P_noise = logit - log Z + log n = logit - log_mean.
        data = logits.gather(1, batch.index[:, None])[:, 0]
        terms = {
            "nce": nce(data - log_mean, (noise - log_mean).flatten(), options.noise),
            "proximal": options.proximal_weight * (found - own).square().sum(1).mean(),  # eq. 9
        }
        self._fresh = batch.index, found.detach()
        return Objective(terms, {"view": view}, embedding_health(found, own))

    @torch.no_grad()
    def after_step(self) -> None:
        """The bank takes in what this step saw of its samples."""
        if self._fresh is not None:
            self.bank.update(*self._fresh)
            self._fresh = None
