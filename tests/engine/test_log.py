"""metrics.jsonl, pictures, and the figures in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from geossl.engine.distributed import World
from geossl.engine.log import Log, picture_of_maps, truncate_metrics
from geossl.engine.meter import Averages, Clock


def test_truncate_metrics_cuts_later_and_broken_lines(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2, 3, 4)]
    file.write_text("".join(lines) + '{"step": 2, "lo')
    truncate_metrics(file, 2)
    assert file.read_text() == "".join(lines[:2])
    truncate_metrics(tmp_path / "absent.jsonl", 2)


def test_log_writes_null_for_what_is_not_finite(tmp_path: Path) -> None:
    with Log(tmp_path, 0, 10) as log:
        log.line(1, {"a": float("nan"), "b": 2})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "a": None, "b": 2}


def test_warnings_are_kept_with_the_figures_they_are_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"loss": 1.0, "samples_per_second": 2.0, "seconds_per_step": 0.5, "lr": 1e-4}
    with Log(tmp_path, 0, 10) as log:
        log.train_line(1, figures, ["the flow is zero"])
        log.train_line(2, figures)
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first == {"step": 1, **figures, "warnings": ["the flow is zero"]} and "warnings" not in second
    assert "warning: the flow is zero" in capsys.readouterr().err


def test_log_of_other_processes_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Log(tmp_path, 0, 10, main=False) as log:
        log.line(1, {"a": 1})
        log.say("hello")
        log.pictures(1, {"image": torch.rand(1, 3, 8, 8)})
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_picture_of_maps_has_a_row_a_sample_and_a_column_a_map() -> None:
    maps = {
        "target": torch.rand(6, 3, 20, 40),
        "error": torch.rand(6, 1, 20, 40),
        "depth": torch.rand(6, 1, 20, 40) + 1,
        "disparity": torch.rand(6, 1, 10, 20),
        "moving": torch.ones(6, 1, 20, 40),
    }
    picture = picture_of_maps(maps, samples=2)
    assert picture.shape == (2 * 20 + 4, 5 * 40 + 4 * 4, 3)
    assert picture.dtype == "uint8"


def test_picture_of_maps_colours_flow_by_a_fixed_share_of_the_width() -> None:
    """To the right is red: full at 5 % of 40 pixels, half as saturated at 2.5 %, whatever else the picture holds."""
    flow = torch.zeros(2, 2, 20, 40)
    flow[0, 0], flow[1, 0] = 2.0, 1.0
    picture = picture_of_maps({"flow": flow})
    assert tuple(picture[15, 35]) == (255, 0, 0)
    assert tuple(picture[20 + 4 + 15, 35]) == (255, 128, 128)


def test_averages_skip_the_steps_that_lack_a_scalar() -> None:
    averages = Averages()
    averages.add({"a": torch.tensor(1.0), "b": torch.tensor(4.0)})
    averages.add({"a": torch.tensor(3.0)})
    again = Averages()
    again.restore(json.loads(json.dumps(averages.state())), torch.device("cpu"))
    for found in (averages, again):
        found.share(World(0, 1, torch.device("cpu")))
        assert found.read() == ({"a": 2.0, "b": 4.0}, 2)
        assert found.read() == ({}, 0)


def test_clock_leaves_out_what_is_outside_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("geossl.engine.meter.time.perf_counter", lambda: now[0])
    clock = Clock()

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    with clock.waiting():
        pass_time(1)
    pass_time(3)
    with clock.outside():
        pass_time(100)
    figures = clock.figures(steps=2, batch_size=6)
    assert figures == {"samples_per_second": 3.0, "seconds_per_step": 2.0, "data_wait": 0.25}
