"""Monodepth2's depth decoder: features to sigmoid maps at up to four scales."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.kernels.decoder import decoder_input_fits, padded_elu
from geossl.networks.blocks import conv_float32

NUM_LEVELS = 5


def decoder_input(x: Tensor, feature: Tensor | None = None, upsample: bool = False) -> Tensor:
    """What a 3x3 convolution reads that follows another one: ELU, upsampling, joining and padding by reflection.

    Args:
        x: (B, C, H, W), the output of the convolution before; at least 2 x 2 after upsampling.
        feature: (B, C', H, W), or twice as large with `upsample`: the channels that follow those of `x`, as they are.
        upsample: Whether `x` is made twice as large, every pixel four times.

    Returns:
        (B, C + C', H + 2, W + 2), or (B, C + C', 2 H + 2, 2 W + 2).

    Raises:
        ValueError: If the sizes do not fit.
    """
    factor = 2 if upsample else 1
    b, h, w = x.shape[0], factor * x.shape[2], factor * x.shape[3]
    if feature is not None and (feature.shape[0], *feature.shape[2:]) != (b, h, w):
        raise ValueError(
            f"feature has shape {tuple(feature.shape)}; expected ({b}, C, {h}, {w}), "
            f"as x {tuple(x.shape)} is made {factor} times as large."
        )
    if min(h, w) < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; a border can be mirrored where there are 2 x 2 pixels or more."
        )
    if decoder_input_fits(x, feature):
        return padded_elu(x, feature, upsample)
    x = F.elu(x)
    if upsample:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    if feature is not None:
        x = torch.cat([x, feature], 1)
    return reflected(x)


def reflected(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 2, W + 2): row -1 is row 1, and so on."""
    return F.pad(x, (1, 1, 1, 1), mode="reflect")


class Conv3x3(nn.Module):
    """A 3x3 convolution of what is padded already (see `decoder_input`); its parameters lie under `conv`."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel_size=3)

    def forward(self, padded: Tensor) -> Tensor:
        return self.conv(padded)


class ConvBlock(nn.Module):
    """The same, its parameters under `conv.conv`; the ELU that belongs to it is applied by `decoder_input`."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = Conv3x3(channels_in, channels_out)

    def forward(self, padded: Tensor) -> Tensor:
        return self.conv(padded)


class DepthDecoder(nn.Module):
    """Upsamples features five times, each time joining the encoder's feature of that size.

    `decoder` lists two ConvBlocks for each level (before and after joining) from the coarsest to the finest of
    `scales`, then one Conv3x3 for each of `scales`, finest first; with scale 0 that is the order of the published
    state dicts.

    Args:
        channels: Of the encoder's features at strides 2, 4, 8, 16, 32. 0 stands for no feature to join.
        scales: Levels with an output; level s has 1/2^s of the image's height and width.
        outputs: Channels of each output (2 for Monodepth2's predictive mask).
        dims: Channels of the decoder's levels 0 to 4.

    Raises:
        ValueError: If an argument does not describe five levels.

    Source: Godard et al., ICCV 2019, supplementary table 5. https://arxiv.org/abs/1806.01260
    """

    def __init__(
        self,
        channels: Sequence[int],
        scales: Sequence[int] = (0, 1, 2, 3),
        outputs: int = 1,
        dims: Sequence[int] = (16, 32, 64, 128, 256),
    ) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("dims", dims)):
            if len(value) != NUM_LEVELS:
                raise ValueError(f"{name} is {tuple(value)}; expected {NUM_LEVELS} numbers, one a level.")
        if not scales or list(scales) != sorted(set(scales)) or not set(scales) <= set(range(NUM_LEVELS)):
            raise ValueError(f"scales is {tuple(scales)}; expected rising levels out of 0..{NUM_LEVELS - 1}.")
        self.scales = tuple(scales)
        blocks: list[nn.Module] = []
        for level in reversed(range(scales[0], NUM_LEVELS)):
            below = channels[-1] if level == NUM_LEVELS - 1 else dims[level + 1]
            skip = channels[level - 1] if level > 0 else 0
            blocks += [ConvBlock(below, dims[level]), ConvBlock(dims[level] + skip, dims[level])]
        blocks += [Conv3x3(dims[scale], outputs) for scale in scales]
        self.decoder = nn.ModuleList(blocks)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Decodes the features of images whose height and width are multiples of 32 and at least 64.

        Args:
            features: Five, at strides 2, 4, 8, 16, 32.

        Returns:
            For each scale, finest first, (B, outputs, H / 2^s, W / 2^s) float32 in (0, 1): unit_inverse_depth.

        Raises:
            ValueError: If the features' sizes do not halve from each to the next, or the last is below 2 x 2.
        """
        _check_sizes(features)
        maps: dict[int, Tensor] = {}
        x = reflected(features[-1])
        for level in reversed(range(self.scales[0], NUM_LEVELS)):
            before, after = self.decoder[2 * (NUM_LEVELS - 1 - level)], self.decoder[2 * (NUM_LEVELS - 1 - level) + 1]
            joining = level > 0 and features[level - 1].shape[1] > 0
            x = decoder_input(before(x), features[level - 1] if joining else None, upsample=True)
            x = decoder_input(after(x))
            if level in self.scales:
                head = self.decoder[2 * (NUM_LEVELS - self.scales[0]) + self.scales.index(level)]
                maps[level] = torch.sigmoid(conv_float32(head, x))
        return [maps[scale] for scale in self.scales]


def _check_sizes(features: Sequence[Tensor]) -> None:
    sizes = [tuple(feature.shape[-2:]) for feature in features]
    halving = all(f == (2 * c[0], 2 * c[1]) for f, c in itertools.pairwise(sizes))
    if len(features) != NUM_LEVELS or not halving or min(sizes[-1]) < 2:
        listed = ", ".join(f"{h}x{w}" for h, w in sizes)
        raise ValueError(
            f"features have sizes {listed}; expected {NUM_LEVELS}, each half of the one before, "
            "the last at least 2x2. Resize or pad images to multiples of 32, at least 64."
        )
