"""PWC-Lite, ARFlow's network: one decoder for all levels, flows five times up to the image's size.

Source: Liu et al., CVPR 2020 (ARFlow), section 4.1. https://arxiv.org/abs/2003.13045
Layers and their names follow the released code where the paper is silent.
Differs: flow is resized with pixel areas aligned, where the released code aligns corners; images of any size are
padded to multiples of 64. The first flows are near zero.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import resize_flow
from geossl.geometry.warping import warp_by_flow
from geossl.networks.blocks import conv_float32
from geossl.networks.correlation import pyramid_costs
from geossl.networks.flow_layers import (
    CONTEXT_CHANNELS,
    ESTIMATOR_CHANNELS,
    PYRAMID_CHANNELS,
    ContextNetwork,
    FeaturePyramid,
    begin_near_zero,
    beside_other,
    check_images,
    flow_for,
    for_every_other,
    init_he,
    leaky_conv,
    scaled,
)
from geossl.networks.padding import pad_to_multiple, unpad_flow

LEAK = 0.1
MAX_DISPLACEMENT = 4
COSTS = (2 * MAX_DISPLACEMENT + 1) ** 2
LEVELS = 5  # decoded, out of the pyramid's six
MULTIPLE = 64
UPSAMPLING = 4
SHARED_CHANNELS = 32  # of every level's features, as the shared decoder sees them


class _PWCLite(nn.Module, ABC):
    """Coarse to fine from one image to `views` others, which share all weights and lie along the batch."""

    def __init__(self, views: int, width: float, normalize_costs: bool) -> None:
        super().__init__()
        self.views, self.normalize_costs = views, normalize_costs
        channels = scaled(PYRAMID_CHANNELS, width)
        estimator = scaled(ESTIMATOR_CHANNELS, width)
        shared = scaled([SHARED_CHANNELS], width)[0]
        self.feature_pyramid_extractor = FeaturePyramid(channels, LEAK)
        self.conv_1x1 = nn.ModuleList(leaky_conv(c, shared, LEAK, kernel=1) for c in channels[: -LEVELS - 1 : -1])
        self.flow_estimators = _Estimator(shared + views * (COSTS + 2), estimator)
        self.context_networks = ContextNetwork(views * (estimator[-1] + 2), scaled(CONTEXT_CHANNELS, width), LEAK)
        init_he(self)
        begin_near_zero(self.flow_estimators.predict_flow, self.context_networks.convs[-1])

    def _flows(self, target: Tensor, sources: tuple[Tensor, ...]) -> list[Tensor]:
        """(views * B, 2, h, w) flows, finest first, as the final classes describe them."""
        check_images(target, *sources)
        b, views = len(target), self.views
        images = pad_to_multiple(torch.cat([target, *sources]), MULTIPLE)
        pyramid = self.feature_pyramid_extractor(images)[::-1]
        flow: Tensor | None = None
        flows: list[Tensor] = []
        for features, conv_1x1 in zip(pyramid, self.conv_1x1, strict=False):
            flow = flow_for(flow, features, views * b)
            warped, _ = warp_by_flow(features[b:], flow)
            own = for_every_other(views, features[:b])
            costs = pyramid_costs(own, warped, MAX_DISPLACEMENT, LEAK, self.normalize_costs)
            appearance = for_every_other(views, conv_1x1(features[:b]))
            # The order that the released weights of each network expect.
            head = [costs, appearance] if views == 1 else [appearance, *beside_other(views, costs)]
            step, hidden = self.flow_estimators(torch.cat([*head, *beside_other(views, flow, -1)], 1))
            flow = flow + step
            around = [*beside_other(views, hidden), *beside_other(views, flow, -1)]
            flow = flow + self.context_networks(torch.cat(around, 1))
            h, w = size_of(flow)
            upsampled = resize_flow(flow, (UPSAMPLING * h, UPSAMPLING * w))
            flows.append(unpad_flow(upsampled, size_of(images), size_of(target)))
        return flows[::-1]


class PWCLite(_PWCLite):
    """Two frames, 2.24 million parameters.

    Args:
        width: Factor of all channels; 1 is the paper's network.
        normalize_costs: As of `pyramid_costs`; the paper's network does not.
    """

    def __init__(self, width: float = 1.0, normalize_costs: bool = False) -> None:
        super().__init__(1, width, normalize_costs)

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Predicts the flow from the first image to the second.

        Args:
            first, second: (B, 3, H, W) RGB in [0, 1], of any size.

        Returns:
            Five flows, float32, each in pixels of its own map: (B, 2, H / 2^i, W / 2^i), rounded up, for i = 0..4;
            each is estimated at a quarter of its size.

        Raises:
            ValueError: If the images differ in shape.
        """
        return self._flows(first, (second,))


class ThreeFramePWCLite(_PWCLite):
    """Three frames ("ARFlow-MV"): each flow's estimate sees the other's, in mirrored roles.

    Args:
        width: Factor of all channels; 1 is the paper's network.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__(2, width, normalize_costs=False)

    def forward(self, target: Tensor, previous: Tensor, following: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Predicts the flows from the middle image to the previous and to the following one.

        Args:
            target, previous, following: (B, 3, H, W) RGB in [0, 1], of any size.

        Returns:
            Flows to the previous image and flows to the following one; each list as `PWCLite.forward` gives it.

        Raises:
            ValueError: If the images differ in shape.
        """
        pairs = [flow.chunk(2) for flow in self._flows(target, (previous, following))]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


class _Estimator(nn.Module):
    """Five convolutions, each from the third on seeing the two before it, then what to add to the flow."""

    def __init__(self, channels_in: int, channels: Sequence[int]) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = channels
        self.conv1 = leaky_conv(channels_in, c1, LEAK)
        self.conv2 = leaky_conv(c1, c2, LEAK)
        self.conv3 = leaky_conv(c1 + c2, c3, LEAK)
        self.conv4 = leaky_conv(c2 + c3, c4, LEAK)
        self.conv5 = leaky_conv(c3 + c4, c5, LEAK)
        self.predict_flow = nn.Sequential(nn.Conv2d(c4 + c5, 2, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels_in, H, W) -> flow (B, 2, H, W) float32 and the last features (B, channels[-1], H, W)."""
        x1 = self.conv1(x)
        x2 = self.conv2(x1)
        x3 = self.conv3(torch.cat([x1, x2], 1))
        x4 = self.conv4(torch.cat([x2, x3], 1))
        x5 = self.conv5(torch.cat([x3, x4], 1))
        return conv_float32(self.predict_flow, torch.cat([x4, x5], 1)), x5
