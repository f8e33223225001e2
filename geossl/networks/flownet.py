"""FlowNetS and FlowNetC and stacks of them, as in UnFlow.

Source: Dosovitskiy et al., ICCV 2015 (FlowNet), https://arxiv.org/abs/1504.06852, Ilg et al., CVPR 2017 (FlowNet 2,
the stacks), https://arxiv.org/abs/1612.01925, and Meister et al., AAAI 2018 (UnFlow), section 3.3,
https://arxiv.org/abs/1711.07837. Layers follow UnFlow's released code where the papers are silent.
Differs: images of any size are padded to multiples of 64; flow is resized with pixel areas aligned; the first flows
are near zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import resize_flow
from geossl.geometry.warping import warp_by_flow
from geossl.networks.blocks import Stages, Standardize, conv_float32
from geossl.networks.correlation import correlation, standardized_pair
from geossl.networks.flow_layers import begin_near_zero, check_images, init_he, leaky_conv, scaled
from geossl.networks.padding import pad_to_multiple, unpad_flow

LEAK = 0.1
FIRST_CHANNELS, REDIRECTED_CHANNELS = (64, 128, 256), 32
MULTIPLE = 64
FLOW_SCALE = 20.0  # an output of 1 is 20 pixels of the full image, at every level
MAX_DISPLACEMENT, DISPLACEMENT_STRIDE = 20, 2
COSTS = (2 * MAX_DISPLACEMENT // DISPLACEMENT_STRIDE + 1) ** 2
UNFLOW_MEAN = (
    104.92 / 255,
    110.18 / 255,
    114.79 / 255,
)  # UnFlow's, to go with std 1; blue first, though images are RGB


class FlowNet(nn.Module):
    """A FlowNet, or a stack of them in which each corrects the one before.

    Args:
        stack: 'C' or 'S' for the first net, then an 'S' for every further one: 'C', 'S', 'CS', 'CSS'.
        width: Factor of all channels but the cost volume's; 1 is the paper's network, 3/8 UnFlow's small one ('c').
        mean, std: What images are normalised by, numbers or one a channel; UnFlow's are `UNFLOW_MEAN` and 1.
        normalize_costs: Compare standardised features in a 'C', as UFlow does; the paper's network does not.

    Attributes:
        nets: The nets in the order they run. UnFlow trains the last and freezes the others.

    Raises:
        ValueError: If the stack is none of these.
    """

    def __init__(
        self,
        stack: str = "C",
        width: float = 1.0,
        mean: float | Sequence[float] = 0.45,
        std: float | Sequence[float] = 0.225,
        normalize_costs: bool = False,
    ) -> None:
        super().__init__()
        if stack[:1] not in ("C", "S") or stack[1:].strip("S"):
            raise ValueError(
                f"stack is '{stack}'; expected 'C' or 'S', followed by an 'S' for every further net: CSS."
            )
        self.standardize = Standardize(mean, std)
        first: nn.Module = _FlowNetC(width, normalize_costs) if stack[0] == "C" else _FlowNetS(6, width)
        self.nets = nn.ModuleList([first, *(_FlowNetS(14, width) for _ in stack[1:])])
        init_he(self)
        for net in self.nets:
            begin_near_zero(*(net.get_submodule(f"trunk.flow{level}") for level in range(2, 7)))

    @property
    def encoder(self) -> Stages:
        """The first net's convolutions up to an eighth of the image's size."""
        return Stages({name: self.nets[0].get_submodule(name) for name in ("conv1", "conv2", "conv3")})

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """The last net's flows of `every_net`."""
        return self.every_net(first, second)[-1]

    def every_net(self, first: Tensor, second: Tensor) -> list[list[Tensor]]:
        """Predicts the flow from the first image to the second.

        Args:
            first, second: (B, 3, H, W) RGB in [0, 1], of any size.

        Returns:
            For every net, in the order they run, its flows at levels 2 to 6: (B, 2, H / 2^level, W / 2^level) float32,
            rounded up, each in pixels of its own map.

        Raises:
            ValueError: If the images differ in shape.
        """
        check_images(first, second)
        images = pad_to_multiple(self.standardize(torch.cat([first, second])), MULTIPLE)
        a, b = images.chunk(2)
        padded = size_of(images)
        flows = [self.nets[0](a, b)]
        for net in self.nets[1:]:
            flow = resize_flow(flows[-1][0], padded)
            warped, _ = warp_by_flow(b, flow)
            flows.append(net(a, b, flow, warped, (warped - a).abs()))
        return [[unpad_flow(flow, padded, size_of(first)) for flow in levels] for levels in flows]


