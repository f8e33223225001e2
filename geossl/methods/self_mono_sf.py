"""Self-Mono-SF: depth and 3-D motion from two frames of one camera, learned from stereo video.

Source: Hur and Roth: Self-supervised monocular scene flow estimation, CVPR 2020. https://arxiv.org/abs/2004.04143

Its ablations (tables 1 and 2 of the paper) are options: `point: 0`, `scene_flow_smoothness: 0`, `visibility: false`,
`zoom: 0`.

Differs:
    * Depth is made with each sample's focal length and baseline; released: 0.54 m for every date of KITTI.
    * A mirrored pair is recognised by its geometry (the sign of the baseline) and its views change roles; cameras'
      centres are mirrored about (W - 1) / 2.
    * Where less than half of an image counts as visible, all of it does; released: of the batch, so that a sample's
      loss depends on its neighbours. Pixels that lead out of the other image, or behind the camera, are hidden too.
    * SSIM mirrors the image at its border, where the released code sets its outermost pixels to 0; images of coarser
      scales are averages over areas.
    * The zoom is of the resized image, not of a crop of the original.
    * `photometric_reduction: mean` averages the colours' differences instead of adding them.
    * `depth_apart` keeps the gradient of wrong motions from depth at first, as Hur and Roth begin their later system
      (Self-supervised multi-frame monocular scene flow, CVPR 2021). https://arxiv.org/abs/2105.02216
    * `point_from` leaves out the point term at first. Depth begins as little more than a value a row, by which what
      moves outwards comes no nearer: the term then holds motion along the view at zero. On the street, 1000 steps:
      SF 33 % with it from the beginning (weight 2), 24 % without.
    * The weights of second differences are the paper's at its 832 pixels of width. In smaller images a surface bends
      more from pixel to pixel; with the paper's weight at 192 pixels nothing but smooth motion is learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from geossl.config import Strict
from geossl.geometry.affine import affine_image, affine_K, draw_zoom
from geossl.geometry.camera import backproject
from geossl.geometry.conversion import scene_flow_to_flow
from geossl.geometry.pixels import pixel_grid_like, sample_at_pixels, size_of
from geossl.geometry.transforms import area_reduced, flip_K
from geossl.geometry.visibility import in_view, range_map
from geossl.geometry.warping import warp_by_disparity
from geossl.losses.photometric import photometric_map
from geossl.losses.reduction import masked_mean
from geossl.losses.scene_flow import equal_factors, length, point_distance, scene_flow_roughness
from geossl.losses.smoothness import edge_aware_second_order, mean_of
from geossl.methods.augmentation import draw_recolouring
from geossl.methods.flow import flow_health, swapped
from geossl.methods.method import depth_health
from geossl.methods.stereo import MetricByBaseline, baseline_of, left_right
from geossl.networks.pyramid_encoder import load_pyramid
from geossl.networks.scene_flow import SceneFlowEstimate, SceneFlowNet, depth_of_fraction
from geossl.types import Batch, Frame, MissingInput, Objective, cat_frames

LEAST_COVERAGE = 0.5  # of a pixel, by what the other view sends there: less is hidden
PAPER_WIDTH = 832  # pixels
LEAST_VISIBLE = 0.5  # of an image: where less seems visible, the estimates are noise


class SelfMonoSFOptions(Strict):
    width: float = Field(1.0, gt=0, description="Factor of the network's channels; 1 is the paper's.")
    encoder_weights: str | None = Field(
        None, description="Of the feature pyramid: the encoder folder of a pre-training with encoder self_mono_sf."
    )
    normalize_costs: bool = Field(
        False, description="Standardise features before they are correlated, and each pixel's costs, to learn sooner."
    )
    depth_apart: float = Field(
        0.0, ge=0, le=1, description="Share of the training, from its beginning, in which motion does not teach depth."
    )
    point_from: float = Field(0.0, ge=0, le=1, description="Share of the training after which the point term sets in.")
    scale_weights: tuple[float, float, float, float, float] = Field(
        (4.0, 2.0, 1.0, 1.0, 1.0), description="Of the estimates at 1, 1/2, 1/4, 1/8, 1/16 of the size."
    )
    ssim_weight: float = Field(0.85, ge=0, le=1, description="Against L1.")
    photometric_reduction: Literal["sum_rgb", "mean"] = Field(
        "sum_rgb", description="L1 added up over the colours, as released, or averaged."
    )
    visibility: bool = Field(True, description="Compare only what the other image is seen to show.")
    disparity_smoothness: float = Field(0.1, ge=0, description="At a width of 832; divided by 2^scale.")
    point: float = Field(0.2, ge=0, description="Weight of the 3-D point reconstruction.")
    scene_flow_smoothness: float = Field(200.0, ge=0, description="At a width of 832; divided by 2^scale.")
    smoothness_edge: float = Field(10.0, ge=0, description="Of exp(-edge |dI|).")
    zoom: float = Field(0.07, ge=0, lt=1, description="Most of the image's sides that a training's zoom cuts away.")
    recolour: float = Field(0.5, ge=0, le=1, description="Probability that training changes a sample's colours.")


class SelfMonoSF(MetricByBaseline):
    """Disparity and scene flow at five scales, both directions in time; stereo in training only."""

    Options = SelfMonoSFOptions

    def __init__(self, options: SelfMonoSFOptions) -> None:
        super().__init__(options)
        self.network = SceneFlowNet(options.width, options.normalize_costs)
        load_pyramid(self.network, options.encoder_weights, "self_mono_sf")

    # --- prediction --------------------------------------------------------------------------------------------------

    def predict_scene_flow(
        self, target: Tensor, source: Tensor, K: Tensor, K_source: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] twice and (B, 3, 3) -> depth (B, 1, H, W) and scene flow (B, 3, H, W), metres.

        The unit is that of the baseline of the training pairs.

        Raises:
            ValueError: If the model has not learned from a pair.
        """
        baseline = self.known_baseline().expand(len(target))
        estimate = self.network(target, source, K, K if K_source is None else K_source, baseline)[0]
        depth = depth_of_fraction(estimate.disparity_fraction, K, baseline, target.shape[-1])
        return depth, estimate.scene_flow

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] and (B, 3, 3) -> (B, 1, H, W) metres: of an image paired with itself, at rest."""
        return self.predict_scene_flow(image, image, K)[0]

    # --- training ----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Objective:
        left, right, baseline = self.stereo_video(self.varied(batch) if self.training else batch)
        if self.training:
            self.follow_baseline(baseline)
        estimates = self.network(left.jittered, swapped(left.jittered), left.K, swapped(left.K), baseline)
        right_fractions = self.right_fractions(right, baseline)
        of_disparity, of_motion = [], []
        for scale, (estimate, right_fraction) in enumerate(zip(estimates, right_fractions, strict=True)):
            view, right_view = (area_reduced(frame, size_of(right_fraction)) for frame in (left, right))
            terms, visible = self.disparity_terms(view, right_view, estimate.disparity_fraction, right_fraction, scale)
            of_disparity.append(terms)
            terms, visible = self.motion_terms(view, self.as_motion_sees(estimate), baseline, visible, scale)
            of_motion.append(terms)
            if scale == 0:
                shown = self.shown(view, estimate, baseline, visible)
        groups = [weighted_sum(parts, self.options.scale_weights) for parts in (of_disparity, of_motion)]
        # Both groups count alike, whatever their sizes.
        factors = equal_factors(*(torch.stack(list(group.values())).sum() for group in groups))
        terms = {name: f * term for f, group in zip(factors, groups, strict=True) for name, term in group.items()}
        return Objective(terms, *shown)

    def stereo_video(self, batch: Batch) -> tuple[Frame, Frame, Tensor]:
        """The left and the right views, the target's time and then the source's along the batch, and (2B,) baselines.

        Raises:
            MissingInput: If a second time or the other camera is missing at either time.
        """
        self.require(batch, sources=True, stereo=True)
        if not batch.stereo_sources:
            raise MissingInput(
                f"{type(self).__name__} needs batch.stereo_sources, but {batch.names[0]} has none; set "
                "data.stereo_sources=true."
            )
        assert batch.stereo is not None and batch.T_stereo_target is not None
        T = batch.T_stereo_target
        first = left_right(batch.target, batch.stereo, T)
        second = left_right(batch.sources[0], batch.stereo_sources[0], T)
        left, right = (cat_frames(times) for times in zip(first, second, strict=True))
        return left, right, baseline_of(T).repeat(2)

    def varied(self, batch: Batch) -> Batch:
        """All frames of a sample zoomed and recoloured alike: networks see it, and losses compare it."""
        A = draw_zoom(len(batch), size_of(batch.target.image), self.options.zoom).to(batch.target.image.device)
        recolour = draw_recolouring(len(batch), self.options.recolour)

        def vary(frame: Frame) -> Frame:
            return frame.with_images(lambda image: recolour(affine_image(image, A)[0]), affine_K(frame.K, A))

        return batch.map_frames(vary)

    @torch.no_grad()
    def right_fractions(self, right: Frame, baseline: Tensor) -> list[Tensor]:
        """(2B, 1, h, w) disparities of the right views, by the same network on mirrored images; for visibility."""
        mirrored, K = right.jittered.flip(-1), flip_K(right.K, right.width)
        estimates = self.network(mirrored, swapped(mirrored), K, swapped(K), baseline)
        return [estimate.disparity_fraction.flip(-1) for estimate in estimates]

    def disparity_terms(
        self, left: Frame, right: Frame, fraction: Tensor, right_fraction: Tensor, scale: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Section 3.2, disparity: how the right image explains the left one, and where it shows the same (bool)."""
        warped, _ = warp_by_disparity(right.image, fraction * left.width, "left")
        visible = self.visible(along_rows(-fraction * left.width), along_rows(right_fraction * left.width))
        roughness = mean_of(
            edge_aware_second_order(fraction, left.image, self.options.smoothness_edge, image_stride=1)
        )
        terms = {
            "disparity": masked_mean(self.error(left.image, warped), visible),
            "disparity_smoothness": self.options.disparity_smoothness * bend_weight(left, scale) * roughness,
        }
        return terms, visible

    def motion_terms(
        self, view: Frame, estimate: SceneFlowEstimate, baseline: Tensor, seen_by_right: Tensor, scale: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Section 3.2, scene flow: how the other time's image and points explain these, and where they do (bool)."""
        options = self.options
        depth, flow, in_front = self.projected(view, estimate, baseline)
        points, pixels = backproject(depth, view.K), pixel_grid_like(flow) + flow
        warped = sample_at_pixels(swapped(view.image), pixels)
        visible = self.visible(flow, swapped(flow)) & seen_by_right & in_front
        roughness = scene_flow_roughness(estimate.scene_flow, points, view.image, options.smoothness_edge)
        terms = {
            "photometric": masked_mean(self.error(view.image, warped), visible),
            "smoothness": options.scene_flow_smoothness * bend_weight(view, scale) * mean_of(roughness),
        }
        if self.progress >= options.point_from:
            distance = point_distance(points, estimate.scene_flow, swapped(points), pixels)
            terms["point"] = options.point * masked_mean(distance, visible)
        return terms, visible

    def as_motion_sees(self, estimate: SceneFlowEstimate) -> SceneFlowEstimate:
        """Without a gradient to depth where that learns apart."""
        if self.progress >= self.options.depth_apart:
            return estimate
        return estimate._replace(disparity_fraction=estimate.disparity_fraction.detach())

    def projected(self, view: Frame, estimate: SceneFlowEstimate, baseline: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(2B, 1, h, w) depth, (2B, 2, h, w) flow to the other time, and where the moved points are in front."""
        depth = depth_of_fraction(estimate.disparity_fraction, view.K, baseline, view.width)
        return depth, *scene_flow_to_flow(depth, estimate.scene_flow, view.K, swapped(view.K))

    def error(self, image: Tensor, warped: Tensor) -> Tensor:
        """(B, 1, h, w) photometric error of section 3.2."""
        alpha = self.options.ssim_weight
        colours = image.shape[1] if self.options.photometric_reduction == "sum_rgb" else 1
        return photometric_map(image, warped, alpha, (1 - alpha) * colours)

    @torch.no_grad()
    def visible(self, flow: Tensor, backward_flow: Tensor) -> Tensor:
        """(B, 1, h, w) bool, True where the other view is seen to show the same place, all of an image if little is.

        Args:
            flow, backward_flow: (B, 2, h, w) pixels, to and from the other view.
        """
        everything = torch.ones_like(flow[:, :1], dtype=torch.bool)
        if not self.options.visibility:
            return everything
        seen = (range_map(backward_flow) > LEAST_COVERAGE) & in_view(flow)
        return torch.where(seen.float().mean((1, 2, 3), keepdim=True) < LEAST_VISIBLE, everything, seen)

    @torch.no_grad()
    def shown(
        self, view: Frame, estimate: SceneFlowEstimate, baseline: Tensor, visible: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Maps of the target to show, and figures of both times for the log."""
        depth, flow, _ = self.projected(view, estimate, baseline)
        other = swapped(view.image)
        warped = sample_at_pixels(other, pixel_grid_like(flow) + flow)
        error = self.error(view.image, warped)
        health = depth_health(depth) | flow_health(flow, visible)
        health |= {
            "scene_flow_m": length(estimate.scene_flow).mean(),
            "photometric": masked_mean(error, visible),
            "identity_photometric": masked_mean(self.error(view.image, other), visible),
        }
        maps = {"target": view.image, "warped": warped, "visible": visible.float(), "error": error}
        maps |= {"depth": depth, "flow": flow}
        return {name: x[: len(x) // 2] for name, x in maps.items()}, health


def bend_weight(view: Frame, scale: int) -> float:
    """Of the mean second difference of a map at a scale: 1 / 2^scale, times what makes images of all sizes alike.

    A worked number: at 416 pixels of width second differences are four times those at 832, so they weigh 1/4.
    """
    return (view.width * 2**scale / PAPER_WIDTH) ** 2 / 2**scale


def along_rows(shift_px: Tensor) -> Tensor:
    """(B, 1, h, w) -> (B, 2, h, w) flow to the right by so many pixels."""
    return torch.cat([shift_px, torch.zeros_like(shift_px)], 1)


def weighted_sum(parts: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Every term's sum over the scales, each scale with its weight."""
    scales = list(zip(weights, parts, strict=True))
    return {name: torch.stack([weight * part[name] for weight, part in scales]).sum() for name in parts[0]}
