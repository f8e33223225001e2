"""UnFlow: optical flow from pairs of images, by census and consistency in both directions.

Source: Meister, Hur, Roth: UnFlow: Unsupervised learning of optical flow with a bidirectional census loss, AAAI 2018.
https://arxiv.org/abs/1711.07837

Stages: C on rendered pairs, without visibility and consistency; from its weights C on real video, with both; then CS
and CSS from the weights of the stage before, of which only the new net learns (`stack`, `weights`).

Differs:
    * Images are resized to the training's size and get its colour jitter; released: crops, scaled by 0.9 to 1.1.
    * A hidden pixel costs the published 12.4 and, as a count has no gradient, teaches nothing; `soft_occlusion` lets
      it pull hidden pixels towards consistency.
    * `visibility_from` brings both stages into one training, for data that are learned from scratch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from geossl.config import Strict
from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import area_mean, resize_flow
from geossl.geometry.visibility import Visibility, visible_pair
from geossl.geometry.warping import warp_by_flow
from geossl.losses.census import census_map
from geossl.losses.consistency import forward_backward_residual
from geossl.losses.reduction import masked_mean, mean_over_all
from geossl.losses.robust import charbonnier
from geossl.losses.smoothness import four_line_smoothness, mean_of
from geossl.methods.flow import PairFlow, both_ways, flow_health, swapped
from geossl.networks.flownet import UNFLOW_MEAN, FlowNet
from geossl.networks.pyramid_encoder import load_pyramid
from geossl.networks.weights import load_named, read_model_weights
from geossl.types import Batch, Objective

ALLOWED_SHARE, ALLOWED_PX2 = 0.01, 0.5  # eq. 1, of `soft_occlusion`; the hard check has the same

penalty = partial(charbonnier, exponent=0.45)


class UnFlowOptions(Strict):
    stack: str = Field("C", pattern="^[CS]S*$", description="C, CS or CSS (S, SS, ...); only the last net learns.")
    weights: str | None = Field(None, description="Run folder, model folder or checkpoint of the stage before.")
    encoder_weights: str | None = Field(
        None,
        description="Of the first convolutions of a stack of one, C or S: the encoder folder of a pre-training with "
        "encoder flownet.",
    )
    width: float = Field(1.0, gt=0, description="Factor of the networks' channels; 0.375 is the paper's small 'c'.")
    image_mean: tuple[float, float, float] = Field(UNFLOW_MEAN, description="Subtracted from RGB in [0, 1].")
    image_std: float = Field(1.0, gt=0, description="What the images are then divided by.")
    normalize_costs: bool = Field(False, description="Standardise the features that C compares, as UFlow does.")
    level_weights: tuple[float, float, float, float, float] = Field(
        (12.7, 4.35, 3.9, 3.4, 1.1), description="Of the losses at a quarter of the image's size, an eighth, ..."
    )
    census_radii: tuple[int, int, int, int, int] = (3, 2, 2, 1, 1)
    smoothness: float = Field(3.0, ge=0, description="Of second differences, against the census term.")
    consistency: float = Field(0.2, ge=0, description="Of forward and backward flow where they see each other.")
    visibility: Visibility = "forward_backward"
    visibility_from: float = Field(
        0.0, ge=0, le=1, description="Share of the training before which all is visible, and consistency not asked."
    )
    border: float = Field(
        0.1,
        ge=0,
        lt=0.5,
        description="Width of the rim that is not compared, of the shorter side; 0: what leaves the image is not.",
    )
    occlusion: float = Field(12.4, ge=0, description="Cost of a hidden pixel.")
    soft_occlusion: float | None = Field(
        None, gt=0, description="Square pixels over which the hidden pixel's cost sets in; null: at once."
    )

    @model_validator(mode="after")
    def _starts_in_one_way(self) -> Self:
        if self.encoder_weights is not None and (self.weights is not None or len(self.stack) > 1):
            raise ValueError(
                f"stack {self.stack} starts from the stage before (`weights`); encoder_weights are for a stack of C "
                "or S without `weights`."
            )
        return self


class UnFlow(PairFlow):
    """FlowNetC, or a stack of nets of which the last learns."""

    Options = UnFlowOptions

    def __init__(self, options: UnFlowOptions) -> None:
        super().__init__(options)
        self.network = FlowNet(
            options.stack, options.width, options.image_mean, options.image_std, options.normalize_costs
        )
        self.network.nets[:-1].requires_grad_(False)
        load_pyramid(self.network, options.encoder_weights, "flownet")
        if options.weights is not None:
            load_previous(self.network, read_model_weights(options.weights), options.weights)

    def flows(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Five flows, at a quarter of the images' size and its halves."""
        return self.network(first, second)  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> Objective:
        options, images = self.options, self.pair(batch)
        flows = self.flows(*both_ways(batch.target.jittered, batch.sources[0].jittered))
        levels = [
            {name: weight * term for name, term in self.level_terms(flow, images, radius).items()}
            for flow, radius, weight in zip(flows, options.census_radii, options.level_weights, strict=True)
        ]
        terms = {name: torch.stack([level[name] for level in levels]).sum() for name in levels[0]}
        maps, health = self.shown(flows[0].detach(), images)
        return Objective(terms, maps, health)

    def level_terms(self, flow: Tensor, images: tuple[Tensor, Tensor], radius: int) -> dict[str, Tensor]:
        """The terms of eq. 5 at one level, the sums of both directions.

        Args:
            flow: (2B, 2, h, w) pixels of this level, forward then backward.
            images: The two clean ones, (B, 3, H, W).
        """
        options = self.options
        image, other = both_ways(*(area_mean(x, size_of(flow)) for x in images))
        backward = swapped(flow)
        visible = self.visible(flow)
        warped, _ = warp_by_flow(other, flow)
        distance, complete = census_map(image, warped, radius)
        census = mean_over_all(penalty(distance), masked_by(visible, complete))  # eq. 2
        roughness = mean_of(four_line_smoothness(flow, penalty)) / 2  # eq. 3
        terms = {"census": census, "smoothness": options.smoothness * roughness}
        if self.knows_visibility:
            residual, _ = forward_backward_residual(flow, backward)
            terms["consistency"] = options.consistency * mean_over_all(penalty(residual), visible)  # eq. 4
            terms["occlusion"] = options.occlusion * self.hidden(flow, residual, visible)  # eq. 2, second half
        return {name: 2 * term for name, term in terms.items()}  # the mean of both directions to their sum

    @property
    def knows_visibility(self) -> bool:
        return self.options.visibility != "none" and self.progress >= self.options.visibility_from

    def visible(self, flow: Tensor) -> Tensor:
        """(2B, 2, h, w) flow -> (2B, 1, h, w), True (or up to 1) where the data terms look; without gradient."""
        kind: Visibility = self.options.visibility if self.knows_visibility else "none"
        border = self.options.border
        pair = visible_pair(kind, *flow.chunk(2), outside_hidden=border == 0)
        return masked_by(torch.cat(pair), inside_rim(flow, border))

    def hidden(self, flow: Tensor, residual: Tensor, visible: Tensor) -> Tensor:
        """() share of pixels that are hidden: a count, or with a soft threshold and gradient."""
        if self.options.soft_occlusion is None:
            return 1 - visible.float().mean()
        warped_backward = residual - flow
        size = (flow.square() + warped_backward.square()).sum(1, keepdim=True)
        excess = residual.square().sum(1, keepdim=True) - ALLOWED_SHARE * size - ALLOWED_PX2
        return torch.sigmoid(excess / self.options.soft_occlusion).mean()

    @torch.no_grad()
    def shown(self, flow: Tensor, images: tuple[Tensor, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Pictures and health figures of the forward flow at full size; the errors are the finest level's."""
        image, other = (area_mean(x, size_of(flow)) for x in images)
        forward = flow.chunk(2)[0]
        visible = self.visible(flow).chunk(2)[0]
        errors = []
        for seen in (warp_by_flow(other, forward)[0], other):
            error, complete = census_map(image, seen, self.options.census_radii[0], "mean")
            errors.append((error, masked_mean(error, masked_by(visible, complete))))
        (error, photometric), (_, identity) = errors
        full = resize_flow(forward, size_of(images[0]))
        maps = {"target": images[0], "warped": warp_by_flow(images[1], full)[0], "flow": full}
        maps |= {"visible": visible.float(), "error": error}
        health = {"photometric": photometric, "identity_photometric": identity} | flow_health(full, visible)
        return maps, health


def load_previous(network: FlowNet, state: Mapping[str, Tensor], where: str) -> None:
    """Loads the nets of the stage before into the first nets of a stack.

    Args:
        state: Of an `UnFlow` with as many nets or fewer.
        where: What it comes from, for messages.

    Raises:
        ValueError: If it is not of such a method, or of other nets.
    """
    nets = {name.removeprefix("network.nets."): tensor for name, tensor in state.items()}
    numbers = {int(name.partition(".")[0]) for name in nets if name[0].isdigit()}
    load_named(network.nets[: 1 + max(numbers, default=0)], nets, where, hint=" of UnFlow with these options")


def inside_rim(like: Tensor, share: float) -> Tensor:
    """(1, 1, h, w) bool, False within `share` of the shorter side of an edge of a (..., h, w) map."""
    h, w = size_of(like)
    rim = math.ceil(share * min(h, w))
    inside = torch.zeros(1, 1, h, w, dtype=torch.bool, device=like.device)
    inside[..., rim : h - rim, rim : w - rim] = True
    return inside


def masked_by(visible: Tensor, keep: Tensor) -> Tensor:
    """`visible` (bool or in [0, 1]) where `keep`, else 0."""
    return visible.where(keep, torch.zeros_like(visible))
