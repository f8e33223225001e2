"""Pre-training by the classical losses: what they count as negatives, and that they draw views together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.config import ConfigError, parse_experiment
from geossl.methods import build_method
from geossl.pretrain.heads import pooled
from geossl.pretrain.metric import LENGTH_WEIGHT, TERMS, MetricOptions
from geossl.pretrain.metric_losses import contrastive, lifted_structured, n_pair, triplet
from geossl.types import Batch, Frame

LOSSES = get_args(MetricOptions.model_fields["loss"].annotation)
SLIGHT = {"zoom": (1.0, 1.2), "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0, "grey": 0, "blur_px": 0}
exactly = partial(pytest.approx, abs=1e-6)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def build(loss: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return build_method("pretrain_metric", {"encoder": "compact", "loss": loss, **options})


def batch(samples: int = 3, names: tuple[str, ...] | None = None, seed: int = 0) -> Batch:
    """Smooth pictures of recordings of their own."""
    image = F.interpolate(random(samples, 3, 4, 6, seed=seed), (32, 48), mode="bilinear")
    names = names or tuple(f"drive{i}/image_02/{i:06d}" for i in range(samples))
    return Batch(Frame(image, image, torch.eye(3).repeat(samples, 1, 1)), (), (), names=names)


@pytest.mark.parametrize("loss", LOSSES)
def test_near_samples_are_no_negatives(loss: str) -> None:
    """What is left of a batch of one recording and time is what draws views together."""
    method = build(loss)
    near, far = batch(names=("d/000001", "d/000002", "d/000003")), batch()
    totals = []
    for one in (near, far):
        torch.manual_seed(1)
        objective = method(one)
        objective.total.backward()
        totals.append(objective.terms[loss].item())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    first, second = random(3, 5) - 0.5, random(3, 5, seed=1) - 0.5
    alone = TERMS[loss](first, second, torch.ones(3, 3, dtype=torch.bool))[loss].item()
    if loss == "contrastive":
        assert alone == exactly((first - second).square().sum(1).mean().item() / 2)
    else:
        assert alone == totals[0] == exactly(0.0) and totals[1] > 0.01


def test_terms_are_the_losses_of_their_pairs() -> None:
    """Samples 0 and 1 show the same, which makes them no negatives of each other."""
    first, second = (random(4, 5, seed=s) - 0.5 for s in (0, 1))
    near = torch.eye(4, dtype=torch.bool)
    near[0, 1] = near[1, 0] = True
    both, labels = torch.cat([first, second]), torch.arange(4).repeat(2)
    i, j = torch.tensor([(i, j) for i in range(4) for j in range(4) if {i, j} != {0, 1}]).T
    terms = {loss: TERMS[loss](first, second, near) for loss in LOSSES}
    assert terms["contrastive"]["contrastive"].item() == exactly(contrastive(first[i], second[j], i != j).item())
    lifted = lifted_structured(both, labels, excluded=near.repeat(2, 2))
    assert terms["lifted"]["lifted"].item() == exactly(lifted.item())
    assert terms["n_pair"]["n_pair"].item() == exactly(n_pair(first, second, near).item())
    assert terms["n_pair"]["length"].item() == exactly(LENGTH_WEIGHT * both.square().sum().item() / 8)

    unit = F.normalize(both, dim=1)
    distance = torch.cdist(unit, unit).square()
    chosen = []
    for a in range(8):
        others = [k for k in range(8) if not near[a % 4, k % 4]]
        farther = [k for k in others if distance[a, k] > distance[a, (a + 4) % 8]]
        chosen.append(min(farther or others, key=lambda k: float(distance[a, k]) * (1 if farther else -1)))
    expected = triplet(both, both.roll(4, 0), both[chosen])
    assert terms["triplet"]["triplet"].item() == exactly(expected.item())


@pytest.mark.parametrize("loss", LOSSES)
def test_views_draw_together_and_samples_apart(loss: str) -> None:
    """In a few steps on random pictures: the mean cosine of a picture's views, less that of different pictures'."""
    method = build(loss, hidden=64, dim=16, views=SLIGHT)
    optimizer = torch.optim.Adam(method.parameters(), 1e-3)
    seen, apart = batch(6), []
    for step in range(7):
        torch.manual_seed(step)
        objective = method(seen)
        if step in (0, 6):
            apart.append(separation(method, *(objective.maps[name] for name in ("first", "second"))))
        optimizer.zero_grad()
        objective.total.backward()
        optimizer.step()
    assert apart[1] > apart[0] + 0.2, apart


@torch.no_grad()
def separation(method: Any, first: Tensor, second: Tensor) -> float:
    unit = F.normalize(method.head(pooled(method.encoder(torch.cat([first, second])))), dim=1)
    cosine = unit[: len(first)] @ unit[len(first) :].T
    others = ~torch.eye(len(first), dtype=torch.bool)
    return float(cosine.diagonal().mean() - cosine[others].mean())


def test_unknown_loss_is_named() -> None:
    with pytest.raises(ConfigError, match=r"loss: .*'contrastive', 'triplet', 'lifted' or 'n_pair'"):
        parse_experiment({"method": "pretrain_metric", "model": {"loss": "npair"}})


def test_frames_of_cameras_of_one_rig_are_one_place() -> None:
    """A batch of both cameras at one time has no negatives."""
    stereo = replace(batch(2), names=("d/image_02/000005", "d/image_03/000005"))
    assert build("n_pair")(stereo).terms["n_pair"].item() == pytest.approx(0, abs=1e-6)
