"""Contrastive predictive coding: rows of patches further down are predicted from those above.

Source: van den Oord, Li, Vinyals: Representation learning with contrastive predictive coding, 2018, section 3.3.
https://arxiv.org/abs/1807.03748

Differs:
    * Patches are shares of the whole image, half overlapping, 7 x 7 as in the paper (of 64 px in images of 256).
    * The context of a place is two causal convolutions over its own row and those above (paper: a PixelCNN).
    * Patches of samples recorded within `near_frames` are no negatives.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from geossl.geometry.pixels import size_of
from geossl.pretrain.anti_shortcut import windows
from geossl.pretrain.heads import pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions
from geossl.pretrain.mutual_information import info_nce_of_scores
from geossl.pretrain.pairs import moments
from geossl.types import Batch, Objective

SKIPPED = 1  # rows between, since neighbouring patches overlap


class CPCOptions(PretrainingOptions):
    grid: int = Field(7, ge=3, description="Patches in a row and in a column.")
    rows: int = Field(5, ge=1, description="Rows below that are predicted.")
    dim: int = Field(128, ge=1, description="Of the patches' codes and the context; 1024 in the paper.")
    jitter_px: int = Field(2, ge=0, description="Greatest shift of a patch.")
    near_frames: int = Field(20, ge=0, description="Patches of one recording this close are no negatives.")

    @model_validator(mode="after")
    def _rows_are_there(self) -> Self:
        if self.rows + SKIPPED >= self.grid:
            raise ValueError(f"rows: {self.rows} cannot be predicted in a grid of {self.grid}; at most grid - 2.")
        return self


class CPC(Pretraining):
    """InfoNCE with one bilinear critic for each distance."""

    Options = CPCOptions

    def __init__(self, options: CPCOptions) -> None:
        super().__init__(options)
        self.code = nn.Linear(self.encoder.channels[-1], options.dim)
        self.context = nn.ModuleList(nn.Conv2d(options.dim, options.dim, 3) for _ in range(2))
        self.predict = nn.ModuleList(nn.Conv2d(options.dim, options.dim, 1) for _ in range(options.rows))

    def forward(self, batch: Batch) -> Objective:
        options = self.options
        patches = cut_patches(batch.target.image, options.grid, options.jitter_px)
        codes = self.code(pooled(self.encoder(patches.flatten(0, 1)))).float()  # (B grid^2, dim)
        z = codes.view(len(batch), options.grid, options.grid, -1).movedim(3, 1)  # (B, dim, grid, grid)
        context = self.contexts(z)
        when = moments(batch.names, codes.device)
        near = when.near(when, options.near_frames)
        place = torch.arange(len(codes), device=codes.device).view(z[:, 0].shape)
        losses, right = [], []
        for ahead, predict in enumerate(self.predict, start=1 + SKIPPED):
            found = predict(context[:, :, :-ahead]).movedim(1, 3).flatten(0, 2).float()  # z_hat = W_k c
            own = place[:, ahead:].flatten()
            scores = found @ codes.T
            losses.append(info_nce_of_scores(scores, own, other_near(own, near, options.grid**2)).mean())
            right.append((scores.detach().argmax(1) == own).float().mean())
        terms = {"cpc": torch.stack(losses).mean()}
        return Objective(terms, {"target": batch.target.image}, {"accuracy": torch.stack(right).mean()})

    def contexts(self, z: Tensor) -> Tensor:
        """(B, dim, grid, grid) codes -> (B, dim, grid, grid), row r of rows 0 to r alone."""
        first, second = self.context
        x = F.relu(first(F.pad(z, (1, 1, 2, 0))))
        return second(F.pad(x, (1, 1, 2, 0)))  # type: ignore[no-any-return]


def cut_patches(image: Tensor, grid: int, jitter_px: int) -> Tensor:
    """(B, 3, H, W) -> (B, grid^2, 3, h, w), half overlapping patches row by row, each moved by up to the jitter."""
    h, w = size_of(image)
    step = (h // (grid + 1), w // (grid + 1))
    v, u = torch.meshgrid(torch.arange(grid) * step[0], torch.arange(grid) * step[1], indexing="ij")
    corners = torch.stack([u.flatten(), v.flatten()], 1) + torch.randint(
        -jitter_px, jitter_px + 1, (len(image), grid**2, 2)
    )
    return windows(image, corners, (2 * step[0], 2 * step[1]))


def other_near(own: Tensor, near: Tensor, places: int) -> Tensor:
    """(N, B * places) bool, codes of other samples that are near to the sample of each of (N,) codes."""
    others = near & ~torch.eye(len(near), dtype=torch.bool, device=near.device)
    return others[torch.div(own, places, rounding_mode="floor")].repeat_interleave(places, 1)
