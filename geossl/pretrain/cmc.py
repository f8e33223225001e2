"""Contrastive multiview coding: what different sensors, channels or times see of one scene belongs together.

Source: Tian, Krishnan, Isola: Contrastive multiview coding, ECCV 2020. https://arxiv.org/abs/1906.05849

Views of one scene: `target`, `stereo` (the other camera), `next` (the first source), `lightness` and `colour` (Lab's
L, and a and b), `depth` (predicted by a model of ours).

Differs:
    * One encoder sees all views, since one is handed over (paper: an encoder each); projections are apart.
    * Negatives are the batch's other samples (paper: 16384 of a bank), without those recorded within `near_frames`.
"""

from __future__ import annotations

from itertools import combinations
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from geossl.geometry.affine import affine_image
from geossl.methods.teacher import LazyTeacher
from geossl.pretrain.heads import pooled
from geossl.pretrain.lab import colour_image, lightness_image, to_lab
from geossl.pretrain.method import Pretraining, PretrainingOptions, embedding_health
from geossl.pretrain.mutual_information import across_views
from geossl.pretrain.pairs import moments
from geossl.pretrain.views import draw_crop
from geossl.types import Batch, MissingInput, Objective, PredictsDepth

Seen = Literal["target", "stereo", "next", "lightness", "colour", "depth"]


class CMCOptions(PretrainingOptions):
    see: tuple[Seen, ...] = Field(("lightness", "colour"), min_length=2, description="What belongs together.")
    teacher: str | None = Field(None, description="Run folder or model folder of our depth, where `depth` is seen.")
    zoom: tuple[float, float] = Field((1.0, 2.0), description="Of a crop, the same of all views of a sample.")
    dim: int = Field(128, ge=1, description="Of the embedding.")
    temperature: float = Field(0.07, gt=0)
    near_frames: int = Field(20, ge=0, description="Samples of one recording this close are no negatives.")

    @model_validator(mode="after")
    def _views_can_be_seen(self) -> Self:
        if len(set(self.see)) < len(self.see):
            raise ValueError(f"see: {list(self.see)} names a view twice.")
        if "depth" in self.see and self.teacher is None:
            raise ValueError("see: depth needs `teacher`: a run folder or model folder of our depth.")
        return self


class CMC(Pretraining):
    """Every two views find each other (the paper's full graph)."""

    Options = CMCOptions

    def __init__(self, options: CMCOptions) -> None:
        super().__init__(options)
        channels = self.encoder.channels[-1]
        self.heads = nn.ModuleDict({name: nn.Linear(channels, options.dim) for name in options.see})
        self.teacher = None if options.teacher is None else LazyTeacher(options.teacher)

    def forward(self, batch: Batch) -> Objective:
        self.require_pairs(batch)
        options = self.options
        images = self.views(batch)
        A = draw_crop(len(batch), (batch.target.height, batch.target.width), options.zoom, 0.0)
        views = {name: affine_image(image, A.to(image.device))[0] for name, image in images.items()}
        features = pooled(self.encoder(torch.cat(list(views.values())))).chunk(len(views))
        embedded = {name: self.heads[name](x).float() for name, x in zip(views, features, strict=True)}
        when = moments(batch.names, batch.target.image.device)
        near = when.near(when, options.near_frames)
        terms = {
            f"{a}_{b}": across_views(embedded[a], embedded[b], options.temperature, near)
            for a, b in combinations(options.see, 2)
        }
        first, second = (F.normalize(embedded[name], dim=1) for name in options.see[:2])
        return Objective(terms, views, embedding_health(first, second))

    def views(self, batch: Batch) -> dict[str, Tensor]:
        """What is seen, by name: (B, 3, H, W) in [0, 1] each.

        Raises:
            MissingInput: If the batch, or the teacher, has not what is to be seen.
        """
        see, target = self.options.see, batch.target.image
        self.require(batch, sources="next" in see, stereo="stereo" in see)
        lab = to_lab(target)
        found = {"target": target, "lightness": lightness_image(lab), "colour": colour_image(lab)}
        if batch.stereo is not None:
            found["stereo"] = batch.stereo.image
        if batch.sources:
            found["next"] = batch.sources[0].image
        if "depth" in see:
            found["depth"] = self.depth_image(batch)
        return {name: found[name] for name in see}

    @torch.no_grad()
    def depth_image(self, batch: Batch) -> Tensor:
        """(B, 3, H, W), three times the teacher's inverse depth, as a share of each image's greatest."""
        assert self.teacher is not None
        teacher = self.teacher.on(batch.target.image.device)
        if not isinstance(teacher, PredictsDepth):
            raise MissingInput(f"see: depth needs a teacher of depth, and {type(teacher).__name__} predicts none.")
        inverse = 1 / teacher.predict_depth(batch.target.image, batch.target.K)
        return (inverse / inverse.amax((2, 3), keepdim=True)).expand(-1, 3, -1, -1)
