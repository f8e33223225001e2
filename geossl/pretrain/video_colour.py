"""Video colourisation: a grey frame takes its colours from another frame, by attention that is a soft flow field.

Source: Vondrick, Shrivastava, Fathi, Guadarrama, Murphy: Tracking emerges by colorizing videos, ECCV 2018.
https://arxiv.org/abs/1806.09594

Differs:
    * Colours are clustered in each batch's reference frames by k-means from a fixed start, instead of once for the
      data set: nothing has to be fitted first.
    * References are the batch's sources (paper: three frames before), and the encoder sees whole images of any size.
    * The encoder's three channels are all the grey image. It needs colour cameras (KITTI's image_02 and image_03).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from kornia.color import rgb_to_lab
from pydantic import Field
from torch import Tensor

from geossl.appearance import grey
from geossl.geometry.pixels import pixel_grid_like
from geossl.geometry.precision import float32_island
from geossl.geometry.transforms import area_mean
from geossl.pretrain.heads import DenseHead
from geossl.pretrain.method import Pretraining, PretrainingOptions
from geossl.types import Batch, Objective

AB_RANGE = 100.0  # of Lab's a and b, by which they are scaled
ROUNDS = 10  # of k-means


class VideoColourOptions(PretrainingOptions):
    dim: int = Field(64, ge=1, description="Of the features that attend.")
    level: int = Field(2, ge=0, le=4, description="Size of their map: 1 is stride 4, 2 stride 8, ...")
    clusters: int = Field(16, ge=2, description="Of the colours.")
    temperature: float = Field(1.0, gt=0, description="Of the attention.")


class VideoColour(Pretraining):
    """Attention over the references' places, and the cross-entropy of the colours that it copies."""

    Options = VideoColourOptions

    def __init__(self, options: VideoColourOptions) -> None:
        super().__init__(options)
        self.head = DenseHead(self.encoder.channels, options.dim, options.level)

    def forward(self, batch: Batch) -> Objective:
        self.require(batch, sources=True)
        frames = [batch.target.image, *(source.image for source in batch.sources)]
        count = len(batch)
        images = torch.cat(frames)
        features = self.head(self.encoder(grey(images).expand_as(images)))
        h, w = features.shape[-2:]
        target, references = features[:count], features[count:].unflatten(0, (-1, count))  # (S, B, dim, h, w)
        attention = soft_flow(target, references, self.options.temperature)  # (B, h w, S h w)

        colours = ab_of(area_mean(images, (h, w))).flatten(2).transpose(1, 2)  # (B + S B, h w, 2)
        known = colours[count:]
        centres = k_means(known.reshape(-1, 2), self.options.clusters)
        label = nearest(colours, centres)  # (B + S B, h w)
        classes = F.one_hot(label[count:], len(centres)).to(attention)  # (S B, h w, clusters)
        classes = classes.unflatten(0, (-1, count)).transpose(0, 1).flatten(1, 2)  # (B, S h w, clusters)
        copied = attention @ classes  # (B, h w, clusters)
        own = label[:count]
        loss = F.nll_loss(copied.clamp_min(1e-6).log().flatten(0, 1), own.flatten())
        right = (copied.argmax(2) == own).float()
        maps = {"target": batch.target.image, "right": right.view(count, 1, h, w)}
        most_common = F.one_hot(own, len(centres)).float().mean((0, 1)).amax()
        return Objective({"colour": loss}, maps, {"accuracy": right.mean(), "most_common": most_common})


@float32_island
def soft_flow(target: Tensor, references: Tensor, temperature: float = 1.0) -> Tensor:
    """How much each place of the target takes from each place of the references.

    Args:
        target: (B, C, h, w) features. references: (S, B, C, h, w). temperature: Of their products.

    Returns:
        (B, h * w, S * h * w), each row summing to 1: softmax over the references' places (eq. 1).
    """
    own = target.flatten(2).transpose(1, 2)  # (B, h w, C)
    others = references.flatten(3).permute(1, 2, 0, 3).flatten(2)  # (B, C, S h w)
    return (own @ others / temperature).softmax(2)


def hard_flow(attention: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h * w, h * w) attention to one reference -> (B, 2, h, w) flow to the most attended place, in its pixels."""
    h, w = size
    place = attention.argmax(2).view(-1, 1, h, w)
    there = torch.cat([place % w, torch.div(place, w, rounding_mode="floor")], 1).to(attention)
    return there - pixel_grid_like(there)


@float32_island
def ab_of(image: Tensor) -> Tensor:
    """(B, 3, h, w) RGB in [0, 1] -> (B, 2, h, w) Lab's a and b, about -1..1."""
    return rgb_to_lab(image)[:, 1:] / AB_RANGE


@torch.no_grad()
def k_means(points: Tensor, clusters: int) -> Tensor:
    """(N, C) -> (clusters, C) centres, after rounds of Lloyd's algorithm from points at even steps of the first norm.

    A cluster that nothing is nearest to keeps its centre.
    """
    order = points.norm(dim=1).argsort()
    centres = points[order[torch.linspace(0, len(points) - 1, clusters, device=points.device).long()]]
    for _ in range(ROUNDS):
        members = F.one_hot(nearest(points, centres), clusters).to(points)  # (N, clusters)
        sizes = members.sum(0)[:, None]
        centres = torch.where(sizes > 0, members.T @ points / sizes.clamp_min(1), centres)
    return centres


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """(..., C) and (K, C) -> (...) int64, the nearest centre of each point."""
    return (points[..., None, :] - centres).square().sum(-1).argmin(-1)
