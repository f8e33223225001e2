"""PWC networks as in DDFlow (two frames) and SelFlow (three): pyramid, warp, cost volume, one estimator a level.

Source: Liu et al., AAAI 2019 (DDFlow), https://arxiv.org/abs/1902.09145, and CVPR 2019 (SelFlow), section 3.2,
https://arxiv.org/abs/1904.09117, after Sun et al., CVPR 2018 (PWC-Net). https://arxiv.org/abs/1709.02371
Layers follow the released code where the papers are silent: leak 0.2, cost volumes that sum the products of
L2-normalised features, estimators that give the flow itself instead of what to add to the coarser one.
Differs: flow is resized with pixel areas aligned; images of any size are padded instead of resized; the coarsest
level starts from zero flow, in the input that other levels have; a feature's norm has an epsilon of 1e-3 instead of
1e-6, because the gradient at an all-zero feature is its inverse; the first flows are near zero.
"""

from __future__ import annotations

from abc import ABC

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.geometry.pixels import size_of
from geossl.geometry.precision import float32_island
from geossl.geometry.transforms import resize_flow
from geossl.geometry.warping import warp_by_flow
from geossl.networks.blocks import conv_float32
from geossl.networks.correlation import correlation
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

LEAK = 0.2
MAX_DISPLACEMENT = 4
COSTS = (2 * MAX_DISPLACEMENT + 1) ** 2
COARSEST, FINEST = 6, 2
MULTIPLE = 2**COARSEST
NORM_EPSILON = 1e-3


class _PWC(nn.Module, ABC):
    """Coarse to fine from one image to `views` others, which share all weights.

    Every other image has a flow and a cost volume of its own; with two of them, each one's estimate sees the other's,
    in mirrored roles. The others lie one after the other along the batch.
    """

    def __init__(self, views: int, width: float, centred: bool) -> None:
        super().__init__()
        self.views = views
        self.centred = centred
        channels = scaled(PYRAMID_CHANNELS, width)
        estimator = scaled(ESTIMATOR_CHANNELS, width)
        self.pyramid = FeaturePyramid(channels, LEAK)
        self.estimators = nn.ModuleDict(
            {
                str(level): _Estimator(channels[level - 1] + views * (COSTS + 2), estimator)
                for level in range(COARSEST, FINEST - 1, -1)
            }
        )
        self.context = ContextNetwork(views * (estimator[-1] + 2), scaled(CONTEXT_CHANNELS, width), LEAK)
        init_he(self)
        estimators = [module for module in self.modules() if isinstance(module, _Estimator)]
        begin_near_zero(*(estimator.flow for estimator in estimators), self.context.convs[-1])

    def _flows(self, target: Tensor, sources: tuple[Tensor, ...]) -> list[Tensor]:
        """(views * B, 2, h, w) flows, finest first, as the final classes describe them."""
        check_images(target, *sources)
        b = len(target)
        images = pad_to_multiple(torch.cat([target, *sources]), MULTIPLE)
        pyramid = self.pyramid(images)
        flows: list[Tensor] = []
        for level in range(COARSEST, FINEST - 1, -1):
            features = pyramid[level - 1]
            own = for_every_other(self.views, features[:b])
            flow = flow_for(flows[-1] if flows else None, features, self.views * b)
            matched = _centred(features, self.views + 1) if self.centred else features
            costs = _cost_volume(for_every_other(self.views, matched[:b]), matched[b:], flow)
            inputs = [own, *beside_other(self.views, costs), *beside_other(self.views, flow, -1)]
            flow, hidden = self.estimators[str(level)](torch.cat(inputs, 1))
            flows.append(flow)
        around = [*beside_other(self.views, hidden), *beside_other(self.views, flow, -1)]
        refined = self.context(torch.cat(around, 1))
        # What the context network gives is added to level 2's flow (DDFlow), or is the flow (SelFlow).
        flows[-1] = resize_flow(flow + refined if self.views == 1 else refined, size_of(images))
        return [unpad_flow(flow, size_of(images), size_of(target)) for flow in flows[::-1]]


class PWC(_PWC):
    """Two frames.

    Args:
        width: Factor of all channels; 1 is the paper's network.
        centred: Whether features are compared without what is common to all pixels; see `_centred`.
    """

    def __init__(self, width: float = 1.0, centred: bool = False) -> None:
        super().__init__(1, width, centred)

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Predicts the flow from the first image to the second.

        Args:
            first, second: (B, 3, H, W) RGB in [0, 1], of any size.

        Returns:
            Five flows, float32, each in pixels of its own map: (B, 2, H, W), which is level 2 after the context
            network, then levels 3 to 6, (B, 2, H / 2^level, W / 2^level), rounded up.

        Raises:
            ValueError: If the images differ in shape.
        """
        return self._flows(first, (second,))


class ThreeFramePWC(_PWC):
    """Three frames: SelFlow's network.

    Args:
        width: Factor of all channels; 1 is the paper's network.
        centred: Whether features are compared without what is common to all pixels; see `_centred`.
    """

    def __init__(self, width: float = 1.0, centred: bool = False) -> None:
        super().__init__(2, width, centred)

    def forward(self, target: Tensor, previous: Tensor, following: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Predicts the flows from the middle image to the previous and to the following one.

        Args:
            target, previous, following: (B, 3, H, W) RGB in [0, 1], of any size.

        Returns:
            Flows to the previous image and flows to the following one; each list as `PWC.forward` gives it.

        Raises:
            ValueError: If the images differ in shape.
        """
        pairs = [flow.chunk(2) for flow in self._flows(target, (previous, following))]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


class _Estimator(nn.Module):
    """Five convolutions, then the flow of a level."""

    def __init__(self, channels_in: int, channels: list[int]) -> None:
        super().__init__()
        sizes = zip((channels_in, *channels), channels, strict=False)
        self.convs = nn.Sequential(*(leaky_conv(c_in, c_out, LEAK) for c_in, c_out in sizes))
        self.flow = nn.Conv2d(channels[-1], 2, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels_in, H, W) -> flow (B, 2, H, W) float32 and the last features (B, channels[-1], H, W)."""
        hidden = self.convs(x)
        return conv_float32(self.flow, hidden), hidden


@float32_island
def _cost_volume(target: Tensor, source: Tensor, flow: Tensor) -> Tensor:
    """(B, 81, H, W): normalised features of the target against the source's where the flow leads, zero outside."""
    warped, _ = warp_by_flow(source, flow, "zeros")
    costs = correlation(_normalized(target), _normalized(warped), MAX_DISPLACEMENT, reduction="sum")
    return F.leaky_relu(costs, LEAK)


@float32_island
def _centred(features: Tensor, images: int) -> Tensor:
    """Features minus the mean of each channel over all pixels of a sample's images.

    What is common to all pixels makes any two features alike: with the first, random weights of a quarter of the
    paper's channels, level 2's normalised products are often near 1 everywhere and differ by 0.05 between
    displacements, too little to learn from in a few thousand steps; centred, they differ by 0.3, almost as random
    directions do.

    Args:
        features: (images * B, C, H, W), the images of the B samples one after the other.
    """
    mean = features.unflatten(0, (images, -1)).mean((0, 3, 4))  # (B, C)
    return features - mean.repeat(images, 1)[:, :, None, None]


def _normalized(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + NORM_EPSILON**2).sqrt()
