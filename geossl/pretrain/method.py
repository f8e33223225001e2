"""What every method of pre-training is: an encoder to hand over, and what learns with it and is thrown away."""

from __future__ import annotations

from abc import ABC
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from geossl.config import Strict
from geossl.methods.method import Method
from geossl.networks.pyramid_encoder import build_any_encoder
from geossl.types import Batch


class PretrainingOptions(Strict):
    encoder: str = Field(
        "resnet18",
        description="resnet18, resnet34, resnet50, compact, timm:NAME; or a network's own: pwclite (ARFlow), pwc "
        "(SelFlow), flownet (UnFlow), raft:large, raft:small, raft:tiny (SMURF), self_mono_sf, dispnet (SfMLearner), "
        "monodepth_resnet50, monodepth_vgg; pwclite:0.25 with a quarter of the channels.",
    )
    encoder_weights: str | None = Field(
        None, description="Where to start from: imagenet, an encoder folder, a file, or null for random."
    )


class Pretraining(Method, ABC):
    """A method whose `encoder` is handed over to depth, pose and flow when it has learned.

    It looks at the clean images and changes them itself, each view in its own way: leave `data.augment.jitter` at 0.
    State that moves with the training (queues, banks, averages of weights) lies in buffers and changes in
    `after_step` only, so that a forward pass can be repeated and a resumed training goes on exactly.
    """

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.encoder = build_any_encoder(options.encoder, options.encoder_weights)

    def require_pairs(self, batch: Batch) -> None:
        """Raises ValueError for a batch of one, which has nothing to be told from."""
        if len(batch) < 2:
            raise ValueError(
                f"{type(self).__name__} tells samples of a batch apart, and this batch has {len(batch)}; raise "
                "train.batch_size to at least 2 a process."
            )


@torch.no_grad()
def embedding_health(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Figures that tell whether embeddings collapsed, for the log.

    Args:
        first, second: (N, D) unit vectors of two views of the same things.

    Returns:
        cosine: Of the pairs, mean; 1 is perfect alignment. spread: Standard deviation of the components times
        sqrt(D), mean; 1 where directions are uniform, 0 where all are the same.
    """
    first, second = first.detach().float(), second.detach().float()
    spread = first.std(0, unbiased=False).mean() * first.shape[1] ** 0.5
    return {"cosine": (first * second).sum(1).mean(), "spread": spread}


@torch.no_grad()
def accuracy(logits: Tensor, label: Tensor) -> Tensor:
    """(N, classes) and (N,) int64 -> () share of the labels that have the greatest logit."""
    return (logits.argmax(1) == label).float().mean()


def check_index(batch: Batch, samples: int) -> None:
    """Raises ValueError if a sample's index is beyond `model.samples`, for methods that keep something of each."""
    if int(batch.index.max()) >= samples:
        raise ValueError(
            f"sample {int(batch.index.max())} is beyond model.samples = {samples}; set it to the data set's length."
        )
