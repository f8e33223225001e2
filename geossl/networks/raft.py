"""RAFT with instance norm in both encoders, as in SMURF, of torchvision's modules.

Source: Teed and Deng, ECCV 2020 (RAFT), https://arxiv.org/abs/2003.12039, and Stone et al., CVPR 2021 (SMURF).
https://arxiv.org/abs/2105.07014
Differs from torchvision's forward pass: images of any size are padded (below 128 pixels it divides by zero), the small
network's flow is upsampled with pixel areas aligned, and the all-pairs correlation is float32 whatever the rest is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.optical_flow import raft as tv

from geossl.geometry.pixels import pixel_grid_like, size_of
from geossl.geometry.precision import float32_island
from geossl.geometry.transforms import resize_flow
from geossl.kernels import cpu_kernels_run
from geossl.kernels.lookup import MOST_RADIUS, pyramid_lookup
from geossl.networks.blocks import Standardize, conv_float32
from geossl.networks.flow_layers import check_images
from geossl.networks.padding import pad_to_multiple

STRIDE = 8
IMAGE_MEAN, IMAGE_STD = 0.5, 0.5
FEATURE_LAYERS = {"large": (64, 64, 96, 128, 256), "small": (32, 32, 64, 96, 128), "tiny": (16, 16, 24, 32, 64)}


class RAFT(nn.Module):
    """Recurrent all-pairs field transforms.

    Args:
        size: 'large' (5.25 million parameters) and 'small' (0.99 million) are the paper's networks; 'tiny' (0.30
            million) is for trials without an accelerator, the large one's structure with fewer channels.
        iterations: How often the flow is updated.

    Raises:
        ValueError: If the size is none of these, or there is no iteration.
    """

    def __init__(self, size: Literal["large", "small", "tiny"] = "large", iterations: int = 12) -> None:
        super().__init__()
        if size not in BUILDERS:
            raise ValueError(f"unknown RAFT size '{size}'; expected one of {', '.join(BUILDERS)}.")
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}; expected at least 1.")
        self.iterations = iterations
        self.standardize = Standardize(IMAGE_MEAN, IMAGE_STD)
        self.net: Any = BUILDERS[size]()  # torchvision's RAFT, whose parts are called one by one

    @property
    def encoder(self) -> FeatureStages:
        """The feature encoder, whose products are the correlations."""
        return FeatureStages(self.net.feature_encoder)

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Predicts the flow from the first image to the second.

        Args:
            first, second: (B, 3, H, W) RGB in [0, 1], of any size.

        Returns:
            One (B, 2, H, W) float32 flow in pixels an iteration, the last (best) iteration first: the weight of
            flow i in a sequence loss is gamma^i.

        Raises:
            ValueError: If the images differ in shape.
        """
        check_images(first, second)
        # The correlation's coarsest level must have two rows and columns.
        least = 2 * STRIDE * 2 ** (self.net.corr_block.num_levels - 1)
        images = pad_to_multiple(self.standardize(torch.cat([first, second])), STRIDE, least)
        h, w = size_of(first)
        return [flow[..., :h, :w] for flow in self._updates(images)[::-1]]

    def _updates(self, images: Tensor) -> list[Tensor]:
        """(2 B, 3, H, W) in [-1, 1], the first images before the second -> (B, 2, H, W) flows, an iteration each."""
        net, update = self.net, self.net.update_block
        lookup = _lookup(net.corr_block, net.feature_encoder(images))
        channels = update.hidden_state_size
        encoded = net.context_encoder(images[: len(images) // 2])
        hidden, context = encoded[:, :channels].tanh(), encoded[:, channels:].relu()
        flow = torch.zeros_like(encoded[:, :2], dtype=torch.float32)
        flows = []
        for _ in range(self.iterations):
            flow = flow.detach()  # the paper's section 3.3: no gradient from one iteration's coordinates to the last's
            motion = update.motion_encoder(flow, lookup(flow))
            hidden = update.recurrent_block(hidden, torch.cat([context, motion], 1))
            flow = flow + conv_float32(update.flow_head, hidden)
            if net.mask_predictor is None:
                flows.append(resize_flow(flow, size_of(images)))
            else:
                flows.append(convex_upsample(flow, net.mask_predictor(hidden)))
        return flows


class FeatureStages(nn.Module):
    """A feature encoder's maps at strides 2, 4 and 8, the last of which RAFT correlates.

    Args:
        feature_encoder: torchvision's, of `feature_encoder` or a network's own.
    """

    def __init__(self, feature_encoder: Any) -> None:
        super().__init__()
        self.feature_encoder = feature_encoder

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> (B, channels[i], H / 2^(i+1), W / 2^(i+1))."""
        net = self.feature_encoder
        half = net.layer1(net.convnormrelu(image))
        quarter = net.layer2(half)
        return [half, quarter, net.conv(net.layer3(quarter))]


@float32_island
def convex_upsample(flow: Tensor, logits: Tensor) -> Tensor:
    """Upsamples flow eight times, each pixel a weighted mean of the 3 x 3 coarse ones around it.

    Args:
        flow: (B, 2, h, w) pixels of this map.
        logits: (B, 9 * 8 * 8, h, w), weights before the softmax: neighbours outermost, then rows and columns within.

    Returns:
        (B, 2, 8 h, 8 w) pixels of the new map; zero flow counts as neighbour outside.

    Source: Teed and Deng, ECCV 2020, section 3.3 and appendix B.
    """
    b, _, h, w = flow.shape
    weights = logits.view(b, 1, 9, STRIDE, STRIDE, h, w).softmax(2)
    neighbours = F.unfold(STRIDE * flow, 3, padding=1).view(b, 2, 9, 1, 1, h, w)
    fine = (weights * neighbours).sum(2)  # (B, 2, 8, 8, h, w)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(b, 2, STRIDE * h, STRIDE * w)


@float32_island
def lookup_in(pyramid: Sequence[Tensor], radius: int) -> Callable[[Tensor], Tensor]:
    """Correlations of every pixel with those around a place, at all levels of a pyramid.

    Args:
        pyramid: One (B * h * w, 1, h', w') of a level, maps of the pixels of the first image, each level of half the
            size of the one before. They count as zero outside.
        radius: Of the places around the one that is asked for, in pixels of each level.

    Returns:
        A function of (B, 2, h, w) places (u, v) in pixels of the first level: (B, levels * (2 radius + 1)^2, h, w)
        correlations, levels outermost, then du, dv fastest. Gradients go to the pyramid, none to the places.

    Convention: level i is read at places / 2^i, as in RAFT's released code: u = 10 is read at 5 of level 1, whose
        pixels have it at 4.75.
    Source: Teed and Deng, ECCV 2020, section 3.2.
    """
    if radius <= MOST_RADIUS and cpu_kernels_run(*pyramid):
        return pyramid_lookup(pyramid, radius)
    block = tv.CorrBlock(num_levels=len(pyramid), radius=radius)
    block.corr_pyramid = list(pyramid)
    index = float32_island(block.index_pyramid)
    return lambda pixels: index(pixels.detach())


@float32_island
def _lookup(corr_block: Any, features: Tensor) -> Callable[[Tensor], Tensor]:
    """Correlates all pairs of pixels; the result maps a flow to the correlations around where it leads."""
    corr_block.build_pyramid(*features.chunk(2))
    # Kept by the block, the pyramid would stay in memory after the step and forbid to copy the network (a teacher).
    pyramid, corr_block.corr_pyramid = corr_block.corr_pyramid, []
    look_up = lookup_in(pyramid, corr_block.radius)
    return lambda flow: look_up(pixel_grid_like(flow) + flow)


def feature_encoder(size: str) -> nn.Module:
    """The feature encoder of RAFT of a size, alone; its layers are those of `FEATURE_LAYERS`."""
    return _encoder(FEATURE_LAYERS[size], tv.BottleneckBlock if size == "small" else tv.ResidualBlock)


def _large() -> nn.Module:
    return tv.raft_large(weights=None, context_encoder=_encoder((64, 64, 96, 128, 256)))


def _small() -> nn.Module:
    context = _encoder((32, 32, 64, 96, 160), tv.BottleneckBlock)
    return tv.raft_small(weights=None, context_encoder=context)


def _tiny() -> nn.Module:
    hidden = 32
    corr_block = tv.CorrBlock(num_levels=3, radius=3)  # the fourth would pad images of 64 rows to 128
    motion = tv.MotionEncoder(
        in_channels_corr=corr_block.out_channels, corr_layers=(48,), flow_layers=(32, 16), out_channels=40
    )
    update = tv.UpdateBlock(
        motion_encoder=motion,
        recurrent_block=tv.RecurrentBlock(
            input_size=motion.out_channels + hidden, hidden_size=hidden, kernel_size=(3,), padding=(1,)
        ),
        flow_head=tv.FlowHead(in_channels=hidden, hidden_size=hidden),
    )
    return tv.RAFT(
        feature_encoder=feature_encoder("tiny"),
        context_encoder=_encoder((16, 16, 24, 32, 2 * hidden)),
        corr_block=corr_block,
        update_block=update,
        mask_predictor=tv.MaskPredictor(in_channels=hidden, hidden_size=hidden),
    )


def _encoder(layers: tuple[int, ...], block: type[nn.Module] = tv.ResidualBlock) -> nn.Module:
    return tv.FeatureEncoder(block=block, layers=layers, norm_layer=nn.InstanceNorm2d)


BUILDERS = {"large": _large, "small": _small, "tiny": _tiny}
