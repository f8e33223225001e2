"""Scores flow files: a folder of .flo, KITTI's 16-bit .png or .npy, geossl's own or another method's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from geossl.evaluation.flow import FlowScores, Missing, collect_flow_scores, score_flow_image
from geossl.evaluation.flow_protocols import FlowProtocol
from geossl.evaluation.flow_truth import FlowLabels
from geossl.formats.errors import FormatError
from geossl.formats.flo import read_flo
from geossl.formats.kitti_png import read_flow_png
from geossl.formats.npy import read_npy
from geossl.formats.safe_paths import inside

Progress = Callable[[int, int], None]
PLACES = (("flo", ".flo"), ("npy", ".npy"), ("png16", ".png"), ("", ".flo"), ("", ".npy"), ("", ".png"))


class FlowItem(NamedTuple):
    """One image to score.

    Attributes:
        name: `<name>` of its prediction's file.
        load_labels: Gives its truth.
    """

    name: str
    load_labels: Callable[[], FlowLabels]


def read_flow(path: str | Path) -> np.ndarray:
    """Reads a flow map by its suffix: .flo, KITTI's 16-bit .png, or .npy of (H, W, 2) or (2, H, W).

    Returns:
        (H, W, 2) float32 (du, dv) pixels, NaN where there is no estimate.

    Raises:
        FormatError: If it is no flow map (wrong magic or length, an 8-bit PNG, another shape).
        ValueError: If the suffix is unknown.
    """
    path = Path(path)
    if path.suffix == ".flo":
        return read_flo(path)
    if path.suffix == ".png":
        flow, valid = read_flow_png(path)
        return np.where(valid[..., None], flow, np.float32("nan"))
    if path.suffix != ".npy":
        raise ValueError(f"{path}: flow is read from .flo, 16-bit .png or .npy, not '{path.suffix}'.")
    values = read_npy(path)
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    if values.ndim == 3 and values.shape[2] != 2 and values.shape[0] == 2:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise FormatError(path, f"holds {values.shape} {values.dtype}; expected one flow map (H, W, 2).")
    return np.ascontiguousarray(values, np.float32)


def find_flow(predictions: str | Path, name: str) -> Path | None:
    """The file of a prediction, or None: in flo/, npy/ or png16/ of the folder, else in the folder itself."""
    root = Path(predictions)
    for folder, suffix in PLACES:
        path = inside(root / folder, name + suffix)
        if path.is_file():
            return path
    return None


def score_flow_folder(
    predictions: str | Path,
    items: Iterable[FlowItem],
    protocol: FlowProtocol,
    *,
    missing: Missing = "error",
    progress: Progress | None = None,
) -> FlowScores:
    """Scores a folder of predictions.

    Args:
        predictions: The folder. A file is found by the image's name or the end of it that is the image's alone, so
            that `000000_10.png` will do for `training/image_2/000000_10`.
        items: What to score.
        protocol: How to score.
        missing: See `score_flow_image`.
        progress: Called with (done, total) images.

    Raises:
        ValueError: If a prediction is missing, unreadable, of a wrong shape, or lacks estimates that are scored (each
            message names the file); or if there is nothing to score.
    """
    predictions, listed = Path(predictions), list(items)
    if not predictions.is_dir():
        raise ValueError(f"there is no folder of predictions {predictions}; make it with geossl predict flow.")
    paths = dict(zip([item.name for item in listed], _find_all(predictions, listed), strict=True))

    def load(item: FlowItem) -> np.ndarray:
        return read_flow(paths[item.name])

    return score_flow_items(
        listed,
        load,
        protocol,
        where=lambda item: str(paths[item.name]),
        missing=missing,
        details={"predictions": str(predictions)},
        progress=progress,
    )


def score_flow_items(
    items: Sequence[FlowItem],
    load: Callable[[FlowItem], np.ndarray],
    protocol: FlowProtocol,
    *,
    where: Callable[[FlowItem], str] = lambda item: item.name,
    missing: Missing = "error",
    details: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> FlowScores:
    """As `score_flow_folder`, from predictions that `load` gives (H, W, 2); `where` names them in messages."""
    if not items:
        raise ValueError("there are no images to score; check the data specification and its split.")
    scores = []
    for item in items:
        score = score_flow_image(load(item), item.load_labels(), where(item), missing=missing)
        scores.append((item.name, None if score is None else score.named(item.name)))
        if progress is not None:
            progress(len(scores), len(items))
    return collect_flow_scores(scores, protocol, details=details)


def unique_ends(names: Sequence[str]) -> Iterator[list[str]]:
    """For each path its ends that belong to no other, the longest (the path itself) first."""
    parts = [PurePosixPath(name).parts for name in names]
    count = Counter(own[i:] for own in parts for i in range(len(own)))
    for own in parts:
        yield ["/".join(own[i:]) for i in range(len(own)) if i == 0 or count[own[i:]] == 1]


def _find_all(predictions: Path, items: Sequence[FlowItem]) -> list[Path]:
    found: list[Path | None] = []
    for ends in unique_ends([item.name for item in items]):
        found.append(next((path for end in ends if (path := find_flow(predictions, end)) is not None), None))
    missing = [item.name for item, path in zip(items, found, strict=True) if path is None]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(items)} predictions are missing in {predictions}; the first is {missing[0]} "
            "(looked for <name>.flo, .npy and .png there and in flo/, npy/ and png16/, also by the end of the name). "
            "Predict them with geossl predict flow, or score a smaller set."
        )
    return [path for path in found if path is not None]
