"""What the networks of optical flow share: convolutions with a leak, the feature pyramid, the context network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import resize_flow
from geossl.networks.blocks import conv_float32

PYRAMID_CHANNELS = (16, 32, 64, 96, 128, 192)
ESTIMATOR_CHANNELS = (128, 128, 96, 64, 32)
CONTEXT_CHANNELS = (128, 128, 128, 96, 64, 32)
CONTEXT_DILATIONS = (1, 2, 4, 8, 16, 1)
HEAD_SCALE = 0.02  # of the first weights of layers that predict flow


def scaled(channels: Sequence[int], width: float) -> list[int]:
    """Channels times `width`, at least one each."""
    return [max(1, round(width * c)) for c in channels]


def leaky_conv(
    channels_in: int, channels_out: int, leak: float, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Convolution (of the size kept, or divided by the stride and rounded up) and leaky ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, dilation)
    return nn.Sequential(conv, nn.LeakyReLU(leak, inplace=True))


class FeaturePyramid(nn.Module):
    """Two 3x3 convolutions a level, the first of stride 2."""

    def __init__(self, channels: Sequence[int], leak: float) -> None:
        super().__init__()
        pairs = zip((3, *channels), channels, strict=False)
        self.convs = nn.ModuleList(
            nn.Sequential(leaky_conv(c_in, c_out, leak, stride=2), leaky_conv(c_out, c_out, leak))
            for c_in, c_out in pairs
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> (B, channels[i], H / 2^(i+1), W / 2^(i+1)) for every level, finest first."""
        features = [image]
        for convs in self.convs:
            features.append(convs(features[-1]))
        return features[1:]


class ContextNetwork(nn.Module):
    """Dilated convolutions that see far around a pixel, to a flow (or what is added to one).

    Args:
        outputs: Channels of the result; 2 for a flow.
    """

    def __init__(self, channels_in: int, channels: Sequence[int], leak: float, outputs: int = 2) -> None:
        super().__init__()
        sizes = zip((channels_in, *channels), channels, CONTEXT_DILATIONS, strict=False)
        hidden = [leaky_conv(c_in, c_out, leak, dilation=dilation) for c_in, c_out, dilation in sizes]
        self.convs = nn.Sequential(*hidden, nn.Sequential(nn.Conv2d(channels[-1], outputs, 3, padding=1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, outputs, H, W) float32."""
        return conv_float32(self.convs[-1], self.convs[:-1](x))


def init_he(module: nn.Module) -> None:
    """He-normal weights (fan in) and zero biases for every (transposed) convolution, as UnFlow and ARFlow begin."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def begin_near_zero(*heads: nn.Module) -> None:
    """Makes the weights of convolutions that predict flow small, so that the first flows are near zero.

    Else the first steps only make the flow smaller, which an objective likes better than a random one, and end where
    the features that went into it have become faint too.
    """
    for head in heads:
        for layer in head.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(HEAD_SCALE)


def check_images(*images: Tensor) -> None:
    """Raises ValueError unless all images are (B, 3, H, W) of one shape."""
    shapes = [tuple(image.shape) for image in images]
    if len(set(shapes)) > 1 or len(shapes[0]) != 4 or shapes[0][1] != 3:
        found = ", ".join(map(str, shapes))
        raise ValueError(f"the images have shapes {found}; expected one (B, 3, H, W). Crop or resize them alike.")


def for_every_other(views: int, own: Tensor) -> Tensor:
    """(B, C, H, W) of the target -> (views * B, C, H, W), once for each other image; not copied for a single one."""
    return own if views == 1 else own.repeat(views, 1, 1, 1)


def beside_other(views: int, own: Tensor, mirrored: float = 1.0) -> list[Tensor]:
    """A map of every source, and beside it the one of the other source where there are two.

    Args:
        views: 1 or 2 sources, one after the other along the batch.
        own: (views * B, C, H, W).
        mirrored: Factor of the other's map: -1 for flow, which in steady motion is the opposite.

    Returns:
        `own`, and for two sources the same with their halves of the batch exchanged.
    """
    return [own] if views == 1 else [own, mirrored * own.roll(len(own) // 2, 0)]


def flow_for(coarser: Tensor | None, features: Tensor, batch: int) -> Tensor:
    """The flow a level starts from: the coarser level's, resized to the features, or zero; (batch, 2, H, W)."""
    if coarser is None:
        return torch.zeros(batch, 2, *size_of(features), device=features.device, dtype=torch.float32)
    return resize_flow(coarser, size_of(features))
