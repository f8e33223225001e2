"""What pre-training is worth, several seeds: in matching, and in depth after so many steps.

    python tools/ablate_pretrain.py geometry -o runs/ablate_pretrain    # about 20 minutes on one core
    python tools/ablate_pretrain.py depth -o runs/ablate_pretrain       # 10 minutes more; alone 25
    python tools/ablate_pretrain.py geometry --data DATA -o runs/ablate_pretrain_kitti     # and depth: on real frames

Each method of pre-training sees the unlabelled synthetic street for `--pretrain-steps`, or, with `--data`, the stereo
video of KITTI odometry 06 and 02. `geometry` scores the encoders as they are (`geossl evaluate encoder`) on held-out
streets, or KITTI 2015, beside a random one, plain patches, and dense InfoNCE whose correspondences are wrong: of a
shuffled place, or of the same pixel. For `depth`, Monodepth2 learns from stereo, alike but for the encoder it starts
from: AbsRel on the held-out images at the end, and the steps, as a share of all, after which the random encoder's
final AbsRel was reached (2 where it was not). Tables give the median over the seeds and their range. Writes
geometry.json, or depth.json and abs_rel.png, and one run folder a training; interrupted and started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation import Study, curve, curves_of_variants, experiment_values, judge, run_folder, run_variant, table_rows

from geossl.commands.console import text_table
from geossl.commands.evaluate_encoder import evaluate_encoder
from geossl.config import merge, parse_experiment, parse_source
from geossl.data.synthetic import StreetOptions, write_street
from geossl.engine.pretrain import pretrain
from geossl.formats.atomic import write_text_atomic
from geossl.formats.image import write_image
from geossl.visualize import plot_curves

WIDTH, HEIGHT = 192, 64
TRAINING = StreetOptions(sequences=8, frames=24, width=WIDTH, height=HEIGHT, seed=31, moving_cars=4)
HELD_OUT = StreetOptions(sequences=2, frames=12, width=WIDTH, height=HEIGHT, seed=97, moving_cars=4)
TRAIN = {"optimizer": "adamw", "lr": 1e-3, "schedule": "cosine", "checkpoint_every": 1000, "sample_every": 1000}
VALIDATIONS = 20  # of each training, evenly spaced
NEVER = 2.0  # share of the steps that is noted where the random encoder's end was not reached
# The places alone, so that the table shows what their correspondences are worth.
DENSE: dict[str, Any] = {"model": {"dense_weight": 1.0}, "train": {"batch_size": 8}}
PRETRAINING: dict[str, dict[str, Any]] = {
    "simclr": {"method": "pretrain_simclr", "train": {"batch_size": 16}},
    "moco": {
        "method": "pretrain_moco",
        "model": {"queue": 128, "momentum": 0.99, "batchnorm_splits": 2},
        "train": {"batch_size": 16},
    },
    "byol": {"method": "pretrain_byol", "model": {"momentum": 0.99}, "train": {"batch_size": 16}},
    "dense": {"method": "pretrain_dense", **DENSE},
    "flow": {"method": "pretrain_flow", "data": {"source_offsets": [1]}, "train": {"batch_size": 8}},
}
BROKEN: dict[str, dict[str, Any]] = {
    "dense shuffled": {"method": "broken_dense:Shuffled", **DENSE},
    "dense identity": {"method": "broken_dense:Identity", **DENSE},
}
UNTRAINED = ("random:compact", "zncc")
DEPTH = {
    "method": "monodepth2",
    "model": {
        "encoder": "compact",
        "encoder_weights": None,
        "decoder_channels": [8, 16, 32, 64, 96],
        "num_scales": 3,
        "supervision": "S",
    },
    "data": {"stereo": True, "source_offsets": []},
    "train": {**TRAIN, "batch_size": 4, "schedule": "constant"},
}
METRIC = "validation/none/abs_rel"
GEOMETRY = ("stereo_pck", "stereo_tones_pck", "flow_pck", "view_pck", "depth_r2", "normal_mean_deg")


def main() -> None:
    arguments = options().parse_args()
    train, held_out = street(arguments.out) if arguments.data is None else kitti(arguments.data)
    data = {
        "train": [parse_source(train).model_dump(mode="json")],
        "validation": [parse_source(held_out).model_dump(mode="json")],
        "height": HEIGHT,
        "width": WIDTH,
        "cache": "memory",
        "num_workers": 0,
    }
    if arguments.table == "geometry":
        geometry(arguments, data, held_out)
    else:
        depth(arguments, data)


def geometry(arguments: argparse.Namespace, data: Mapping[str, Any], held_out: str) -> None:
    """The encoders as they are, one call of `evaluate_encoder` a seed."""
    names = [*(arguments.pretraining or PRETRAINING), *BROKEN]
    study = Study(base={}, variants={name: {} for name in (*UNTRAINED, *names)}, claims=())
    scores: dict[tuple[str, int], Mapping[str, float]] = {}
    for seed in range(arguments.seeds):
        folders = [str(pretrained(arguments, name, seed, data)) for name in names]
        found = evaluate_encoder([*UNTRAINED, *folders], held_out, size=(HEIGHT, WIDTH)).full["rows"]
        for name, row in zip(study.variants, found, strict=True):
            scores[name, seed] = {figure: row[figure] for figure in GEOMETRY if figure in row}
    rows = table_rows(study, scores)
    settings = {"seeds": arguments.seeds, "pretrain_steps": arguments.pretrain_steps}
    write_text_atomic(arguments.out / "geometry.json", json.dumps({"table": rows, **settings}, indent=1) + "\n")
    print(text_table(rows))


def depth(arguments: argparse.Namespace, data: Mapping[str, Any]) -> None:
    """Depth after a number of steps."""
    names = arguments.pretraining or list(PRETRAINING)
    claims = tuple((name, "random", figure) for name in names for figure in ("abs_rel", "steps_to_random"))
    study = Study(base=DEPTH, variants={"random": {}, **{name: {} for name in names}}, claims=claims)
    scores: dict[tuple[str, int], Mapping[str, float]] = {}
    for seed in range(arguments.seeds):
        goal = None
        for variant in study.variants:
            values = experiment_values(arguments, "depth", study, variant, seed, {"data": data})
            values["train"]["validate_every"] = max(1, arguments.steps // VALIDATIONS)
            if variant != "random":
                values["model"]["encoder_weights"] = str(pretrained(arguments, variant, seed, data))
            run = run_folder(arguments.out, "depth", variant, seed)
            end = run_variant(run, values, lambda folder: {"abs_rel": curve(folder, METRIC)[1][-1]})
            goal = end["abs_rel"] if goal is None else goal
            scores[variant, seed] = {**end, "steps_to_random": share_of_steps(run, goal)}
    rows, verdicts = table_rows(study, scores), judge(study, scores)
    summary = {"table": rows, "claims": verdicts, "seeds": arguments.seeds, "steps": arguments.steps}
    write_text_atomic(arguments.out / "depth.json", json.dumps(summary, indent=1) + "\n")
    drawn = curves_of_variants(arguments.out, "depth", study, scores, METRIC)
    write_image(arguments.out / "abs_rel.png", plot_curves(drawn, title="AbsRel on held-out images", log=True))
    print(f"{text_table(rows)}\n\n{text_table(verdicts)}")


def options() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("table", choices=["geometry", "depth"])
    made.add_argument("-o", "--out", type=Path, default=Path("runs/ablate_pretrain"))
    made.add_argument("--data", type=Path, help="folder with kitti_odometry/ and kitti_2015/, instead of the street")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--steps", type=int, default=300, help="of the training of depth")
    made.add_argument("--pretrain-steps", type=int, default=200)
    made.add_argument("--pretraining", choices=list(PRETRAINING), action="append", help="may be repeated")
    return made


def street(out: Path) -> tuple[str, str]:
    """Writes the synthetic streets; the specifications of what is trained and scored on."""
    for name, options in (("street", TRAINING), ("held_out", HELD_OUT)):
        write_street(out / name, options)
    return f"kitti_raw:{out / 'street'},cameras=[image_02]", f"kitti_raw:{out / 'held_out'},cameras=[image_02]"


def kitti(data: Path) -> tuple[str, str]:
    """The specifications of what is trained and scored on."""
    train = f"kitti_odometry:{data / 'kitti_odometry'},sequences=['06','02']"
    return train, f"kitti_stereo:{data / 'kitti_2015'},calibration=by_size"


def pretrained(arguments: argparse.Namespace, name: str, seed: int, data: Mapping[str, Any]) -> Path:
    """The encoder folder of a method of pre-training, trained where that is not done yet."""
    run = run_folder(arguments.out, "pretraining", name, seed)
    encoder = run / "encoder"
    if encoder.is_dir():
        return encoder
    common = {
        "model": {"encoder": "compact"},
        "data": {**data, "validation": [], "source_offsets": [], "augment": {"jitter": 0}},
        "train": {**TRAIN, "steps": arguments.pretrain_steps, "seed": seed},
    }
    result = pretrain(parse_experiment(merge(common, (PRETRAINING | BROKEN)[name]), where=str(run)), run)
    if result.encoder is None:
        raise SystemExit(result.exit_code)
    return result.encoder


def share_of_steps(run: Path, goal: float) -> float:
    """Of all steps, the share after which AbsRel was first at or below the goal."""
    steps, values = curve(run, METRIC)
    reached = [step for step, value in zip(steps, values, strict=True) if value <= goal]
    return reached[0] / steps[-1] if reached else NEVER


if __name__ == "__main__":
    main()
