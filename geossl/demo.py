"""The demonstration: a synthetic street, a training from scratch, predictions on a held-out clip, scores, a report.

Each stage leaves a marker, so an interrupted demonstration goes on where it stopped; a stage whose settings changed is
done again, with everything after it. What the training needs is in configs/demo.yaml, the street's size below.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl import report
from geossl.commands.console import text_table, to_plain
from geossl.commands.evaluate import depth_items, find_trajectory, true_trajectories
from geossl.config import Experiment, load_experiment, parse_source
from geossl.data.synthetic import StreetOptions
from geossl.data.synthetic.write import write_street
from geossl.engine.model_folder import load_model
from geossl.engine.train import train
from geossl.evaluation.depth import (
    DepthScores,
    fit_row_predictor,
    get_protocol,
    predict_rows,
    protocol_truth,
    score_depth,
)
from geossl.evaluation.score_files import DepthItem, score_depth_folder, score_trajectory_file
from geossl.evaluation.trajectory import align
from geossl.formats.atomic import write_text_atomic
from geossl.formats.image import write_image
from geossl.formats.npy import read_npy
from geossl.formats.trajectory import read_kitti_trajectory
from geossl.inputs import open_source
from geossl.predict import predict_depth, predict_pose
from geossl.visualize import depth_panel, plot_trajectories

CONFIG = "demo"
# What limits the depth is how many different streets were seen: `stereo` shows many of them in long strides.
# `video` has the clips that motion is learned from, which brake, stand and start.
TRAINING_STREETS = {
    "stereo": StreetOptions(sequences=40, frames=4, width=320, height=96, seed=0, speed=3.0, standing=0.0),
    "video": StreetOptions(sequences=8, frames=14, width=320, height=96, seed=500, standing=0.15),
}
HELD_OUT_STREET = StreetOptions(sequences=1, frames=48, width=320, height=96, seed=1000)
PICTURES = 3
DEPTH_RANGE_M = (3.0, 80.0)  # of the colours


class DemoStoppedError(RuntimeError):
    """The training was stopped by a signal; started again, the demonstration goes on."""


@dataclass
class Stages:
    """What of the demonstration is done, in OUT/stages.json: each stage's settings, seconds and result."""

    path: Path
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    stale: bool = False

    def __post_init__(self) -> None:
        if self.path.is_file():
            try:
                self.done = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError:
                self.done = {}  # cut short: everything is looked at again

    def run(self, name: str, settings: Any, work: Callable[[], Any], clear: Callable[[], None]) -> Any:
        """The result of a stage: kept from before, or worked out now.

        Args:
            settings: What the stage depends on besides the stages before it.
            work: Does the stage; may go on from what an interruption left.
            clear: Removes what the stage wrote with other settings.
        """
        entry, settings = self.done.get(name, {}), to_plain(settings)
        if self.stale or (entry and entry["settings"] != settings):
            self.stale, entry = True, {}
            clear()
        if "result" in entry:
            print(f"{name}: done before", flush=True)
            return entry["result"]
        print(f"{name} ...", flush=True)
        with self._timed(name, settings, entry.get("seconds", 0.0)):
            result = to_plain(work())
        self.done[name]["result"] = result
        self._save()
        return result

    @contextmanager
    def _timed(self, name: str, settings: Any, before: float) -> Iterator[None]:
        """Adds up the seconds of a stage over interruptions."""
        self.done[name] = {"settings": settings, "seconds": before}
        self._save()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.done[name]["seconds"] = before + time.perf_counter() - start
            self._save()

    def seconds(self) -> dict[str, float]:
        return {name: entry["seconds"] for name, entry in self.done.items()}

    def _save(self) -> None:
        write_text_atomic(self.path, json.dumps(self.done, indent=1) + "\n")


