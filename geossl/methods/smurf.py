"""SMURF: RAFT without labels, by a loss on every iteration, warps that reach beyond the crop, and self-supervision.

Source: Stone, Maurer, Ayvaci, Angelova, Jonschkowski: SMURF: Self-teaching multi-frame unsupervised RAFT with
full-image warping, CVPR 2021. https://arxiv.org/abs/2105.07014

Differs:
    * Two frames: labels fused from several frames, the paper's last stage, are not made.
    * Batches of any size: every sample has its own crop (released: one sample a replica).
    * Images are resized to the data's size, then cropped; released: also scaled by 2^-0.2 to 2^0.6 and stretched.
    * Colour augmentation is the data's (`jittered`), alike in both images; only what differs between them, and erased
      rectangles, are added here. The released code recolours either both images apart or none.
    * Both directions are averaged over all visible pixels of both together.
    * Schedules are shares of the training, so that they shorten with it.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from geossl.config import Strict
from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import area_mean, resize_flow, resize_image, upsample
from geossl.geometry.visibility import Visibility, visible_pair
from geossl.geometry.warping import warp_by_flow
from geossl.losses.census import PATCH, census_map
from geossl.losses.consistency import forward_backward_residual
from geossl.losses.reduction import masked_mean, mean_over_all, sequence_weights, unless_hidden
from geossl.losses.robust import charbonnier, power_l1
from geossl.losses.smoothness import edge_aware_second_order, edge_aware_smoothness, mean_of
from geossl.methods.augmentation import SMURF_APPEARANCE, erase_rectangles, vary_apart
from geossl.methods.flow import PairFlow, both_ways, flow_health, swapped
from geossl.methods.self_supervision import crop_at, draw_origins, ramp
from geossl.networks.pyramid_encoder import load_pyramid
from geossl.networks.raft import RAFT
from geossl.types import Batch, Objective

TEACHER_SIGMA = 0.003  # of the image's diagonal: forward-backward residual at which a teacher is not believed
STUDENT_SIGMA = 0.03  # and from which a student needs to be taught


class SMURFOptions(Strict):
    network: Literal["large", "small", "tiny"] = Field("large", description="RAFT's size; large is the paper's.")
    encoder_weights: str | None = Field(
        None, description="Of the feature encoder: the encoder folder of a pre-training with encoder raft:SIZE."
    )
    iterations: int = Field(12, ge=1, description="Of RAFT.")
    crop: tuple[int, int] | None = Field(
        (296, 696),
        description="Height and width that the network sees, at most; the warp reaches the whole image. Null: all.",
    )
    scales: int = Field(
        1,
        ge=1,
        le=4,
        description="Sizes at which images are compared; the paper's 1 learns little in a short training.",
    )
    census_from: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the training before which colours are compared, not the census; 0 in the paper. Their "
        "gradient reaches further on small images.",
    )
    sequence_decay: float = Field(0.8, gt=0, le=1, description="Weight of an iteration against the next one's.")
    smoothness: float = Field(2.0, ge=0, description="2 for KITTI and FlyingChairs, 2.5 for Sintel.")
    smoothness_order: Literal[1, 2] = Field(2, description="Differences that are penalised: 2 for KITTI, else 1.")
    smoothness_edge: float = Field(150.0, ge=0, description="Of exp(-edge |dI|).")
    visibility: Visibility = Field(
        "forward_backward", description="forward_backward for KITTI, soft_range_map for Sintel and FlyingChairs."
    )
    visibility_from: float = Field(
        1 / 3, ge=0, le=1, description="Share of the training before which all is visible; 0 for soft_range_map."
    )
    self_supervision: float = Field(0.3, ge=0, description="Weight of the student's term.")
    self_supervision_from: float = Field(31250 / 75000, ge=0, le=1, description="Share of the training it begins at.")
    self_supervision_ramp: float = Field(6250 / 75000, ge=0, le=1, description="Share in which its weight rises.")
    student_margin: int = Field(64, ge=1, description="Pixels that a student does not see at each edge.")
    asymmetric: float = Field(0.2, ge=0, le=1, description="Probability that a pair's images are recoloured apart.")
    erased: float = Field(0.5, ge=0, le=1, description="Probability that rectangles of the second image are erased.")


class SMURF(PairFlow):
    """RAFT, census and smoothness at every iteration, and a teacher that sees more than its student."""

    Options = SMURFOptions

    def __init__(self, options: SMURFOptions) -> None:
        super().__init__(options)
        self.network = RAFT(options.network, options.iterations)
        load_pyramid(self.network, options.encoder_weights, "raft")

    def flows(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """The flow of every iteration, the last first."""
        return self.network(first, second)  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> Objective:
        options, whole = self.options, self.pair(batch)
        size = size_of(whole[0])
        crop_size = size if options.crop is None else (min(options.crop[0], size[0]), min(options.crop[1], size[1]))
        if options.self_supervision > 0:  # not first where it sets in, in the middle of the training
            check_margin(options.student_margin, crop_size)
        origins = draw_origins(len(batch), size, crop_size)
        clean = [crop_at(image, origins, crop_size) for image in whole]
        seen = [crop_at(frame.jittered, origins, crop_size) for frame in (batch.target, batch.sources[0])]
        first, second = vary_apart(seen, SMURF_APPEARANCE, options.asymmetric)
        seen = [first, erase_rectangles(second, options.erased)]

        images, _ = both_ways(*clean)
        _, wholes = both_ways(*whole)
        flows = self.flows(*both_ways(*seen))
        weights = sequence_weights(len(flows), options.sequence_decay)[::-1]  # the last iteration's is 1
        terms = {
            "photometric": weighted([self.photometric(images, wholes, origins, flow) for flow in flows], weights),
            "smoothness": options.smoothness * weighted([self.roughness(images, flow) for flow in flows], weights),
        }
        share = ramp(self.progress, options.self_supervision_from, options.self_supervision_ramp)
        if share * options.self_supervision > 0:
            taught = self.self_supervision(clean, seen)
            terms["self_supervision"] = share * options.self_supervision * weighted(taught, weights)
        return Objective(terms, *self.shown(images, wholes, origins, flows[0].detach()))

    def photometric(self, images: Tensor, wholes: Tensor, origins: Tensor, flow: Tensor) -> Tensor:
        """() distance of the whole other images, warped to the crops, over what is visible, mean of the scales.

        Args:
            images: (2B, 3, h, w) crops of both images. wholes: (2B, 3, H, W), the other image of each, uncropped.
            origins: (B, 2) of the crops. flow: (2B, 2, h, w), both directions.
        """
        terms = []
        for factor in (2**scale for scale in range(self.options.scales)):
            small_images, small_wholes, small_flow = (reduced(x, factor) for x in (images, wholes, flow))
            _, error, visible = self.compare(small_images, small_wholes, origins / factor, small_flow / factor)
            terms.append(unless_hidden(masked_mean(error, visible), visible))
        return torch.stack(terms).mean()

    def compare(self, images: Tensor, wholes: Tensor, origins: Tensor, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The warped images, (2B, 1, h, w) errors, and where they count (bool, or in [0, 1])."""
        warped, in_view = warp_by_flow(wholes, flow, origin=origins.repeat(2, 1).to(flow.device))
        error, defined = self.error(images, warped)
        kind: Visibility = self.options.visibility if self.progress >= self.options.visibility_from else "none"
        # What leaves the crop is still found in the whole image: only what leaves that is not compared.
        visible = torch.cat(visible_pair(kind, *flow.chunk(2), outside_hidden=False))
        return warped, error, visible * (in_view & defined)

    def error(self, image: Tensor, warped: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W) error of a warped image, and where it is defined: of colours until the census sets in."""
        if self.progress >= self.options.census_from:
            distance, complete = census_map(image, warped)
            return power_l1(distance), complete
        # As large as if every pixel of a patch differed so, for the weight against smoothness.
        distance = PATCH * (image - warped).abs().mean(1, keepdim=True)
        return power_l1(distance), torch.ones_like(distance, dtype=torch.bool)

    def roughness(self, images: Tensor, flow: Tensor) -> Tensor:
        """() edge-aware differences of the flow, in pixels."""
        edge = self.options.smoothness_edge
        if self.options.smoothness_order == 2:
            return mean_of(edge_aware_second_order(flow, images, edge, robust=charbonnier)) / 2
        return mean_of(edge_aware_smoothness(flow, images, edge, robust=charbonnier)) / 2

    def self_supervision(self, clean: list[Tensor], seen: list[Tensor]) -> list[Tensor]:
        """() distance of each iteration of a student, who sees the middle, from a teacher, who sees everything.

        Args:
            clean: The teacher's images, (B, 3, h, w) each. seen: The same recoloured and erased, to be cropped.
        """
        margin, size = self.options.student_margin, size_of(clean[0])
        middle = (..., slice(margin, -margin), slice(margin, -margin))
        with torch.no_grad():
            teacher = self.flows(*both_ways(*clean))[0]
            believed = upsample(agreement(teacher, TEACHER_SIGMA)[middle], size)
            teacher = resize_flow(teacher[middle], size)
        # Resized back, so that the student does not know its crop by its size.
        student = self.flows(*both_ways(*(resize_image(image[middle], size) for image in seen)))
        return [
            mean_over_all(charbonnier(teacher - flow), believed * (1 - agreement(flow, STUDENT_SIGMA)))
            for flow in student
        ]

    @torch.no_grad()
    def shown(
        self, images: Tensor, wholes: Tensor, origins: Tensor, flow: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Maps of the forward direction to show, and figures of both for the log."""
        warped, error, visible = self.compare(images, wholes, origins, flow)
        unwarped, _ = self.error(images, crop_at(wholes, origins, size_of(flow)))
        health = flow_health(flow, visible)
        health |= {
            "photometric": masked_mean(error, visible),
            "identity_photometric": masked_mean(unwarped, visible),
        }
        count = len(images) // 2
        maps = {"target": images, "warped": warped, "visible": visible.float(), "error": error, "flow": flow}
        return {name: x[:count] for name, x in maps.items()}, health


