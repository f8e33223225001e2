"""SelFlow: optical flow from two or three frames, with occlusions learned from occlusions that are made.

Source: Liu, Lyu, King, Xu: SelFlow: Self-supervised learning of optical flow, CVPR 2019.
https://arxiv.org/abs/1904.09117
With `frames: 2` and `hide: 0` it is Liu, King, Lyu, Xu: DDFlow: Learning optical flow with unlabeled data
distillation, AAAI 2019. https://arxiv.org/abs/1902.09145

Stage 1 compares each image with the other one, warped, where forward and backward flow agree. In stage 2 that network
is the teacher; its student sees crops, in which the other image has superpixels of noise. What the student cannot see
and the teacher could, it learns from the teacher.

Differs:
    * The training code was never published; what the papers leave open follows DDFlow's release. Here, each frame of
      the window is noisy where a flow leads to it and clean where one starts, and a superpixel's chance to be hidden,
      which the paper does not give, is `hide`.
    * Pixels whose flow leaves the image are hidden from the start, instead of being compared with black.
    * Images are resized whole, instead of cropped from the original, and flipped left to right only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from geossl.config import Strict
from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import area_mean, resize_flow
from geossl.geometry.visibility import Visibility, visible_pair
from geossl.geometry.warping import warp_by_flow
from geossl.losses.census import PATCH, census_map
from geossl.losses.reduction import masked_mean, share_of, sum_over_twice_kept, unless_hidden
from geossl.losses.robust import power_l1
from geossl.methods.flow import flow_health
from geossl.methods.method import Method
from geossl.methods.self_supervision import Teacher, crop_at, draw_origins, hide_superpixels
from geossl.networks.pwc import PWC, ThreeFramePWC
from geossl.networks.pyramid_encoder import load_pyramid
from geossl.networks.weights import load_named, read_model_weights
from geossl.types import Batch, Frame, Objective

THREE_FRAME_WINDOW = (-2, -1, 1, 2)  # so that three successive targets have both their neighbours

Share = Annotated[float, Field(gt=0, le=1)]


class SelFlowOptions(Strict):
    frames: Literal[2, 3] = Field(3, description="2: pairs; 3: each image with both neighbours, learned from five.")
    stage: Literal[1, 2] = Field(1, description="1: photometric. 2: student of a trained stage 1.")
    weights: str | None = Field(
        None,
        description="Stage 2: run folder, model folder or checkpoint of stage 1, where teacher and student start.",
    )
    encoder_weights: str | None = Field(
        None, description="Stage 1: of the feature pyramid, the encoder folder of a pre-training with encoder pwc."
    )
    width: float = Field(1.0, gt=0, description="Factor of the network's channels.")
    centred: bool = Field(False, description="Compare features without their mean: learns from scratch in less time.")
    measure: Literal["census", "brightness", "brightness_first"] = Field(
        "census", description="What is compared; brightness_first: census only once visibility counts (DDFlow)."
    )
    scales: int = Field(
        1,
        ge=1,
        le=4,
        description="Sizes at which images are compared; the papers' 1 learns little in a short training.",
    )
    unmasked: float = Field(2 / 7, ge=0, le=1, description="Share of stage 1 without visibility: 200k of 700k steps.")
    teacher: Literal["frozen", "ema"] = Field("frozen", description="ema: follows the student.")
    teacher_decay: float = Field(0.999, ge=0, le=1, description="Of an ema teacher, each step.")
    crop: tuple[Share, Share] = Field(
        (0.8, 5 / 7), description="Height and width of the student's images, as shares: 256x640 of 320x896."
    )
    hide: float = Field(0.1, ge=0, le=1, description="Share of the superpixels under noise; 0: crops only (DDFlow).")

    @model_validator(mode="after")
    def _stage_2_has_a_teacher(self) -> Self:
        # An explicit null passes: so is a trained stage 2 built again, whose own weights follow.
        if self.stage == 2 and "weights" not in self.model_fields_set:
            raise ValueError("stage 2 needs `weights`: the run folder, model folder or checkpoint of stage 1.")
        return self

    @model_validator(mode="after")
    def _starts_in_one_way(self) -> Self:
        if self.encoder_weights is not None and self.weights is not None:
            raise ValueError(
                "`weights` hold the whole network, its feature pyramid too; give `encoder_weights` to stage 1 without "
                "`weights`."
            )
        return self


class SelFlow(Method):
    """PWC on two or three frames: photometric where visible, then from a teacher where hidden."""

    Options = SelFlowOptions

    def __init__(self, options: SelFlowOptions) -> None:
        super().__init__(options)
        self.flow_offsets = (1,) if options.frames == 2 else (-1, 1)
        network = PWC if options.frames == 2 else ThreeFramePWC
        self.network: nn.Module = network(options.width, centred=options.centred)
        load_pyramid(self.network, options.encoder_weights, "pwc")
        if options.weights is not None:
            state = read_model_weights(options.weights)
            own = {name.removeprefix("network."): t for name, t in state.items() if name.startswith("network.")}
            load_named(self.network, own, options.weights, hint=" of SelFlow with these options")
        if options.stage == 2:
            self.teacher = Teacher(self.network)

    def predict_flows(self, target: Tensor, sources: Sequence[Tensor]) -> Tensor:
        """(B, 3, H, W) in [0, 1] of any size and its neighbours -> (B, S, 2, H, W) pixels, one flow for each."""
        flows = self.network(target, *sources)
        return torch.stack([flows[0]] if self.options.frames == 2 else [flow[0] for flow in flows], 1)

    def forward(self, batch: Batch) -> Objective:
        frames = self.window(batch)
        clean, jittered = [frame.image for frame in frames], [frame.jittered for frame in frames]
        return self.noc(clean, jittered) if self.options.stage == 1 else self.occ(clean, jittered)

    def after_step(self) -> None:
        """An ema teacher follows."""
        if self.options.stage == 2 and self.options.teacher == "ema":
            self.teacher.follow(self.network, self.options.teacher_decay)

    def window(self, batch: Batch) -> list[Frame]:
        """The frames in temporal order: two, or five of which the inner three are targets."""
        self.require(batch, sources=True)
        if self.options.frames == 2:
            return [batch.target, batch.sources[0]]
        if batch.source_offsets != THREE_FRAME_WINDOW:
            raise ValueError(
                f"SelFlow(frames=3) learns from sources at {THREE_FRAME_WINDOW}, but {batch.names[0]} has them at "
                f"{batch.source_offsets}; set data.source_offsets to {list(THREE_FRAME_WINDOW)}, or model.frames to 2."
            )
        return [*batch.sources[:2], batch.target, *batch.sources[2:]]

    # --- stage 1: the NOC model --------------------------------------------------------------------------------------

    def noc(self, clean: list[Tensor], jittered: list[Tensor]) -> Objective:
        """Learns from the images alone: first from every pixel, then from those that both images show."""
        flow = pair_flows(self.network, jittered, jittered)
        options, unmasked = self.options, self.progress < self.options.unmasked
        with_census = options.measure == "census" or (options.measure == "brightness_first" and not unmasked)
        kind: Visibility = "none" if unmasked else "forward_backward"
        return photometric_objective(*pairs(clean, clean), flow, kind, with_census, options.scales)

    # --- stage 2: the OCC model --------------------------------------------------------------------------------------

    def occ(self, clean: list[Tensor], jittered: list[Tensor]) -> Objective:
        """Learns from the images what it sees in them, and from the teacher what only the teacher saw."""
        options = self.options
        label = pair_flows(self.teacher, clean, clean)  # w
        seen = visible_both_ways("forward_backward", label)  # 1 - O

        size = size_of(clean[0])
        crop_size = (round(options.crop[0] * size[0]), round(options.crop[1] * size[1]))
        origins = draw_origins(len(clean[0]), size, crop_size)
        clean, jittered = ([crop_at(image, origins, crop_size) for image in images] for images in (clean, jittered))
        noisy, noisy_jittered = clean, jittered
        if options.hide > 0:
            hidden = [hide_superpixels(versions, options.hide)[0] for versions in zip(clean, jittered, strict=True)]
            noisy, noisy_jittered = ([versions[i] for versions in hidden] for i in range(2))

        flow = pair_flows(self.network, jittered, noisy_jittered)  # w~
        visible = visible_both_ways("forward_backward", flow)  # 1 - O~
        first, second = pairs(clean, noisy)
        with_census = options.measure != "brightness"
        objective = photometric_objective(first, second, flow, "forward_backward", with_census, options.scales)
        lost = crop_at(seen, origins, crop_size) & ~visible  # M = clip(O~ - O, 0, 1)
        error = power_l1(crop_at(label, origins, crop_size) - flow)
        taught = torch.stack([sum_over_twice_kept(e, m) for e, m in each_way(error, lost)]).mean()  # L_o
        return Objective(
            {**objective.terms, "taught": taught},
            {**objective.maps, "source": forward_half(second), "lost": forward_half(lost).float()},
            {**objective.health, "lost": share_of(lost)},
        )


def pair_flows(network: nn.Module, starts: Sequence[Tensor], ends: Sequence[Tensor]) -> Tensor:
    """The flows between successive frames of a window, forth and back, by one call of the network.

    Args:
        network: `PWC` for a window of two frames, `ThreeFramePWC` for five.
        starts, ends: (B, 3, H, W) images of the window in temporal order: what a flow starts from is looked up in
            `starts`, where it leads to in `ends`.

    Returns:
        (n B, 2, H, W) pixels: the flow of each of `pairs`.
    """
    if len(starts) == 2:
        return network(*pairs(starts, ends))[0]  # type: ignore[no-any-return]
    b = len(starts[0])
    targets, previous, following = (torch.cat(list(images)) for images in (starts[1:-1], ends[:-2], ends[2:]))
    to_previous, to_following = network(targets, previous, following)
    return torch.cat([to_following[0][:-b], to_previous[0][b:]])


def pairs(starts: Sequence[Tensor], ends: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The images between which `pair_flows` predicts: of five frames only the inner three, whose flows go both ways.

    Returns:
        first, second: (n B, 3, H, W) each, n = 2 or 4. The second half of the batch holds the pairs of the first half
            in the other direction, so that `swapped` gives the flow back.
    """
    if len(starts) > 2:
        starts, ends = starts[1:-1], ends[1:-1]
    return torch.cat([*starts[:-1], *starts[1:]]), torch.cat([*ends[1:], *ends[:-1]])


