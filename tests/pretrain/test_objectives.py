"""Objectives of pre-training against closed forms and double loops."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import hyp0f1
from torch import Tensor

from geossl.pretrain.metric_losses import contrastive, lifted_structured, n_pair, semi_hard, triplet
from geossl.pretrain.objectives import (
    alignment,
    byol_loss,
    dense_info_nce,
    info_nce,
    instance_logits,
    nce,
    nt_xent,
    uniformity,
)

exactly = partial(pytest.approx, abs=1e-6)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_nt_xent_of_equal_embeddings_is_chance() -> None:
    same = torch.ones(8, 5, dtype=torch.float64)
    assert nt_xent(same, 3 * same, 0.5).item() == exactly(math.log(15))  # ln(2B - 1) = 2.70805


def test_nt_xent_of_orthogonal_pairs() -> None:
    one = torch.eye(8, dtype=torch.float64)
    expected = math.log(math.exp(1 / 0.5) + 2 * 8 - 2) - 1 / 0.5  # 1.06288, to five digits
    assert nt_xent(one, one, 0.5).item() == exactly(expected)


def test_nt_xent_against_a_double_loop_leaves_out_what_is_excluded() -> None:
    first, second = random(3, 4), random(3, 4, seed=1)
    excluded = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    views = F.normalize(torch.cat([first, second]), dim=1).numpy()
    losses = []
    for i in range(6):
        partner = (i + 3) % 6
        others = [k for k in range(6) if k != i and (k == partner or not excluded[i % 3, k % 3])]
        logits = [views[i] @ views[k] / 0.3 for k in others]
        losses.append(math.log(sum(map(math.exp, logits))) - views[i] @ views[partner] / 0.3)
    assert nt_xent(first, second, 0.3, excluded).item() == exactly(np.mean(losses))


def test_nt_xent_agrees_with_the_libraries() -> None:
    lightly = pytest.importorskip("lightly.loss")
    first, second = (random(5, 8, seed=s).float().requires_grad_() for s in (0, 1))
    ours, theirs = nt_xent(first, second, 0.2), lightly.NTXentLoss(0.2)(first, second)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    gradients = [torch.autograd.grad(loss, [first, second]) for loss in (ours, theirs)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_nt_xent_agrees_with_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    first, second = random(5, 8).float(), random(5, 8, seed=1).float()
    theirs = losses.SelfSupervisedLoss(losses.NTXentLoss(0.2))(first, second)
    assert nt_xent(first, second, 0.2).item() == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("t", [0.07, 0.5])
def test_info_nce_with_orthogonal_negatives(t: float) -> None:
    axes = torch.eye(6, dtype=torch.float64)
    loss = info_nce(axes[:1], 2 * axes[:1], axes[1:], t)
    assert loss.item() == exactly(math.log(1 + 5 * math.exp(-1 / t)))  # ln(1 + K e^(-1/t))
    # Without the positive in the denominator it would be ln 5 - 1/t, which is negative.
    assert (info_nce(random(20, 6), random(20, 6, seed=1), random(9, 6, seed=2), t) >= 0).all()


def test_info_nce_ignores_excluded_negatives() -> None:
    query, positive, negatives = random(2, 4), random(2, 4, seed=1), random(3, 4, seed=2).requires_grad_()
    excluded = torch.tensor([[True, False, False], [True, False, True]])
    losses = info_nce(query, positive, negatives, 0.2, excluded)
    assert losses[0].item() == exactly(info_nce(query[:1], positive[:1], negatives[1:], 0.2).item())
    losses.sum().backward()
    assert negatives.grad is not None and (negatives.grad[0] == 0).all() and (negatives.grad[1] != 0).any()


@pytest.mark.parametrize(("count", "bound"), [(8, 1.85), (128, 2.95), (1024, 3.08)])
def test_info_nce_bounds_mutual_information(count: int, bound: float) -> None:
    """ln N - L <= ln N and <= I; with the analytic critic of Gaussians of correlation 0.999, I = 3.108."""
    rho, generator = 0.999, torch.Generator().manual_seed(0)
    estimates = []
    for _ in range(max(4, 6000 // count)):
        x, noise = torch.randn(2, count, generator=generator, dtype=torch.float64)
        y = rho * x + math.sqrt(1 - rho**2) * noise
        critic = -((y[None] - rho * x[:, None]) ** 2) / (2 * (1 - rho**2)) + y[None] ** 2 / 2  # log p(y | x) / p(y)
        estimates.append(math.log(count) - (critic.logsumexp(1) - critic.diagonal()).mean().item())
    assert -0.5 * math.log(1 - rho**2) == pytest.approx(3.108, abs=1e-3)
    assert max(estimates) <= math.log(count)
    assert np.mean(estimates) == pytest.approx(bound, abs=0.05)


@pytest.mark.parametrize(("d", "value"), [(2, -1.5750), (3, -2.0798), (8, -3.0825), (32, -3.7518), (128, -3.9375)])
def test_uniformity_of_uniform_directions(d: int, value: float) -> None:
    t = 2.0
    assert -2 * t + math.log(hyp0f1(d / 2, t**2)) == pytest.approx(value, abs=1e-4)
    assert uniformity(random(1000, d), t).item() == pytest.approx(value, abs=0.02)
    assert uniformity(torch.ones(5, d, dtype=torch.float64)).item() == exactly(0.0)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi])
def test_alignment_at_an_angle(angle: float) -> None:
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    y = 5 * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    assert alignment(x, y).item() == exactly((2 * math.sin(angle / 2)) ** 2)
    assert alignment(x, y, exponent=4.0).item() == exactly((2 * math.sin(angle / 2)) ** 4)


def test_byol_loss_at_cosines() -> None:
    x = torch.tensor([[1.0, 0.0]] * 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = byol_loss(x, y)
    assert loss.tolist() == exactly([0.0, 2.0, 4.0])
    loss.sum().backward()
    assert x.grad is not None and y.grad is None  # nothing reaches the target


def test_nce_recovers_a_density_and_its_normaliser() -> None:
    """exp(-a x^2 - c) of a unit Gaussian: a = 1/2 and c = ln sqrt(2 pi) = 0.919, against noise of deviation 2."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(20000, generator=generator, dtype=torch.float64)
    noise = 2 * torch.randn(20000, generator=generator, dtype=torch.float64)
    a, c = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.LBFGS([a, c], max_iter=50, line_search_fn="strong_wolfe")

    def ratio(x: Tensor) -> Tensor:
        return -a * x**2 - c - (-(x**2) / 8 - math.log(2 * math.sqrt(2 * math.pi)))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nce(ratio(data), ratio(noise), 1.0)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert a.item() == pytest.approx(0.5, abs=0.02) and c.item() == pytest.approx(0.919, abs=0.02)