def run_demo(out: str | Path = "runs/demo", config: str = CONFIG) -> dict[str, Any]:
    """Runs the demonstration and prints its table.

    Args:
        out: Where everything is written: street/, run/, predictions/, pictures/, report.html, summary.json.
        config: Of the training; its data sections are replaced by the street.

    Returns:
        What summary.json holds: abs_rel and delta1 without scaling on the held-out clip, row_abs_rel of the best
        constant-per-row predictor, trajectory_ate_share (RMSE after 7-DoF alignment over the path), seconds.

    Raises:
        DemoStoppedError: If a signal ended the training.
    """
    out = Path(out)
    streets, held_out = out / "street", out / "street" / "held_out"
    spec = f"kitti_raw:{held_out},cameras=[image_02]"
    experiment = demo_experiment(config, streets)
    stages = Stages(out / "stages.json")

    def clear(*names: str) -> Callable[[], None]:
        def remove() -> None:
            for name in names:
                shutil.rmtree(out / name, ignore_errors=True)

        return remove

    def street() -> None:
        for name, options in {**TRAINING_STREETS, "held_out": HELD_OUT_STREET}.items():
            write_street(streets / name, options)

    def learn() -> dict[str, Any]:
        result = train(experiment, out / "run")
        if result.stopped:
            raise DemoStoppedError("stopped; start the demonstration again to go on.")
        return {"steps": result.step}

    def predict() -> None:
        predict_depth(out / "run", spec, out / "predictions", save=("npy", "color"), overwrite=True)
        predict_pose(out / "run", spec, out / "trajectory", save=("kitti", "tum"), overwrite=True)

    stages.run("street", [TRAINING_STREETS, HELD_OUT_STREET], street, clear("street"))
    stages.run("training", experiment.model_dump(mode="json"), learn, clear("run"))
    stages.run("prediction", {}, predict, clear("predictions", "trajectory"))
    scores = stages.run("scores", {}, lambda: score(out, spec, streets), clear())
    seconds = stages.seconds()
    summary = {**scores, "seconds": round(sum(seconds.values()), 1)}
    summary["seconds_by_stage"] = {name: round(value, 1) for name, value in seconds.items()}
    write_text_atomic(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    write_demo_report(out, spec, summary, experiment)
    print(demo_table(summary))
    print(f"pictures and curves: {out / 'report.html'}", flush=True)
    return summary


def demo_experiment(config: str, streets: Path) -> Experiment:
    """The config with the roots of its sources, names of `TRAINING_STREETS`, below a folder."""
    experiment = load_experiment(config)
    sources = tuple(source.model_copy(update={"root": streets / source.root}) for source in experiment.data.train)
    return experiment.model_copy(
        update={"data": experiment.data.model_copy(update={"train": sources, "validation": ()})}
    )


# --- scores ----------------------------------------------------------------------------------------------------------


def score(out: Path, spec: str, streets: Path) -> dict[str, Any]:
    """Depth without scaling and trajectory of the held-out clip, and the per-row predictor's depth."""
    protocol = get_protocol("native", scaling="none")
    items, _ = depth_items(spec, protocol)
    depth = score_depth_folder(out / "predictions", items, protocol)
    rows = score_row_predictor([f"kitti_raw:{streets / name},cameras=[image_02]" for name in TRAINING_STREETS], items)
    trajectory, *_ = trajectories(out, spec)
    clip, estimate, truth = trajectory
    pose = score_trajectory_file(estimate, truth, alignment="7dof")
    means, row_means = depth.means(), rows.means()
    return {
        "abs_rel": means["abs_rel"],
        "delta1": means["delta1"],
        "row_abs_rel": row_means["abs_rel"],
        "row_delta1": row_means["delta1"],
        "trajectory_ate_share": pose["ape_rmse_percent_of_path"] / 100,
        "trajectory_ate_m": pose["ape_rmse_m"],
        "path_m": pose["path_m"],
        "images": len(depth.images),
        "scale_ratio": depth.ratio_median(),
        "scaling": "none",
        "clip": clip,
    }


def score_row_predictor(training: Sequence[str], items: list[DepthItem]) -> DepthScores:
    """The best constant-per-row predictor, fitted on the training clips' LiDAR, scored on the held-out clip's."""
    protocol = get_protocol("native", scaling="none")
    fitted = [item for spec in training for item in depth_items(spec, protocol)[0]]
    row_depth = fit_row_predictor(protocol_truth(item.load_truth(), protocol) for item in fitted)
    truths = [item.load_truth() for item in items]
    maps = (predict_rows(row_depth, *truth.shape) for truth in truths)
    return score_depth(maps, truths, protocol, names=[item.name for item in items])


def trajectories(out: Path, spec: str) -> list[tuple[str, Path, NDArray[np.float64]]]:
    """Clip, the predicted trajectory's file and the true poses, of each held-out clip."""
    clips = list(dict.fromkeys(image.clip for image in open_source(spec)))
    found = true_trajectories(parse_source(spec), clips)
    return [(clip, find_trajectory(out / "trajectory", clip), poses) for clip, poses in found]


def demo_table(summary: dict[str, Any]) -> str:
    """The summary as the table that the demonstration prints."""
    rows = [
        {"on the held-out clip": "this model", "abs_rel": summary["abs_rel"], "delta1": summary["delta1"]},
        {
            "on the held-out clip": "one depth a row",
            "abs_rel": summary["row_abs_rel"],
            "delta1": summary["row_delta1"],
        },
    ]
    share = 100 * summary["trajectory_ate_share"]
    return (
        f"{text_table(rows)}\ndepth in metres, no scaling, {summary['images']} images against LiDAR up to 80 m\n"
        f"trajectory: ATE {summary['trajectory_ate_m']:.2f} m over {summary['path_m']:.1f} m ({share:.2f} %) "
        f"after 7-DoF alignment\n{summary['seconds']:.0f} s in all"
    )


# --- pictures --------------------------------------------------------------------------------------------------------


def write_demo_report(out: Path, spec: str, summary: dict[str, Any], experiment: Experiment) -> None:
    """Writes OUT/pictures/*.png and OUT/report.html."""
    items, _ = depth_items(spec, get_protocol("native", scaling="none"))
    images = {image.name: image for image in open_source(spec)}
    chosen = [items[(2 * i + 1) * len(items) // (2 * PICTURES)] for i in range(PICTURES)]
    blocks = [report.preformatted(demo_table(summary)), report.heading("Held-out frames")]
    for number, item in enumerate(chosen):
        depth = read_npy(out / "predictions" / "npy" / f"{item.name}.npy")
        picture = depth_panel(images[item.name].read(), depth, item.load_truth(), *DEPTH_RANGE_M)
        write_image(out / "pictures" / f"depth_{number}.png", picture)
        blocks.append(report.picture(picture, f"{item.name}: image with LiDAR, predicted depth, relative error"))
    clip, file, truth = trajectories(out, spec)[0]
    aligned = align(read_kitti_trajectory(file), truth, "7dof")
    path = plot_trajectories({"truth": truth, "predicted (7-DoF aligned)": aligned}, title=clip)
    write_image(out / "pictures" / "trajectory.png", path)
    blocks += [report.heading("Trajectory"), report.picture(path, "seen from above")]
    rows = report.read_metrics(out / "run" / "metrics.jsonl")
    blocks += [report.heading("Training"), *report.curve_blocks(rows)]
    info = load_model(out / "run").info
    blocks += [
        report.table([{"name": k, "value": v} for k, v in {**summary, **info}.items() if not isinstance(v, dict)])
    ]
    write_text_atomic(out / "report.html", report.page("geossl demonstration", blocks))
