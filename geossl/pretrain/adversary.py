"""An adversary that tells real images from made ones, trained in the same step as what makes them.

A reversed gradient lets one loss and one optimiser serve both: the adversary goes down its cross entropy, and what
made the images goes up.

Source: Ganin, Lempitsky: Unsupervised domain adaptation by backpropagation, ICML 2015 (the reversal),
https://arxiv.org/abs/1409.7495, and Goodfellow et al.: Generative adversarial nets, NeurIPS 2014 (the game),
https://arxiv.org/abs/1406.2661.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from geossl.networks.blocks import Standardize, conv_float32
from geossl.networks.flow_layers import leaky_conv
from geossl.pretrain.mutual_information import jensen_shannon

CHANNELS = (32, 64, 128, 256)
LEAK = 0.2


class Discriminator(nn.Module):
    """Strided convolutions, and the mean over all places of how real each looks.

    There is no batch norm: it would mix what is told apart.

    Args:
        channels: Of the convolutions, each of which halves the size.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        self.normalize = Standardize(0.5, 0.5)
        pairs = zip((3, *channels), channels, strict=False)
        self.convs = nn.Sequential(*(leaky_conv(c_in, c_out, LEAK, stride=2) for c_in, c_out in pairs))
        self.out = nn.Linear(channels[-1], 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> (B,) float32 logits, above 0 for real."""
        return conv_float32(self.out, self.convs(self.normalize(image)).mean((2, 3)))[:, 0]


def adversarial_loss(discriminator: nn.Module, real: Tensor, made: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """How badly a discriminator tells real images from made ones, which it lowers and their maker raises.

    Args:
        discriminator: (N, 3, H, W) images -> (N,) logits, above 0 for real.
        real, made: (B, 3, H, W).
        weight: Of the gradient that reaches `made`; the discriminator's parameters get the whole one.

    Returns:
        loss: () binary cross entropy, the mean of the real images plus that of the made ones.
        accuracy: () share of the images told right, detached.

    Convention: a discriminator that says 0 of everything has a loss of 2 ln 2 = 1.386.
    Source: Goodfellow et al., 2014, eq. 1, as -V: the minimax game, whose gradient for `made` fades where the
        discriminator is sure, and not the non-saturating one.
    """
    logits_real, logits_made = discriminator(torch.cat([real, reverse_gradient(made, weight)])).chunk(2)
    right = torch.cat([logits_real > 0, logits_made < 0]).float().mean()
    return -jensen_shannon(logits_real, logits_made), right


def reverse_gradient(x: Tensor, weight: float) -> Tensor:
    """`x` itself, whose gradient is multiplied by -weight on its way back.

    Source: Ganin & Lempitsky, ICML 2015, section 3.2.
    """
    return _Reversed.apply(x, weight)  # type: ignore[no-any-return]


class _Reversed(torch.autograd.Function):
    """The identity, and -weight times it backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * grad, None
