"""The learning rate against closed forms and torch's schedulers."""

from __future__ import annotations

import math

import pytest
import torch

from geossl.config import Train
from geossl.engine.schedule import learning_rate


def rates(total: int, **options: object) -> list[float]:
    return [learning_rate(step, total, Train.model_validate({"lr": 0.5, **options})) for step in range(total)]


def test_constant() -> None:
    assert rates(3, schedule="constant") == [0.5] * 3


def test_step_drops_at_its_milestones() -> None:
    found = rates(20, schedule="step", milestones=(0.5, 0.75), gamma=0.1)
    assert found == pytest.approx([0.5] * 10 + [0.05] * 5 + [0.005] * 5)


def test_cosine_is_half_a_wave() -> None:
    expected = [0.25 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    assert rates(10, schedule="cosine") == pytest.approx(expected)


def test_warmup_rises_linearly_to_the_schedule() -> None:
    assert rates(10, schedule="constant", warmup=0.4) == pytest.approx([0.125, 0.25, 0.375, 0.5] + [0.5] * 6)


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_one_cycle_is_that_of_torch(warmup: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=40, pct_start=warmup or 0.3)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(expected) < 40 else None
    assert rates(40, schedule="one_cycle", warmup=warmup) == pytest.approx(expected, rel=1e-9)


def test_one_cycle_whose_rise_is_one_step_begins_at_the_top() -> None:
    assert rates(100, schedule="one_cycle", warmup=0.01)[0] == 0.5


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one_cycle"])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_shortest_trainings_have_rates(schedule: str, total: int) -> None:
    assert all(0 < rate <= 0.5 for rate in rates(total, schedule=schedule, warmup=0.9))


def test_step_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="step is 5"):
        learning_rate(5, 5, Train())
