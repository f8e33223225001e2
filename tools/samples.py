"""What the sample tools share: configs on given data or a street, timed trainings, scores of flow on real pairs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from geossl.commands.evaluate_flow import evaluate_flow
from geossl.config import Experiment, load_experiment, parse_source
from geossl.data.synthetic import StreetOptions
from geossl.engine.train import train
from geossl.formats.atomic import write_text_atomic

FLOW_SETS = {
    # name: (data specification, protocol)
    "KITTI 2012": ("kitti_stereo:{data}/kitti_2012,year=2012", "kitti2012"),
    "KITTI 2015": ("kitti_stereo:{data}/kitti_2015,calibration=by_size", "kitti2015"),
}
FLOW_FIGURES = ("epe_noc", "epe_all", "fl_noc_percent", "fl_all_percent")


def sample_experiment(config: str, data: Path, overrides: list[str]) -> Experiment:
    """The config with the roots of its sources below `data`."""
    experiment = load_experiment(config, overrides)
    sources = tuple(s.model_copy(update={"root": data / s.root}) for s in experiment.data.train)
    return experiment.model_copy(update={"data": experiment.data.model_copy(update={"train": sources})})


def street_experiment(config: str, street: Path, options: StreetOptions, overrides: list[str]) -> Experiment:
    """The config on a written street instead of real frames, at the street's size."""
    size = [f"data.height={options.height}", f"data.width={options.width}"]
    experiment = load_experiment(config, [*size, *overrides])
    source = parse_source(f"kitti_raw:{street},cameras=[image_02]")
    return experiment.model_copy(update={"data": experiment.data.model_copy(update={"train": (source,)})})


def timed_training(experiment: Experiment, run: Path) -> float:
    """Trains, and returns the minutes that it took, over all its starts."""
    kept = run / "minutes.json"
    before = json.loads(kept.read_text()) if kept.is_file() else 0.0
    start = time.perf_counter()
    result = train(experiment, run)
    minutes = before + (time.perf_counter() - start) / 60
    write_text_atomic(kept, json.dumps(minutes))
    if result.stopped:
        raise SystemExit(result.exit_code)
    return minutes


def score_flow(name: str, data: Path, **given: Any) -> list[dict[str, Any]]:
    """A row for each pair, and for each set of several the mean of its pairs.

    Args:
        name: Of what is scored.
        data: The folder that `FLOW_SETS` lie in.
        given: As `evaluate_flow` takes; `{set}` in `predictions` is the set's name as a file's.
    """
    rows = []
    for title, (spec, protocol) in FLOW_SETS.items():
        filled = {k: v.format(set=slug(title)) if k == "predictions" else v for k, v in given.items()}
        pairs = evaluate_flow(spec.format(data=data), protocol, **filled).full["per_image"]
        rows += [{"pair": f"{title} {Path(p['name']).name}", "of": name, **figures_of(p)} for p in pairs]
        if len(pairs) > 1:
            means = {key: float(np.mean([p[key] for p in pairs])) for key in figures_of(pairs[0])}
            rows.append({"pair": f"{title}, mean of {len(pairs)}", "of": name, **means})
    return rows


def figures_of(pair: dict[str, Any]) -> dict[str, float]:
    """`FLOW_FIGURES` that a pair's truth defines: KITTI 2015's sample has visible pixels only."""
    return {figure: pair[figure] for figure in FLOW_FIGURES if figure in pair}


def slug(name: str) -> str:
    """The name as a file's."""
    return name.lower().replace(",", "").replace(" ", "_")
