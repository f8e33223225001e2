"""Self-Mono-SF on the synthetic street, with and without what its paper claims, beside depth and flow put together.

    python tools/ablate_sceneflow.py -o runs/ablate_sceneflow

All are trained from scratch on the same stereo video, at a small size and width, and scored on held-out streets with
exact scene flow of all pixels. Motion never teaches depth. The variants continue one beginning of the same seed, which
goes without the point term until depth shows things (see `point_from`). The parts, a Monodepth2 trained on stereo
pairs and an ARFlow, have so many steps each that a training takes half the time of a beginning and what follows;
`training_seconds` is what it took here, of the parts together.
Writes summary.json, curves.png (errors over time) and one run folder a training; interrupted and started again, it
goes on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ablation import (
    CONTINUED,
    FLOW_TRAIN,
    NARROW_ARFLOW,
    Scores,
    Study,
    curve,
    curves_of_variants,
    parser,
    run_studies,
)

from geossl.commands.evaluate_scene_flow import evaluate_scene_flow
from geossl.config import merge
from geossl.data.synthetic import StreetOptions, write_street
from geossl.engine.model_folder import stored_experiment
from geossl.evaluation.scene_flow import UNITS
from geossl.evaluation.scene_flow_files import FOLDERS
from geossl.formats.image import write_image
from geossl.predict import SceneFlowRequest, predict_scene_flow_from_parts
from geossl.visualize import plot_curves, stack

WIDTH, HEIGHT = 192, 64
# Visible pixels move by 4 on average.
TRAINING = StreetOptions(sequences=96, frames=6, width=WIDTH, height=HEIGHT, seed=41, moving_cars=4)
HELD_OUT = StreetOptions(sequences=8, frames=6, width=WIDTH, height=HEIGHT, seed=97, moving_cars=4)
FIGURES = tuple(f"{name}_all{UNITS[name]}" for name in ("d1", "d2", "fl", "sf", "epe3d"))
SCENE_FLOW = {
    "method": "self_mono_sf",
    "model": {"width": 0.25, "normalize_costs": True, "depth_apart": 1.0, "point": 1.0},
    "data": {"stereo": True, "stereo_sources": True, "source_offsets": [1]},
}
DEPTH = {
    "method": "monodepth2",
    "model": {
        "supervision": "S",
        "encoder": "compact",
        "encoder_weights": None,
        "decoder_channels": [8, 16, 32, 64, 96],
        "num_scales": 3,
        "min_depth": 0.3,  # 1.6 m: the first, random depths then lie near 3 m instead of 1 m
        "outside": "ignore",
    },
    "data": {"stereo": True, "source_offsets": []},
    "train": {"steps": 2825},
}
FLOW = {
    "method": "arflow",
    "model": NARROW_ARFLOW,
    "data": {"source_offsets": [1]},
    "train": {"steps": 975},
}
PARTS = "depth and flow"


def continued(**model: Any) -> dict[str, Any]:
    """What follows the beginning."""
    return merge(SCENE_FLOW, {"model": model, "train": {**CONTINUED, "steps": 500}})


SELF_MONO_SF = Study(
    base={"train": {**FLOW_TRAIN, "warmup": 0.1, "validate_every": 250}},
    variants={
        "beginning": merge(SCENE_FLOW, {"model": {"point_from": 1.0}, "train": {"steps": 2000}}),
        "full": continued(),
        "no point loss": continued(point=0.0),
        "no visibility": continued(visibility=False),
    },
    composed={PARTS: {"depth": DEPTH, "flow": FLOW}},
    claims=tuple(
        ("full", other, figure)
        for other in ("no point loss", "no visibility", PARTS)
        for figure in ("sf_all_percent", "epe3d_all_m")
    ),
)
STUDIES = {"self_mono_sf": SELF_MONO_SF}


def main() -> None:
    arguments = parser(__doc__, "runs/ablate_sceneflow", STUDIES).parse_args()
    out: Path = arguments.out
    write_street(out / "train", TRAINING)
    write_street(out / "held_out", HELD_OUT)
    held_out = out / "held_out"
    found = run_studies(STUDIES, arguments, {"data": street_data(out)}, lambda *runs: score(runs, held_out))
    for study, scores in found.items():
        write_image(out / "curves.png", curves(out, study, scores))


def street_data(out: Path) -> dict[str, Any]:
    """Where the streets are, and how all trainings see them."""
    train, held_out = (
        [{"kind": "kitti_raw", "root": str(out / name), "cameras": ["image_02"]}] for name in ("train", "held_out")
    )
    size = {"height": HEIGHT, "width": WIDTH, "cache": "memory", "num_workers": 0, "augment": {"jitter": 0.0}}
    return {"train": train, "validation": held_out, **size}


def score(runs: tuple[Path, ...], street: Path) -> dict[str, float]:
    """`FIGURES` on the street, over all pixels together, of one model's scene flow or of depth and flow."""
    spec = f"kitti_raw:{street},cameras=[image_02]"
    if len(runs) == 1:
        row = evaluate_scene_flow(spec, "synthetic", model=runs[0]).rows[0]
    else:
        with tempfile.TemporaryDirectory() as folder:
            predict_scene_flow_from_parts(*runs, spec, folder, SceneFlowRequest(save=FOLDERS))
            row = evaluate_scene_flow(spec, "synthetic", predictions=Path(folder)).rows[0]
    figures = {name: row[name.replace("_all", "_all_pooled")] for name in FIGURES}
    return {**figures, "training_seconds": sum(training_seconds(run) for run in runs)}


def training_seconds(run: Path) -> float:
    """Of all steps, and of those of the run that it started from, without validation and checkpoints."""
    steps, seconds = curve(run, "seconds_per_step")
    before = stored_experiment(run).train.start_from
    return float(np.diff(steps, prepend=0) @ np.asarray(seconds)) + (training_seconds(Path(before)) if before else 0)


def curves(out: Path, study: str, scores: Scores) -> np.ndarray:
    """A plot for each of `FIGURES` over the steps, the median over the seeds; of the parts only what they end with."""
    pictures = []
    for figure in FIGURES:
        drawn = curves_of_variants(out, study, SELF_MONO_SF, scores, f"validation/scene_flow/{figure}")
        first, last = drawn["beginning"][0][0], drawn["full"][0][-1]
        end = float(np.median([values[figure] for (name, _), values in scores.items() if name == PARTS]))
        drawn[f"{PARTS}, same time"] = ([first, last], [end, end])
        pictures.append(plot_curves(drawn, title=figure))
    return stack(pictures, columns=2)


if __name__ == "__main__":
    main()
