"""Objectives that tell what belongs together from what does not, as functions of a critic's scores, in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.precision import float32_island
from geossl.pretrain.objectives import without


@float32_island
def jensen_shannon(joint: Tensor, marginal: Tensor, keep: Tensor | None = None) -> Tensor:
    """A lower bound of the Jensen-Shannon divergence between what belongs together and what does not.

    Args:
        joint: (N,) scores T of pairs that belong together. marginal: (M,) scores of pairs that do not.
        keep: (M,) bool, pairs to count; None: all.

    Returns:
        () mean of -softplus(-T) over the former minus mean of softplus(T) over the latter. Its greatest value, at
        T = log p / q, is 2 JS - 2 ln 2; JS itself is at most ln 2.

    Source: Hjelm et al., ICLR 2019 (Deep InfoMax), eq. 4. https://arxiv.org/abs/1808.06670
    """
    apart = F.softplus(marginal)
    if keep is None:
        return -F.softplus(-joint).mean() - apart.mean()
    return -F.softplus(-joint).mean() - apart.where(keep, apart.new_zeros(())).sum() / keep.sum().clamp_min(1)


@float32_island
def info_nce_of_scores(scores: Tensor, own: Tensor, excluded: Tensor | None = None) -> Tensor:
    """How hard the right candidate is to find, by a critic's scores.

    Args:
        scores: (N, M) log f of N queries and M candidates, of which one is the positive.
        own: (N,) int64, which one.
        excluded: (N, M) bool, candidates that are no negatives; the positive is never left out.

    Returns:
        (N,) losses >= 0.

    Source: van den Oord et al., 2018, eq. 4. https://arxiv.org/abs/1807.03748
    """
    positive = F.one_hot(own, scores.shape[1]).bool()
    scores = scores if excluded is None else without(scores, excluded & ~positive)
    return scores.logsumexp(1) - scores.gather(1, own[:, None])[:, 0]


@float32_island
def across_views(first: Tensor, second: Tensor, temperature: float, excluded: Tensor | None = None) -> Tensor:
    """Each view of a sample finds the other one among those of all samples, both ways.

    Args:
        first, second: (N, D) of two kinds of views, compared by cosine.
        excluded: (N, N) bool, pairs of samples that are no negatives, symmetric; its diagonal is ignored.

    Returns:
        () sum of the mean losses of both directions.

    Source: Tian et al., ECCV 2020 (CMC), eq. 3 and 4. https://arxiv.org/abs/1906.05849
    """
    scores = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    own = torch.arange(len(first), device=scores.device)
    there, back = (info_nce_of_scores(s, own, excluded).mean() for s in (scores, scores.T))
    return there + back


@float32_island
def margin_ranking(first: Tensor, last: Tensor, valid: Tensor, negative: Tensor, margin: float) -> Tensor:
    """A patch is nearer to where it went than to other patches, by a margin.

    Args:
        first, last: (N, D) of patches and of the same things later; D(x, y) = 1 - cos.
        valid: (N,) bool; nothing else counts, as a positive or a negative.
        negative: (N, N) bool, which last patches are negatives of which first ones.
        margin: M.

    Returns:
        () mean over all negatives of max(0, D(x, x+) - D(x, x-) + M); 0 where there are none.

    Source: Wang & Gupta, ICCV 2015, eq. 1. https://arxiv.org/abs/1505.00687
    """
    cosine = F.normalize(first, dim=1) @ F.normalize(last, dim=1).T
    counts = negative & valid & valid[:, None]
    losses = (cosine - cosine.diagonal()[:, None] + margin).clamp_min(0)
    return losses.where(counts, losses.new_zeros(())).sum() / counts.sum().clamp_min(1)
