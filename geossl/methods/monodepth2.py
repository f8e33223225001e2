"""Monodepth2: depth from one image, learned from video (M), stereo (S) or both (MS).

Source: Godard, Mac Aodha, Firman, Brostow: Digging into self-supervised monocular depth estimation, ICCV 2019.
https://arxiv.org/abs/1806.01260

Differs:
    * Lengths are metres where stereo gives the scale. The networks keep the published parametrisation, in units in
      which KITTI's baseline is 0.1 (`metres_per_unit` = 5.4), but each sample's true baseline is used, not 0.1.
    * Pixel centres are integers throughout; the released warp is half a pixel off under today's grid_sample.
    * Equal errors of the identity and the warp count as static; the released code breaks ties by random noise.
    * Points behind the camera are never sampled, and the error of an intermediate scale is taken against the
      area-reduced image (released: Lanczos).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from geossl.config import Strict
from geossl.geometry.conversion import mean_normalized, unit_inverse_depth_to_depth
from geossl.geometry.motion import invert, motion_from_axis_angle
from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import area_reduced, upsample
from geossl.kernels.photometric import Reprojected
from geossl.losses.smoothness import edge_aware_smoothness, mean_of
from geossl.methods.dynamic import FlowConsistency
from geossl.methods.method import Method, depth_health, motion_health
from geossl.methods.reprojection import Criterion, Reprojection, View
from geossl.networks.depth_decoder import NUM_LEVELS, DepthDecoder
from geossl.networks.encoders import build_encoder
from geossl.networks.pose import PoseCNN, PoseDecoder
from geossl.types import Batch, Objective


class Monodepth2Options(Strict):
    supervision: Literal["M", "S", "MS"] = Field("M", description="Learn from video, stereo or both.")
    partial: bool = Field(False, description="MS: accept batches that carry only one of video and stereo.")
    encoder: str = Field("resnet18", description="resnet18, resnet34, resnet50, compact or timm:NAME.")
    encoder_weights: str | None = Field(
        "imagenet", description="imagenet, an encoder folder, a file, or null for random."
    )
    decoder_channels: tuple[int, int, int, int, int] = (16, 32, 64, 128, 256)
    num_scales: int = Field(4, ge=1, le=4, description="Scales predicted, each half the size of the one before.")
    finest_scale: int = Field(0, ge=0, le=3, description="The first of them: 0 has the image's size, 1 half of it.")
    pose: Literal["separate", "shared", "posecnn"] = Field("separate", description="The pose network's encoder.")
    pose_encoder: str = "resnet18"
    pose_scale: float = Field(1.0, gt=0, le=1, description="Size of the pose network's images against the batch's.")
    min_depth: float = Field(0.1, gt=0, description="Nearest depth, in network units.")
    max_depth: float = Field(100.0, gt=0, description="Farthest depth, in network units.")
    metres_per_unit: float = Field(5.4, gt=0, description="Metres in a network unit, where stereo gives the scale.")
    ssim_weight: float = Field(0.85, ge=0, le=1)
    smoothness: float = Field(1e-3, ge=0, description="Divided by 2^scale.")
    minimum_reprojection: bool = Field(True, description="Per-pixel minimum over sources; else their mean.")
    automask: bool = Field(True, description="Ignore pixels that a source explains better unwarped.")
    automask_stereo: bool = Field(
        True, description="Whether the other camera counts among these sources; a stereo pair never stands still."
    )
    full_resolution: bool = Field(True, description="Upsample every scale's depth and compare at full size.")
    dynamic: Literal["none", "flow_consistency"] = Field(
        "none",
        description="flow_consistency: leave out, of the other times' images, what moves by itself because the rigid "
        "flow of depth and motion disagrees with flow_model's flow (geossl.geometry.rigidity has the rule).",
    )
    flow_model: str | None = Field(
        None, description="Of flow_consistency: run folder or model folder of a trained flow model; stays frozen."
    )
    dynamic_from: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the training after which flow_consistency sets in: at first depth and motion agree with "
        "no flow.",
    )
    predictive_mask: bool = Field(False, description="SfMLearner's learned mask instead of the auto-mask.")
    mask_weight: float = Field(0.2, ge=0, description="Of the predictive mask's pull towards one.")
    outside: Literal["border", "ignore"] = Field(
        "border", description="Targets that project outside a source: compare with its repeated border, or ignore."
    )

    @model_validator(mode="after")
    def _flow_consistency_has_a_flow_model(self) -> Self:
        if self.dynamic == "flow_consistency" and self.flow_model is None:
            raise ValueError("dynamic: flow_consistency needs `flow_model`: the folder of a trained flow model.")
        if self.dynamic == "flow_consistency" and "M" not in self.supervision:
            raise ValueError("dynamic: flow_consistency is for video; supervision S compares images of one time.")
        if self.dynamic == "none" and self.flow_model is not None:
            raise ValueError("flow_model is used with `dynamic: flow_consistency` only; set it, or drop flow_model.")
        return self


class Monodepth2(Method):
    """Encoder-decoder depth, pose between pairs of frames, minimum reprojection, auto-masking."""

    Options = Monodepth2Options

    def __init__(self, options: Monodepth2Options) -> None:
        super().__init__(options)
        self.video = "M" in options.supervision
        self.stereo = "S" in options.supervision
        self.is_metric = self.stereo
        self.pose_offsets = (1,) if self.video else ()
        self.uses_all_parameters = not options.partial
        self.unit_m = options.metres_per_unit if self.is_metric else 1.0
        self.encoder = build_encoder(options.encoder, options.encoder_weights)
        self.scales = tuple(range(options.finest_scale, min(options.finest_scale + options.num_scales, NUM_LEVELS)))
        self.depth_decoder = DepthDecoder(self.encoder.channels, self.scales, dims=options.decoder_channels)
        if self.video and options.pose == "separate":
            self.pose_encoder = build_encoder(options.pose_encoder, options.encoder_weights, images=2)
            self.pose_decoder = PoseDecoder(self.pose_encoder.channels, features=1, frames=2)
        elif self.video and options.pose == "shared":
            self.pose_decoder = PoseDecoder(self.encoder.channels, features=2, frames=1)
        elif self.video:
            self.pose_cnn = PoseCNN()
        if options.predictive_mask:
            self.mask_decoder = DepthDecoder(
                self.encoder.channels, self.scales, outputs=2 * self.video + self.stereo, dims=options.decoder_channels
            )
        self.consistency = None if options.flow_model is None else FlowConsistency(options.flow_model)

    # --- prediction --------------------------------------------------------------------------------------------------

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 1, H, W) z-depth, metres where trained with stereo."""
        finest = self.depth_decoder(self.encoder(image))[0]
        return self.depth_of(upsample(finest, size_of(image))) * self.unit_m

    def predict_motions(self, target: Tensor, sources: Sequence[Tensor]) -> Tensor:
        """Two images in temporal order -> (B, 1, 4, 4) T_source_target, metres where trained with stereo."""
        (source,) = sources
        T = self.pose_between(target, source)
        return scale_translation(T, self.unit_m)[:, None]

    def depth_of(self, unit_inverse_depth: Tensor) -> Tensor:
        return unit_inverse_depth_to_depth(unit_inverse_depth, self.options.min_depth, self.options.max_depth)

    def pose_between(self, earlier: Tensor, later: Tensor) -> Tensor:
        """(B, 4, 4) T_later_earlier, in network units."""
        if self.options.pose_scale < 1:
            earlier, later = (
                F.interpolate(x, scale_factor=self.options.pose_scale, mode="bilinear", antialias=True)
                for x in (earlier, later)
            )
        if self.options.pose == "separate":
            axis_angle, translation = self.pose_decoder(self.pose_encoder(torch.cat([earlier, later], 1)))
        elif self.options.pose == "shared":
            axis_angle, translation = self.pose_decoder(self.encoder(earlier), self.encoder(later))
        else:
            axis_angle, translation = self.pose_cnn(torch.cat([earlier, later], 1))
        return motion_from_axis_angle(axis_angle[:, 0].float(), translation[:, 0].float())

    # --- training ----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Objective:
        options = self.options
        views = self.views(batch)  # every (source frame, T_source_target) that may explain the target
        features = self.encoder(batch.target.jittered)
        unit_inverse_depths = self.depth_decoder(features)
        masks = self.masks(features, batch, views) if options.predictive_mask else [None] * len(self.scales)
        by_itself = self.moving_by_themselves(batch, views, unit_inverse_depths[0])

        photometric, smoothness, mask_term = [], [], []
        for scale, unit_inverse_depth, mask in zip(self.scales, unit_inverse_depths, masks, strict=True):
            finest = scale == self.scales[0]
            # Published default: every scale's depth is upsampled and compared at full size.
            size = size_of(batch.target.image if options.full_resolution else unit_inverse_depth)
            depth = self.depth_of(upsample(unit_inverse_depth, size))
            if finest or not options.full_resolution:
                target, seen = area_reduced(batch.target, size), [(area_reduced(f, size), T) for f, T in views]
                left_out = None if by_itself is None else F.interpolate(by_itself.float(), size, mode="area") > 0
                explain = Reprojection(target, seen, self.criterion, self.may_stand_still(batch, views), left_out)
            if mask is not None:
                mask = upsample(mask, size)
                mask_term.append(options.mask_weight * -mask.clamp_min(1e-6).log().mean())
            explained = explain(depth, mask, maps=finest)
            photometric.append(explained.loss)
            image = area_reduced(batch.target, size_of(unit_inverse_depth)).image
            roughness = mean_of(edge_aware_smoothness(mean_normalized(unit_inverse_depth), image))
            smoothness.append(options.smoothness / 2**scale * roughness)
            if finest:
                shown = self.shown(batch, views, depth, explain, explained, by_itself)

        terms = {"photometric": torch.stack(photometric).mean(), "smoothness": torch.stack(smoothness).mean()}
        if mask_term:
            terms["mask"] = torch.stack(mask_term).mean()
        return Objective(terms, *shown)

    @torch.no_grad()
    def shown(
        self,
        batch: Batch,
        views: Sequence[View],
        depth: Tensor,
        explain: Reprojection,
        explained: Reprojected,
        by_itself: Tensor | None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Maps of the finest scale to show, and figures for the log."""
        maps = {"target": explain.target.image, "warped": explained.maps["warped"], "error": explained.maps["error"]}
        maps |= {"depth": depth * self.unit_m}
        health = {"photometric": explained.best, "identity_photometric": explain.identity.amin(1).mean()}
        health |= depth_health(depth, self.unit_m)
        if explain.still is not None:
            maps["moving"] = explained.maps["moving"].float()
            health["automasked"] = explained.explained - maps["moving"].mean()
        if by_itself is not None:
            maps["moves by itself"] = by_itself.any(1, keepdim=True).float()
            health["dynamic"] = by_itself.float().mean()
        if self.times(batch):
            health |= motion_health(views[0][1], self.unit_m)
        return maps, health

    def masks(self, features: Sequence[Tensor], batch: Batch, views: Sequence[View]) -> list[Tensor]:
        """(B, views, h, w) predictive masks of every scale.

        Raises:
            ValueError: If there are more than two other times.
        """
        times = self.times(batch)
        if times > 2:
            raise ValueError(
                f"model.predictive_mask has a mask for two other times, but {batch.names[0]} has {times}; set "
                "data.source_offsets to two, e.g. [-1, 1], or model.predictive_mask to false."
            )
        cameras = len(views) - times  # the other camera's is the last
        masks = self.mask_decoder(features)
        return [torch.cat([mask[:, :times], mask[:, mask.shape[1] - cameras :]], 1) for mask in masks]

    def moving_by_themselves(self, batch: Batch, views: Sequence[View], unit_inverse_depth: Tensor) -> Tensor | None:
        """(B, sources, H, W) bool, True where a source must not explain the target; None: nowhere."""
        if self.consistency is None or not batch.sources:
            return None
        self.consistency.model(batch)  # so that a wrong one is refused at the first step
        if self.progress < self.options.dynamic_from:
            return None
        depth = self.depth_of(upsample(unit_inverse_depth.detach(), size_of(batch.target.image)))
        return self.consistency.moving(batch, depth, [T for _, T in views[: self.times(batch)]])

    @property
    def criterion(self) -> Criterion:
        options = self.options
        return Criterion(options.ssim_weight, options.minimum_reprojection, options.outside)

    def may_stand_still(self, batch: Batch, views: list[View]) -> int:
        """How many of the views take part in auto-masking by their unwarped images; those of video come first."""
        if not self.options.automask or self.options.predictive_mask:
            return 0
        return len(views) if self.options.automask_stereo else self.times(batch)

    def times(self, batch: Batch) -> int:
        """How many of the views are the camera's own at other times; they come first."""
        return len(batch.sources) if self.video else 0

    def views(self, batch: Batch) -> list[View]:
        """The frames that may explain the target, each with T_source_target in network units."""
        some = self.options.partial and (batch.sources or batch.stereo is not None)
        video = self.video and (bool(batch.sources) or not some)
        stereo = self.stereo and (batch.stereo is not None or not some)
        self.require(batch, sources=video, stereo=stereo)
        views = []
        if video:
            for source, offset in zip(batch.sources, batch.source_offsets, strict=True):
                # The pose network always sees the earlier frame first.
                pair = (batch.target.jittered, source.jittered)
                T = self.pose_between(*pair) if offset > 0 else invert(self.pose_between(*reversed(pair)))
                views.append((source, T))
        if stereo and batch.stereo is not None and batch.T_stereo_target is not None:
            views.append((batch.stereo, scale_translation(batch.T_stereo_target, 1 / self.unit_m)))
        return views


def scale_translation(T: Tensor, factor: float) -> Tensor:
    """(..., 4, 4) with its translation multiplied."""
    return torch.cat([T[..., :3], torch.cat([T[..., :3, 3:] * factor, T[..., 3:, 3:]], dim=-2)], dim=-1)
