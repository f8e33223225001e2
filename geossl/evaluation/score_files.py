"""Scores files: a folder of predicted depth maps, or a trajectory file, against truth.

Predictions may be geossl's own (OUT/npy/<name>.npy, OUT/png16/<name>.png) or another method's (DIR/<name>.npy or
DIR/<name>.png, as depth, inverse depth or disparity).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from geossl.evaluation.depth import DepthScores, ImageScore, collect_scores, score_image
from geossl.evaluation.depth_protocols import DepthProtocol
from geossl.evaluation.trajectory import Alignment, score_trajectory
from geossl.formats.errors import FormatError
from geossl.formats.kitti_png import read_depth_png
from geossl.formats.npy import read_npy
from geossl.formats.prediction_meta import PredictionMeta, read_meta
from geossl.formats.safe_paths import inside
from geossl.formats.trajectory import read_indexed_kitti_trajectory, read_kitti_trajectory

Kind = Literal["depth", "inverse_depth", "disparity_px"]
_PLACES = (("npy", ".npy"), ("png16", ".png"), ("", ".npy"), ("", ".png"))


class DepthItem(NamedTuple):
    """One image to score.

    Attributes:
        name: `<name>` of its prediction's file.
        load_truth: Gives the (H, W) truth in metres, 0 unknown.
        fx_baseline: Focal length times baseline at the truth's size, pixel metres; for D1 and `disparity_px` files.
        load_objects: Gives the (H, W) object map, to split D1.
    """

    name: str
    load_truth: Callable[[], np.ndarray]
    fx_baseline: float | None = None
    load_objects: Callable[[], np.ndarray | None] | None = None


def find_prediction(predictions: str | Path, name: str) -> Path | None:
    """The file of a prediction, or None: OUT/npy/<name>.npy, else OUT/png16/<name>.png, else beside OUT itself."""
    root = Path(predictions)
    for folder, suffix in _PLACES:
        path = inside(root / folder, name + suffix)
        if path.is_file():
            return path
    return None


def read_prediction(path: str | Path, kind: Kind = "depth") -> np.ndarray:
    """Reads a predicted map: .npy as it is, .png as 16 bits divided by 256.

    Returns:
        (h, w) float32, in the unit of `kind`.

    Raises:
        FormatError: If it is no map of real numbers.
        ValueError: If the suffix or the kind is unknown.
    """
    path = Path(path)
    if kind not in ("depth", "inverse_depth", "disparity_px"):
        raise ValueError(f"kind '{kind}' should be depth, inverse_depth or disparity_px.")
    if path.suffix == ".png":
        return read_depth_png(path)
    if path.suffix != ".npy":
        raise ValueError(f"{path}: predictions are read from .npy or 16-bit .png, not '{path.suffix}'.")
    values = read_npy(path)
    values = values.squeeze() if values.ndim in (3, 4) else values
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise FormatError(path, f"holds {values.shape} {values.dtype}; expected one map (H, W) of real numbers.")
    return values.astype(np.float32)


def to_depth(values: np.ndarray, kind: Kind, item: DepthItem, truth_width: int) -> np.ndarray:
    """Turns a predicted map into depth; values that are not positive become NaN and fail where they are scored.

    A disparity in pixels of a smaller image is scaled by the ratio of the widths.

    Raises:
        ValueError: If a disparity comes without the camera's focal length and baseline.
    """
    if kind == "depth":
        return values
    positive = np.isfinite(values) & (values > 0)
    inverse = np.where(positive, values, np.nan)
    if kind == "inverse_depth":
        return 1 / inverse
    if item.fx_baseline is None:
        raise ValueError(f"{item.name}: disparities need the camera's focal length and baseline; give them, or depth.")
    return item.fx_baseline / (inverse * (truth_width / values.shape[1]))


def score_depth_folder(
    predictions: str | Path,
    items: Iterable[DepthItem | tuple[str, Callable[[], np.ndarray]]],
    protocol: DepthProtocol,
    *,
    kind: Kind = "depth",
    truth_kind: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> DepthScores:
    """Scores a folder of predictions.

    Args:
        predictions: The folder.
        items: What to score; plain (name, load_truth) pairs will do.
        protocol: How to score.
        kind: What the files hold: depth (metres or up to scale), inverse depth, or disparity in pixels.
        truth_kind: What the truth is, where it is not what the protocol is defined on.
        progress: Called with (done, total) images.

    Raises:
        ValueError: If a prediction is missing, unreadable, of a wrong shape or not positive and finite where it is
            scored (each message names the file); or if there is nothing to score.
    """
    predictions = Path(predictions)
    if not predictions.is_dir():
        raise ValueError(f"there is no folder of predictions {predictions}; make it with geossl predict depth.")
    listed = [DepthItem(*item) for item in items]
    if not listed:
        raise ValueError("there are no images to score; check the data specification and its split.")
    scores: list[tuple[str, ImageScore | None]] = []
    for path, item in zip(_find_all(predictions, listed), listed, strict=True):
        scores.append((item.name, _score_file(path, item, protocol, kind)))
        if progress is not None:
            progress(len(scores), len(listed))
    meta = read_meta(predictions)
    details = {
        "predictions": kind,
        "metric": {None: "unknown", True: "up_to_scale", False: "metres"}[meta.up_to_scale],
        "flip_postprocessing": "unknown" if meta.flip is None else meta.flip,
    }
    warnings = _warnings(meta, protocol, kind)
    return collect_scores(scores, protocol, truth_kind=truth_kind, details=details, warnings=warnings)


def _score_file(path: Path, item: DepthItem, protocol: DepthProtocol, kind: Kind) -> ImageScore | None:
    truth = np.asarray(item.load_truth())
    depth = to_depth(read_prediction(path, kind), kind, item, truth.shape[-1])
    objects = None if item.load_objects is None else item.load_objects()
    score = score_image(depth, truth, protocol, str(path), fx_baseline=item.fx_baseline, objects=objects)
    return None if score is None else replace(score, name=item.name)


def score_trajectory_file(
    estimate: str | Path, truth: str | Path | np.ndarray, *, alignment: Alignment = "none", up_to_scale: bool = False
) -> dict[str, Any]:
    """Scores a KITTI trajectory file (12 columns, or 13 with the frame number first) against a file or an array.

    Returns:
        The row of `score_trajectory`.

    Raises:
        ValueError: If a file cannot be read, or they do not fit each other.
    """
    true_poses = truth if isinstance(truth, np.ndarray) else read_kitti_trajectory(truth)
    frames, poses = read_indexed_kitti_trajectory(estimate)
    indexed: np.ndarray | None = frames
    if len(frames) == len(true_poses) or frames[-1] == len(frames) - 1:
        indexed = None  # one pose a frame: a different number of poses is an error, not a gap
    try:
        row = score_trajectory(poses, true_poses, indexed, alignment=alignment, up_to_scale=up_to_scale)
    except ValueError as error:
        raise ValueError(f"{estimate}: {error}") from None
    return {**row, "sequence": Path(estimate).name}


def _find_all(predictions: Path, items: Sequence[DepthItem]) -> list[Path]:
    found = [(item, find_prediction(predictions, item.name)) for item in items]
    missing = [item.name for item, path in found if path is None]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(items)} predictions are missing in {predictions}; the first is {missing[0]} "
            "(looked for <name>.npy there and in npy/, <name>.png there and in png16/). "
            "Predict them with geossl predict depth, or score a smaller set."
        )
    return [path for _, path in found if path is not None]


def _warnings(meta: PredictionMeta, protocol: DepthProtocol, kind: Kind) -> list[str]:
    warnings = []
    if meta.up_to_scale and protocol.scaling == "none":
        warnings.append("the model predicts depth up to scale, but nothing scales it: use scaling median")
    if meta.up_to_scale is None and protocol.scaling == "none" and kind != "disparity_px":
        warnings.append("no meta.json says whether these predictions are metres; they are taken as metres")
    return warnings
