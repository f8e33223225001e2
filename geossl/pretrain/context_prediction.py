"""Context prediction: of two neighbouring patches, where does the second lie?

Source: Doersch, Gupta, Efros: Unsupervised visual representation learning by context prediction, ICCV 2015.
https://arxiv.org/abs/1505.05192

Differs:
    * Patches are shares of the image's height (paper: 96 px of images of about 300 to 500), gap and jitter shares of
      the patch (48 and 7 of 96).
    * Colours are dropped, not projected; each channel of a patch has one mean and spread.
    * The first patch lies where all eight neighbours would be inside: its place tells nothing of the answer.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from geossl.geometry.pixels import size_of
from geossl.pretrain.anti_shortcut import drop_channels, lower_resolution, standardized, windows
from geossl.pretrain.heads import mlp, pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions, accuracy
from geossl.types import Batch, Objective

DIRECTIONS = ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1))  # (u, v) of the second patch


class ContextOptions(PretrainingOptions):
    patch: float = Field(0.2, gt=0, lt=1, description="Side of a patch, as a share of the image's height.")
    gap: float = Field(0.5, ge=0, description="Between patches, as a share of the patch.")
    jitter: float = Field(0.07, ge=0, description="Greatest shift of the second patch, as a share of the patch.")
    pairs: int = Field(4, ge=1, description="Drawn in each image.")
    drop_channels: float = Field(0.5, ge=0, le=1, description="Probability that a patch keeps one channel.")
    hidden: int = Field(512, ge=1, description="Of the classifier.")

    @model_validator(mode="after")
    def _three_patches_fit(self) -> Self:
        share = self.patch * (3 + 2 * self.gap + 2 * self.jitter)
        if share > 0.95:
            raise ValueError(
                f"three patches and their gaps take {share:.2f} of the image's height; at most 0.95 leaves room to "
                "draw their place: lower patch or gap."
            )
        return self


class ContextPrediction(Pretraining):
    """Eight directions, by the pooled features of both patches."""

    Options = ContextOptions

    def __init__(self, options: ContextOptions) -> None:
        super().__init__(options)
        self.head = mlp(2 * self.encoder.channels[-1], options.hidden, len(DIRECTIONS))

    def forward(self, batch: Batch) -> Objective:
        image, options = batch.target.image, self.options
        first, second, direction = self.draw_pairs(len(batch), size_of(image))
        side = round(options.patch * image.shape[-2])
        patches = windows(image, torch.cat([first, second], 1), (side, side))  # (B, 2 pairs, 3, side, side)
        flat = lower_resolution(drop_channels(patches.flatten(0, 1), options.drop_channels))
        features = pooled(self.encoder(standardized(flat))).unflatten(0, patches.shape[:2])
        both = torch.cat(features.chunk(2, 1), 2).flatten(0, 1)  # (B * pairs, 2 C)
        logits, label = self.head(both).float(), direction.flatten().to(image.device)
        maps = {"target": image, "first": patches[:, 0], "second": patches[:, options.pairs]}
        return Objective({"context": F.cross_entropy(logits, label)}, maps, {"accuracy": accuracy(logits, label)})

    def draw_pairs(self, batch_size: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Corners of the patches, (B, pairs, 2) int64 pixels (u, v) twice, and directions (B, pairs), on the CPU."""
        options, shape = self.options, (batch_size, self.options.pairs)
        side = round(options.patch * size[0])
        step, jitter = side + round(options.gap * side), round(options.jitter * side)
        direction = torch.randint(len(DIRECTIONS), shape)
        reach = step + jitter
        room = [max(1, extent - side - 2 * reach + 1) for extent in (size[1], size[0])]
        first = torch.stack([reach + torch.randint(most, shape) for most in room], 2)
        moved = step * torch.tensor(DIRECTIONS)[direction] + torch.randint(-jitter, jitter + 1, (*shape, 2))
        return first, first + moved, direction
