"""Tracking: a patch, and what the flow says it became, look more alike than other patches do.

Source: Wang, Gupta: Unsupervised learning of visual representations using videos, ICCV 2015.
https://arxiv.org/abs/1505.00687

Differs:
    * Tracks are followed by a flow model of ours, forth and back, over one step of the data's offsets (paper: KCF over
      30 frames): `data.source_offsets: [5]` looks further, as far as the teacher reaches.
    * All patches of other recordings or times in the batch are negatives, in the mean (paper: random ones first, then
      the four hardest).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from geossl.geometry.pixels import sample_at_pixels, size_of
from geossl.losses.reduction import share_of
from geossl.methods.teacher import LazyTeacher
from geossl.pretrain.anti_shortcut import windows
from geossl.pretrain.dense_infonce import draw_places
from geossl.pretrain.heads import mlp, pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions, embedding_health
from geossl.pretrain.mutual_information import margin_ranking
from geossl.pretrain.pairs import moments, temporal_pair
from geossl.types import Batch, Objective


class TrackingOptions(PretrainingOptions):
    teacher: str = Field(description="Run folder or model folder of our flow, or depth and motion.")
    least_motion_px: float = Field(1.0, ge=0, description="Leave out samples that move less on average.")
    patch: float = Field(0.25, gt=0, le=1, description="Side of a patch, as a share of the image's height.")
    places: int = Field(8, ge=1, description="Patches of each image.")
    margin: float = Field(0.5, gt=0)
    hidden: int = Field(512, ge=1, description="Of the head.")
    dim: int = Field(128, ge=1, description="Of the embedding; 1024 in the paper.")
    near_frames: int = Field(20, ge=0, description="Patches of one recording this close are no negatives.")


class Tracking(Pretraining):
    """Ranking by cosine of the ends of tracks."""

    Options = TrackingOptions

    def __init__(self, options: TrackingOptions) -> None:
        super().__init__(options)
        self.head = mlp(self.encoder.channels[-1], options.hidden, options.dim)
        self.teacher = LazyTeacher(options.teacher)

    def forward(self, batch: Batch) -> Objective:
        self.require_pairs(batch)
        options = self.options
        pair = temporal_pair(batch, self.teacher.on(batch.target.image.device), options.least_motion_px)
        here = draw_places(len(batch), options.places, size_of(pair.xy)).to(pair.xy)  # (B, 2, 1, places)
        there = sample_at_pixels(pair.xy, here)
        valid = (sample_at_pixels(pair.valid.float(), here) > 0.999).flatten()

        side = max(1, round(options.patch * size_of(pair.xy)[0]))
        ends = torch.cat([patches_at(pair.first, here, side), patches_at(pair.second, there, side)])
        first, last = F.normalize(self.head(pooled(self.encoder(ends.flatten(0, 1)))).float(), dim=1).chunk(2)
        when = moments(batch.names, valid.device)
        near = when.near(when, options.near_frames) | torch.eye(len(batch), dtype=torch.bool, device=valid.device)
        negative = ~near.repeat_interleave(options.places, 0).repeat_interleave(options.places, 1)
        loss = margin_ranking(first, last, valid, negative, options.margin)
        maps = {"first": ends[: len(batch), 0], "last": ends[len(batch) :, 0]}
        return Objective({"tracking": loss}, maps, embedding_health(first, last) | {"valid": share_of(valid)})


def patches_at(image: Tensor, places: Tensor, side: int) -> Tensor:
    """(B, C, H, W) and centres (B, 2, 1, N) pixels (u, v) -> (B, N, C, side, side), border repeated."""
    corners = (places.squeeze(2).transpose(1, 2) - (side - 1) / 2).round().long()
    return windows(image, corners, (side, side))
