"""MoCo: a view finds the other among a queue of keys, which a slowly moving copy of the encoder made.

Source: He, Fan, Wu, Xie, Girshick: Momentum contrast for unsupervised visual representation learning, CVPR 2020,
https://arxiv.org/abs/1911.05722 (version 1), and Chen, Fan, Girshick, He: Improved baselines with momentum contrastive
learning, 2020, https://arxiv.org/abs/2003.04297 (version 2, the defaults). Version 1 is `mlp: false`,
`temperature: 0.07` and `views: {blur_px: 0}`.

Differs:
    * Keys are shuffled within a process, whose batch norm works in `batchnorm_splits` groups, not over processes.
    * The optimiser is `train.optimizer` (papers: SGD); the queue is for data sets of thousands, not millions.
    * Keys recorded within `near_frames` of a query are no negatives: in driving they show the same street.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from geossl.networks.blocks import Encoder
from geossl.pretrain.heads import mlp, pooled
from geossl.pretrain.memory import Ema, KeyQueue
from geossl.pretrain.method import Pretraining, PretrainingOptions, embedding_health
from geossl.pretrain.objectives import info_nce
from geossl.pretrain.pairs import Moments, moments
from geossl.pretrain.split_batchnorm import shuffled, split_batchnorm
from geossl.pretrain.views import Views, draw_view
from geossl.types import Batch, Objective


class MoCoOptions(PretrainingOptions):
    views: Views = Views()
    mlp: bool = Field(True, description="Head of two layers (version 2) instead of one.")
    dim: int = Field(128, ge=1, description="Of the embedding.")
    temperature: float = Field(0.2, gt=0)
    queue: int = Field(4096, ge=1, description="Keys; 65536 for ImageNet's 1.3 million images.")
    momentum: float = Field(0.999, ge=0, le=1, description="Of the keys' encoder.")
    batchnorm_splits: int = Field(1, ge=1, description="Groups of a batch in which batch norm works.")
    near_frames: int = Field(20, ge=0, description="Keys of one recording this close are no negatives.")


class Embedder(nn.Module):
    """Encoder, pooling and head, together: what the moving average is taken of."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, dim) unit vectors, float32."""
        return F.normalize(self.head(pooled(self.encoder(images))).float(), dim=1)


class MoCo(Pretraining):
    """InfoNCE against a queue."""

    Options = MoCoOptions

    def __init__(self, options: MoCoOptions) -> None:
        super().__init__(options)
        channels = self.encoder.channels[-1]
        self.head = mlp(channels, channels, options.dim, False) if options.mlp else nn.Linear(channels, options.dim)
        split_batchnorm(self.encoder, options.batchnorm_splits)
        self.key_encoder = Ema(self.online)
        self.queue = KeyQueue(options.queue, options.dim)
        self._fresh: tuple[Tensor, Moments] | None = None

    @property
    def online(self) -> Embedder:
        """What learns by gradients, and is handed over without its head."""
        return Embedder(self.encoder, self.head)

    def forward(self, batch: Batch) -> Objective:
        query_view, key_view = (draw_view(batch.target.image, self.options.views).image for _ in range(2))
        query, key = self.online(query_view), shuffled(self.key_encoder, key_view)
        when = moments(batch.names, query.device)
        near = when.near(self.queue.moments, self.options.near_frames)
        # A copy: the queue moves on before another forward pass, and the gradient needs what this one saw.
        losses = info_nce(query, key, self.queue.keys.clone(), self.options.temperature, near)
        self._fresh = key, when
        return Objective(
            {"contrast": losses.mean()}, {"query": query_view, "key": key_view}, embedding_health(query, key)
        )

    @torch.no_grad()
    def after_step(self) -> None:
        """The keys' encoder follows, and the queue takes in the keys that this step made."""
        self.key_encoder.follow(self.online, self.options.momentum)
        if self._fresh is not None:
            self.queue.push(*self._fresh)
            self._fresh = None
