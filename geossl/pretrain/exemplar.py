"""Exemplar: a patch of every sample is a class of its own, to be known again however it is changed.

Source: Dosovitskiy, Springenberg, Riedmiller, Brox: Discriminative unsupervised feature learning with exemplar
convolutional neural networks, NeurIPS 2014. https://arxiv.org/abs/1406.6909

Differs:
    * One patch a sample, at a place that the sample's index decides (paper: where gradients are strong).
    * Changes are drawn anew each time (paper: about 100 a patch, made before).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from geossl.geometry.pixels import size_of
from geossl.pretrain.anti_shortcut import windows
from geossl.pretrain.heads import pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions, accuracy, check_index
from geossl.pretrain.views import Views, draw_view
from geossl.types import Batch, Objective


class ExemplarOptions(PretrainingOptions):
    samples: int = Field(description="Of the data set; `geossl check CONFIG` counts them.", ge=1)
    views: Views = Views(zoom=(0.8, 1.5), rotation_deg=20.0)
    patch: float = Field(1 / 3, gt=0, le=1, description="Side of a patch, as a share of the image's height.")
    changes: int = Field(2, ge=1, description="Of each patch in a step.")


class Exemplar(Pretraining):
    """As many classes as samples, by the pooled features of a changed patch."""

    Options = ExemplarOptions

    def __init__(self, options: ExemplarOptions) -> None:
        super().__init__(options)
        self.head = nn.Linear(self.encoder.channels[-1], options.samples)

    def forward(self, batch: Batch) -> Objective:
        options = self.options
        check_index(batch, options.samples)
        patch = own_patch(batch.target.image, batch.index, options.patch)
        changed = draw_view(patch.repeat(options.changes, 1, 1, 1), options.views).image
        logits, label = self.head(pooled(self.encoder(changed))).float(), batch.index.repeat(options.changes)
        maps = {"patch": patch, "changed": changed[: len(batch)]}
        return Objective({"exemplar": F.cross_entropy(logits, label)}, maps, {"accuracy": accuracy(logits, label)})


def own_patch(image: Tensor, index: Tensor, share: float) -> Tensor:
    """The patch of each sample that is its class.

    Args:
        image: (B, C, H, W). index: (B,) int64, each sample's; decides the place alone.
        share: Side of the patch, as a share of the height.

    Returns:
        (B, C, S, S).
    """
    h, w = size_of(image)
    side = min(max(1, round(share * h)), w)
    room = torch.tensor([w - side + 1, h - side + 1])
    places = torch.stack([torch.rand(2, generator=torch.Generator().manual_seed(i)) for i in index.tolist()])
    return windows(image, (places * room).long()[:, None], (side, side))[:, 0]
