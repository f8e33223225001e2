"""Optical flow on the small real sample: learned on the synthetic street, adapted to real frames, scored both times.

    python tools/sample_flow.py ../shared/data -o runs/sample_flow

The frames scored here, pairs of KITTI 2012 and 2015, are among those adapted to; their labels were never used. Beside
the methods stand zero flow, OpenCV's Farneback and OpenCV's DIS on the same frames. Writes summary.json and pictures/.
Interrupted and started again, the trainings go on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from geossl.commands.console import text_table
from geossl.commands.evaluate_flow import evaluate_flow, flow_items
from geossl.config import Experiment, load_experiment, parse_source
from geossl.data.synthetic import StreetOptions, write_street
from geossl.engine.train import train
from geossl.evaluation.flow_baselines import BASELINES
from geossl.evaluation.flow_files import find_flow, read_flow
from geossl.formats.atomic import write_text_atomic
from geossl.formats.image import write_image
from geossl.inputs import open_source
from geossl.predict import predict_flow
from geossl.visualize import colorize_flow, colorize_flow_error, stack

METHODS = ("unflow", "arflow")
SETS = {
    # name: (data specification, protocol)
    "KITTI 2012": ("kitti_stereo:{data}/kitti_2012,year=2012", "kitti2012"),
    "KITTI 2015": ("kitti_stereo:{data}/kitti_2015,calibration=by_size", "kitti2015"),
}
STREET = StreetOptions(sequences=12, frames=24, width=320, height=96, seed=31, moving_cars=4)
MAX_PX = 64.0  # of the colours
FIGURES = ("epe_noc_per_image", "epe_all_per_image", "fl_noc_pooled_percent", "fl_all_pooled_percent")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with kitti_2012/, kitti_2015/, kitti_odometry/, kitti_raw/")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/sample_flow"))
    parser.add_argument("--method", choices=METHODS, action="append", help="only this one; may be repeated")
    parser.add_argument("overrides", nargs="*", help="key=value of both trainings' config, e.g. train.steps=100")
    arguments = parser.parse_args()
    data, out = arguments.data, arguments.out
    write_street(out / "street", STREET)

    rows = [row for name in BASELINES for row in score(name, data, predictions=name)]
    minutes: dict[str, dict[str, float]] = {}
    for method in arguments.method or METHODS:
        street, real = out / method / "street", out / method / "real"
        minutes[method] = {
            "street": timed_training(street_experiment(method, out / "street", arguments.overrides), street),
            "real": timed_training(real_experiment(method, data, street, arguments.overrides), real),
        }
        rows += score(f"{method}, street only", data, model=street)
        rows += score(f"{method}, adapted", data, model=real, predictions=str(out / method / "flow"))
        draw(method, data, real, out)
    summary = {"scores": rows, "minutes": minutes}
    write_text_atomic(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    print(f"{text_table(rows)}\n\ntraining, minutes: {minutes}")


def street_experiment(method: str, street: Path, overrides: list[str]) -> Experiment:
    """The sample's experiment on the street instead of real frames."""
    experiment = load_experiment(f"sample_flow_{method}", overrides)
    source = parse_source(f"kitti_raw:{street},cameras=[image_02]")
    return experiment.model_copy(update={"data": experiment.data.model_copy(update={"train": (source,)})})


def real_experiment(method: str, data: Path, street: Path, overrides: list[str]) -> Experiment:
    """The sample's experiment with the roots of its sources below `data`, from the weights of the street."""
    experiment = load_experiment(f"sample_flow_{method}", [f"train.start_from={street}", *overrides])
    sources = tuple(s.model_copy(update={"root": data / s.root}) for s in experiment.data.train)
    return experiment.model_copy(update={"data": experiment.data.model_copy(update={"train": sources})})


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


def score(name: str, data: Path, *, model: Path | None = None, predictions: str | None = None) -> list[dict[str, Any]]:
    """A row for each set."""
    rows = []
    for title, (spec, protocol) in SETS.items():
        where = predictions if predictions is None or model is None else f"{predictions}/{slug(title)}"
        result = evaluate_flow(spec.format(data=data), protocol, model=model, predictions=where)
        figures = result.rows[0]
        rows.append({"set": title, "of": name, **{k: figures[k] for k in FIGURES if k in figures}})
    return rows


def draw(method: str, data: Path, model: Path, out: Path) -> None:
    """Image, flow, truth and error of every scored pair."""
    for title, (template, _) in SETS.items():
        spec = template.format(data=data)
        folder = out / method / "flow" / slug(title)
        predict_flow(model, spec, folder, save=("flo",))
        images = {image.name: image for image in open_source(spec)}
        for item in flow_items(parse_source(spec)):
            labels, file = item.load_labels(), find_flow(folder, item.name)
            assert file is not None
            flow = read_flow(file)
            truth = np.where(labels.valid[..., None], labels.flow, np.nan)
            pictures = [
                images[item.name].read(),
                colorize_flow(flow, MAX_PX),
                colorize_flow(truth, MAX_PX),
                colorize_flow_error(flow, labels.flow, labels.valid),
            ]
            captions = ["image", f"{method}, full colour at {MAX_PX:g} px", "truth", "error, blue below 3 px or 5 %"]
            name = f"{method}_{slug(title)}_{Path(item.name).name}.png"
            write_image(out / "pictures" / name, stack(pictures, captions))


def slug(name: str) -> str:
    return name.lower().replace(" ", "_")


if __name__ == "__main__":
    main()
