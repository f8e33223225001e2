"""What several networks share: the encoder contract, convolution blocks, cropping, float32 heads, initialisation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Images to features at strides 2, 4, 8, ...: five of them, where the encoder is not one network's own.

    Attributes:
        channels: Channels of the features, stride 2 first.
        images: How many RGB images are stacked along the channels of the input.
    """

    channels: tuple[int, ...]
    images: int

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3 * images, H, W) RGB in [0, 1] -> the features, stride 2 first, of ceil(H / stride) rows."""

    def check_input(self, image: Tensor) -> None:
        """Raises ValueError unless `image` is (B, 3 * images, H, W)."""
        if image.ndim != 4 or image.shape[1] != 3 * self.images:
            stacked = "" if self.images == 1 else f" ({self.images} RGB images concatenated along channels)"
            raise ValueError(
                f"image has shape {tuple(image.shape)}; expected (B, {3 * self.images}, H, W){stacked}. "
                "The encoder's `images` says how many images it takes at once."
            )


class Standardize(nn.Module):
    """(image - mean) / std with constants that are no part of the state dict.

    Args:
        mean, std: One number for all channels, or one a channel; three numbers repeat over stacked images.
        images: How many RGB images are stacked along the channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float], images: int = 1) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            numbers = [value] if isinstance(value, int | float) else list(value) * images
            self.register_buffer(name, torch.tensor(numbers).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class Stages(nn.ModuleDict):
    """Modules by name that run one after the other."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """What each of them makes of the one's before it, the first of `x`."""
        outputs = [x]
        for stage in self.values():
            outputs.append(stage(outputs[-1]))
        return outputs[1:]


def crop_like(x: Tensor, reference: Tensor) -> Tensor:
    """The top-left part of `x` of the reference's height and width: an upsampled odd size is one too large."""
    return x[..., : reference.shape[-2], : reference.shape[-1]]


def conv_float32(conv: nn.Module, x: Tensor) -> Tensor:
    """Runs a head outside of autocast and returns float32.

    bfloat16 has 8 significant bits: a logit of -3 would move in steps of 1/64, and the inverse depth that a
    sigmoid makes of it in steps of 1.5 %.
    """
    if not torch.is_autocast_enabled(x.device.type):
        return conv(x).float()
    with torch.autocast(x.device.type, enabled=False):
        return conv(x.to(next(conv.parameters()).dtype)).float()


def init_xavier(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every (transposed) convolution, as TF-slim and SfMLearner do."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
