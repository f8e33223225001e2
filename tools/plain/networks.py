"""Monodepth2's networks, layer by layer as its tables list them: ResNet-18, depth decoder, pose encoder and decoder.

Names of parameters are those of geossl's method, so that both can start from the same weights.

Source: Godard, Mac Aodha, Firman, Brostow, ICCV 2019, supplementary table 5. https://arxiv.org/abs/1806.01260
"""

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

ENCODER = (64, 64, 128, 256, 512)
DECODER = (16, 32, 64, 128, 256)
SCALES = range(4)


class ResnetEncoder(nn.Module):
    def __init__(self, images=1):
        super().__init__()
        self.encoder = torchvision.models.resnet18(weights=None)
        self.encoder.fc = nn.Identity()
        if images > 1:
            self.encoder.conv1 = nn.Conv2d(3 * images, 64, kernel_size=7, stride=2, padding=3, bias=False)

    def forward(self, image):
        net = self.encoder
        x = (image - 0.45) / 0.225
        x = net.conv1(x)
        x = net.bn1(x)
        features = [net.relu(x)]
        features.append(net.layer1(net.maxpool(features[-1])))
        features.append(net.layer2(features[-1]))
        features.append(net.layer3(features[-1]))
        features.append(net.layer4(features[-1]))
        return features


class Conv3x3(nn.Module):
    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.conv = nn.Conv2d(channels_in, channels_out, 3)

    def forward(self, x):
        return self.conv(self.pad(x))


class ConvBlock(nn.Module):
    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.conv = Conv3x3(channels_in, channels_out)
        self.nonlin = nn.ELU(inplace=True)

    def forward(self, x):
        return self.nonlin(self.conv(x))


def decoder_input(x, feature=None, upsample=False):
    """What a decoder's convolution reads: the steps of `DepthDecoder` between the convolution before and it."""
    x = F.elu(x)
    if upsample:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
    if feature is not None:
        x = torch.cat([x, feature], 1)
    return nn.ReflectionPad2d(1)(x)


class DepthDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        blocks = []
        for level in (4, 3, 2, 1, 0):
            below = ENCODER[-1] if level == 4 else DECODER[level + 1]
            skip = ENCODER[level - 1] if level > 0 else 0
            blocks.append(ConvBlock(below, DECODER[level]))
            blocks.append(ConvBlock(DECODER[level] + skip, DECODER[level]))
        heads = [Conv3x3(DECODER[scale], 1) for scale in SCALES]
        self.decoder = nn.ModuleList([*blocks, *heads])
        self.sigmoid = nn.Sigmoid()

    def forward(self, features):
        """Five features -> {scale: (B, 1, H / 2^scale, W / 2^scale) in (0, 1)}."""
        outputs = {}
        x = features[-1]
        for level in (4, 3, 2, 1, 0):
            x = self.decoder[2 * (4 - level)](x)
            x = [F.interpolate(x, scale_factor=2, mode="nearest")]
            if level > 0:
                x += [features[level - 1]]
            x = torch.cat(x, 1)
            x = self.decoder[2 * (4 - level) + 1](x)
            if level in SCALES:
                outputs[level] = self.sigmoid(self.decoder[10 + level](x))
        return outputs


class PoseDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.ModuleList(
            [nn.Conv2d(512, 256, 1), nn.Conv2d(256, 256, 3, 1, 1), nn.Conv2d(256, 256, 3, 1, 1), nn.Conv2d(256, 12, 1)]
        )
        self.relu = nn.ReLU()

    def forward(self, features):
        """The features of two stacked images -> axis angle and translation, (B, 3) each."""
        x = self.relu(self.net[0](features[-1]))
        x = self.relu(self.net[1](x))
        x = self.relu(self.net[2](x))
        x = self.net[3](x)
        x = x.mean(3).mean(2)
        x = 0.01 * x.view(-1, 2, 6)  # two motions, of which the first is used
        return x[:, 0, :3], x[:, 0, 3:]


class Networks(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = ResnetEncoder()
        self.depth_decoder = DepthDecoder()
        self.pose_encoder = ResnetEncoder(images=2)
        self.pose_decoder = PoseDecoder()
