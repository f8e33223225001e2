"""Depth and 3-D motion on the small real sample: Self-Mono-SF learned on the street, then from real stereo video.

    python tools/sample_sceneflow.py DATA -o runs/sample_sceneflow --depth RUN --flow RUN

Begun on the synthetic street, then trained on odometry 06 and 02, first at half of the size; scored on pairs of KITTI
2012 and 2015, which were not trained on. The images of KITTI 2015 whose disparity is known have no second time here,
so the network sees each of them paired with itself, which it never did in training; on KITTI 2012 disparity is scored
both ways. Runs given by --depth and --flow, say those of sample_depth.py and sample_flow.py, are scored on the same
images (which they may have been trained on: see `leaks`). Writes summary.json and pictures/: maps of every scored pair
and its point cloud seen from above the camera. Interrupted and started again, the training goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from samples import FLOW_SETS, sample_experiment, score_flow, slug, street_experiment, timed_training

from geossl.commands.console import text_table
from geossl.commands.evaluate import evaluate_depth
from geossl.commands.evaluate_flow import flow_items
from geossl.config import Experiment, parse_source
from geossl.data.synthetic import StreetOptions, write_street
from geossl.engine.model_folder import load_model
from geossl.evaluation.flow_files import find_flow, read_flow
from geossl.evaluation.scene_flow_truth import lift
from geossl.formats.atomic import write_text_atomic
from geossl.formats.image import write_image
from geossl.formats.npy import read_npy
from geossl.formats.prediction_meta import read_meta
from geossl.inputs import open_source
from geossl.predict import SceneFlowRequest, predict_scene_flow
from geossl.visualize import Picture, colorize_depth, colorize_flow, colorize_flow_error, stack
from geossl.visualize_points import color_by_motion, raised_view, render_points

OURS = "self_mono_sf"
STREET = StreetOptions(sequences=96, frames=6, width=192, height=64, seed=41, moving_cars=4)
ON_STREET = ("train.steps=2000", "train.lr=1e-3")
# Where flows are long, the wrong direction costs hardly more than none; half the size halves them.
COARSE = ("data.height=64", "data.width=224")
MAX_PX = 64.0  # of the flow's colours
DEPTH_RANGE_M = (3.0, 80.0)
CLOUD_M, MOTION_M = 45.0, 2.0  # farthest point of the clouds, and the motion of the full colour
RAISED = raised_view(up=4.0, back=4.0, right=1.5, down_deg=12.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with kitti_2012/, kitti_2015/, kitti_odometry/")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/sample_sceneflow"))
    parser.add_argument("--depth", type=Path, action="append", default=[], help="run to compare; may be repeated")
    parser.add_argument("--flow", type=Path, action="append", default=[], help="run to compare; may be repeated")
    parser.add_argument("overrides", nargs="*", help="key=value of the config, e.g. train.steps=100")
    arguments = parser.parse_intermixed_args()
    data, out = arguments.data, arguments.out
    begun, coarse, run = out / "begun", out / "coarse", out / "run"
    write_street(out / "street", STREET)

    def of_real(*changes: str) -> Experiment:
        return sample_experiment("sample_sceneflow", data, [*changes, *arguments.overrides])

    on_street = street_experiment("sample_sceneflow", out / "street", STREET, [*ON_STREET, *arguments.overrides])
    minutes = timed_training(on_street, begun)
    minutes += timed_training(of_real(*COARSE, f"train.start_from={begun}"), coarse)
    minutes += timed_training(of_real(f"train.start_from={coarse}"), run)
    for title, (spec, _) in FLOW_SETS.items():
        request = SceneFlowRequest(save=("flow", "depth", "npy", "ply"), overwrite=True)
        predict_scene_flow(run, spec.format(data=data), out / "predictions" / slug(title), request)
        draw(title, data, out)
    disparity = score_disparity(OURS, data, run)
    paired = out / "predictions" / slug("KITTI 2012") / "depth"
    disparity.append(disparity_row("KITTI 2012", f"{OURS}, with the next image", data, predictions=paired))
    flow = score_flow(OURS, data, predictions=f"{out}/predictions/{{set}}/flow", fill_missing=True)
    for other in arguments.depth:
        disparity += score_disparity(name_of(other), data, other)
    for other in arguments.flow:
        flow += score_flow(name_of(other), data, model=other)

    summary = {"disparity": disparity, "flow": flow, "minutes": minutes}
    write_text_atomic(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    disparity.sort(key=lambda row: row["images"])
    flow.sort(key=lambda row: row["pair"])
    print(f"{text_table(disparity)}\n\n{text_table(flow)}\n\ntraining, minutes: {minutes:.1f}")


def name_of(run: Path) -> str:
    return f"{load_model(run).config.method} ({run})"


def score_disparity(name: str, data: Path, model: Path) -> list[dict[str, Any]]:
    """A row for each set, every image seen alone (by Self-Mono-SF: paired with itself)."""
    return [disparity_row(title, name, data, model=model) for title in FLOW_SETS]


def disparity_row(title: str, name: str, data: Path, **given: Any) -> dict[str, Any]:
    """Errors of depth and disparity, metres as predicted, over all labelled pixels of a set."""
    row = evaluate_depth(FLOW_SETS[title][0].format(data=data), "kitti2015", scaling="none", **given).rows[0]
    figures = {key: row[key] for key in row if key in ("abs_rel", "rmse") or key.startswith("d1_all")}
    return {"images": f"{title}, {row['images']} images", "of": name, **figures, "leaks": row.get("leaks", "")}


# --- pictures --------------------------------------------------------------------------------------------------------


def draw(title: str, data: Path, out: Path) -> None:
    """Image, depth, flow and its error of every scored pair, and its points seen from above the camera."""
    spec, folder = FLOW_SETS[title][0].format(data=data), out / "predictions" / slug(title)
    images = {image.name: image for image in open_source(spec)}
    meta = read_meta(folder).values
    assert meta is not None
    for item in flow_items(parse_source(spec)):
        labels, file = item.load_labels(), find_flow(folder / "flow", item.name)
        assert file is not None
        image, flow = images[item.name].read(), read_flow(file)
        depth, motion = (read_npy(folder / kind / f"{item.name}.npy") for kind in ("depth", "npy"))
        pictures = [
            image,
            colorize_depth(depth, *DEPTH_RANGE_M),
            colorize_flow(flow, MAX_PX),
            colorize_flow_error(flow, labels.flow, labels.valid),
        ]
        near, far = DEPTH_RANGE_M
        captions = ["image", f"depth, {near:g} to {far:g} m", f"flow, full colour at {MAX_PX:g} px"]
        captions.append("error, blue below 3 px or 5 %")
        name = f"{slug(title)}_{Path(item.name).name}"
        write_image(out / "pictures" / f"{name}.png", stack(pictures, captions))
        cloud = draw_cloud(image, depth, motion, np.array(meta["files"][item.name]["K"]))
        write_image(out / "pictures" / f"{name}_points.png", cloud)


def draw_cloud(image: Picture, depth: np.ndarray, motion: np.ndarray, K: np.ndarray) -> Picture:
    """The points in the image's colours, and in those of their motion relative to the camera."""
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]]
    near = depth < CLOUD_M
    points, motions = lift(u, v, depth, K)[near], motion[near]
    pictures = [
        render_points(points, colors, RAISED, K, depth.shape, background=0)
        for colors in (image[near], color_by_motion(motions, MOTION_M))
    ]
    captions = [f"points up to {CLOUD_M:g} m", f"their motion: yellow nearer, red right, up to {MOTION_M:g} m"]
    return stack(pictures, captions)


if __name__ == "__main__":
    main()
