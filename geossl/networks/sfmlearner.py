"""SfMLearner's networks: DispNet for inverse depth, PoseExpNet for motions and explainability.

Source: Zhou et al., CVPR 2017. https://arxiv.org/abs/1704.07813
Differs: as the PyTorch port of it, whose parameter names these are, explainability is one sigmoid a source
instead of a softmax over two channels, and upsampled maps are cropped to the size they join, so any image
size from 2 x 2 works.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.networks.blocks import Stages, Standardize, conv_float32, crop_like, init_xavier

INVERSE_DEPTH_SCALE = 10.0  # inverse depth = 10 sigmoid + 0.01: depth from 0.0999 to 100
INVERSE_DEPTH_OFFSET = 0.01
POSE_SCALE = 0.01
ENCODER_CHANNELS = (32, 64, 128, 256, 512, 512, 512)
IMAGE_MEAN, IMAGE_STD = 0.5, 0.5


class DispNet(nn.Module):
    """Inverse depth of one image at four scales ("DispNetS").

    Args:
        channels: Of the encoder's seven levels.
        decoder_channels: Of the decoder's seven levels, coarsest first.
    """

    def __init__(
        self,
        channels: Sequence[int] = ENCODER_CHANNELS,
        decoder_channels: Sequence[int] = (512, 512, 256, 128, 64, 32, 16),
    ) -> None:
        super().__init__()
        self.standardize = Standardize(IMAGE_MEAN, IMAGE_STD)
        c, d = (3, *channels), dict(zip(range(7, 0, -1), decoder_channels, strict=True))  # by the layers' numbers
        for name, stage in encoder_stages(channels).items():
            self.add_module(name, stage)
        for i in range(7, 0, -1):
            skip = c[i - 1] if i > 1 else 0
            coarser_disp = 1 if i <= 3 else 0
            self.add_module(f"upconv{i}", _up(c[7] if i == 7 else d[i + 1], d[i], kernel=3))
            self.add_module(f"iconv{i}", _conv(d[i] + skip + coarser_disp, d[i]))
        for i in range(4, 0, -1):
            self.add_module(f"predict_disp{i}", nn.Sequential(nn.Conv2d(d[i], 1, 3, padding=1), nn.Sigmoid()))
        init_xavier(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in [0, 1] -> inverse depth, (B, 1, H / 2^s, W / 2^s) float32 for s = 0..3.

        Odd sizes round up. The values lie between 0.01 and 10.01, up to scale.
        """
        net = self.get_submodule
        encoded = [self.standardize(image)]
        for i in range(1, 8):
            encoded.append(net(f"conv{i}")(encoded[-1]))
        x = encoded[7]
        maps: list[Tensor] = []
        for i in range(7, 0, -1):
            size = encoded[i - 1]  # what level i comes out as large as
            parts = [crop_like(net(f"upconv{i}")(x), size)]
            if i > 1:
                parts.append(size)
            if maps:
                finer = F.interpolate(maps[-1], scale_factor=2.0, mode="bilinear", align_corners=False)
                parts.append(crop_like(finer, size).to(parts[0].dtype))
            x = net(f"iconv{i}")(torch.cat(parts, 1))
            if i <= 4:
                share = conv_float32(net(f"predict_disp{i}"), x)
                maps.append(INVERSE_DEPTH_SCALE * share + INVERSE_DEPTH_OFFSET)
        return maps[::-1]

    @property
    def encoder(self) -> Stages:
        """The encoder's layers, under their own names."""
        return Stages({f"conv{i}": self.get_submodule(f"conv{i}") for i in range(1, 8)})


class PoseExpNet(nn.Module):
    """Motion to every source view, and where each source explains the target.

    Args:
        sources: Number of source views.
        explainability: Whether to build the explainability decoder.

    Convention: the six numbers of a motion are [translation, euler], in this order in the weights, with
    R = Rx @ Ry @ Rz; they map target-camera points to the source camera.
    """

    def __init__(self, sources: int = 2, explainability: bool = False) -> None:
        super().__init__()
        self.sources = sources
        self.explainability = explainability
        self.standardize = Standardize(IMAGE_MEAN, IMAGE_STD)
        c = (3 * (1 + sources), 16, 32, 64, 128, 256, 256, 256)
        for i in range(1, 8):
            kernel = {1: 7, 2: 5}.get(i, 3)
            self.add_module(f"conv{i}", _conv(c[i - 1], c[i], kernel, stride=2))
        self.pose_pred = nn.Conv2d(c[7], 6 * sources, 1)
        if explainability:
            d = {6: c[5], 5: 256, 4: 128, 3: 64, 2: 32, 1: 16}
            for i in range(5, 0, -1):
                self.add_module(f"upconv{i}", _up(d[i + 1], d[i], kernel=4))
            for i in range(4, 0, -1):
                self.add_module(f"predict_mask{i}", nn.Conv2d(d[i], sources, 3, padding=1))
        init_xavier(self)

    def forward(self, target: Tensor, sources: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Predicts motions and explainability.

        Args:
            target: (B, 3, H, W) RGB in [0, 1].
            sources: As many (B, 3, H, W) images as built for, in the order of time.

        Returns:
            translation: (B, sources, 3) float32, up to scale.
            euler: (B, sources, 3) float32, radians about x, y, z.
            explainability: (B, sources, H / 2^s, W / 2^s) float32 in (0, 1) for s = 0..3; [] if not built.

        Raises:
            ValueError: If the number of sources is not the one built for.
        """
        if len(sources) != self.sources:
            raise ValueError(f"got {len(sources)} source images; this PoseExpNet was built for {self.sources}.")
        net = self.get_submodule
        encoded = [self.standardize(torch.cat([target, *sources], 1))]
        for i in range(1, 8):
            encoded.append(net(f"conv{i}")(encoded[-1]))
        motions = conv_float32(self.pose_pred, encoded[7]).mean((2, 3)).view(-1, self.sources, 6)
        motions = POSE_SCALE * motions
        maps: list[Tensor] = []
        if self.explainability:
            x = encoded[5]
            for i in range(5, 0, -1):
                x = crop_like(net(f"upconv{i}")(x), encoded[i - 1])
                if i <= 4:
                    maps.append(torch.sigmoid(conv_float32(net(f"predict_mask{i}"), x)))
        return motions[..., :3], motions[..., 3:], maps[::-1]


def encoder_stages(channels: Sequence[int]) -> Stages:
    """`conv1` to `conv7` of DispNet: two convolutions for each halving of the image."""
    sizes = zip(range(1, 8), (3, *channels), channels, strict=False)
    return Stages({f"conv{i}": _down_twice(c_in, c, kernel={1: 7, 2: 5}.get(i, 3)) for i, c_in, c in sizes})


def _conv(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2)
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def _down_twice(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv(channels_in, channels_out, kernel, stride=2), *_conv(channels_out, channels_out, kernel)
    )


def _up(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    """Doubles height and width: kernel 3 needs one more output row and column than kernel 4."""
    up = nn.ConvTranspose2d(channels_in, channels_out, kernel, stride=2, padding=1, output_padding=4 - kernel)
    return nn.Sequential(up, nn.ReLU(inplace=True))
