"""Instance discrimination: its noise and its normaliser against loops of the paper, and that both losses learn."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.config import ConfigError, parse_experiment
from geossl.methods import build_method
from geossl.pretrain.instance_discrimination import against_noise, draw_noise, log_partition
from geossl.pretrain.memory import Partition
from geossl.pretrain.views import Views
from geossl.types import Batch, Frame

exactly = partial(pytest.approx, rel=1e-6)
SLIGHT = Views(zoom=(0.9, 1.1), rotation_deg=3.0, grey=0.0, blur_px=0.0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(samples: int) -> Batch:
    image = F.interpolate(random(samples, 3, 4, 6).float(), (32, 48), mode="bilinear")
    return Batch(Frame(image, image, torch.eye(3).repeat(samples, 1, 1)), index=torch.arange(samples))


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    return build_method("pretrain_instance", {"encoder": "compact", "views": SLIGHT, "dim": 16, **options})


# --- noise and normaliser --------------------------------------------------------------------------------------------


def test_partition_of_all_samples_once_is_the_sum() -> None:
    logits = 5 * random(1, 7)
    assert log_partition(logits, 7).item() == exactly(logits.logsumexp(1).item())
    assert log_partition(torch.full((3, 4), 2.0), 10).item() == exactly(2 + math.log(10))


def test_partition_of_noise_is_near_that_of_all_samples() -> None:
    torch.manual_seed(0)
    logits = 3 * random(4, 500)
    exact = logits.logsumexp(1).exp().mean().log().item()
    assert log_partition(draw_noise(logits, 200), 500).item() == pytest.approx(exact, abs=0.1)


def test_noise_is_drawn_uniformly_and_no_more_than_there_is() -> None:
    torch.manual_seed(0)
    logits = torch.arange(5.0).repeat(3000, 1)
    drawn = draw_noise(logits, 4)
    assert drawn.shape == (3000, 4) and draw_noise(logits, 4096).shape == (3000, 5)
    counts = np.bincount(drawn.flatten().long().numpy(), minlength=5)
    assert np.abs(counts / 12000 - 0.2).max() < 0.02
    assert (drawn.sort(1).values.diff(dim=1) == 0).any()  # with replacement


@pytest.mark.parametrize("count", [1, 3])
def test_loss_against_noise_by_a_loop(count: int) -> None:
    logits, own, noise, log_z = (
        5 * random(count, 7),
        torch.tensor([2, 6, 0])[:count],
        5 * random(count, 4, seed=1),
        6.0,
    )
    losses = []
    for i in range(count):

        def data_probability(logit: float) -> float:
            probability = math.exp(logit) / math.exp(log_z)
            return probability / (probability + 4 * 1 / 7)  # m = 4, P_noise = 1 / 7

        loss = -math.log(data_probability(float(logits[i, own[i]])))
        losses.append(loss - sum(math.log(1 - data_probability(x)) for x in noise[i].tolist()))
    found = against_noise(logits, own, noise, torch.tensor(log_z, dtype=torch.float64))
    assert found.item() == exactly(np.mean(losses))


def test_normaliser_follows_each_batch_until_all_samples_were_seen() -> None:
    partition = Partition(6)
    for estimate, used in ((1.0, 1.0), (2.0, 2.0), (3.0, 2.0), (4.0, 2.0)):
        given = torch.tensor(estimate)
        assert partition(given) == used
        partition.after_step(given, 3)
    assert partition.log == 2.0 and set(partition.state_dict()) == {"log", "seen"}


def test_method_keeps_the_normaliser_of_the_first_pass() -> None:
    method, logs = build(samples=6), []
    for step in range(4):
        torch.manual_seed(step)
        method(batch(3))
        method.after_step()
        logs.append(method.partition.log.item())
    assert logs[0] != logs[1] == logs[2] == logs[3]
    assert not any(name.startswith("partition") for name in build(samples=6, loss="softmax").state_dict())


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["nce", "softmax"])
def test_views_come_to_find_their_own_sample(loss: str) -> None:
    method, seen = build(samples=6, loss=loss), batch(6)
    optimizer = torch.optim.Adam(method.parameters(), 1e-3)
    for step in range(15):
        torch.manual_seed(step)
        objective = method(seen)
        assert set(objective.terms) == {loss, "proximal"}
        optimizer.zero_grad()
        objective.total.backward()
        optimizer.step()
        cosine = method._fresh[1] @ method.bank.vectors.T
        method.after_step()
    own, others = cosine.diagonal(), cosine[~torch.eye(6, dtype=torch.bool)]
    assert (cosine.argmax(1) == torch.arange(6)).all() and own.mean() > others.mean() + 0.1 and own.min() > 0.7, cosine


def test_unknown_loss_is_named() -> None:
    with pytest.raises(ConfigError, match=r"loss: .*'nce' or 'softmax'"):
        parse_experiment({"method": "pretrain_instance", "model": {"samples": 6, "loss": "nec"}})
