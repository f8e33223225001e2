"""The classical losses of metric learning, as their papers print them; libraries' defaults differ from most.

All take (N, D) embeddings and integer labels (N,) of which each has at least two samples, or pairs. `keep` and
`excluded` leave out pairs that are no negatives, because both samples show the same thing.

Differs from pytorch-metric-learning 2.9: its contrastive loss does not square the hinge; its triplet loss takes
un-squared distances and averages only what is above zero; its N-pair loss normalises the embeddings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.precision import float32_island
from geossl.pretrain.objectives import without

TINY = 1e-12  # added to squared distances, whose root has no derivative at 0


@float32_island
def contrastive(
    first: Tensor, second: Tensor, dissimilar: Tensor, margin: float = 1.0, keep: Tensor | None = None
) -> Tensor:
    """Similar pairs are drawn together, dissimilar ones pushed apart up to a margin.

    Args:
        first, second: (N, D). dissimilar: (N,) bool. margin: m.
        keep: (N,) bool, pairs to count; None: all.

    Returns:
        () mean of (1 - Y) D^2 / 2 + Y max(0, m - D)^2 / 2.

    Source: Hadsell, Chopra & LeCun, CVPR 2006, eq. 4.
    """
    distance = ((first - second).square().sum(1) + TINY).sqrt()
    return mean_kept(torch.where(dissimilar, (margin - distance).clamp_min(0).square(), distance.square()), keep) / 2


@float32_island
def triplet(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.2, keep: Tensor | None = None
) -> Tensor:
    """An anchor is nearer to its positive than to a negative, by a margin.

    Args:
        anchor, positive, negative: (N, D). keep: (N,) bool, triplets to count; None: all.

    Returns:
        () mean of max(0, |a - p|^2 - |a - n|^2 + margin) of unit vectors, zeros included.

    Source: Schroff et al., CVPR 2015 (FaceNet), eq. 3. The paper sums.
    """
    a, p, n = (F.normalize(x, dim=1) for x in (anchor, positive, negative))
    near, far = (a - p).square().sum(1), (a - n).square().sum(1)
    return mean_kept((near - far + margin).clamp_min(0), keep)


@torch.no_grad()
@float32_island
def semi_hard(anchor: Tensor, positive: Tensor, candidates: Tensor, negative: Tensor) -> Tensor:
    """Which negative a triplet learns from: the nearest of those that are farther than the positive.

    The nearest of all would make everything collapse early on.

    Args:
        anchor, positive: (N, D). candidates: (M, D). negative: (N, M) bool, which are negatives of which anchors.

    Returns:
        (N,) int64 of the candidates; the farthest negative where none is farther than the positive, and any candidate
        where there is no negative.

    Source: Schroff et al., CVPR 2015 (FaceNet), eq. 4.
    """
    a, p, n = (F.normalize(x, dim=1) for x in (anchor, positive, candidates))
    cosine = a @ n.T
    farther = negative & (cosine < (a * p).sum(1, keepdim=True))
    nearest = without(cosine, ~farther).argmax(1)
    farthest = (-cosine).masked_fill(~negative, -torch.inf).argmax(1)
    return torch.where(farther.any(1), nearest, farthest)


@float32_island
def lifted_structured(
    x: Tensor, labels: Tensor, margin: float = 1.0, smooth: bool = True, excluded: Tensor | None = None
) -> Tensor:
    """Every positive pair against all negatives of both its members.

    Args:
        x: (N, D), not normalised. labels: (N,).
        smooth: log-sum-exp over the negatives, as trained; else the maximum, the loss that it bounds.
        excluded: (N, N) bool, pairs that are no negatives though their labels differ, symmetric.

    Returns:
        () 1 / (2 |P|) sum over positive pairs of max(0, J)^2, J = D_ij + log(sum_k e^(margin - D_ik)
        + sum_l e^(margin - D_jl)).

    Source: Song et al., CVPR 2016, eq. 3 and 4; D is the distance, not its square.
    """
    distance = ((x[:, None] - x).square().sum(2) + TINY).sqrt()  # (N, N)
    same = labels[:, None] == labels
    push = without(without(margin - distance, same), excluded)  # (N, N) of negatives
    if smooth:
        own = push.logsumexp(1)
        against = torch.logaddexp(own[:, None], own)
    else:
        own = push.amax(1)
        against = torch.maximum(own[:, None], own)
    pairs = same.triu(1)
    return (distance + against)[pairs].clamp_min(0).square().sum() / (2 * pairs.sum())


@float32_island
def n_pair(anchors: Tensor, positives: Tensor, excluded: Tensor | None = None) -> Tensor:
    """(N, D) twice, a pair of each of N classes -> () mean of log(1 + sum over others of e^(a.p_j - a.p_i)).

    Lengths count: nothing is normalised. `excluded` (N, N) bool are classes that are no negatives; its diagonal is
    ignored.

    Source: Sohn, NeurIPS 2016, eq. 10 (without the penalty on lengths).
    """
    own = torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
    logits = without(anchors @ positives.T, None if excluded is None else excluded & ~own)
    return (logits.logsumexp(1) - logits.diagonal()).mean()


def mean_kept(losses: Tensor, keep: Tensor | None) -> Tensor:
    """(N,) -> () mean of the losses to keep, all where None; 0 where there is none."""
    if keep is None:
        return losses.mean()
    return losses.where(keep, losses.new_zeros(())).sum() / keep.sum().clamp_min(1)
