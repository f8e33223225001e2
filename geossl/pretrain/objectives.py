"""Objectives of contrastive learning, as functions of embeddings in float32.

Embeddings are (N, D) of any length unless stated; those that compare by cosine make unit vectors of them. `excluded`
marks negatives that are none, because both samples show the same thing. Queues and averages that the embeddings come
from are in `geossl.pretrain.memory`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.precision import float32_island


@float32_island
def info_nce(
    query: Tensor, positive: Tensor, negatives: Tensor, temperature: float, excluded: Tensor | None = None
) -> Tensor:
    """How hard the positive is to find among the negatives: -log(e^(q.p/t) / (e^(q.p/t) + sum_k e^(q.n_k/t))).

    Args:
        query, positive: (N, D). negatives: (K, D), the same for every query. All are compared by cosine.
        temperature: t.
        excluded: (N, K) bool.

    Returns:
        (N,) losses >= 0. The denominator holds the positive: without it they have no lower bound.

    Convention: with K orthogonal negatives and query = positive the loss is ln(1 + K e^(-1/t)).
    Source: van den Oord et al., 2018, eq. 4 (https://arxiv.org/abs/1807.03748); He et al., CVPR 2020 (MoCo), eq. 1.
    """
    query, positive, negatives = (F.normalize(x, dim=1) for x in (query, positive, negatives))
    own = (query * positive).sum(1, keepdim=True) / temperature  # (N, 1)
    others = without(query @ negatives.T / temperature, excluded)  # (N, K)
    return torch.cat([own, others], 1).logsumexp(1) - own[:, 0]


@float32_island
def nt_xent(first: Tensor, second: Tensor, temperature: float, excluded: Tensor | None = None) -> Tensor:
    """SimCLR's loss: each of the 2N views finds its partner among the 2N - 1 others.

    Args:
        first, second: (N, D) two views of N samples, compared by cosine.
        temperature: t.
        excluded: (N, N) bool, pairs of samples that are no negatives; its diagonal is ignored.

    Returns:
        () mean over all views.

    Convention: all embeddings equal: ln(2N - 1).
    Source: Chen et al., ICML 2020, eq. 1. https://arxiv.org/abs/2002.05709
    """
    count = len(first)
    views = F.normalize(torch.cat([first, second]), dim=1)  # (2N, D)
    logits = views @ views.T / temperature
    itself = torch.eye(2 * count, dtype=torch.bool, device=views.device)
    partner = itself.roll(count, 1)
    never = itself if excluded is None else itself | (excluded.repeat(2, 2) & ~partner)
    logits = without(logits, never)
    return (logits.logsumexp(1) - logits[partner]).mean()


@float32_island
def dense_info_nce(query: Tensor, key: Tensor, valid: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    """Each valid place finds the descriptor of its own correspondence among those of all other valid places.

    Args:
        query: (N, D) descriptors at places of first views. key: (N, D) at their correspondences in second views.
        valid: (N,) bool; an invalid place is neither a positive nor a negative and has no gradient.
        excluded: (N, N) bool, keys that are no negatives of a query, being too near to its own; the diagonal is
            ignored.
        temperature: Of the cosines.

    Returns:
        () mean over the valid places, 0 where there is none.

    Source: Wang et al., CVPR 2021 (DenseCL), eq. 2, with correspondences from geometry instead of from features.
    https://arxiv.org/abs/2011.09157
    """
    query, key = (F.normalize(x.where(valid[:, None], x.detach()), dim=1) for x in (query, key))
    itself = torch.eye(len(query), dtype=torch.bool, device=query.device)
    logits = query @ key.T / temperature
    logits = without(logits, ~itself & (excluded | ~valid))
    losses = logits.logsumexp(1) - logits.diagonal()
    return losses.where(valid, losses.new_zeros(())).sum() / valid.sum().clamp_min(1)


@float32_island
def byol_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """(N, D) twice -> (N,) squared distance of the unit vectors, 2 - 2 cos, in 0..4; no gradient to the target.

    Source: Grill et al., NeurIPS 2020, eq. 2. https://arxiv.org/abs/2006.07733
    """
    return 2 - 2 * F.cosine_similarity(prediction, target.detach(), dim=1)


@float32_island
def alignment(first: Tensor, second: Tensor, exponent: float = 2.0) -> Tensor:
    """(N, D) twice -> () mean distance of the unit vectors of positives, to the power of `exponent`.

    Convention: two unit vectors at an angle of a are 2 sin(a / 2) apart.
    Source: Wang & Isola, ICML 2020, section 4. https://arxiv.org/abs/2005.10242
    """
    difference = F.normalize(first, dim=1) - F.normalize(second, dim=1)
    return difference.square().sum(1).pow(exponent / 2).mean()


@float32_island
def uniformity(x: Tensor, t: float = 2.0) -> Tensor:
    """(N, D) -> () log of the mean, over pairs of different samples, of e^(-t d^2) of their unit vectors' distance d.

    Convention: 0 when all are equal; uniform directions in D = 128 dimensions give -3.94.
    Source: Wang & Isola, ICML 2020, section 4.
    """
    x = F.normalize(x, dim=1)
    squared = 2 - 2 * (x @ x.T)
    upper = torch.ones_like(squared, dtype=torch.bool).triu(1)
    count = len(x) * (len(x) - 1) // 2
    return without(-t * squared, ~upper).flatten().logsumexp(0) - math.log(count)


@float32_island
def instance_logits(query: Tensor, vectors: Tensor, temperature: float) -> Tensor:
    """(N, D) and (M, D) -> (N, M) v.f / t of unit vectors, whose softmax is P(instance | query).

    Source: Wu et al., CVPR 2018, eq. 2: the exponent's argument is divided by t, not the exponential.
    https://arxiv.org/abs/1805.01978
    """
    return F.normalize(query, dim=1) @ F.normalize(vectors, dim=1).T / temperature


@float32_island
def nce(data: Tensor, noise: Tensor, noise_per_datum: float) -> Tensor:
    """Noise-contrastive estimation: data are told from noise by the model's own density.

    Args:
        data: (N,) log p_model - log p_noise of data, p_model normalised by an own estimate or a learned constant.
        noise: (M,) the same of samples of the noise.
        noise_per_datum: Ratio of noise to data that the classifier assumes.

    Returns:
        () -(mean log h(data) + ratio * mean log(1 - h(noise))), h = sigmoid(log p_model - log(ratio p_noise)).

    Source: Gutmann & Hyvärinen, AISTATS 2010, eq. 3. The noise's density belongs into the logit, uniform or not.
    """
    offset = math.log(noise_per_datum)
    return -(F.logsigmoid(data - offset).mean() + noise_per_datum * F.logsigmoid(offset - noise).mean())


def without(logits: Tensor, excluded: Tensor | None) -> Tensor:
    """The logits with -infinity, and no gradient, where excluded."""
    return logits if excluded is None else logits.masked_fill(excluded, -torch.inf)