def visible_both_ways(kind: Visibility, flow: Tensor) -> Tensor:
    """(n B, 2, H, W) of `pair_flows` -> (n B, 1, H, W) bool."""
    return torch.cat(visible_pair(kind, *flow.chunk(2)))


def photometric_objective(
    first: Tensor, second: Tensor, flow: Tensor, kind: Visibility, with_census: bool, scales: int
) -> Objective:
    """The loss that compares visible pixels with what the flow finds in the other image.

    Args:
        first, second: (n B, 3, H, W) clean images, as `pairs` gives.
        flow: (n B, 2, H, W) pixels.
        kind: What counts as visible.
        with_census: Whether neighbourhoods are compared, else colours.
        scales: At how many sizes, each half of the one before.
    """
    losses = []
    for scale in range(scales):
        size = (first.shape[-2] >> scale, first.shape[-1] >> scale)
        image, other = (area_mean(x, size) for x in (first, second))
        here = resize_flow(flow, size)
        visible = visible_both_ways(kind, here)
        warped, _ = warp_by_flow(other, here)
        distance, valid = differences(image, warped, with_census)
        keep, error = visible & valid, power_l1(distance)
        losses += [unless_hidden(sum_over_twice_kept(e, k), k) for e, k in each_way(error, keep)]  # L_p
        if scale == 0:
            shown = {"target": first, "warped": warped, "flow": flow, "visible": visible.float()}
            shown["error"] = distance.mean(1, keepdim=True) / (PATCH if with_census else 1)
            health = photometric_health(with_census, *map(forward_half, (first, second, error, keep)))
            health |= flow_health(flow, visible)
    maps = {name: forward_half(value.detach()) for name, value in shown.items()}
    return Objective({"photometric": torch.stack(losses).sum() / scales}, maps, health)


@torch.no_grad()
def photometric_health(
    with_census: bool, first: Tensor, second: Tensor, error: Tensor, keep: Tensor
) -> dict[str, Tensor]:
    """The mean error of the warped images and of the unwarped ones, for the log."""
    identity, _ = differences(first, second, with_census)
    means = {"photometric": error, "identity_photometric": power_l1(identity)}
    return {name: masked_mean(value, keep) for name, value in means.items()}


def differences(a: Tensor, b: Tensor, with_census: bool) -> tuple[Tensor, Tensor]:
    """Unreduced distance (B, C, H, W) of two images, and where it is defined, (B, 1, H, W) bool."""
    if with_census:
        return census_map(a, b)
    return (a - b).abs(), torch.ones_like(a[:, :1], dtype=torch.bool)


def each_way(x: Tensor, keep: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The two directions of a map and of where it counts, which lie one after the other along the batch."""
    return zip(x.chunk(2), keep.chunk(2), strict=True)


def forward_half(x: Tensor) -> Tensor:
    """(n B, ...) of both directions -> (n B / 2, ...) of the flows to the later frame."""
    return x.chunk(2)[0]
