"""The order of frames: is it that of the recording? Does time go forwards?

Source of `FrameOrder`: Misra, Zitnick, Hebert: Shuffle and learn: unsupervised learning using temporal order
verification, ECCV 2016, https://arxiv.org/abs/1603.08561. Source of `ArrowOfTime`: Wei, Lim, Zisserman, Freeman:
Learning and using the arrow of time, CVPR 2018.

In driving, the arrow of time is whether the picture expands: soon solved, a check that training works rather than a
way to learn much. Where the camera stands there is no order, and nothing is learned.

Differs:
    * Frames are the samples' own, one step apart, instead of drawn from windows of the strongest motion; samples whose
      frames differ by less than `least_change` are left out.
    * The arrow is told from two images (paper: from their flow), by convolutions over both features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from geossl.pretrain.heads import mlp, pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions
from geossl.types import Batch, MissingInput, Objective

ORDER_OFFSETS = (-2, -1, 0, 1, 2)  # frames a, b, c, d, e


class OrderOptions(PretrainingOptions):
    hidden: int = Field(512, ge=1, description="Of the classifier.")
    least_change: float = Field(0.01, ge=0, description="Mean difference of the frames, of 1, that counts as motion.")


class FrameOrderOptions(OrderOptions):
    negatives: float = Field(0.75, gt=0, lt=1, description="Share of the triples in a wrong order.")


class FrameOrder(Pretraining):
    """Whether c is between b and d, or a or e was put there."""

    Options = FrameOrderOptions

    def __init__(self, options: FrameOrderOptions) -> None:
        super().__init__(options)
        self.head = mlp(3 * self.encoder.channels[-1], options.hidden, 1)

    def forward(self, batch: Batch) -> Objective:
        self.require_pairs(batch)
        a, b, c, d, e = five_frames(batch)
        share = torch.rand(3, len(batch)).to(c.device)[..., None, None, None]
        wrong, early, back = share[0] < self.options.negatives, share[1] < 0.5, share[2] < 0.5
        middle = torch.where(wrong, torch.where(early, a, e), c)
        shown = torch.where(back, d, b), middle, torch.where(back, b, d)  # an order is right both ways
        features = pooled(self.encoder(torch.cat(shown)))
        logits = self.head(torch.cat(features.chunk(3), 1)).float()[:, 0]
        moves = has_changed(b, d, self.options.least_change)
        return verified(logits, ~wrong.flatten(), moves, {"first": shown[0], "middle": shown[1], "last": shown[2]})


class ArrowOfTime(Pretraining):
    """Whether the first of two frames was the earlier one."""

    Options = OrderOptions

    def __init__(self, options: OrderOptions) -> None:
        super().__init__(options)
        self.mix = nn.Conv2d(2 * self.encoder.channels[-1], options.hidden, 3, padding=1)
        self.head = nn.Linear(options.hidden, 1)

    def forward(self, batch: Batch) -> Objective:
        self.require(batch, sources=True)
        target, source = batch.target.image, batch.sources[0].image
        earlier, later = (target, source) if batch.source_offsets[0] > 0 else (source, target)
        backwards = (torch.rand(len(batch)) < 0.5).to(target.device)
        turn = backwards[:, None, None, None]
        shown = torch.where(turn, later, earlier), torch.where(turn, earlier, later)
        deepest = self.encoder(torch.cat(shown))[-1]
        mixed = F.relu(self.mix(torch.cat(deepest.chunk(2), 1)))
        logits = self.head(mixed.mean((2, 3))).float()[:, 0]
        moves = has_changed(target, source, self.options.least_change)
        return verified(logits, ~backwards, moves, {"first": shown[0], "second": shown[1]})


def five_frames(batch: Batch) -> tuple[Tensor, ...]:
    """(B, 3, H, W) images at time steps -2 to 2.

    Raises:
        MissingInput: If one is not there.
    """
    images = {0: batch.target.image}
    images |= {offset: frame.image for offset, frame in zip(batch.source_offsets, batch.sources, strict=True)}
    missing = [offset for offset in ORDER_OFFSETS if offset not in images]
    if missing:
        raise MissingInput(
            f"FrameOrder needs frames at time steps -2, -1, 1 and 2, but {batch.names[0]} has none at "
            f"{', '.join(map(str, missing))}; set data.source_offsets: [-2, -1, 1, 2]."
        )
    return tuple(images[offset] for offset in ORDER_OFFSETS)


@torch.no_grad()
def has_changed(first: Tensor, second: Tensor, least: float) -> Tensor:
    """(B,) bool, whether (B, 3, H, W) images in [0, 1] differ by `least` on average."""
    return (first - second).abs().float().mean((1, 2, 3)) >= least


def verified(logits: Tensor, right: Tensor, moves: Tensor, maps: dict[str, Tensor]) -> Objective:
    """The cross-entropy of (B,) logits of being right, and their accuracy, where something moves."""
    losses = F.binary_cross_entropy_with_logits(logits, right.float(), reduction="none")
    count = moves.sum().clamp_min(1)
    correct = ((logits.detach() > 0) == right) & moves
    health = {"accuracy": correct.sum() / count, "moving": moves.float().mean()}
    return Objective({"order": losses.where(moves, losses.new_zeros(())).sum() / count}, maps, health)
