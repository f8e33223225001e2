"""Monodepth: disparity from one image, learned from rectified stereo pairs.

Source: Godard, Mac Aodha, Brostow: Unsupervised monocular depth estimation with left-right consistency, CVPR 2017.
https://arxiv.org/abs/1609.03677

The three samplings of its figure 2, all from the left image alone:
    naive   a disparity aligned with the right image, which it reconstructs from the left.
    no_lr   a disparity aligned with the left image, which it reconstructs from the right.
    lr      both disparities, each reconstructing its image, held together by left-right consistency.

Differs:
    * Pixel centres are integers throughout; the released sampler is off by up to half a pixel at the borders.
    * A mirrored pair is recognised by its geometry (the sign of the baseline) and its views change roles.
    * Any encoder of this toolkit may replace the released ResNet50 and VGG forms.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from geossl.config import Strict
from geossl.geometry.conversion import per_sample
from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import area_mean
from geossl.geometry.warping import warp_by_disparity
from geossl.losses.consistency import left_right_consistency
from geossl.losses.photometric import l1_map, photometric_map
from geossl.losses.smoothness import edge_aware_smoothness, mean_of
from geossl.methods.stereo import MetricByBaseline, baseline_of, left_right
from geossl.networks.depth_decoder import DepthDecoder
from geossl.networks.encoders import NAMES, build_encoder, check_name
from geossl.networks.monodepth import MonodepthNet
from geossl.networks.pyramid_encoder import load_pyramid
from geossl.types import Batch, Frame, Objective

RELEASED: dict[str, Literal["resnet50", "vgg"]] = {"monodepth_resnet50": "resnet50", "monodepth_vgg": "vgg"}


class MonodepthOptions(Strict):
    sampling: Literal["naive", "no_lr", "lr"] = Field("lr", description="Figure 2 of the paper.")
    network: str = Field(
        "monodepth_resnet50",
        description="monodepth_resnet50 or monodepth_vgg as released, or an encoder "
        "(resnet18, compact, timm:NAME, ...) with Monodepth2's decoder.",
    )
    encoder_weights: str | None = Field(
        None,
        description="The encoder folder of a pre-training with this network as its encoder, or null for random; for "
        "an encoder with Monodepth2's decoder also imagenet or a file.",
    )
    decoder_channels: tuple[int, int, int, int, int] = (16, 32, 64, 128, 256)
    max_disparity: float = Field(
        0.3,
        gt=0,
        le=1,
        description="Of the width. A fresh network predicts half of it everywhere, which small images cannot be "
        "compared from: set it to little more than the nearest surface has.",
    )
    ssim_weight: float = Field(0.85, ge=0, le=1)
    smoothness: float = Field(0.1, ge=0, description="Divided by 2^scale.")
    consistency: float = Field(1.0, ge=0, description="Weight of left-right consistency; used by lr.")


class Monodepth(MetricByBaseline):
    """Disparity as a fraction of the width at four scales; appearance, smoothness and left-right terms, eq. 1."""

    Options = MonodepthOptions

    def __init__(self, options: MonodepthOptions) -> None:
        super().__init__(options)
        self.network: torch.nn.Module
        check_name(options.network, (*RELEASED, *NAMES))
        if options.network in RELEASED:
            self.network = MonodepthNet(RELEASED[options.network], max_disparity=options.max_disparity)
            load_pyramid(self.network, options.encoder_weights, options.network)
        else:
            encoder = build_encoder(options.network, options.encoder_weights)
            decoder = DepthDecoder(encoder.channels, (0, 1, 2, 3), outputs=2, dims=options.decoder_channels)
            self.network = torch.nn.Sequential(encoder, decoder)

    def disparities(self, left: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> finest first, (B, 2, h, w) disparity fractions: aligned with left, aligned with right."""
        maps = self.network(left)
        if isinstance(self.network, MonodepthNet):
            return list(maps)
        return [self.options.max_disparity * unit for unit in maps]

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], (B, 3, 3) -> (B, 1, H, W) metres, by the baseline of the training pairs.

        A naive model's disparity belongs to the right image; it is used as the left's, as the paper does.

        Raises:
            ValueError: If the model has not learned from a pair.
        """
        baseline_m = self.known_baseline()
        index = 1 if self.options.sampling == "naive" else 0
        fraction = self.disparities(image)[0][:, index : index + 1].float()
        fx = per_sample(K[:, 0, 0], fraction)
        return fx * baseline_m / (fraction.clamp_min(1e-6) * image.shape[-1])

    def forward(self, batch: Batch) -> Objective:
        left, right, baseline = self.left_right(batch)
        if self.training:
            self.follow_baseline(baseline)
        use_left = self.options.sampling in ("no_lr", "lr")
        use_right = self.options.sampling in ("naive", "lr")
        appearance, smoothness, consistency, maps, health = [], [], [], {}, {}
        for scale, both in enumerate(self.disparities(left.jittered)):
            d_left, d_right = both.float().chunk(2, dim=1)
            width = both.shape[-1]
            left_image, right_image = (area_mean(f.image, size_of(both)) for f in (left, right))
            if use_left:
                warped, _ = warp_by_disparity(right_image, d_left * width, "left")
                appearance.append(self.appearance(warped, left_image))
                smoothness.append(self.roughness(d_left, left_image) / 2**scale)
            if use_right:
                right_warped, _ = warp_by_disparity(left_image, d_right * width, "right")
                appearance.append(self.appearance(right_warped, right_image))
                smoothness.append(self.roughness(d_right, right_image) / 2**scale)
            if use_left and use_right:
                consistency.append(left_right_consistency(d_left, d_right, "left", width).mean())
                consistency.append(left_right_consistency(d_right, d_left, "right", width).mean())
            if scale == 0:
                shown, image, d = (warped, left_image, d_left) if use_left else (right_warped, right_image, d_right)
                identity = self.appearance(right_image, left_image).detach()
                maps = {"target": image, "warped": shown, "error": l1_map(shown, image), "disparity": d}
                health = {"photometric": appearance[0].detach(), "identity_photometric": identity}
                health |= self.disparity_health(d, left, baseline)

        terms = {"appearance": torch.stack(appearance).sum(), "smoothness": torch.stack(smoothness).sum()}
        if consistency:
            terms["consistency"] = self.options.consistency * torch.stack(consistency).sum()
        return Objective(terms, {name: value.detach() for name, value in maps.items()}, health)

    def left_right(self, batch: Batch) -> tuple[Frame, Frame, Tensor]:
        """The geometric left and right view of every sample, and the (B,) baselines in metres."""
        self.require(batch, stereo=True)
        assert batch.stereo is not None and batch.T_stereo_target is not None
        left, right = left_right(batch.target, batch.stereo, batch.T_stereo_target)
        return left, right, baseline_of(batch.T_stereo_target)

    def appearance(self, warped: Tensor, image: Tensor) -> Tensor:
        """Eq. 2: SSIM without padding and L1, each averaged over its own pixels."""
        alpha = self.options.ssim_weight
        ssim = photometric_map(warped, image, alpha, 0)[..., 1:-1, 1:-1]
        return ssim.mean() + (1 - alpha) * l1_map(warped, image).mean()

    def roughness(self, disparity: Tensor, image: Tensor) -> Tensor:
        return self.options.smoothness * mean_of(edge_aware_smoothness(disparity, image))

    @torch.no_grad()
    def disparity_health(self, fraction: Tensor, frame: Frame, baseline: Tensor) -> dict[str, Tensor]:
        depth = per_sample(frame.K[:, 0, 0] * baseline, fraction) / (fraction.clamp_min(1e-6) * frame.width)
        spread = fraction.std((1, 2, 3)) / fraction.mean((1, 2, 3))
        return {"median_depth": depth.median(), "disparity_spread": spread.mean()}
