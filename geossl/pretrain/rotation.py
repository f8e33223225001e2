"""Rotation: by how many quarters was the image turned?

Source: Gidaris, Singh, Komodakis: Unsupervised representation learning by predicting image rotations, ICLR 2018.
https://arxiv.org/abs/1803.07728

In driving the sky is up: the task is soon solved, and teaches little. On things that look the same when they are
turned it teaches nothing.

Differs: a square is cut out of each image, anywhere, as images are wider than high.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.geometry.pixels import size_of
from geossl.pretrain.anti_shortcut import windows
from geossl.pretrain.heads import pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions, accuracy
from geossl.types import Batch, Objective

TURNS = 4


class Rotation(Pretraining):
    """Four turns of every image in one batch, told apart by pooled features."""

    Options = PretrainingOptions

    def __init__(self, options: PretrainingOptions) -> None:
        super().__init__(options)
        self.head = nn.Linear(self.encoder.channels[-1], TURNS)

    def forward(self, batch: Batch) -> Objective:
        turned = all_turns(draw_square(batch.target.image))
        logits = self.head(pooled(self.encoder(turned))).float()
        label = torch.arange(TURNS, device=logits.device).repeat_interleave(len(batch))
        maps = {"turned": turned.unflatten(0, (TURNS, -1))[1]}
        return Objective({"rotation": F.cross_entropy(logits, label)}, maps, {"accuracy": accuracy(logits, label)})


def draw_square(image: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, S, S), the largest square, each anywhere in its image; S = min(H, W)."""
    h, w = size_of(image)
    side = min(h, w)
    corners = torch.stack([torch.randint(extent - side + 1, (len(image), 1)) for extent in (w, h)], 2)
    return windows(image, corners, (side, side))[:, 0]


def all_turns(image: Tensor) -> Tensor:
    """(B, C, S, S) -> (4 B, C, S, S): all images as they are, then all turned by one quarter, two and three."""
    return torch.cat([torch.rot90(image, quarters, (2, 3)) for quarters in range(TURNS)])
