"""Instance discrimination: every sample is a class of its own, whose weight is what was last seen of it.

Source: Wu, Xiong, Yu, Lin: Unsupervised feature learning via non-parametric instance discrimination, CVPR 2018.
https://arxiv.org/abs/1805.01978

Differs:
    * As much noise is drawn as there are samples at most, with replacement: more would hide the data in a small set.
    * Z is a constant once every sample was seen, see `memory.Partition` (released code: from the first batch on).
    * Samples of one street are told apart too: the method's classes are samples, by definition.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from geossl.pretrain.heads import pooled
from geossl.pretrain.memory import Partition, SampleBank
from geossl.pretrain.method import Pretraining, PretrainingOptions, check_index, embedding_health
from geossl.pretrain.objectives import instance_logits, nce
from geossl.pretrain.views import Views, draw_view
from geossl.types import Batch, Objective


class InstanceOptions(PretrainingOptions):
    samples: int = Field(description="Of the data set; `geossl check CONFIG` counts them.", ge=1)
    loss: Literal["nce", "softmax"] = Field("nce", description="A sample against drawn noise, or against all others.")
    views: Views = Views()
    dim: int = Field(128, ge=1, description="Of the embedding.")
    temperature: float = Field(0.07, gt=0)
    noise: int = Field(4096, ge=1, description="Samples that nce draws for each; `samples` at most.")
    bank_momentum: float = Field(0.5, ge=0, lt=1)
    proximal_weight: float = Field(30.0, ge=0, description="Of the distance from what the bank holds of a sample.")


class InstanceDiscrimination(Pretraining):
    """A view finds its sample in a bank of all of them, and a pull holds it to the sample's own past."""

    Options = InstanceOptions

    def __init__(self, options: InstanceOptions) -> None:
        super().__init__(options)
        self.head = nn.Linear(self.encoder.channels[-1], options.dim)
        self.bank = SampleBank(options.samples, options.dim, options.bank_momentum)
        self.partition = Partition(options.samples) if options.loss == "nce" else None
        self._fresh: tuple[Tensor, Tensor] | None = None
        self._estimate: Tensor | None = None

    def forward(self, batch: Batch) -> Objective:
        options = self.options
        check_index(batch, options.samples)
        view = draw_view(batch.target.image, options.views).image
        found = F.normalize(self.head(pooled(self.encoder(view))).float(), dim=1)
        bank = self.bank.vectors.clone()
        own = bank[batch.index]
        logits = instance_logits(found, bank, options.temperature)  # (B, samples) log of P, up to log Z
        if self.partition is None:
            loss = F.cross_entropy(logits, batch.index)  # eq. 2 and 3
        else:
            drawn = draw_noise(logits, options.noise)
            self._estimate = log_partition(drawn.detach(), options.samples)
            loss = against_noise(logits, batch.index, drawn, self.partition(self._estimate))
        terms = {
            options.loss: loss,
            "proximal": options.proximal_weight * (found - own).square().sum(1).mean(),  # eq. 9
        }
        self._fresh = batch.index, found.detach()
        return Objective(terms, {"view": view}, embedding_health(found, own))

    @torch.no_grad()
    def after_step(self) -> None:
        """The bank takes in what this step saw of its samples, and so does their normaliser."""
        if self._fresh is None:
            return
        index, found = self._fresh
        self.bank.update(index, found)
        if self.partition is not None and self._estimate is not None:
            self.partition.after_step(self._estimate, len(index))
        self._fresh = self._estimate = None


def draw_noise(logits: Tensor, count: int) -> Tensor:
    """(B, n) -> (B, m) of each row, drawn uniformly and with replacement; m = min(count, n)."""
    samples = logits.shape[1]
    drawn = torch.randint(samples, (len(logits), min(count, samples)))
    return logits.gather(1, drawn.to(logits.device))


def log_partition(noise: Tensor, samples: int) -> Tensor:
    """(B, m) logits of uniform noise -> () log Z, Z = (n / m) sum e^logit in the mean over the batch, n = `samples`.

    Source: Wu et al., CVPR 2018, eq. 8.
    """
    return noise.flatten().logsumexp(0) + math.log(samples / noise.numel())


def against_noise(logits: Tensor, own: Tensor, noise: Tensor, log_partition: Tensor) -> Tensor:
    """How hard samples are to tell from uniform noise by P = e^logit / Z.

    Args:
        logits: (B, n) of all samples. own: (B,) int64, which is the right one.
        noise: (B, m) logits of noise samples.
        log_partition: () log Z.

    Returns:
        () mean of -log h(own) - sum over the noise of log(1 - h), h = P / (P + m / n).

    Source: Wu et al., CVPR 2018, eq. 6 and 7.
    """
    base = log_partition - math.log(logits.shape[1])  # log P - log P_noise = logit - base, P_noise = 1 / n
    data = logits.gather(1, own[:, None])[:, 0]
    return nce(data - base, noise.flatten() - base, noise.shape[1])
