"""Ablations of Monodepth and Monodepth2 on the synthetic street, several seeds each.

    python tools/ablate_depth.py -o runs/ablate_depth

Each variant is the configuration of a method with one part changed. All are trained from scratch alike and scored on
held-out streets with exact dense labels; the table gives the median over the seeds and their range. Writes
summary.json and one run folder a training; interrupted and started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geossl.commands.console import text_table
from geossl.config import merge, parse_experiment
from geossl.data.synthetic import StreetOptions, read_labels, write_street
from geossl.data.synthetic.write import label_path
from geossl.engine.model_folder import load_model
from geossl.engine.train import train
from geossl.formats.atomic import write_text_atomic
from geossl.inputs import open_source
from geossl.predict import inverse_depth, to_model_size

WIDTH, HEIGHT = 192, 64
CAP_M = 80.0
TRAINING = StreetOptions(sequences=6, frames=50, width=WIDTH, height=HEIGHT, seed=11, moving_cars=5, standing=0.25)
HELD_OUT = StreetOptions(sequences=3, frames=12, width=WIDTH, height=HEIGHT, seed=77, moving_cars=5, standing=0.0)
SMALL = {"encoder_weights": None, "decoder_channels": [8, 16, 32, 64, 96]}
TRAIN = {"batch_size": 6, "lr": 1e-3, "optimizer": "adamw", "schedule": "one_cycle", "checkpoint_every": 1000}


@dataclass(frozen=True)
class Study:
    """One method, its variants, and what each is expected to worsen.

    Attributes:
        base: The experiment's values.
        variants: Name -> what differs.
        claims: (better, worse, figure): the comparisons that the paper makes.
    """

    base: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    claims: tuple[tuple[str, str, str], ...]


MONODEPTH = Study(
    base={
        "method": "monodepth",
        "model": {**SMALL, "network": "compact"},
        "data": {"stereo": True, "source_offsets": []},
        "train": {**TRAIN, "steps": 400},
    },
    variants={name: {"model": {"sampling": name}} for name in ("lr", "no_lr", "naive")},
    claims=(("lr", "no_lr", "abs_rel"), ("no_lr", "naive", "abs_rel")),
)
MONODEPTH2 = Study(
    base={
        "method": "monodepth2",
        "model": {**SMALL, "encoder": "compact", "pose": "posecnn", "supervision": "M", "num_scales": 3},
        "data": {"source_offsets": [-1, 1]},
        "train": {**TRAIN, "steps": 600},
    },
    variants={
        "full": {},
        "mean reprojection": {"model": {"minimum_reprojection": False}},
        "no auto-masking": {"model": {"automask": False}},
        "scales compared at their own size": {"model": {"full_resolution": False}},
    },
    claims=(
        ("full", "mean reprojection", "abs_rel_half_occluded"),
        ("full", "no auto-masking", "abs_rel"),
        ("full", "no auto-masking", "abs_rel_moving"),
        ("full", "scales compared at their own size", "abs_rel"),
    ),
)
STUDIES = {"monodepth": MONODEPTH, "monodepth2": MONODEPTH2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/ablate_depth"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--study", choices=list(STUDIES), action="append", help="only this one; may be repeated")
    parser.add_argument("--steps", type=int, help="of every training, instead of each study's own; for a quick look")
    arguments = parser.parse_args()
    out = arguments.out
    write_street(out / "street", TRAINING)
    write_street(out / "held_out", HELD_OUT)

    rows, verdicts = [], []
    for study in arguments.study or list(STUDIES):
        scores = {
            (variant, seed): run_variant(out, study, variant, seed, arguments.steps)
            for seed in range(arguments.seeds)
            for variant in STUDIES[study].variants
        }
        rows += table_rows(study, scores)
        verdicts += judge(study, scores)
        summary = {"table": rows, "claims": verdicts, "seeds": arguments.seeds}
        write_text_atomic(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    print(f"{text_table(rows)}\n\n{text_table(verdicts)}")


def run_variant(out: Path, study: str, variant: str, seed: int, steps: int | None) -> dict[str, float]:
    """Trains a variant where that is not done yet, and scores it."""
    run = out / study / f"{variant.replace(' ', '_')}-{seed}"
    kept = run / "scores.json"
    if kept.is_file():
        return json.loads(kept.read_text())  # type: ignore[no-any-return]
    common = {
        "data": {
            "train": [{"kind": "kitti_raw", "root": str(out / "street"), "cameras": ["image_02"]}],
            "height": HEIGHT,
            "width": WIDTH,
            "cache": "memory",
            "num_workers": 0,
        },
        "train": {"seed": seed} | ({} if steps is None else {"steps": steps}),
    }
    values = merge(merge(STUDIES[study].base, STUDIES[study].variants[variant]), common)
    result = train(parse_experiment(values, where=f"{study}, {variant}"), run)
    if result.stopped:
        raise SystemExit(result.exit_code)
    scores = score(run, out / "held_out", HELD_OUT)
    write_text_atomic(kept, json.dumps(scores, indent=1) + "\n")
    return scores


@torch.no_grad()
def score(run: Path, street: Path, options: StreetOptions) -> dict[str, float]:
    """AbsRel against the exact depth of every pixel up to 80 m; after median scaling where depth is up to scale.

    Figures: `abs_rel` everywhere; `_half_occluded` where just one of the frames before and after sees the surface;
    `_moving` on cars with their own motion.
    """
    loaded = load_model(run)
    errors: dict[str, list[float]] = {"abs_rel": [], "abs_rel_half_occluded": [], "abs_rel_moving": []}
    images = {image.name: image for image in open_source(f"kitti_raw:{street},cameras=[image_02]")}
    for image in images.values():
        labels = read_labels(label_path(street, *frame_of(image.name)))
        K = torch.from_numpy(labels.K).float()[None]
        picture = to_model_size(image.read(), (HEIGHT, WIDTH))
        depth = 1 / inverse_depth(loaded.method, picture, K)[0, 0].numpy()
        valid = labels.valid & (labels.depth < CAP_M)
        if not loaded.method.is_metric:
            depth = depth * np.median(labels.depth[valid]) / np.median(depth[valid])
        relative = np.abs(depth.clip(1e-3, CAP_M) - labels.depth) / np.maximum(labels.depth, 1e-3)
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


def table_rows(study: str, scores: Mapping[tuple[str, int], Mapping[str, float]]) -> list[dict[str, Any]]:
    """One row a variant: each figure's median over the seeds and its range."""
    rows = []
    for variant in STUDIES[study].variants:
        row: dict[str, Any] = {"method": study, "variant": variant}
        for figure in next(iter(scores.values())):
            values = values_of(scores, variant, figure)
            row[figure] = f"{np.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"
        rows.append(row)
    return rows


def judge(study: str, scores: Mapping[tuple[str, int], Mapping[str, float]]) -> list[dict[str, Any]]:
    """Whether each claim came out: the medians' difference against the spread of the seeds."""
    verdicts = []
    for better, worse, figure in STUDIES[study].claims:
        a, b = values_of(scores, better, figure), values_of(scores, worse, figure)
        wins = sum(x < y for x, y in zip(a, b, strict=True))
        gap = float(np.median(b) - np.median(a))
        spread = max(float(np.std(a)), float(np.std(b)))
        verdicts.append(
            {
                "claim": f"{study}: {better} < {worse}",
                "figure": figure,
                "gap": gap,
                "largest_std": spread,
                "seeds_won": f"{wins} of {len(a)}",
                "came_out": "yes" if gap > spread and wins == len(a) else "weakly" if gap > 0 else "no",
            }
        )
    return verdicts


def values_of(scores: Mapping[tuple[str, int], Mapping[str, float]], variant: str, figure: str) -> list[float]:
    return [values[figure] for (name, _), values in sorted(scores.items()) if name == variant]


if __name__ == "__main__":
    main()
