"""Monodepth2's pose networks: axis-angle and translation from encoder features or from images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.networks.blocks import conv_float32

POSE_SCALE = 0.01  # keeps the first predictions close to standing still


class PoseDecoder(nn.Module):
    """Motions from the deepest features of one encoder call or several.

    The separate form encodes the stacked images in one call (`features=1, frames=2`, of whose two motions
    Monodepth2 uses the first); the shared form encodes each image by the depth encoder (`features=2, frames=1`).

    Args:
        channels: The encoder's; the last number counts.
        features: How many images are encoded on their own and handed in together.
        frames: Motions predicted.

    Source: Godard et al., ICCV 2019, supplementary table 5. https://arxiv.org/abs/1806.01260
    """

    def __init__(self, channels: Sequence[int], features: int = 1, frames: int = 2) -> None:
        super().__init__()
        self.features = features
        self.frames = frames
        self.net = nn.ModuleList(
            [
                nn.Conv2d(channels[-1], 256, 1),  # squeeze
                nn.Conv2d(256 * features, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
                nn.Conv2d(256, 6 * frames, 1),
            ]
        )

    def forward(self, *features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Decodes motions.

        Args:
            features: For each image encoded on its own, in the order of time, the encoder's list of features.

        Returns:
            axis_angle: (B, frames, 3) radians, float32.
            translation: (B, frames, 3) float32, in the unit of the depth learned with it.

        Raises:
            ValueError: If the number of feature lists is not the one built for.
        """
        if len(features) != self.features:
            raise ValueError(f"got {len(features)} lists of features; this PoseDecoder was built for {self.features}.")
        squeezed = [F.relu(self.net[0](deepest[-1])) for deepest in features]
        x = squeezed[0] if len(squeezed) == 1 else torch.cat(squeezed, 1)
        x = F.relu(self.net[2](F.relu(self.net[1](x))))
        return _split_motions(conv_float32(self.net[3], x), self.frames)


class PoseCNN(nn.Module):
    """The motion between two images by a small network of its own (SfMLearner's pose trunk).

    Convention: as `PoseDecoder`. The images enter as they are, in [0, 1].
    Source: Monodepth2's released `posecnn` option, after Zhou et al., CVPR 2017.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 16, 32, 64, 128, 256, 256, 256)
        kernels = (7, 5, 3, 3, 3, 3, 3)
        self.net = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], kernel, stride=2, padding=kernel // 2)
            for i, kernel in enumerate(kernels)
        )
        self.pose_conv = nn.Conv2d(256, 6, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 6, H, W), two RGB images in [0, 1] -> axis_angle, translation, both (B, 1, 3) float32."""
        x = images
        for conv in self.net:
            x = F.relu(conv(x))
        return _split_motions(conv_float32(self.pose_conv, x), 1)


def _split_motions(maps: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """(B, 6 * frames, h, w) -> spatial means, scaled, as axis_angle and translation of (B, frames, 3)."""
    motions = POSE_SCALE * maps.mean((2, 3)).view(-1, frames, 6)
    return motions[..., :3], motions[..., 3:]