def reduced(x: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H // factor, W // factor), means over squares; rows and columns that are left are cut."""
    h, w = (edge // factor for edge in size_of(x))
    return area_mean(x[..., : h * factor, : w * factor], (h, w))


def check_margin(margin: int, size: tuple[int, int]) -> None:
    """Raises ValueError if a student's margin leaves nothing of (height, width)."""
    if 2 * margin >= min(size):
        raise ValueError(f"student_margin={margin} leaves nothing of {size[1]}x{size[0]}; set it below a quarter.")


def weighted(terms: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """() sum of the iterations' terms times their weights."""
    return torch.stack([weight * term for term, weight in zip(terms, weights, strict=True)]).sum()


@torch.no_grad()
def agreement(flow: Tensor, sigma: float) -> Tensor:
    """How well forward and backward flow agree: exp(-|f + b_w|^2 / (sigma^2 (h^2 + w^2))), 0 out of view.

    Args:
        flow: (2B, 2, h, w) pixels, both directions. sigma: Residual at which it is 1/e, of the image's diagonal.

    Returns:
        (2B, 1, h, w) in [0, 1].

    Source: Jonschkowski et al. (UFlow), ECCV 2020, section 3 (self-supervision).
    """
    residual, in_view = forward_backward_residual(flow, swapped(flow))
    h, w = size_of(flow)
    close = torch.exp(-residual.square().sum(1, keepdim=True) / (sigma**2 * (h**2 + w**2)))
    return close * in_view
