"""From maps to numbers: means over what is kept, and nothing learned where next to nothing is.

Papers divide by different counts, so that their weights hold only with their own. All take a map (B, C, H, W) and
`keep` (B, 1, H, W): bool, or a soft visibility in [0, 1] that weighs. Dropped values carry no gradient, even if they
are not finite. A worked number: errors [1, 3, 5, 7], the first two kept: `masked_mean` 2, `mean_over_all` 1,
`sum_over_twice_kept` 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.geometry.precision import float32_island

EPSILON = 1e-6  # added to counts of kept pixels, which may be 0
LEAST_VISIBLE = 0.02  # a smaller share of a batch's pixels is taken for noise, and teaches nothing


@float32_island
def masked_mean(x: Tensor, keep: Tensor) -> Tensor:
    """Mean of `x` over what is kept, sum(keep x) / (C sum(keep) + 1e-6); 0 where there is none.

    Source: UFlow, SMURF, and ARFlow (which divides by mean(keep), without eps: NaN where nothing is visible).
    """
    return masked(x, keep).sum() / (x.shape[1] * keep.sum() + EPSILON)


@float32_island
def mean_over_all(x: Tensor, keep: Tensor) -> Tensor:
    """sum(keep x) / (B C H W): what is dropped counts as error 0, and hiding pixels lowers the loss.

    Source: UnFlow, which adds a penalty for hidden pixels; SMURF's self-supervision.
    """
    return masked(x, keep).mean()


@float32_island
def sum_over_twice_kept(x: Tensor, keep: Tensor) -> Tensor:
    """sum(keep x) / (2 sum(keep) + 1e-6): half the mean of a one-channel map, the mean of a flow's two channels.

    Source: DDFlow and SelFlow, released code.
    """
    return masked(x, keep).sum() / (2 * keep.sum() + EPSILON)


def masked(x: Tensor, keep: Tensor) -> Tensor:
    """keep * x, exactly 0 and without gradient where `keep` is 0.

    Raises:
        ValueError: If `keep` is not (B, 1, H, W) for an `x` of (B, C, H, W).
    """
    if x.dim() != 4 or keep.shape != (x.shape[0], 1, *x.shape[2:]):
        raise ValueError(
            f"keep has shape {tuple(keep.shape)} for a map of {tuple(x.shape)}; expected (B, 1, H, W) and "
            "(B, C, H, W). Add a channel axis."
        )
    kept = x.where(keep > 0, x.new_zeros(()))
    return kept * keep if keep.is_floating_point() else kept


@torch.no_grad()
def share_of(keep: Tensor) -> Tensor:
    """() share of `keep` (any shape, bool or in [0, 1]) in [0, 1], on its device; the health figure `visible`."""
    return keep.float().mean()


def unless_hidden(term: Tensor, visible: Tensor, least: float = LEAST_VISIBLE) -> Tensor:
    """The term, or 0 without gradient where less than `least` of the batch's pixels are visible.

    Nothing waits for the device here: the method reports `share_of(visible)` in its health, and the training's health
    check warns once, with the consequence.

    Args:
        term: () loss, finite. visible: (B, 1, H, W) bool or in [0, 1].
    """
    return torch.where(share_of(visible) >= least, term, term.new_zeros(()))


def sequence_weights(count: int, gamma: float = 0.8) -> tuple[float, ...]:
    """Weights of the estimates of an iterative network, first to last: gamma^(count - 1 - i). 3: 0.64, 0.8, 1.

    Source: Teed & Deng, ECCV 2020, eq. 7; on unsupervised terms: Stone et al. (SMURF), CVPR 2021, section 3.
    """
    return tuple(gamma ** (count - 1 - i) for i in range(count))
