"""ARFlow: optical flow that is asked to agree with itself on images made harder (learning by analogy).

Source: Liu, Zhang, He, Liu, Wang, Tai, Luo, Wang, Li, Huang: Learning by analogy: reliable supervision from
transformations for unsupervised optical flow estimation, CVPR 2020. https://arxiv.org/abs/2003.13045

Differs:
    * Errors are masked after the comparison (released: images are multiplied by the mask before, which draws edges),
      and averaged over the visible pixels of both directions together.
    * Pixels whose flow leaves the image count as hidden under the range map too.
    * SSIM mirrors the image at its border, where the released code leaves one pixel out.
    * The student's affine maps are drawn once, and what they take from outside the image is left out (released: drawn
      again until all is inside); mirroring is left to the data's augmentation, for teacher and student alike.
    * Schedules are shares of the training, so that they shorten with it.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from geossl.config import Strict
from geossl.geometry.affine import (
    ARFLOW_KITTI,
    ARFLOW_SINTEL,
    affine_flow,
    affine_image,
    affine_visible,
    draw_affine_pair,
)
from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import area_mean
from geossl.geometry.visibility import visible_pair
from geossl.geometry.warping import warp_by_flow
from geossl.losses.census import census_map
from geossl.losses.photometric import photometric_map
from geossl.losses.reduction import masked_mean, unless_hidden
from geossl.losses.smoothness import edge_aware_second_order, edge_aware_smoothness, mean_of
from geossl.methods.augmentation import ARFLOW_KITTI_APPEARANCE, ARFLOW_SINTEL_APPEARANCE, vary_appearance
from geossl.methods.flow import PairFlow, both_ways, flow_health
from geossl.networks.pwclite import PWCLite
from geossl.networks.pyramid_encoder import load_pyramid
from geossl.types import Batch, Objective

TRANSFORMATIONS = {
    "kitti": (ARFLOW_KITTI, ARFLOW_KITTI_APPEARANCE),
    "sintel": (ARFLOW_SINTEL, ARFLOW_SINTEL_APPEARANCE),
}


class ARFlowOptions(Strict):
    width: float = Field(1.0, gt=0, description="Factor of the network's channels; 1 is the paper's.")
    encoder_weights: str | None = Field(
        None, description="Of the feature pyramid: the encoder folder of a pre-training with encoder pwclite."
    )
    normalize_costs: bool = Field(
        False, description="Standardise features before they are correlated, and each pixel's costs, to learn sooner."
    )
    level_weights: tuple[float, float, float, float, float] = Field(
        (1.0, 1.0, 1.0, 1.0, 0.0),
        description="Photometric weights of the flows at 1, 1/2, 1/4, 1/8, 1/16 of the size.",
    )
    ssim_weight: float = Field(0.85, ge=0, le=1, description="Against L1, until the census sets in.")
    census_from: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of the training after which a 3x3 census replaces SSIM and L1 (50,000 of 1,000,000 steps).",
    )
    check_from: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the training after which the forward-backward check replaces the range map; null: when "
        "the census sets in, as published. A short training leaves flows so inexact that the check hides everything.",
    )
    range_threshold: float = Field(0.2, ge=0, description="Of the range map that finds visible pixels at first.")
    smoothness: float = Field(75.0, ge=0, description="At full size; 75 for KITTI, 50 for Sintel.")
    smoothness_order: Literal[1, 2] = Field(
        2, description="Differences that are penalised: 2 for KITTI, 1 for Sintel."
    )
    smoothness_edge: float = Field(10.0, ge=0, description="Of exp(-edge |dI|).")
    transformation: Literal["kitti", "sintel"] = Field("kitti", description="The student's transformations.")
    augmentation: float = Field(
        0.02, ge=0, description="Weight of the student's term; 0.02 for KITTI, 0.01 for Sintel."
    )
    augmentation_from: float = Field(0.05, ge=0, le=1, description="Share of the training after which it sets in.")

    @model_validator(mode="after")
    def _compares_some_level(self) -> Self:
        if min(self.level_weights) < 0 or max(self.level_weights) == 0:
            raise ValueError(f"level_weights are {list(self.level_weights)}; expected none below 0, and one above.")
        return self


class ARFlow(PairFlow):
    """PWC-Lite, a photometric term with visibility, and a second pass that learns from the first."""

    Options = ARFlowOptions

    def __init__(self, options: ARFlowOptions) -> None:
        super().__init__(options)
        self.network = PWCLite(options.width, options.normalize_costs)
        load_pyramid(self.network, options.encoder_weights, "pwclite")

    def flows(self, first: Tensor, second: Tensor) -> list[Tensor]:
        return self.network(first, second)  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> Objective:
        images, others = both_ways(*self.pair(batch))
        jittered = batch.target.jittered, batch.sources[0].jittered
        flows = self.flows(*both_ways(*jittered))
        flow, visible = flows[0], self.visible(flows[0])

        photometric = []
        for level_flow, weight in zip(flows, self.options.level_weights, strict=True):
            if weight > 0:
                photometric.append(weight * self.photometric(images, others, level_flow, visible))
        terms = {
            "photometric": unless_hidden(torch.stack(photometric).sum(), visible),
            "smoothness": self.options.smoothness * self.roughness(images, flow),
        }
        if self.progress >= self.options.augmentation_from and self.options.augmentation > 0:
            count = len(batch)
            terms["augmentation"] = self.options.augmentation * self.augmentation(
                *jittered, flow[:count].detach(), visible[:count]
            )
        return Objective(terms, *self.shown(images, others, flow, visible))

    def visible(self, flow: Tensor) -> Tensor:
        """(2B, 2, H, W) both directions -> (2B, 1, H, W) bool, what the photometric term compares (section 3.3)."""
        check_from = self.options.census_from if self.options.check_from is None else self.options.check_from
        pair = visible_pair(
            "forward_backward" if self.progress >= check_from else "range_map",
            *flow.chunk(2),
            range_threshold=self.options.range_threshold,
        )
        return torch.cat(pair)

    def photometric(self, images: Tensor, others: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
        """() mean error of the other images, warped at the flow's size, over what is visible (eq. 2)."""
        size = size_of(flow)
        images, others = (area_mean(x, size) for x in (images, others))
        warped, _ = warp_by_flow(others, flow)
        error, valid = self.error(images, warped)
        seen = F.interpolate(visible.float(), size, mode="nearest-exact") > 0
        return masked_mean(error, seen & valid)

    def error(self, image: Tensor, warped: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W) photometric error and where it is defined: SSIM and L1 at first, then the 3x3 census."""
        if self.progress >= self.options.census_from:
            return census_map(image, warped, radius=1, reduction="mean")
        error = photometric_map(image, warped, self.options.ssim_weight)
        return error, torch.ones_like(error, dtype=torch.bool)

    def roughness(self, images: Tensor, flow: Tensor) -> Tensor:
        """() edge-aware differences of the flow, as a share of the image's shorter side (eq. 3)."""
        share = flow / min(size_of(flow))
        if self.options.smoothness_order == 2:
            maps = edge_aware_second_order(share, images, self.options.smoothness_edge, image_stride=1)
        else:
            maps = edge_aware_smoothness(share, images, self.options.smoothness_edge)
        return mean_of(maps) / 2

    def augmentation(self, first: Tensor, second: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
        """() distance of the transformed images' flow from the transformed flow, where that was visible (eq. 6).

        Args:
            first, second: (B, 3, H, W), what the first pass saw.
            flow: (B, 2, H, W) of the first pass, detached: the teacher. visible: (B, 1, H, W) bool.
        """
        limits, appearance = TRANSFORMATIONS[self.options.transformation]
        count, size = first.shape[0], size_of(first)
        A_first, A_second = (A.to(first.device) for A in draw_affine_pair(count, size, limits))
        mapped = [affine_image(image, A)[0] for image, A in ((first, A_first), (second, A_second))]
        student = self.flows(*vary_appearance(mapped, appearance))[0]
        teacher = affine_flow(flow, A_first, A_second)
        return masked_mean((student - teacher).abs(), affine_visible(visible, A_first))

    @torch.no_grad()
    def shown(
        self, images: Tensor, others: Tensor, flow: Tensor, visible: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Maps of the forward direction to show, and figures of both for the log."""
        warped, _ = warp_by_flow(others, flow)
        error, valid = self.error(images, warped)
        unwarped, _ = self.error(images, others)
        health = flow_health(flow, visible)
        health |= {
            "photometric": masked_mean(error, visible & valid),
            "identity_photometric": masked_mean(unwarped, visible & valid),
        }
        count = len(images) // 2
        maps = {"target": images, "warped": warped, "visible": visible.float(), "error": error, "flow": flow.detach()}
        return {name: x[:count] for name, x in maps.items()}, health
