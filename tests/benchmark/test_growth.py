"""What is measured of a step's growth, and how it is shown; the steps themselves are made up, but for a slow one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geossl.benchmark import growth as module
from geossl.benchmark.growth import Setup, growth, growth_figure, growth_rows, measured, series
from geossl.commands import benchmark as command
from geossl.commands.benchmark import Measuring, benchmark_growth, save
from geossl.engine.benchmark import StepCost
from geossl.formats.image import read_image

WANTED = series([2, 1], [(96, 320), (64, 96)], [1, 2], [1, 2])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Setup]:
    """The steps that are asked for; each takes a second a sample, and 100 MB and 50 a sample."""
    found: list[Setup] = []

    def made_up(setup: Setup, device: str, threads: int, steps: int) -> StepCost:
        found.append(setup)
        return StepCost(setup.batch, setup.batch, 1.0, 100.0 + 50 * setup.batch, 2.0, 0.1, 0.6, 0.2, 0.1)

    monkeypatch.setattr(module, "measured", made_up)
    return found


def test_series_ascend_and_vary_one_thing() -> None:
    assert [amount for amount, _ in WANTED["batch"]] == [1, 2]
    assert WANTED["pixels"] == [(64 * 96, Setup(size=(64, 96))), (96 * 320, Setup())]
    assert WANTED["sources"][0] == (1, Setup(sources=1))
    assert WANTED["processes"][1] == (2, Setup(processes=2))


def test_step_on_several_curves_is_measured_once(asked: list[Setup]) -> None:
    curves = list(growth(WANTED, "cpu"))
    assert [[point.amount for point in points] for points in curves] == [[1, 2], [6144, 30720], [1, 2], [1, 2]]
    assert len(asked) == len(set(asked)) == 5


@pytest.mark.usefixtures("asked")
def test_rows_are_relative_to_the_first() -> None:
    (points,) = growth({"batch": WANTED["batch"]})
    first, second = growth_rows(points)
    assert (first["x time"], first["x memory"], first["size"]) == (1, 1, "320x96")
    assert (second["x batch"], second["x time"], second["x memory"]) == (2, 2, 1.33)  # 200 / 150 MB


@pytest.mark.usefixtures("asked")
def test_figure_shows_every_curve() -> None:
    curves = list(growth(WANTED))
    assert growth_figure(curves).std() > growth_figure(curves[:1]).std() > 0


@pytest.mark.usefixtures("asked")
def test_command_tells_saves_and_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "floors", lambda device: {"copy_gb_s": 1.0})
    lines: list[str] = []
    how = Measuring(device="cpu", repeats=1, tell=lines.append)
    result = benchmark_growth(how, [1, 2], [(96, 320)], [2], [1], tmp_path / "growth.png")
    assert sum("x batch" in line for line in lines) == 1
    assert read_image(tmp_path / "growth.png").std() > 0
    save(result, tmp_path / "growth.json")
    saved = json.loads((tmp_path / "growth.json").read_text())["curves"]
    assert [point["grows"] for point in saved] == ["batch", "batch", "pixels", "sources", "processes"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_measure_a_step(processes: int) -> None:
    cost = measured(Setup(size=(64, 96), processes=processes), "cpu", 1, 1)
    assert cost.batch_size == 2 and cost.seconds > 0
    assert cost.samples_per_second == pytest.approx(2 / cost.seconds)
