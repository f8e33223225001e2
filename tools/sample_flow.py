"""Optical flow on the small real sample: learned on the synthetic street, adapted to real frames, scored both times.

    python tools/sample_flow.py DATA -o runs/sample_flow

The frames scored here, pairs of KITTI 2012 and 2015, are among those adapted to; their labels were never used. Beside
the methods stand zero flow, OpenCV's Farneback and OpenCV's DIS on the same frames. Writes summary.json and pictures/.
Interrupted and started again, the trainings go on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from samples import FLOW_SETS, sample_experiment, score_flow, slug, street_experiment, timed_training

from geossl.commands.console import text_table
from geossl.commands.evaluate_flow import flow_items
from geossl.config import parse_source
from geossl.data.synthetic import StreetOptions, write_street
from geossl.evaluation.flow_baselines import BASELINES
from geossl.evaluation.flow_files import find_flow, read_flow
from geossl.formats.atomic import write_text_atomic
from geossl.formats.image import write_image
from geossl.inputs import open_source
from geossl.predict import predict_flow
from geossl.visualize import colorize_flow, colorize_flow_error, stack

METHODS = ("unflow", "arflow")
# Small and in long strides: motions are as many pixels as those of the real frames, at a fraction of the time.
STREET = StreetOptions(sequences=32, frames=6, width=192, height=64, seed=31, moving_cars=4, speed=2.0)
STREET_STEPS = 900
ON_STREET = {"arflow": ["model.census_from=1"]}  # its light does not change, and SSIM with L1 teaches sooner
MAX_PX = 64.0  # of the colours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with kitti_2012/, kitti_2015/, kitti_odometry/, kitti_raw/")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/sample_flow"))
    parser.add_argument("--method", choices=METHODS, action="append", help="only this one; may be repeated")
    parser.add_argument("overrides", nargs="*", help="key=value of both trainings' config, e.g. train.steps=100")
    arguments = parser.parse_intermixed_args()
    data, out = arguments.data, arguments.out
    write_street(out / "street", STREET)

    rows = [row for name in BASELINES for row in score_flow(name, data, predictions=name)]
    minutes: dict[str, dict[str, float]] = {}
    for method in arguments.method or METHODS:
        street, real = out / method / "street", out / method / "real"
        config = f"sample_flow_{method}"
        on_street = [f"train.steps={STREET_STEPS}", *ON_STREET.get(method, []), *arguments.overrides]
        minutes[method] = {
            "street": timed_training(street_experiment(config, out / "street", STREET, on_street), street),
            "real": timed_training(
                sample_experiment(config, data, [f"train.start_from={street}", *arguments.overrides]), real
            ),
        }
        rows += score_flow(f"{method}, street only", data, model=street)
        rows += score_flow(f"{method}, adapted", data, model=real, predictions=f"{out}/{method}/flow/{{set}}")
        draw(method, data, real, out)
    summary = {"scores": rows, "minutes": minutes}
    write_text_atomic(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    rows.sort(key=lambda row: row["pair"])  # of a pair, in the order of scoring
    print(f"{text_table(rows)}\n\ntraining, minutes: {minutes}")


def draw(method: str, data: Path, model: Path, out: Path) -> None:
    """Image, flow, truth and error of every scored pair."""
    for title, (template, _) in FLOW_SETS.items():
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


if __name__ == "__main__":
    main()
