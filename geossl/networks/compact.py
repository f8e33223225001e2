"""A small residual encoder for trials without an accelerator: a ninth of ResNet18's arithmetic at equal strides."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from geossl.networks.blocks import Encoder, Standardize
from geossl.networks.weights import inflate_conv, load_named, read_state_dict


class CompactEncoder(Encoder):
    """One basic residual block at each stride after a 3x3 stem.

    Args:
        weights: None, or a path to a state dict of this class, whose first convolution may be for one image.
        images: RGB images stacked along the channels of the input.

    Raises:
        ValueError: If ImageNet weights are asked for (there are none), or the weights do not fit.
    """

    def __init__(self, weights: str | Path | None = None, images: int = 1) -> None:
        super().__init__()
        self.images = images
        self.channels = (24, 32, 64, 128, 192)
        self.standardize = Standardize(0.45, 0.225, images)
        stem = nn.Conv2d(3 * images, self.channels[0], 3, stride=2, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(self.channels[0]), nn.ReLU(inplace=True))
        pairs = zip(self.channels, self.channels[1:], strict=False)
        self.stages = nn.ModuleList(_residual(c_in, c_out) for c_in, c_out in pairs)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if weights == "imagenet":
            raise ValueError("the compact encoder has no ImageNet weights; set encoder_weights to null or a file.")
        if weights is not None:
            state = read_state_dict(weights)
            first = state.get("stem.0.weight")
            if first is not None and first.shape[1] == 3 and images > 1:
                state["stem.0.weight"] = inflate_conv(first, images)
            load_named(self, state, f"weights '{weights}'", " of the compact encoder")

    def forward(self, image: Tensor) -> list[Tensor]:
        self.check_input(image)
        features = [self.stem(self.standardize(image))]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


def _residual(channels_in: int, channels_out: int) -> BasicBlock:
    """A basic block that halves height and width."""
    project = nn.Conv2d(channels_in, channels_out, 1, stride=2, bias=False)
    return BasicBlock(channels_in, channels_out, 2, nn.Sequential(project, nn.BatchNorm2d(channels_out)))
