"""Every benchmark at a tiny size: geossl and the plain implementation do the same work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geossl.benchmark.contest import Contest, deviation, hold
from geossl.benchmark.evaluate import evaluation_contests
from geossl.benchmark.kernels import kernel_contests
from geossl.benchmark.plain import PlainModules, plain_modules
from geossl.benchmark.predict import export_contest
from geossl.benchmark.samples import sample_contests
from geossl.benchmark.step import step_contests
from geossl.commands import benchmark as command
from geossl.commands.benchmark import Measuring, benchmark_evaluate, benchmark_flow, benchmark_train, save
from geossl.engine.benchmark import StepCost

FOLDER = Path(__file__).parents[2] / "tools" / "plain"
CPU = torch.device("cpu")
HOW = Measuring(device="cpu", repeats=1, plain=FOLDER)


@pytest.fixture(scope="module")
def plain() -> PlainModules:
    found = plain_modules(FOLDER)
    if found is None:
        pytest.skip(f"no plain implementation at {FOLDER}; it is in a checkout only")
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "floors", lambda device: {"copy_gb_s": 1.0, "fp32_gflops": 10.0})


def test_kernels_agree(plain: PlainModules) -> None:
    contests = kernel_contests(plain, CPU, 3, (64, 96), (125, 131), ((5, 9, 13), (8, 5, 17)))
    for contest in contests:
        outcome = hold(contest, 1, CPU)
        assert outcome.ratio is not None and outcome.deviation <= contest.tolerance
    assert len(contests) == 11


def test_training_steps_agree(plain: PlainModules) -> None:
    step, whole = step_contests(plain, CPU, 1, (64, 96), "fp32")
    assert step.checks is not None
    assert deviation(step.checks["plain"](), step.checks["geossl"]()) < step.tolerance
    assert whole.sides["plain"]().isfinite() and whole.sides["geossl"]().isfinite()


def test_samples_agree(plain: PlainModules, tmp_path: Path) -> None:
    contests = sample_contests(plain, tmp_path, (64, 96), (90, 150))
    assert [contest.count for contest in contests] == [4] * 4
    for contest in contests:
        assert hold(contest, 1, CPU).ratio is not None


def test_evaluations_agree(plain: PlainModules, tmp_path: Path) -> None:
    scoring, maps = evaluation_contests(plain, tmp_path, (30, 40), (90, 150))
    assert hold(scoring, 1, CPU).ratio is not None
    assert hold(maps, 1, CPU).deviation == 0


def test_exports_agree(plain: PlainModules, tmp_path: Path) -> None:
    contest = export_contest(plain, tmp_path, CPU, "torch", "fp32", 2, (64, 96), (75, 101), 3)
    assert hold(contest, 1, CPU).ratio is not None
    assert len(list((tmp_path / "plain").glob("*.png"))) == len(list((tmp_path / "ours" / "color").glob("*.png"))) == 3


def test_plain_map_keeps_the_nearest_of_a_pixel(plain: PlainModules) -> None:
    P = np.array([[0.0, -10, 0, 0], [0, 0, -10, 0], [1, 0, 0, 0]])  # x forward, y left, z up; u = -10 y / x
    points = np.array([[5.0, -2.0, -1.5, 0.3], [4.0, -1.6, -1.2, 0.3], [-3, -1, -1, 0]])
    expected = np.zeros((4, 5), np.float32)
    expected[2, 3] = 4
    assert np.array_equal(plain.eigen.depth_map(points, P, 5, 4), expected)


@pytest.mark.usefixtures("quick")
def test_train_command_compares_on_request(
    plain: PlainModules, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cost = StepCost(2, 0.5, 4.0, 100.0, 10.0, 0.1, 0.6, 0.2, 0.1)
    monkeypatch.setattr(command, "benchmark_training", lambda *args, **kwargs: [cost])
    contest = Contest("step", {"plain": lambda: 1.0, "geossl": lambda: 1.0}, goal=2.2)
    monkeypatch.setattr(command, "step_contests", lambda plain, device, batch, size, precision: [contest])
    lines: list[str] = []
    result = benchmark_train(replace(HOW, size=(64, 96), tell=lines.append), None, [], [2], compare=True)
    assert [outcome["goal"] for outcome in result["contests"]] == [2.2]
    assert any("networks" in line for line in lines) and any("ratio" in line for line in lines)
    save(result, tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text())["rows"][0]["batch_size"] == 2


@pytest.mark.usefixtures("quick")
def test_without_plain_only_own_times_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        command, "evaluation_contests", lambda plain, folder: evaluation_contests(plain, folder, (30, 40), (90, 150))
    )
    lines: list[str] = []
    result = benchmark_evaluate(replace(HOW, plain=tmp_path, tell=lines.append, threads=1))
    assert [outcome["ratio"] for outcome in result["contests"]] == [None, None]
    assert sum("does not hold the plain implementation" in line for line in lines) == 1
    with pytest.raises(ValueError, match="--compare needs the plain implementation"):
        benchmark_train(replace(HOW, plain=tmp_path), None, [], [1], compare=True)


def test_compare_refuses_another_step() -> None:
    with pytest.raises(ValueError, match="leave CONFIG out"):
        benchmark_train(HOW, "monodepth2_kitti_s", [], [1], compare=True)


@pytest.mark.usefixtures("quick")
def test_flow_rows_are_of_methods_at_the_end_of_their_training(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, dict[str, Any]] = {}

    def measured(method: str, **given: Any) -> list[StepCost]:
        asked[method] = given
        return [StepCost(1, 0.5, 2.0, 100.0, 10.0, 0.1, 0.6, 0.2, 0.1)]

    monkeypatch.setattr("geossl.benchmark.flow.benchmark_training", measured)
    lines: list[str] = []
    how = replace(HOW, batch=1, size=(64, 128), tell=lines.append)
    result = benchmark_flow(how)
    assert lines[-4].startswith("method unflow, ") and lines[-1].startswith("method smurf, ")
    assert [row["method"] for row in benchmark_flow(how, ["arflow"])["rows"]] == ["arflow"]
    with pytest.raises(ValueError, match="'raft' is no method of optical flow; expected some of unflow, selflow"):
        benchmark_flow(how, ["raft"])
    assert [row["method"] for row in result["rows"]] == list(asked) == ["unflow", "selflow", "arflow", "smurf"]
    assert all(given["progress"] == 1 and given["batch_sizes"] == (1,) for given in asked.values())
    assert (asked["smurf"]["height"], asked["smurf"]["width"]) == (64, 128)
