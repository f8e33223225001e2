"""Dense InfoNCE: each place of an image finds its own place in another view of it, by geometry's correspondence.

Source: Wang, Zhang, Shen, Kong, Li: Dense contrastive learning for self-supervised visual pre-training, CVPR 2021
(DenseCL), eq. 2 and 3, https://arxiv.org/abs/2011.09157; correspondences from known crops as in Pinheiro et al.,
NeurIPS 2020 (VADeR), and from geometry between frames as in Spencer et al., CVPR 2020 (DeFeat-Net).

Differs:
    * Correspondences are geometry's, not the most alike features; places that are hidden are left out.
    * Negatives are the other places of the batch, at least `radius_px` away, instead of a queue; places of samples
      recorded within `near_frames` are none. The same holds for the pooled part.
    * Descriptors sum all of an encoder's features, so that every layer learns where things are.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from geossl.geometry.pixels import sample_at_pixels, size_of
from geossl.geometry.transforms import resize_pixels
from geossl.losses.reduction import share_of
from geossl.methods.teacher import LazyTeacher
from geossl.pretrain.heads import DenseHead, mlp, pooled
from geossl.pretrain.method import Pretraining, PretrainingOptions, embedding_health
from geossl.pretrain.objectives import dense_info_nce, nt_xent
from geossl.pretrain.pairs import FramePair, ViewPair, moments, self_pair, stereo_pair, temporal_pair, view_pair
from geossl.pretrain.views import Views
from geossl.types import Batch, Objective


class DenseOptions(PretrainingOptions):
    views: Views = Views(zoom=(1.0, 1.5), rotation_deg=10.0)
    pairs: Literal["self", "stereo", "temporal"] = Field("self", description="Two views of what frames.")
    teacher: str | None = Field(
        None,
        description="Run folder or model folder of ours that finds the correspondences: depth in metres for stereo; "
        "flow, or depth and motion, for temporal. null: pairs must be self.",
    )
    least_motion_px: float = Field(1.0, ge=0, description="temporal: leave out samples that move less on average.")
    dim: int = Field(64, ge=1, description="Of the descriptors.")
    level: int = Field(1, ge=0, le=4, description="Size of their map: 0 is stride 2, 1 stride 4, ...")
    places: int = Field(128, ge=1, description="Drawn in each image.")
    radius_px: float = Field(8.0, ge=0, description="Nearer places of one image are no negatives.")
    temperature: float = Field(0.2, gt=0)
    dense_weight: float = Field(0.5, ge=0, le=1, description="The rest is for the pooled embedding; 1 goes without.")
    near_frames: int = Field(20, ge=0, description="Samples of one recording this close are no negatives.")

    @model_validator(mode="after")
    def _pairs_need_a_teacher(self) -> Self:
        if self.pairs != "self" and self.teacher is None:
            raise ValueError(f"pairs: {self.pairs} needs `teacher`: a run folder or model folder of ours.")
        return self


class DenseInfoNCE(Pretraining):
    """InfoNCE between places of two views, and between the views as wholes."""

    Options = DenseOptions

    def __init__(self, options: DenseOptions) -> None:
        super().__init__(options)
        self.dense_head = DenseHead(self.encoder.channels, options.dim, options.level)
        if options.dense_weight < 1:
            self.head = mlp(self.encoder.channels[-1], 4 * options.dim, options.dim)
        self.teacher = None if options.teacher is None else LazyTeacher(options.teacher)

    def forward(self, batch: Batch) -> Objective:
        self.require_pairs(batch)
        options = self.options
        pair = view_pair(self.frames(batch), options.views)
        features = self.encoder(torch.cat([pair.first.image, pair.second.image]))
        when = moments(batch.names, batch.target.image.device)
        near = when.near(when, options.near_frames)

        query, key, xy, valid = self.descriptors(pair, self.dense_head(features))
        loss = dense_info_nce(query, key, valid, excluded_places(xy, near, options.radius_px), options.temperature)
        terms = {"dense": options.dense_weight * loss}
        if options.dense_weight < 1:
            first, second = self.head(pooled(features)).float().chunk(2)
            terms["pooled"] = (1 - options.dense_weight) * nt_xent(first, second, options.temperature, near)
        maps = {"first": pair.first.image, "second": pair.second.image, "valid": pair.valid.float()}
        health = embedding_health(*(F.normalize(x, dim=1) for x in (query, key)))
        return Objective(terms, maps, health | {"valid": share_of(valid)})

    def frames(self, batch: Batch) -> FramePair:
        """The frames whose views are compared, and their correspondence."""
        if self.teacher is None:
            return self_pair(batch)
        teacher = self.teacher.on(batch.target.image.device)
        if self.options.pairs == "stereo":
            return stereo_pair(batch, teacher)
        return temporal_pair(batch, teacher, self.options.least_motion_px)

    def descriptors(self, pair: ViewPair, maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Descriptors of places drawn in the first views, and of their correspondences in the second ones.

        Args:
            pair: Of B samples. maps: (2B, dim, h, w), of the first views and then of the second.

        Returns:
            query, key: (B * places, dim). xy: (B, 2, places) pixels of the second views.
            valid: (B * places,) bool.
        """
        size = size_of(pair.xy)
        here = draw_places(len(pair.xy), self.options.places, size).to(pair.xy)  # (B, 2, 1, places)
        xy = sample_at_pixels(pair.xy, here)
        valid = sample_at_pixels(pair.valid.float(), here) > 0.999  # places are pixels, up to rounding
        first, second = maps.chunk(2)
        query, key = (
            sample_at_pixels(x, resize_pixels(places, size, size_of(x))).squeeze(2).transpose(1, 2).flatten(0, 1)
            for x, places in ((first, here), (second, xy))
        )
        return query, key, xy[:, :, 0], valid.flatten()


def draw_places(batch_size: int, count: int, size: tuple[int, int]) -> Tensor:
    """(B, 2, 1, count) pixels (u, v) of images of (height, width), on the CPU, from torch's global generator."""
    u, v = (torch.randint(extent, (batch_size, 1, count)) for extent in (size[1], size[0]))
    return torch.stack([u, v], dim=1)


def excluded_places(xy: Tensor, near: Tensor, radius_px: float) -> Tensor:
    """Which places are no negatives of each other.

    Args:
        xy: (B, 2, N) pixels. near: (B, B) bool, samples that show the same. radius_px: Within one image.

    Returns:
        (B * N, B * N) bool: places of one sample less than the radius apart, and all places of two near samples.
    """
    b, _, n = xy.shape
    places = xy.transpose(1, 2)
    close = torch.cdist(places, places) < radius_px  # (B, N, N)
    itself = torch.eye(b, dtype=torch.bool, device=xy.device)[:, None, :, None]
    whole = near[:, None, :, None].expand(b, n, b, n)
    return torch.where(itself, close[:, :, None], whole).flatten(0, 1).flatten(1)
