"""`geossl evaluate`: predicts where a model is given, then scores the files. Scoring reads files only."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from geossl.commands.console import text_table, to_plain
from geossl.commands.trained_on import LeakNote, evaluated_samples, leak_note, leaks_of, training_of
from geossl.config import AnySource, KittiOdometry, parse_source
from geossl.data.build import build_targets
from geossl.data.poses import clip_poses, sequence_poses
from geossl.data.samples import DataError, Sample
from geossl.evaluation.depth_protocols import TRUTH_KINDS, DepthProtocol, get_protocol
from geossl.evaluation.score_files import DepthItem, Kind, score_depth_folder, score_trajectory_file
from geossl.evaluation.trajectory import Alignment, rebase
from geossl.evaluation.truth import load_depth_truth, load_object_map
from geossl.formats.atomic import write_text_atomic
from geossl.formats.files import FileTree
from geossl.formats.prediction_meta import read_meta
from geossl.formats.safe_paths import inside
from geossl.formats.truth import Truth
from geossl.inputs import open_source

Progress = Callable[[int, int], None]
Projection = Literal["exact", "eigen", "eigen_z"]
OWN_KIND = {"velodyne": "lidar_z", "depth_png": "improved", "disparity_png": "disparity"}
PROJECTIONS: dict[str, Projection] = {"eigen_velo_forward": "eigen", "eigen_z": "eigen_z"}


@dataclass(frozen=True)
class Result:
    """What an evaluation found: rows of a table, and everything for --json."""

    rows: list[dict[str, Any]]
    full: dict[str, Any]

    def finish(self, json_file: Path | None) -> None:
        """Prints the rows and writes the JSON file where one is asked for."""
        fields = [field for field in self.rows[0] if field != "warnings"]
        same = [f for f in fields if len(self.rows) == 1 or len({str(row.get(f)) for row in self.rows}) == 1]
        conditions = [f for f in same if not isinstance(self.rows[0][f], float)]
        if len(self.rows) > 1:
            words = [f for f in fields if f not in same and isinstance(self.rows[0][f], str)]
            figures = [f for f in fields if f not in conditions and f not in words]
            print(text_table([{f: row.get(f, "") for f in words + figures} for row in self.rows]))
        else:
            print("\n".join(_lines({f: self.rows[0][f] for f in fields if f not in conditions})))
        print("\n".join(_lines({f: self.rows[0][f] for f in conditions})))
        for warning in dict.fromkeys(w for row in self.rows for w in row.get("warnings", [])):
            print(f"warning: {warning}")
        if json_file is not None:
            write_text_atomic(json_file, json.dumps(_json_safe(to_plain(self.full)), indent=1) + "\n")


def _lines(row: dict[str, Any]) -> Iterator[str]:
    for name, value in row.items():
        yield f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}"


def _json_safe(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_safe(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- depth -----------------------------------------------------------------------------------------------------------


def evaluate_depth(
    data: str,
    protocol: str,
    *,
    model: Path | None = None,
    predictions: Path | None = None,
    scaling: str | None = None,
    kind: str = "depth",
    flip: bool = False,
    device: str = "auto",
    command: str = "",
    progress: Progress | None = None,
) -> Result:
    """Scores a folder of depth maps, or a model's, against a data set's ground truth.

    With a model, the row's `leaks` says how many of the images it was trained on, and a warning which.

    Args:
        data: Data specification of the images.
        protocol: A name of `geossl.evaluation.depth_protocols.PROTOCOLS`.
        model: Predict with this model first: into `predictions` where given, else into a folder that is then removed.
        predictions: Folder of depth maps named as the images are.
        scaling: none, median or a factor; None takes the protocol's own.
        kind: What the files hold: depth, inverse_depth or disparity_px.
        flip: With a model: average with the mirrored image's prediction.

    Raises:
        ValueError: If names are unknown, there is no ground truth of the protocol's kind, or predictions are missing.
    """
    chosen = get_protocol(protocol, scaling=scaling)
    items, truth_kind = depth_items(data, chosen)
    names = {item.name for item in items}
    with folder_for(predictions, model) as folder:
        if model is not None:
            from geossl.predict import predict_depth

            images = [image for image in open_source(data) if image.name in names]
            predict_depth(
                model, images, folder, save=("npy",), flip=flip, device=device, command=command, progress=progress
            )
        scores = score_depth_folder(folder, items, chosen, kind=cast(Kind, kind), truth_kind=truth_kind)
    row, full = scores.row(), scores.to_json()
    full |= {"data": data, "command": command, "model": None if model is None else str(model)}
    if model is not None:
        note = leaks_of(model, parse_source(data), names)
        row = note.annotated(row)
        full |= {"row": note.annotated(full["row"]), "leaks": note.to_json()}
    return Result([row], full)


def depth_items(data: str, protocol: DepthProtocol) -> tuple[list[DepthItem], str]:
    """The labelled images of a data specification, and the kind of truth that they are scored against.

    Raises:
        ValueError: If no image has labels, or the labels are not of the kind that the protocol is defined on.
    """
    samples = build_targets(parse_source(data))
    items, kinds = [], set()
    for sample in samples:
        truth = sample.truth
        if truth is None:
            continue
        kind = truth_kind_of(truth, protocol)
        kinds.add(kind)
        fx_baseline = None if truth.baseline_m is None else float(truth.K[0, 0]) * truth.baseline_m
        objects = None if truth.object_map is None else partial(load_object_map, truth)
        load = partial(load_depth_truth, truth, PROJECTIONS.get(kind, "exact"))
        items.append(DepthItem(sample.name, load, fx_baseline, objects))
    if not items:
        raise ValueError(f"{data}: none of the {len(samples)} images has ground truth (LiDAR, depth or disparity).")
    return items, " and ".join(sorted(kinds))


def truth_kind_of(truth: Truth, protocol: DepthProtocol) -> str:
    """The kind of truth that a label is turned into under a protocol.

    Protocols that ask for `lidar_z` or `given` take any label as it is; the others only what they are defined on.

    Raises:
        ValueError: If the label is not what the protocol is defined on.
    """
    own, asked = OWN_KIND[truth.kind], protocol.truth
    if asked in ("lidar_z", "given", own):
        return own
    if asked in PROJECTIONS and truth.kind == "velodyne":
        return asked
    remedies = {
        "improved": "Set depth_root to the folder of KITTI's improved depth maps.",
        "disparity": "Use a kitti_stereo data set.",
    }
    remedy = remedies.get(asked, "Leave depth_root out, so that the LiDAR scans are used.")
    raise ValueError(
        f"protocol '{protocol.name}' is defined on {TRUTH_KINDS[asked]}, but {truth.file} holds {TRUTH_KINDS[own]}. "
        f"{remedy} Protocol 'native' takes any truth."
    )


# --- pose ------------------------------------------------------------------------------------------------------------


def evaluate_pose(
    data: str | None = None,
    truth: Path | None = None,
    *,
    model: Path | None = None,
    predictions: Path | None = None,
    alignments: Sequence[str] = ("none", "scale", "6dof", "7dof"),
    device: str = "auto",
    command: str = "",
    progress: Progress | None = None,
) -> Result:
    """Scores trajectories, a model's or files', against a data set's poses or a file.

    With a model, each row's `leaks` says how many of the clip's frames it was trained on, and a warning which.

    Args:
        data: Data specification of the clips, KITTI odometry or raw.
        truth: A KITTI trajectory file instead of `data`.
        model: Predict with this model first.
        predictions: A KITTI trajectory file, or a folder of them: `<clip>.kitti.txt` as `geossl predict pose` writes
            them, or `<sequence>.txt` of another method.
        alignments: One row for each.

    Raises:
        ValueError: If a trajectory is missing or does not fit.
    """
    images = [] if data is None else open_source(data)
    clips = list(dict.fromkeys(image.clip for image in images))
    # Before anything is predicted, so that missing poses are told at once.
    of_clips = [] if data is None else true_trajectories(parse_source(data), clips)
    if predictions is not None and predictions.is_file() and len(of_clips) > 1:
        named = ", ".join(clip for clip, _ in of_clips[:3]) + (", ..." if len(of_clips) > 3 else "")
        raise ValueError(
            f"{predictions} is one trajectory, but {data} has {len(of_clips)} clips with poses ({named}). Choose one "
            "of them with sequences= or drives=, and cameras=, or give a folder of trajectories."
        )
    rows: list[dict[str, Any]] = []
    with folder_for(predictions, model) as place:
        if model is not None and data is not None:
            from geossl.predict import predict_pose

            known = {clip for clip, _ in of_clips}
            scored = [image for image in images if image.clip in known]
            predict_pose(model, scored, place, save=("kitti",), device=device, command=command, progress=progress)
        up_to_scale = bool(place.is_dir() and read_meta(place).up_to_scale)
        pairs: list[tuple[Path, Path | NDArray[np.float64], str]]
        if truth is not None:
            pairs = [(place, truth, place.name)]
        else:
            pairs = [(find_trajectory(place, clip), poses, clip) for clip, poses in of_clips]
        for estimate, true_poses, name in pairs:
            for alignment in alignments:
                row = score_trajectory_file(
                    estimate, true_poses, alignment=cast(Alignment, alignment), up_to_scale=up_to_scale
                )
                rows.append({**row, "sequence": name})
    full: dict[str, Any] = {"data": data, "truth": None if truth is None else str(truth), "command": command}
    if model is not None and data is not None:
        notes = leak_notes(model, parse_source(data), {row["sequence"] for row in rows})
        rows = [notes[row["sequence"]].annotated(row) for row in rows]
        full["leaks"] = {clip: note.to_json() for clip, note in notes.items()}
    return Result(rows, {"rows": rows, **full})


def leak_notes(model: Path, source: AnySource, clips: Collection[str]) -> dict[str, LeakNote]:
    """For each clip, in the source's order, what the model's training shares with it."""
    by_clip: dict[str, list[Sample]] = {}
    for sample in evaluated_samples(source):
        if sample.clip in clips:
            by_clip.setdefault(sample.clip, []).append(sample)
    training = training_of(model)
    return {clip: leak_note(training, samples) for clip, samples in by_clip.items()}


def true_trajectories(source: AnySource, clips: Sequence[str]) -> list[tuple[str, NDArray[np.float64]]]:
    """(N, 4, 4) T_world_camera of the clips that have poses, a pose for every frame from 0, the first the identity.

    KITTI odometry's are those of camera 0, whichever camera the clip is of, as in every published table.

    Raises:
        DataError: If no clip has poses, or they skip frames.
    """
    known = clip_poses(source)
    tree = FileTree(source.root)
    found = []
    for clip in clips:
        if clip not in known:
            continue
        if not np.array_equal(known[clip].frames, np.arange(len(known[clip].frames))):
            raise DataError(f"the poses of {clip} skip frames; unpack all of the recording's oxts records.")
        of_camera_0 = sequence_poses(tree, Path(clip).parts[1]) if isinstance(source, KittiOdometry) else None
        found.append((clip, rebase(known[clip].T_first_camera if of_camera_0 is None else of_camera_0)))
    if not found:
        raise DataError(f"{source.kind} source {source.root} has no poses of its clips {', '.join(clips[:3])}.")
    return found


def find_trajectory(place: Path, clip: str) -> Path:
    """The trajectory file of a clip.

    Raises:
        ValueError: If there is none; names where it was looked for.
    """
    if place.is_file():
        return place
    names = [f"{clip}.kitti.txt", f"{clip}.txt", *(f"{sequence}.txt" for sequence in Path(clip).parts[1:2])]
    for name in names:
        if inside(place, name).is_file():
            return inside(place, name)
    raise ValueError(f"{place} has no trajectory of {clip}; looked for {', '.join(names)}.")


@contextmanager
def folder_for(predictions: Path | None, model: Path | None) -> Iterator[Path]:
    """The folder of predictions, or, for a model's that nobody asked to keep, one that is then removed.

    After an error it stays if it holds predictions, and a note to the error names it.
    """
    if predictions is not None:
        yield predictions
        return
    assert model is not None
    folder, stays = Path(tempfile.mkdtemp(prefix="geossl-")), False
    try:
        yield folder
    except Exception as error:
        stays = any(path.name != "meta.json" for path in folder.iterdir())
        if stays:
            error.add_note(f"What was predicted is kept: give --predictions {folder} too, to go on from there.")
        raise
    finally:
        if not stays:
            shutil.rmtree(folder)