def test_instance_probability_depends_on_the_temperature() -> None:
    x, vectors = random(1, 4), random(3, 4, seed=1)
    warm, cold = (instance_logits(x, vectors, t).softmax(1) for t in (0.2, 0.1))
    assert (warm - cold).abs().max() > 0.01  # dividing the exponential instead would cancel
    cosines = F.cosine_similarity(x, vectors).numpy()
    assert cold[0].tolist() == exactly((np.exp(cosines / 0.1) / np.exp(cosines / 0.1).sum()).tolist())


# --- dense -----------------------------------------------------------------------------------------------------------


def test_dense_info_nce_against_a_double_loop() -> None:
    query, key = random(6, 4), random(6, 4, seed=1)
    valid = torch.tensor([1, 1, 0, 1, 1, 0]).bool()
    excluded = random(6, 6, seed=2) > 0.5
    q, k = F.normalize(query, dim=1).numpy(), F.normalize(key, dim=1).numpy()
    losses = []
    for i in range(6):
        if valid[i]:
            kept = [j for j in range(6) if j == i or (valid[j] and not excluded[i, j])]
            losses.append(math.log(sum(math.exp(q[i] @ k[j] / 0.2) for j in kept)) - q[i] @ k[i] / 0.2)
    assert dense_info_nce(query, key, valid, excluded, 0.2).item() == exactly(np.mean(losses))


