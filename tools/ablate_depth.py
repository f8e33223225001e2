"""Ablations of Monodepth and Monodepth2 on the synthetic street, several seeds each.

    python tools/ablate_depth.py -o runs/ablate_depth

Each variant is the configuration of a method with one part changed. All are trained alike, from scratch or from one
beginning of the same seed, and scored on held-out streets with exact dense labels; the table gives the median over the
seeds and their range. The study `objective` asks the objectives without a network (free_depth.py), `precision`
compares bfloat16 networks with float32, also over the steps (precision.png). Writes summary.json and one run folder a
training; interrupted and started again, it goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from ablation import ARFLOW_ON_PAIRS, CONTINUED, Study, curves_of_variants, parser, report_study, run_studies
from free_depth import OBJECTIVES, ablate_objective

from geossl.config import merge
from geossl.data.synthetic import StreetOptions, read_labels, write_street
from geossl.data.synthetic.write import label_path
from geossl.engine.model_folder import load_model
from geossl.formats.image import write_image
from geossl.inputs import open_source
from geossl.predict import inverse_depth, to_model_size
from geossl.visualize import plot_curves

WIDTH, HEIGHT = 192, 64
CAP_M = 80.0
TRAINING = StreetOptions(sequences=6, frames=50, width=WIDTH, height=HEIGHT, seed=11, moving_cars=5, standing=0.25)
HELD_OUT = StreetOptions(sequences=3, frames=12, width=WIDTH, height=HEIGHT, seed=77, moving_cars=5, standing=0.0)
SMALL = {"encoder_weights": None, "decoder_channels": [8, 16, 32, 64, 96]}
TRAIN = {
    "batch_size": 4,
    "lr": 1e-3,
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "validate_every": 50,
    "checkpoint_every": 1000,
}

MONODEPTH = Study(
    base={
        "method": "monodepth",
        # the nearest surfaces have 0.08 of the width; from half of 0.3 LR and naive do not find back at this size
        "model": {**SMALL, "network": "compact", "max_disparity": 0.1},
        "data": {"stereo": True, "source_offsets": []},
        "train": {**TRAIN, "steps": 400},
    },
    variants={name: {"model": {"sampling": name}} for name in ("lr", "no_lr", "naive")},
    # the paper's table 1 has LR ahead of no-LR in RMSE and D1, and not in AbsRel (0.124 against 0.123)
    claims=(("lr", "no_lr", "rmse_m"), ("no_lr", "naive", "rmse_m"), ("no_lr", "naive", "abs_rel")),
)
MODEL = {**SMALL, "encoder": "compact", "pose": "separate", "pose_encoder": "compact", "num_scales": 3}
# What is right at the end need not teach fastest at first: the minimum of the views learns from one of them a pixel,
# often one that hardly moved, and video alone begins with neither depth nor motion. So most variants continue one
# beginning, which learned from stereo and the mean of the views.
STEREO_VIDEO = {
    "method": "monodepth2",
    "model": {**MODEL, "supervision": "MS"},
    "data": {"stereo": True, "source_offsets": [-1, 1]},
    "train": {**TRAIN, "steps": 400},
}
VIDEO = merge(STEREO_VIDEO, {"model": {"supervision": "M"}, "data": {"stereo": False}, "train": CONTINUED})
MEAN, OWN_SIZE = {"model": {"minimum_reprojection": False}}, {"model": {"full_resolution": False}}
CONSISTENT = {"model": {"dynamic": "flow_consistency", "dynamic_from": 0.0, "flow_model": "{run:flow}"}}
MONODEPTH2 = Study(
    base={},
    variants={
        "full from scratch": STEREO_VIDEO,
        "scales compared at their own size, from scratch": merge(STEREO_VIDEO, OWN_SIZE),
        "beginning": merge(STEREO_VIDEO, MEAN),
        "full": merge(STEREO_VIDEO, {"train": CONTINUED}),
        "mean reprojection": merge(merge(STEREO_VIDEO, MEAN), {"train": CONTINUED}),
        "scales compared at their own size": merge(merge(STEREO_VIDEO, OWN_SIZE), {"train": CONTINUED}),
        "video": VIDEO,
        "video, mean reprojection": merge(VIDEO, MEAN),
        "video, no auto-masking": merge(VIDEO, {"model": {"automask": False}}),
    },
    claims=(
        ("full", "mean reprojection", "abs_rel_half_occluded"),
        ("full", "mean reprojection", "abs_rel"),
        ("full from scratch", "scales compared at their own size, from scratch", "abs_rel"),
        ("full", "scales compared at their own size", "abs_rel"),
        ("video", "video, mean reprojection", "abs_rel_half_occluded"),
        ("video", "video, no auto-masking", "abs_rel"),
        ("video", "video, no auto-masking", "abs_rel_moving"),
        ("video, flow consistency", "video", "abs_rel_moving"),
    ),
    composed={"video, flow consistency": {"flow": ARFLOW_ON_PAIRS, "consistent video": merge(VIDEO, CONSISTENT)}},
)
# Geometry and losses are float32 in both. From scratch the minimum of the views learns or collapses by the last bits
# of a sum, which would say nothing of a precision; their mean learns in every seed.
PRECISION = Study(
    base=merge(STEREO_VIDEO, MEAN),
    variants={"fp32": {}, "bf16": {"train": {"precision": "bf16"}}},
    claims=(),
)
# Depth that small networks learn in minutes is too soft for what single pixels are taught to show.
OBJECTIVE = Study(
    base={},
    variants={name: {} for name in OBJECTIVES},
    claims=(("minimum reprojection", "mean reprojection", "abs_rel_half_occluded"),),
)
TRAININGS = {"monodepth": MONODEPTH, "monodepth2": MONODEPTH2, "precision": PRECISION}
STUDIES = {"objective": OBJECTIVE, **TRAININGS}


def main() -> None:
    arguments = parser(__doc__, "runs/ablate_depth", STUDIES).parse_args()
    asked = arguments.study or list(STUDIES)
    if "objective" in asked:
        report_study(arguments, "objective", OBJECTIVE, objective_scores(arguments.out / "objective", arguments.seeds))
    arguments.study = [name for name in asked if name in TRAININGS]
    if arguments.study:
        run_trainings(arguments)


def objective_scores(folder: Path, seeds: int) -> dict[tuple[str, int], dict[str, float]]:
    """Figures of the objectives by (name, seed)."""
    scores = {}
    for seed in range(seeds):
        for name, figures in ablate_objective(folder / f"street-{seed}", (HEIGHT, WIDTH), seed).items():
            scores[name, seed] = figures
    return scores


def run_trainings(arguments: argparse.Namespace) -> None:
    street, held_out = arguments.out / "street", arguments.out / "held_out"
    write_street(street, TRAINING)
    write_street(held_out, HELD_OUT)
    data = {
        "train": [{"kind": "kitti_raw", "root": str(street), "cameras": ["image_02"]}],
        "validation": [{"kind": "kitti_raw", "root": str(held_out), "cameras": ["image_02"]}],
        "height": HEIGHT,
        "width": WIDTH,
        "cache": "memory",
        "num_workers": 0,
    }
    found = run_studies(TRAININGS, arguments, {"data": data}, lambda *runs: score(runs[-1], held_out))
    if "precision" in found:
        drawn = curves_of_variants(
            arguments.out, "precision", PRECISION, found["precision"], "validation/none/abs_rel"
        )
        picture = plot_curves(drawn, title="AbsRel on held-out images, without scaling", log=True)
        write_image(arguments.out / "precision.png", picture)


@torch.no_grad()
def score(run: Path, street: Path) -> dict[str, float]:
    """Errors against the exact depth of every pixel up to 80 m; after median scaling where depth is up to scale.

    Figures, means over images: `rmse_m`; `abs_rel` everywhere; `abs_rel_half_occluded` where just one of the frames
    before and after sees the surface; `abs_rel_moving` on cars with their own motion.
    """
    loaded = load_model(run)
    errors: dict[str, list[float]] = {"abs_rel": [], "abs_rel_half_occluded": [], "abs_rel_moving": [], "rmse_m": []}
    images = {image.name: image for image in open_source(f"kitti_raw:{street},cameras=[image_02]")}
    for image in images.values():
        labels = read_labels(label_path(street, *frame_of(image.name)))
        K = torch.from_numpy(labels.K).float()[None]
        picture = to_model_size(image.read(), (HEIGHT, WIDTH))
        depth = 1 / inverse_depth(loaded.method, picture, K)[0, 0].numpy()
        valid = labels.valid & (labels.depth < CAP_M)
        if not loaded.method.is_metric:
            depth = depth * np.median(labels.depth[valid]) / np.median(depth[valid])
        error_m = np.abs(depth.clip(1e-3, CAP_M) - labels.depth)
        relative = error_m / np.maximum(labels.depth, 1e-3)
        errors["rmse_m"].append(float(np.sqrt(np.square(error_m[valid], dtype=np.float64).mean())))
        one_sees = labels.visible_next ^ labels.visible_previous
        for name, where in (
            ("abs_rel", valid),
            ("abs_rel_half_occluded", valid & one_sees & labels.static),
            ("abs_rel_moving", valid & ~labels.static),
        ):
            if where.any():
                errors[name].append(float(relative[where].mean()))
    return {name: float(np.mean(values)) for name, values in errors.items()}


def frame_of(name: str) -> tuple[int, int]:
    """(sequence, frame) of a sample's name, .../<date>_drive_0001_sync/image_02/data/0000000005."""
    parts = Path(name).parts
    return int(parts[-4].split("_drive_")[1].split("_")[0]) - 1, int(parts[-1])


if __name__ == "__main__":
    main()
