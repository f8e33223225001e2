"""Results are compared before times, and times are medians of turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from geossl.benchmark.contest import Contest, deviation, hold, table_rows

CPU = torch.device("cpu")


def sleeper(milliseconds: float, result: Any = 1.0) -> Callable[[], Any]:
    def work() -> Any:
        time.sleep(milliseconds / 1e3)
        return result

    return work


def test_deviation_is_relative_to_the_second() -> None:
    assert deviation(torch.tensor([3.0, 4.0]), np.array([3.0, 5.0])) == pytest.approx(1 / 34**0.5)
    assert deviation({"a": [2.0, 0.0]}, {"a": [1.0, 0.0]}) == 1
    assert deviation(torch.tensor([True, False]), torch.tensor([True, True])) == 0.5
    assert deviation(float("nan"), 1.0) == float("inf")


def test_deviation_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"shapes \[\(2,\)\] and \[\(3,\)\]"):
        deviation(torch.zeros(2), torch.zeros(3))


def test_ratio_is_of_the_time_of_one() -> None:
    contest = Contest("sleep", {"plain": sleeper(40), "geossl": sleeper(10)}, goal=2, count=4)
    outcome = hold(contest, 3, CPU)
    assert outcome.seconds["geossl"] == pytest.approx(0.0025, rel=0.5)
    assert outcome.ratio is not None and 2 < outcome.ratio < 6
    (row,) = table_rows([outcome])
    assert row["goal"] == "2x" and row["apart"] == "0.0e+00"


def test_alone_there_is_no_ratio() -> None:
    outcome = hold(Contest("alone", {"geossl": sleeper(1)}, goal=2), 1, CPU)
    assert outcome.ratio is None and set(outcome.seconds) == {"geossl"}
    assert table_rows([outcome])[0]["ratio"] == "-"


def test_unequal_work_is_not_timed() -> None:
    contest = Contest("sum", {"plain": sleeper(0, 1.0), "geossl": sleeper(0, 1.1)}, tolerance=0.05)
    with pytest.raises(ValueError, match=r"sum: the result of 'plain' differs from geossl's by 0\.091"):
        hold(contest, 1, CPU)


def test_checks_replace_the_compared_results() -> None:
    checks = {"plain": sleeper(0, 2.0), "geossl": sleeper(0, 2.0)}
    contest = Contest("noise", {"plain": sleeper(0, 1.0), "geossl": sleeper(0, 5.0)}, checks=checks)
    assert hold(contest, 1, CPU).deviation == 0


def test_memory_rises_by_what_a_call_needs() -> None:
    outcome = hold(Contest("fill", {"geossl": lambda: torch.ones(16 << 20).sum()}), 1, CPU)
    rise = outcome.memory_mb["geossl"]
    if not rise:
        pytest.skip("this system does not tell the peak of resident memory")
    assert rise == pytest.approx(67, rel=0.2)
