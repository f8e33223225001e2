"""Trains depth and motion on the small real sample from scratch and scores them against its ground truth.

    python tools/sample_depth.py DATA -o runs/sample_depth

Writes summary.json, pictures/ and report.html. The KITTI 2015 images scored here were trained on (their labels never
were); drives 0001 and 9001 were not trained on. The per-row predictor is given what the model is not: it is fitted on
the KITTI 2015 labels themselves. Interrupted and started again, the training goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from samples import sample_experiment, slug

from geossl import report
from geossl.commands.console import text_table
from geossl.commands.evaluate import depth_items, find_trajectory, true_trajectories
from geossl.config import parse_source
from geossl.engine.train import train
from geossl.evaluation.depth import fit_row_predictor, get_protocol, predict_rows, protocol_truth, score_depth
from geossl.evaluation.score_files import score_depth_folder, score_trajectory_file
from geossl.evaluation.trajectory import align
from geossl.formats.atomic import write_text_atomic
from geossl.formats.image import write_image
from geossl.formats.npy import read_npy
from geossl.formats.trajectory import read_kitti_trajectory
from geossl.inputs import open_source
from geossl.predict import predict_depth, predict_pose
from geossl.visualize import depth_panel, plot_trajectories

DEPTH_SETS = {
    # name: (data specification, protocol, whether its images were trained on)
    "KITTI 2015": ("kitti_stereo:{data}/kitti_2015,calibration=by_size", "kitti2015", True),
    "drive 0001, improved depth": (
        "kitti_raw:{data}/kitti_raw,drives=[2011_09_26_drive_0001_sync],cameras=[image_02],"
        "depth_root={data}/kitti_depth",
        "eigen_benchmark",
        False,
    ),
    "drive 9001, LiDAR": (
        "kitti_raw:{data}/kitti_raw,drives=[2011_09_26_drive_9001_sync],cameras=[image_02]",
        "native",
        False,
    ),
}
POSE_SETS = {
    "odometry 06": "kitti_odometry:{data}/kitti_odometry,sequences=[06],cameras=[image_0]",
    "odometry 02": "kitti_odometry:{data}/kitti_odometry,sequences=[02],cameras=[image_2]",
}
SHOWN = 3
COLOR_RANGE_M = (3.0, 80.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with kitti_2015/, kitti_odometry/, kitti_raw/, kitti_depth/")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/sample_depth"))
    parser.add_argument("--config", default="sample_depth")
    parser.add_argument("overrides", nargs="*", help="key=value of the config, e.g. train.steps=100")
    arguments = parser.parse_intermixed_args()
    data, out = arguments.data, arguments.out

    start = time.perf_counter()
    result = train(sample_experiment(arguments.config, data, arguments.overrides), out / "run")
    if result.stopped:
        raise SystemExit(result.exit_code)
    seconds = time.perf_counter() - start

    rows, blocks = [], []
    row_depth = fit_rows(data)
    for name in DEPTH_SETS:
        scored, pictures = score_set(name, data, out, row_depth)
        rows += scored
        blocks += [report.heading(name), *pictures]
    motions, drawn = score_motions(data, out)
    blocks += [report.heading("Trajectories"), *drawn]

    tables = f"{text_table(rows)}\n\n{text_table(motions)}\n\ntrained {seconds / 60:.1f} min"
    curves = report.curve_blocks(report.read_metrics(out / "run" / "metrics.jsonl"))
    page = report.page("Depth and motion on the real sample", [report.preformatted(tables), *blocks, *curves])
    write_text_atomic(out / "report.html", page)
    summary = {"depth": rows, "trajectories": motions, "training_seconds": round(seconds, 1)}
    write_text_atomic(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    print(tables)


def fit_rows(data: Path) -> np.ndarray:
    """The best constant depth of each row, fitted on the labels of KITTI 2015."""
    spec, protocol_name, _ = DEPTH_SETS["KITTI 2015"]
    protocol = get_protocol(protocol_name, scaling="none")
    items, _ = depth_items(spec.format(data=data), protocol)
    return fit_row_predictor(protocol_truth(item.load_truth(), protocol) for item in items)


def score_set(name: str, data: Path, out: Path, row_depth: np.ndarray) -> tuple[list[dict[str, Any]], list[str]]:
    """Predicts and scores one set: table rows of the model and of the row predictor, and pictures."""
    template, protocol_name, trained_on = DEPTH_SETS[name]
    spec, protocol = template.format(data=data), get_protocol(protocol_name, scaling="none")
    items, truth_kind = depth_items(spec, protocol)
    wanted = {item.name for item in items}
    images = [image for image in open_source(spec) if image.name in wanted]
    folder = out / "predictions" / slug(name)
    predict_depth(out / "run", images, folder, save=("npy",), overwrite=True)
    model = score_depth_folder(folder, items, protocol, truth_kind=truth_kind)
    truths = [item.load_truth() for item in items]
    flat = score_depth(
        (predict_rows(row_depth, *truth.shape) for truth in truths),
        truths,
        protocol,
        names=[item.name for item in items],
        fx_baselines=[item.fx_baseline for item in items],
    )
    rows = []
    for who, scores in (("geossl", model), ("one depth a row", flat)):
        means = scores.means()
        chosen = {k: v for k, v in means.items() if k in ("abs_rel", "rmse", "delta1") or k.startswith("d1")}
        about = {"images": len(scores.images), "trained_on": trained_on, "protocol": protocol.name, "scaling": "none"}
        rows.append({"set": name, "of": who, **chosen, "scale_ratio": scores.ratio_median(), **about})
    by_name = {image.name: image for image in images}
    blocks = []
    for number in range(min(SHOWN, len(items))):
        item = items[(2 * number + 1) * len(items) // (2 * min(SHOWN, len(items)))]
        depth = read_npy(folder / "npy" / f"{item.name}.npy")
        picture = depth_panel(by_name[item.name].read(), depth, item.load_truth(), *COLOR_RANGE_M)
        write_image(out / "pictures" / f"{slug(name)}_{number}.png", picture)
        blocks.append(report.picture(picture, item.name))
    return rows, blocks


def score_motions(data: Path, out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Predicts and scores the trajectories: table rows and pictures."""
    rows, blocks = [], []
    for name, template in POSE_SETS.items():
        spec, folder = template.format(data=data), out / "trajectories" / slug(name)
        predict_pose(out / "run", spec, folder, save=("kitti",), overwrite=True)
        clips = list(dict.fromkeys(image.clip for image in open_source(spec)))
        ((clip, truth),) = true_trajectories(parse_source(spec), clips)
        file = find_trajectory(folder, clip)
        score = partial(score_trajectory_file, file, truth)
        for alignment in ("6dof", "7dof"):
            row = score(alignment=alignment)
            keys = ("ape_rmse_m", "ape_rmse_percent_of_path", "path_m", "rpe_t_rmse_m", "rpe_r_rmse_deg")
            rows.append({"clip": name, "alignment": alignment, **{k: row[k] for k in keys if k in row}})
        aligned = align(read_kitti_trajectory(file), truth, "6dof")
        picture = plot_trajectories({"truth": truth, "predicted (6-DoF aligned)": aligned}, title=name)
        write_image(out / "pictures" / f"{slug(name)}.png", picture)
        blocks.append(report.picture(picture, "seen from above"))
    return rows, blocks


if __name__ == "__main__":
    main()
