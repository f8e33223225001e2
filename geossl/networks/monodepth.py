"""Monodepth's networks (2017): the disparity of both stereo views from the left image, at four scales.

Source: Godard et al., CVPR 2017. https://arxiv.org/abs/1609.03677
Layers follow the released code where the paper is silent: zero padding everywhere, ELU after every convolution
but the last of a residual unit, max-pooling of the zero-padded map, a projection in every residual unit
(a condition there is always true), and a stride in the last unit of a stage instead of the first.
Differs: upsampled maps are cropped to the size they join, so image sizes need not be multiples of 64 or 128.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.networks.blocks import conv_float32, crop_like, init_xavier
from geossl.networks.flow_layers import scaled

DECODER_CHANNELS = (512, 512, 256, 128, 64, 32, 16)


class MonodepthNet(nn.Module):
    """Encoder and decoder with skip connections; the four finest levels give disparities.

    Args:
        encoder: 'resnet50' (six levels) or 'vgg' (seven).
        width: Factor of all channels; 1 is the paper's network.
        max_disparity: Largest disparity, as a fraction of the image's width.
    """

    def __init__(
        self, encoder: Literal["resnet50", "vgg"] = "resnet50", width: float = 1.0, max_disparity: float = 0.3
    ) -> None:
        super().__init__()
        self.max_disparity = max_disparity
        if encoder not in LEVELS:
            raise ValueError(f"unknown Monodepth encoder '{encoder}'; expected 'resnet50' or 'vgg'.")
        self.encoder: Levels = LEVELS[encoder](width)
        levels = len(self.encoder.channels)
        dims = scaled(DECODER_CHANNELS[-levels:], width)
        skips = (0, *self.encoder.channels[:-1])
        self.upconvs = nn.ModuleDict()
        self.iconvs = nn.ModuleDict()
        self.disps = nn.ModuleDict()
        below = self.encoder.channels[-1]
        for level, dim in zip(range(levels, 0, -1), dims, strict=True):
            coarser_disps = 2 if level <= 3 else 0
            self.upconvs[str(level)] = _Conv(below, dim, 3)
            self.iconvs[str(level)] = _Conv(dim + skips[level - 1] + coarser_disps, dim, 3)
            if level <= 4:
                self.disps[str(level)] = nn.Conv2d(dim, 2, 3, padding=1)
            below = dim
        init_xavier(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in [0, 1] -> disparity_fraction, (B, 2, H / 2^s, W / 2^s) float32 for s = 0..3.

        Channel 0 is the left view's disparity, channel 1 the right view's, both positive and below
        `max_disparity`. Odd sizes round up.
        """
        skips = [image, *self.encoder(image)]
        x = skips[-1]
        maps: list[Tensor] = []
        for level in range(len(skips) - 1, 0, -1):
            skip = skips[level - 1]
            parts = [self.upconvs[str(level)](_doubled(x, skip))]
            if level > 1:  # of the image itself only the size is used
                parts.append(skip)
            if maps:
                parts.append(_doubled(maps[-1], skip).to(parts[0].dtype))
            x = self.iconvs[str(level)](torch.cat(parts, 1))
            if level <= 4:
                maps.append(self.max_disparity * torch.sigmoid(conv_float32(self.disps[str(level)], x)))
        return maps[::-1]


class Levels(nn.Module, ABC):
    """An encoder with one feature for each halving of the image; `channels` are theirs.

    Args:
        width: Factor of the channels.
    """

    channels: tuple[int, ...]

    @abstractmethod
    def __init__(self, width: float) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]: ...


class _Conv(nn.Module):
    """Convolution with zero padding and ELU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.conv(x))


class _Vgg(Levels):
    """Seven pairs of convolutions, the second of each with stride 2."""

    def __init__(self, width: float) -> None:
        super().__init__(width)
        self.channels = tuple(scaled((32, 64, 128, 256, 512, 512, 512), width))
        below = 3
        blocks = []
        for channels, kernel in zip(self.channels, (7, 5, 3, 3, 3, 3, 3), strict=True):
            blocks.append(nn.Sequential(_Conv(below, channels, kernel), _Conv(channels, channels, kernel, stride=2)))
            below = channels
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor) -> list[Tensor]:
        return _run(self.blocks, image)


class _Resnet50(Levels):
    """ResNet50 without batch normalisation, each stage halving once."""

    def __init__(self, width: float) -> None:
        super().__init__(width)
        dims = scaled((64, 64, 128, 256, 512), width)
        self.channels = (dims[0], dims[0], *(4 * dim for dim in dims[1:]))
        stages: list[nn.Module] = [_Conv(3, dims[0], 7, stride=2), _ZeroPaddedMaxPool()]
        below = dims[0]
        for dim, units in zip(dims[1:], (3, 4, 6, 3), strict=True):
            strides = [1] * (units - 1) + [2]
            inputs = [below] + [4 * dim] * (units - 1)
            stages.append(nn.Sequential(*(_Residual(i, dim, s) for i, s in zip(inputs, strides, strict=True))))
            below = 4 * dim
        self.blocks = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        return _run(self.blocks, image)


LEVELS: dict[str, type[Levels]] = {"resnet50": _Resnet50, "vgg": _Vgg}


class _ZeroPaddedMaxPool(nn.Module):
    """3x3, stride 2. The border competes with 0, which ELU's negative values make a difference to."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=2)


class _Residual(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a projection."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _Conv(channels_in, channels, 1)
        self.conv2 = _Conv(channels, channels, 3, stride)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1)
        self.projection = nn.Conv2d(channels_in, 4 * channels, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.conv3(self.conv2(self.conv1(x))) + self.projection(x))


def _doubled(x: Tensor, reference: Tensor) -> Tensor:
    """`x` twice as large, cropped to the reference's size."""
    return crop_like(F.interpolate(x, scale_factor=2.0, mode="nearest"), reference)


def _run(blocks: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """The output of every block, one after the other."""
    outputs = []
    for block in blocks:
        x = block(x)
        outputs.append(x)
    return outputs