def first_stages(channels_in: int, width: float) -> Stages:
    """`conv1` to `conv3` of both nets, each of stride 2; FlowNetC compares what they make of the two images."""
    channels = scaled(FIRST_CHANNELS, width)
    sizes = zip((1, 2, 3), (channels_in, *channels), channels, (7, 5, 5), strict=False)
    return Stages({f"conv{i}": leaky_conv(c_in, c, LEAK, kernel=k, stride=2) for i, c_in, c, k in sizes})


class _FlowNetS(nn.Module):
    """What is given, stacked along the channels, to flows."""

    def __init__(self, channels_in: int, width: float) -> None:
        super().__init__()
        _, c2, c3 = scaled(FIRST_CHANNELS, width)
        self.conv1, self.conv2, self.conv3 = first_stages(channels_in, width).values()
        self.trunk = _Trunk(c3, c2, width)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Maps of (B, ., H, W), 6 or 14 channels in all -> flows as `_Trunk` gives them."""
        conv2 = self.conv2(self.conv1(torch.cat(inputs, 1)))
        return self.trunk(self.conv3(conv2), conv2)


class _FlowNetC(nn.Module):
    """Two images to flows, by a cost volume at an eighth of their size."""

    def __init__(self, width: float, normalize_costs: bool) -> None:
        super().__init__()
        self.normalize_costs = normalize_costs
        _, c2, c3 = scaled(FIRST_CHANNELS, width)
        (redirected,) = scaled([REDIRECTED_CHANNELS], width)
        self.conv1, self.conv2, self.conv3 = first_stages(3, width).values()
        self.conv_redir = leaky_conv(c3, redirected, LEAK, kernel=1)
        self.trunk = _Trunk(redirected + COSTS, c2, width)

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Two (B, 3, H, W) -> flows as `_Trunk` gives them."""
        conv2 = self.conv2(self.conv1(torch.cat([first, second])))
        a, b = self.conv3(conv2).chunk(2)
        first_compared, second_compared = standardized_pair(a, b) if self.normalize_costs else (a, b)
        costs = correlation(first_compared, second_compared, MAX_DISPLACEMENT, DISPLACEMENT_STRIDE)
        return self.trunk(torch.cat([self.conv_redir(a), F.leaky_relu(costs, LEAK)], 1), conv2.chunk(2)[0])


class _Trunk(nn.Module):
    """conv3_1 to conv6_1 and the decoder with its five predictions: what both nets share.

    Args:
        channels_in: Of the features at an eighth of the image's size.
        skipped: Channels of conv2's features, which the finest prediction sees.
    """

    def __init__(self, channels_in: int, skipped: int, width: float) -> None:
        super().__init__()
        c3, c4, c5, c6 = encoder = scaled((256, 512, 512, 1024), width)
        self.conv3_1 = leaky_conv(channels_in, c3, LEAK)
        for level, c_in, c_out in zip((4, 5, 6), encoder, encoder[1:], strict=False):
            self.add_module(f"conv{level}", leaky_conv(c_in, c_out, LEAK, stride=2))
            self.add_module(f"conv{level}_1", leaky_conv(c_out, c_out, LEAK))
        self.flow6 = nn.Conv2d(c6, 2, 3, padding=1)
        below = c6
        skips = (c5, c4, c3, skipped)
        for level, channels, skip in zip((5, 4, 3, 2), scaled((512, 256, 128, 64), width), skips, strict=True):
            up = nn.ConvTranspose2d(below, channels, 4, stride=2, padding=1)
            self.add_module(f"deconv{level}", nn.Sequential(up, nn.LeakyReLU(LEAK, inplace=True)))
            self.add_module(f"flow{level + 1}_up{level}", nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1))
            below = skip + channels + 2
            self.add_module(f"flow{level}", nn.Conv2d(below, 2, 3, padding=1))

    def forward(self, x: Tensor, conv2: Tensor) -> list[Tensor]:
        """Features at an eighth and a quarter of H x W -> (B, 2, H / 2^level, W / 2^level), pixels, levels 2 to 6."""
        net = self.get_submodule
        encoded = {2: conv2, 3: self.conv3_1(x)}
        for level in (4, 5, 6):
            encoded[level] = net(f"conv{level}_1")(net(f"conv{level}")(encoded[level - 1]))
        x = encoded[6]
        outputs = [conv_float32(self.flow6, x)]
        for level in (5, 4, 3, 2):
            coarser = conv_float32(net(f"flow{level + 1}_up{level}"), outputs[-1])
            x = torch.cat([encoded[level], net(f"deconv{level}")(x), coarser], 1)
            outputs.append(conv_float32(net(f"flow{level}"), x))
        return [output * (FLOW_SCALE / 2**level) for level, output in zip(range(2, 7), outputs[::-1], strict=True)]
