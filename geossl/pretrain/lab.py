"""Lightness and colour: Lab's channels as an encoder sees them, and colours as bins of Lab's a and b.

Source of the bins: Zhang, Isola, Efros: Colorful image colorization, ECCV 2016, sections 2.1 to 2.3.
https://arxiv.org/abs/1603.08511
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor

from geossl.geometry.precision import float32_island

BIN = 10.0  # side of a bin in a and b
CLOSEST, SOFTNESS = 5, 5.0  # bins that a colour is spread over, and the deviation of their weights in a and b
MIDDLE_L = 60.0  # lightness at which colours are shown alone


@float32_island
def to_lab(image: Tensor) -> Tensor:
    """(B, 3, H, W) RGB in [0, 1] -> L in 0..100, a and b in about -110..110."""
    return rgb_to_lab(image)


@float32_island
def to_rgb(lab: Tensor) -> Tensor:
    """(B, 3, H, W) Lab -> RGB in [0, 1], colours that a screen cannot show clipped."""
    return lab_to_rgb(lab)


def lightness_image(lab: Tensor) -> Tensor:
    """(B, 3, H, W) Lab -> (B, 3, H, W) in [0, 1], three times L: what an encoder sees of the lightness alone."""
    return (lab[:, :1] / 100).expand(-1, 3, -1, -1)


def colour_image(lab: Tensor) -> Tensor:
    """(B, 3, H, W) Lab -> (B, 3, H, W) RGB of its a and b at one lightness: what an encoder sees of colour alone."""
    return to_rgb(torch.cat([torch.full_like(lab[:, :1], MIDDLE_L), lab[:, 1:]], 1))


@lru_cache
def colour_bins() -> Tensor:
    """(Q, 2) centres (a, b) of the bins that colours of a screen fall into, in the order of a and then b.

    Differs: every bin that a lattice of 33 values a channel meets; the paper's list has 313.
    """
    steps = torch.linspace(0, 1, 33)
    rgb = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")).flatten(1)  # (3, 33^3)
    ab = to_lab(rgb[None, :, None])[0, 1:, 0].T
    return (ab / BIN).round().unique(dim=0) * BIN


@torch.no_grad()
@float32_island
def soft_bins(ab: Tensor, bins: Tensor) -> Tensor:
    """Colours as weights of their closest bins.

    Args:
        ab: (N, 2). bins: (Q, 2).

    Returns:
        (N, Q), each row with five weights that sum to 1, Gaussian in the distance.
    """
    distance, which = torch.cdist(ab, bins).topk(CLOSEST, dim=1, largest=False)
    weight = (-0.5 * (distance / SOFTNESS).square()).softmax(1)
    return ab.new_zeros(len(ab), len(bins)).scatter_(1, which, weight)


@torch.no_grad()
def rebalancing(frequency: Tensor, mix: float = 0.5) -> Tensor:
    """(Q,) frequencies that sum to 1 -> (Q,) weights, ((1 - mix) p + mix / Q)^-1 of mean 1 under p (eq. 4).

    A worked number: p = (1, 0), mix = 1/2: weights in the ratio 4/3 to 4, scaled: (1, 3).
    """
    weight = 1 / ((1 - mix) * frequency + mix / len(frequency))
    return weight / (frequency * weight).sum()


@float32_island
def annealed_mean(logits: Tensor, bins: Tensor, temperature: float = 0.38) -> Tensor:
    """(B, Q, H, W) logits -> (B, 2, H, W) a and b, between the mode (temperature 0) and the mean (1) (eq. 5)."""
    weights = F.softmax(logits / temperature, 1)
    return torch.einsum("bqhw,qc->bchw", weights, bins.to(weights))