def test_dense_info_nce_does_not_know_the_order_of_places() -> None:
    query, key, valid = random(9, 4), random(9, 4, seed=1), torch.arange(9) % 4 != 0
    excluded, order = random(9, 9, seed=2) > 1, torch.randperm(9, generator=torch.Generator().manual_seed(0))
    moved = dense_info_nce(query[order], key[order], valid[order], excluded[order][:, order], 0.2)
    assert moved.item() == exactly(dense_info_nce(query, key, valid, excluded, 0.2).item())


def test_dense_info_nce_gives_invalid_places_no_gradient() -> None:
    query, key = random(5, 4).requires_grad_(), random(5, 4, seed=1).requires_grad_()
    valid = torch.tensor([1, 0, 1, 1, 0]).bool()
    dense_info_nce(query, key, valid, torch.zeros(5, 5, dtype=torch.bool), 0.2).backward()
    for x in (query, key):
        assert x.grad is not None and (x.grad[~valid] == 0).all() and (x.grad[valid].abs().sum(1) > 0).all()
    assert dense_info_nce(query, key, ~valid & valid, torch.zeros(5, 5, dtype=torch.bool), 0.2).item() == 0


# --- metric learning, on six points of three classes -----------------------------------------------------------------

X = random(6, 3)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
D = np.linalg.norm(X.numpy()[:, None] - X.numpy(), axis=2)


def test_contrastive_against_a_loop() -> None:
    dissimilar = torch.tensor([True, False, True])
    first, second = X[:3], X[3:]
    losses = []
    for i in range(3):
        d = D[i, i + 3]
        losses.append(0.5 * max(0, 2 - d) ** 2 if dissimilar[i] else 0.5 * d**2)
    assert contrastive(first, second, dissimilar, margin=2.0).item() == exactly(np.mean(losses))


def test_contrastive_and_triplet_count_what_is_kept() -> None:
    keep, none = torch.tensor([True, False, True]), torch.zeros(3, dtype=torch.bool)
    dissimilar = torch.tensor([True, True, False])
    pairs, kept = (X[:3], X[3:]), (X[:3][keep], X[3:][keep])
    assert contrastive(*pairs, dissimilar, keep=keep).item() == exactly(contrastive(*kept, dissimilar[keep]).item())
    found = triplet(*pairs, X[1:4], keep=keep).item()
    assert found == exactly(triplet(*kept, X[1:4][keep]).item()) and 0 < found != exactly(
        triplet(*pairs, X[1:4]).item()
    )
    assert contrastive(*pairs, dissimilar, keep=none) == triplet(*pairs, X[1:4], keep=none) == 0


def test_contrastive_has_a_gradient_where_points_coincide() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    contrastive(x, torch.zeros(2, 3), torch.tensor([True, False])).backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_triplet_against_a_loop() -> None:
    unit = F.normalize(X, dim=1).numpy()
    losses = [
        max(0, ((unit[i] - unit[i - 1]) ** 2).sum() - ((unit[i] - unit[i + 1]) ** 2).sum() + 0.2) for i in range(1, 5)
    ]
    assert [loss > 0 for loss in losses] == [False, True, False, True]
    assert triplet(X[1:5], X[:4], X[2:]).item() == exactly(np.mean(losses))


def test_semi_hard_against_a_loop() -> None:
    anchor, positive, candidates = random(7, 3), random(7, 3, seed=1), random(9, 3, seed=2)
    negative = random(7, 9, seed=3) > 0
    negative[5], negative[6] = False, torch.arange(9) == 4
    positive[4] = -anchor[4]  # nothing is farther
    a, p, n = (F.normalize(x, dim=1).numpy() for x in (anchor, positive, candidates))
    found = semi_hard(anchor, positive, candidates, negative).tolist()
    for i in range(7):
        distance = {k: ((a[i] - n[k]) ** 2).sum() for k in range(9) if negative[i, k]}
        farther = {k: d for k, d in distance.items() if d > ((a[i] - p[i]) ** 2).sum()}
        if farther:
            assert found[i] == min(farther, key=lambda k: farther[k])
        elif distance:
            assert found[i] == max(distance, key=lambda k: distance[k])
    assert not negative[5].any() and found[6] == 4 and 0 <= found[5] < 9


