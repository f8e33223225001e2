"""Depth and 3-D motion from two frames of one camera: a PWC-style pyramid, one estimator a level for both.

Source: Hur and Roth, CVPR 2020 (Self-supervised monocular scene flow estimation), section 3.1 and supplement.
https://arxiv.org/abs/2004.04143
Layers follow the released code where the paper is silent. Every level gives the disparity itself, as a share of the
image's width, and what is to be added to the coarser level's scene flow.
Differs: depth is made with the focal length and the baseline that are given, instead of 0.54 m; maps are resized with
pixel areas aligned, where the released code aligns corners; images of any size are padded to multiples of 64. The
first scene flows are near zero, and the first disparities near 3 % of the width instead of 15 %, from which nothing
in the other image is found.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.geometry.conversion import disparity_px_to_depth
from geossl.geometry.pixels import size_of
from geossl.geometry.precision import float32_island
from geossl.geometry.transforms import resize_K, upsample
from geossl.geometry.warping import warp_by_scene_flow
from geossl.networks.blocks import conv_float32
from geossl.networks.correlation import pyramid_costs
from geossl.networks.flow_layers import (
    CONTEXT_CHANNELS,
    ESTIMATOR_CHANNELS,
    ContextNetwork,
    FeaturePyramid,
    begin_near_zero,
    check_images,
    init_he,
    leaky_conv,
    scaled,
)
from geossl.networks.padding import pad_to_multiple, unpad

LEAK = 0.1
PYRAMID_CHANNELS = (32, 64, 96, 128, 192, 256)
MAX_DISPLACEMENT = 4
COSTS = (2 * MAX_DISPLACEMENT + 1) ** 2
LEVELS = 5  # decoded, out of the pyramid's six
MULTIPLE = 64
UPSAMPLING = 4
MAX_DISPARITY = 0.3  # of the width
FIRST_DISPARITY = 0.03
NEAREST_M, FARTHEST_M = 1e-3, 80.0
OUTPUTS = 4  # scene flow and the disparity's logit


class SceneFlowEstimate(NamedTuple):
    """What is known of the first image at one scale.

    Attributes:
        scene_flow: (B, 3, h, w) metres in camera 1.
        disparity_fraction: (B, 1, h, w) in (0, 0.3): the disparity between training's stereo cameras, as a share of
            the width.
    """

    scene_flow: Tensor
    disparity_fraction: Tensor


@float32_island
def depth_of_fraction(disparity_fraction: Tensor, K: Tensor, baseline_m: Tensor, width: int) -> Tensor:
    """(B, 1, H, W) share of the width -> z-depth in metres, between 1 mm and 80 m.

    Args:
        K: (B, 3, 3) pixels of an image `width` wide. baseline_m: (B,) of the cameras that the disparity lies between.

    Convention: fx 700 px, width 1400, baseline 0.5 m: 0.025 of the width are 35 pixels, 10 m.
    """
    disparity_px = disparity_fraction * width + 1e-8  # a sigmoid may underflow
    return disparity_px_to_depth(disparity_px, K[:, 0, 0], baseline_m).clamp(NEAREST_M, FARTHEST_M)


class SceneFlowNet(nn.Module):
    """Five estimates, coarse to fine.

    Args:
        width: Factor of all channels; 1 is the paper's network.
        normalize_costs: As of `pyramid_costs`; the paper's network does not.
    """

    def __init__(self, width: float = 1.0, normalize_costs: bool = False) -> None:
        super().__init__()
        self.normalize_costs = normalize_costs
        channels = scaled(PYRAMID_CHANNELS, width)
        decoder = scaled(ESTIMATOR_CHANNELS, width)
        hidden = decoder[-1]
        coarser = [0] + [hidden + OUTPUTS] * (LEVELS - 1)  # channels of what the level before knew
        self.pyramid = FeaturePyramid(channels, LEAK)
        self.estimators = nn.ModuleList(
            _Estimator(COSTS + own + before, decoder)
            for own, before in zip(channels[: -LEVELS - 1 : -1], coarser, strict=True)
        )
        self.upconvs = nn.ModuleList(leaky_conv(hidden, hidden, LEAK) for _ in range(LEVELS - 1))
        self.context = ContextNetwork(hidden + OUTPUTS, scaled(CONTEXT_CHANNELS, width), LEAK, OUTPUTS)
        init_he(self)
        share = FIRST_DISPARITY / MAX_DISPARITY
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.out_channels == OUTPUTS:
                begin_near_zero(module)
                assert module.bias is not None
                nn.init.constant_(module.bias[3:], math.log(share / (1 - share)))

    def forward(
        self, first: Tensor, second: Tensor, K: Tensor, K_second: Tensor, baseline_m: Tensor
    ) -> list[SceneFlowEstimate]:
        """Predicts what the first image shows and how it moves to the second.

        Args:
            first, second: (B, 3, H, W) RGB in [0, 1], of any size.
            K, K_second: (B, 3, 3) pixels.
            baseline_m: (B,) distance of the stereo cameras that the disparity lies between.

        Returns:
            Five estimates, float32, of sizes (H / 2^i, W / 2^i), rounded up, for i = 0..4; each is made at a quarter
            of its size.

        Raises:
            ValueError: If the images differ in shape.
        """
        check_images(first, second)
        size = size_of(first)
        images = pad_to_multiple(torch.cat([first, second]), MULTIPLE)
        padded = size_of(images)
        pyramid = self.pyramid(images)[::-1]
        rule = MAX_DISPLACEMENT, LEAK, self.normalize_costs
        before: tuple[Tensor, Tensor, Tensor] | None = None
        estimates: list[SceneFlowEstimate] = []
        for level, estimator in enumerate(self.estimators):
            own, other = pyramid[level].chunk(2)
            here = size_of(own)
            if before is None:
                output, hidden = estimator(torch.cat([pyramid_costs(own, other, *rule), own], 1))
                scene_flow = output[:, :3]
            else:
                hidden = self.upconvs[level - 1](F.interpolate(before[0], here, mode="nearest"))
                scene_flow, fraction = (upsample(x, here) for x in before[1:])
                depth = depth_of_fraction(fraction, K, baseline_m, size[1])
                cameras = (resize_K(k, padded, here) for k in (K, K_second))
                warped, visible = warp_by_scene_flow(other, depth, scene_flow, *cameras)
                known = [own, hidden, scene_flow, fraction]
                output, hidden = estimator(torch.cat([pyramid_costs(own, warped * visible, *rule), *known], 1))
                scene_flow = scene_flow + output[:, :3]
            logit = output[:, 3:]
            if level == LEVELS - 1:
                output = self.context(torch.cat([hidden, scene_flow, logit], 1))
                scene_flow, logit = scene_flow + output[:, :3], output[:, 3:]
            before = hidden, scene_flow, MAX_DISPARITY * logit.sigmoid()
            finer = [upsample(x, (UPSAMPLING * here[0], UPSAMPLING * here[1])) for x in before[1:]]
            estimates.append(SceneFlowEstimate(*(unpad(x, padded, size) for x in finer)))
        return estimates[::-1]


class _Estimator(nn.Module):
    """Five convolutions, then scene flow and the disparity's logit."""

    def __init__(self, channels_in: int, channels: list[int]) -> None:
        super().__init__()
        sizes = zip((channels_in, *channels), channels, strict=False)
        self.convs = nn.Sequential(*(leaky_conv(c_in, c_out, LEAK) for c_in, c_out in sizes))
        self.head = nn.Conv2d(channels[-1], OUTPUTS, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels_in, H, W) -> (B, 4, H, W) float32 and the last features (B, channels[-1], H, W)."""
        hidden = self.convs(x)
        return conv_float32(self.head, hidden), hidden
