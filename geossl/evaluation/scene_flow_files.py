"""Scores folders of scene flow in KITTI 2015's layout, geossl's own or another method's.

DIR/disp_0/<name>.png    disparity of the first image, 16 bits, px * 256 (or .npy in pixels)
DIR/disp_1/<name>.png    disparity at the second time, at the first image's pixels
DIR/flow/<name>.png      flow to the second image, KITTI's 16 bits (or .flo, or .npy)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from geossl.evaluation.flow_files import find_flow, read_flow, unique_ends
from geossl.evaluation.protocol_names import check_protocol_name
from geossl.evaluation.scene_flow import SceneFlowScores, score_scene_flow_image
from geossl.evaluation.scene_flow_truth import SceneFlowLabels, SceneFlowMaps
from geossl.evaluation.score_files import find_prediction, read_prediction

FOLDERS = ("disp_0", "disp_1", "flow")
PROTOCOLS: dict[str, Literal["kitti_png", "street"]] = {"kitti2015": "kitti_png", "synthetic": "street"}
"""Name of a protocol -> kind of truth that it is defined on; they score alike."""


class SceneFlowItem(NamedTuple):
    """One image to score.

    Attributes:
        name: `<name>` of its prediction's files.
        load_labels: Gives its truth.
    """

    name: str
    load_labels: Callable[[], SceneFlowLabels]


def check_protocol(name: str) -> None:
    """Raises ValueError if there is no protocol of that name; names the closest."""
    check_protocol_name(name, PROTOCOLS, " for scene flow")


def read_scene_flow(paths: Sequence[Path]) -> SceneFlowMaps:
    """Reads an image's three files, in the order of `FOLDERS`.

    Raises:
        FormatError: If one cannot be read; names it.
        ValueError: If their sizes differ; names the first.
    """
    first, second = (read_prediction(path, "disparity_px") for path in paths[:2])
    try:
        return SceneFlowMaps(first, second, read_flow(paths[2]))
    except ValueError as error:
        raise ValueError(f"{paths[0]} and the files of the same name beside it: {error}") from None


def find_scene_flow(predictions: Path, ends: Sequence[str]) -> list[Path | None]:
    """The three files of an image, in the order of `FOLDERS`, by the first of some names for which there is one."""

    def first(find: Callable[[str], Path | None]) -> Path | None:
        return next((path for end in ends if (path := find(end)) is not None), None)

    disparities = [first(partial(find_prediction, predictions / folder)) for folder in FOLDERS[:2]]
    return [*disparities, first(partial(find_flow, predictions / FOLDERS[2]))]


def score_scene_flow_folder(
    predictions: str | Path,
    items: Sequence[SceneFlowItem],
    protocol: str,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> SceneFlowScores:
    """Scores a folder of predictions.

    Args:
        predictions: The folder. Files are found by the image's name or the end of it that is the image's alone, so
            that `disp_0/000000_10.png` will do for `training/image_2/000000_10`.
        items: What to score.
        protocol: One of `PROTOCOLS`.
        progress: Called with (done, total) images.

    Raises:
        ValueError: If a prediction is missing, unreadable or of another size than its truth (each message names the
            file); or if there is nothing to score.
    """
    check_protocol(protocol)
    predictions = Path(predictions)
    if not predictions.is_dir():
        raise ValueError(f"there is no folder of predictions {predictions}; make it with geossl predict sceneflow.")
    if not items:
        raise ValueError("there are no images to score; check the data specification and its split.")
    scores, without = [], []
    for item, paths in zip(items, _find_all(predictions, items), strict=True):
        score = score_scene_flow_image(read_scene_flow(paths), item.load_labels(), str(paths[0]))
        if score is None:
            without.append(item.name)
        else:
            scores.append(score.named(item.name))
        if progress is not None:
            progress(len(scores) + len(without), len(items))
    if not scores:
        raise ValueError(f"none of {len(items)} images has a pixel with full scene flow truth.")
    details: dict[str, Any] = {"predictions": str(predictions)}
    return SceneFlowScores(protocol, tuple(scores), tuple(without), details)


def _find_all(predictions: Path, items: Sequence[SceneFlowItem]) -> list[list[Path]]:
    found = [find_scene_flow(predictions, ends) for ends in unique_ends([item.name for item in items])]
    for folder, paths in zip(FOLDERS, zip(*found, strict=True), strict=True):
        missing = [item.name for item, path in zip(items, paths, strict=True) if path is None]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(items)} predictions are missing in {predictions / folder}; the first is "
                f"{missing[0]} (also looked for by the end of its name). Predict them with geossl predict sceneflow "
                "--save disp_0,disp_1,flow, or score a smaller set."
            )
    return [[path for path in paths if path is not None] for paths in found]