@pytest.mark.parametrize("smooth", [True, False])
def test_lifted_structured_against_a_double_loop(smooth: bool) -> None:
    losses = []
    for i in range(6):
        for j in range(i + 1, 6):
            if LABELS[i] == LABELS[j]:
                pushes = [1 - D[a, k] for a in (i, j) for k in range(6) if LABELS[k] != LABELS[i]]
                J = D[i, j] + (math.log(sum(map(math.exp, pushes))) if smooth else max(pushes))
                losses.append(max(0, J) ** 2)
    assert lifted_structured(X, LABELS, smooth=smooth).item() == exactly(sum(losses) / (2 * 3))


def test_n_pair_against_a_loop() -> None:
    anchors, positives = X[::2].numpy(), X[1::2].numpy()
    losses = [
        math.log(1 + sum(math.exp(anchors[i] @ positives[j] - anchors[i] @ positives[i]) for j in range(3) if j != i))
        for i in range(3)
    ]
    assert n_pair(X[::2], X[1::2]).item() == exactly(np.mean(losses))


def test_lifted_and_n_pair_ignore_excluded_negatives() -> None:
    """Without class 2 as a negative of class 0 and the other way round; class 1 has both."""
    excluded = torch.zeros(3, 3, dtype=torch.bool)
    excluded[0, 2] = excluded[2, 0] = True
    among, pairs = excluded.repeat_interleave(2, 0).repeat_interleave(2, 1), []
    for c in range(3):
        rivals = [k for k in range(6) if k // 2 != c and not excluded[c, k // 2]]
        pushes = [1 - D[a, k] for a in (2 * c, 2 * c + 1) for k in rivals]
        pairs.append(max(0, D[2 * c, 2 * c + 1] + math.log(sum(map(math.exp, pushes)))) ** 2)
    assert lifted_structured(X, LABELS, excluded=among).item() == exactly(sum(pairs) / (2 * 3))

    anchors, positives, losses = X[::2].numpy(), X[1::2].numpy(), []
    for i in range(3):
        others = [anchors[i] @ positives[j] for j in range(3) if j != i and not excluded[i, j]]
        losses.append(math.log(1 + sum(math.exp(other - anchors[i] @ positives[i]) for other in others)))
    excluded.fill_diagonal_(True)
    assert n_pair(X[::2], X[1::2], excluded).item() == exactly(np.mean(losses))


def test_lifted_without_negatives_teaches_nothing() -> None:
    x = X.clone().requires_grad_()
    loss = lifted_structured(x, LABELS, excluded=torch.ones(6, 6, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and x.grad is not None and (x.grad == 0).all()


def test_metric_losses_agree_with_metric_learning() -> None:
    """Where its arguments make the papers' losses of it."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    reducers = pytest.importorskip("pytorch_metric_learning.reducers")
    x, anchors = X.float(), torch.arange(1, 5)
    squared = distances.LpDistance(normalize_embeddings=True, power=2)
    triplets = (anchors, anchors - 1, anchors + 1)
    theirs = losses.TripletMarginLoss(margin=0.2, distance=squared, reducer=reducers.MeanReducer())
    assert triplet(x[1:5], x[:4], x[2:]).item() == exactly(theirs(x, indices_tuple=triplets).item())
    lifted = losses.LiftedStructureLoss(pos_margin=0, distance=distances.LpDistance(normalize_embeddings=False))
    assert lifted_structured(x, LABELS).item() == pytest.approx(lifted(x, LABELS).item(), abs=1e-5)
    dots = losses.NPairsLoss(distance=distances.DotProductSimilarity(normalize_embeddings=False))
    assert n_pair(x[::2], x[1::2]).item() == exactly(dots(x, LABELS).item())
