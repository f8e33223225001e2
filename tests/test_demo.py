"""The demonstration's bookkeeping; the whole of it, small, is slow."""

import json
from pathlib import Path
from typing import Any

import pytest

from geossl import demo
from geossl.data.synthetic import StreetOptions
from geossl.demo import Stages


class Work:
    """Counts what is done and cleared."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.cleared: list[str] = []

    def all(self, path: Path, settings: Any = 1, fail_at: str = "") -> list[Any]:
        stages = Stages(path)
        results = []
        for name in ("first", "second", "third"):

            def work(name: str = name) -> str:
                self.done.append(name)
                if name == fail_at:
                    raise KeyboardInterrupt
                return name.upper()

            given = settings if name == "second" else None
            results.append(stages.run(name, given, work, lambda name=name: self.cleared.append(name)))
        return results


def test_stages_are_done_once(tmp_path: Path) -> None:
    work = Work()
    assert work.all(tmp_path / "s.json") == work.all(tmp_path / "s.json") == ["FIRST", "SECOND", "THIRD"]
    assert work.done == ["first", "second", "third"]
    assert work.cleared == []


def test_interrupted_stage_goes_on_and_adds_up_its_seconds(tmp_path: Path) -> None:
    work = Work()
    with pytest.raises(KeyboardInterrupt):
        work.all(tmp_path / "s.json", fail_at="second")
    seconds = json.loads((tmp_path / "s.json").read_text())["second"]["seconds"]
    work.all(tmp_path / "s.json")
    assert work.done == ["first", "second", "second", "third"]
    assert work.cleared == []  # what the interruption left is gone on from
    assert json.loads((tmp_path / "s.json").read_text())["second"]["seconds"] > seconds


def test_changed_settings_redo_the_stage_and_all_after_it(tmp_path: Path) -> None:
    work = Work()
    work.all(tmp_path / "s.json")
    work.all(tmp_path / "s.json", settings=2)
    assert work.done == ["first", "second", "third", "second", "third"]
    assert work.cleared == ["second", "third"]


def test_damaged_stages_file_starts_over(tmp_path: Path) -> None:
    work = Work()
    (tmp_path / "s.json").write_text("{")
    work.all(tmp_path / "s.json")
    assert work.done == ["first", "second", "third"]


def test_held_out_street_is_another_one() -> None:
    seeds = [(o.seed, number) for o in demo.TRAINING_STREETS.values() for number in range(o.sequences)]
    assert len(set(seeds)) == len(seeds)
    assert demo.HELD_OUT_STREET.seed not in {seed for seed, _ in seeds}


def test_demo_trains_on_the_training_streets_only() -> None:
    experiment = demo.demo_experiment("demo", Path("street"))
    assert {source.root for source in experiment.data.train} == {Path("street") / n for n in demo.TRAINING_STREETS}
    assert experiment.data.validation == ()


@pytest.mark.slow
def test_small_demo_writes_everything_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        n: StreetOptions(sequences=1, frames=5, width=128, height=64, seed=i)
        for i, n in enumerate(demo.TRAINING_STREETS)
    }
    monkeypatch.setattr(demo, "TRAINING_STREETS", small)
    monkeypatch.setattr(demo, "HELD_OUT_STREET", StreetOptions(sequences=1, frames=5, width=128, height=64, seed=9))
    config = tmp_path / "small.yaml"
    config.write_text(
        "base: demo\nmodel: {pose: shared}\ndata: {height: 64, width: 128}\n"
        "train: {steps: 2, batch_size: 1, precision: fp32, device: cpu}\n"
    )
    out = tmp_path / "out"
    summary = demo.run_demo(out, str(config))
    for key in ("abs_rel", "delta1", "row_abs_rel", "trajectory_ate_share", "seconds"):
        assert summary[key] >= 0
    assert json.loads((out / "summary.json").read_text()) == summary
    assert len(list((out / "pictures").glob("*.png"))) == demo.PICTURES + 1
    assert (out / "report.html").read_text().count("<img") >= demo.PICTURES + 1
    (out / "summary.json").unlink()
    assert demo.run_demo(out, str(config)) == summary  # nothing is done twice
