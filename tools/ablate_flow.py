"""The methods of optical flow on the synthetic street, with and without what their papers claim, several seeds each.

    python tools/ablate_flow.py -o runs/ablate_flow

Each variant is the configuration of a method with one part changed. All are trained alike at a small size and width,
from scratch or from one beginning of the same seed, and scored on held-out streets with exact flow of visible and of
hidden pixels. Writes summary.json, epe.png (errors over time) and one run folder a training; interrupted and started
again, it goes on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ablation import (
    ARFLOW_ON_PAIRS,
    CONTINUED,
    FLOW_TRAIN,
    PAIRS,
    Scores,
    Study,
    curve,
    curves_of_variants,
    parser,
    run_studies,
)

from geossl.data.synthetic import StreetOptions, write_street
from geossl.formats.image import write_image
from geossl.visualize import plot_curves, stack

WIDTH, HEIGHT = 192, 64
# Fast driving: visible pixels move by 7, hidden ones by 29 on average, as in KITTI at this size.
TRAINING = StreetOptions(sequences=32, frames=6, width=WIDTH, height=HEIGHT, seed=21, moving_cars=4, speed=2.0)
HELD_OUT = StreetOptions(sequences=4, frames=6, width=WIDTH, height=HEIGHT, seed=91, moving_cars=4, speed=2.0)
EXPOSURE = 0.15  # spread of the frames' gain in the streets of the last study
FIGURES = ("epe_noc", "epe_occ", "epe_all")
UNFLOW = Study(
    base={
        "method": "unflow",
        "model": {
            "width": 0.25,
            "image_std": 0.225,
            "normalize_costs": True,
            "census_radii": [3, 1, 1, 1, 1],
            "smoothness": 0.3,  # at a quarter of this size flows are small: 3 would flatten them
            "border": 0.0,
        },
        "data": PAIRS,
        "train": {**FLOW_TRAIN, "steps": 800},
    },
    # While flows are wrong, the check hides what they have not found yet; so both continue one beginning without it.
    variants={
        "beginning": {"model": {"visibility": "none"}},
        "full": {"model": {"visibility_from": 0.0}, "train": {**CONTINUED, "steps": 400}},
        "no visibility": {"model": {"visibility": "none"}, "train": {**CONTINUED, "steps": 400}},
    },
    claims=(("full", "no visibility", "epe_noc"),),
)
STUDENT = {"stage": 2, "crop": [1.0, 2 / 3]}  # 128x64, which the network takes without padding
SELFLOW = Study(
    base={
        "method": "selflow",
        "model": {"frames": 2, "width": 0.25, "scales": 3, "centred": True},
        "data": PAIRS,
        "train": {**FLOW_TRAIN, "steps": 800},
    },
    # As with UnFlow, and the teacher of stage 2 teaches its errors: the beginning is long enough for exact flows.
    variants={
        "beginning": {"model": {"unmasked": 1.0}, "train": {"steps": 2000}},
        "stage 1": {"model": {"unmasked": 0.0}, "train": CONTINUED},
        "stage 1 without visibility": {"model": {"unmasked": 1.0}, "train": CONTINUED},
        "stage 1 continued": {"model": {"unmasked": 0.0}, "train": {"start_from": "{run:stage 1}", "lr": 3e-4}},
        "stage 2": {"model": {**STUDENT, "weights": "{run:stage 1}"}, "train": {"lr": 3e-4}},
    },
    claims=(
        ("stage 1", "stage 1 without visibility", "epe_noc"),
        ("stage 2", "stage 1", "epe_occ"),
        ("stage 2", "stage 1 continued", "epe_occ"),
    ),
)
ARFLOW = Study(
    base=ARFLOW_ON_PAIRS,
    variants={"full": {}, "no augmentation": {"model": {"augmentation": 0.0}}},
    claims=(("full", "no augmentation", "epe_all"),),
)
SMURF = Study(
    base={
        "method": "smurf",
        "model": {
            "network": "tiny",
            "iterations": 4,
            "crop": None,
            "student_margin": 8,
            # By the census at full size alone, as published, 400 steps find nothing: small images lead to the flow.
            "scales": 4,
            "census_from": 0.6,
            "smoothness": 0.5,
            "visibility": "none",
        },
        "data": PAIRS,
        "train": {**FLOW_TRAIN, "steps": 800},
    },
    variants={"full": {}, "no self-supervision": {"model": {"self_supervision": 0.0}}},
    claims=(("full", "no self-supervision", "epe_occ"),),
)
BRIGHTNESS = Study(
    base={**SELFLOW.base, "train": {**FLOW_TRAIN, "steps": 600}},
    variants={"census": {}, "brightness": {"model": {"measure": "brightness"}}},
    claims=(("census", "brightness", "epe_noc"),),
)
STUDIES = {"unflow": UNFLOW, "selflow": SELFLOW, "arflow": ARFLOW, "smurf": SMURF}
EXPOSED = {"exposure": BRIGHTNESS}


def main() -> None:
    arguments = parser(__doc__, "runs/ablate_flow", {**STUDIES, **EXPOSED}).parse_args()
    found: dict[str, Scores] = {}
    asked = arguments.study or [*STUDIES, *EXPOSED]
    for studies, street, exposure in ((STUDIES, "street", 0.0), (EXPOSED, "street_exposure", EXPOSURE)):
        arguments.study = [name for name in asked if name in studies]
        if arguments.study:
            common = {"data": street_data(arguments.out / street, exposure)}
            found |= run_studies(studies, arguments, common, last_figures)
    write_image(arguments.out / "epe.png", curves(arguments.out, found))


def street_data(folder: Path, exposure: float) -> dict[str, object]:
    """Writes the streets, and says where they are."""
    sources = []
    for name, options in (("train", TRAINING), ("held_out", HELD_OUT)):
        write_street(folder / name, StreetOptions(**{**options.as_dict(), "exposure": exposure}))  # type: ignore[arg-type]
        sources.append([{"kind": "kitti_raw", "root": str(folder / name), "cameras": ["image_02"]}])
    size = {"height": HEIGHT, "width": WIDTH, "cache": "memory", "num_workers": 0}
    return {"train": sources[0], "validation": sources[1], **size}


def last_figures(run: Path) -> dict[str, float]:
    """The errors on the held-out streets at the end of a training."""
    return {name: curve(run, f"validation/flow/{name}")[1][-1] for name in FIGURES}


def curves(out: Path, found: dict[str, Scores]) -> np.ndarray:
    """Errors of visible and hidden pixels over the steps, a row a study; each curve the median over the seeds."""
    pictures = []
    for name, scores in found.items():
        for figure in FIGURES[:2]:
            study = {**STUDIES, **EXPOSED}[name]
            drawn = curves_of_variants(out, name, study, scores, f"validation/flow/{figure}")
            pictures.append(plot_curves(drawn, title=f"{name}: {figure} (px)", log=True))
    return stack(pictures, columns=2)


if __name__ == "__main__":
    main()
