"""`geossl evaluate sceneflow`: scores a model's scene flow, or files of any method in KITTI 2015's layout."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from geossl.commands.evaluate import Progress, Result, folder_for
from geossl.commands.trained_on import leaks_of
from geossl.config import AnySource, parse_source
from geossl.data.build import build_targets
from geossl.data.samples import DataError
from geossl.evaluation.scene_flow_files import (
    FOLDERS,
    PROTOCOLS,
    SceneFlowItem,
    check_protocol,
    score_scene_flow_folder,
)
from geossl.evaluation.scene_flow_truth import load_scene_flow_truth
from geossl.formats.prediction_meta import read_meta


def evaluate_scene_flow(
    data: str,
    protocol: str,
    *,
    model: Path | None = None,
    predictions: Path | None = None,
    flip: bool = False,
    device: str = "auto",
    command: str = "",
    progress: Progress | None = None,
) -> Result:
    """Scores scene flow against a data set's ground truth.

    With a model, the row's `leaks` says how many of the images it was trained on, and a warning which.

    Args:
        data: Data specification of the images.
        protocol: A name of `geossl.evaluation.scene_flow_files.PROTOCOLS`.
        model: Predict with this model first: into `predictions` where given, else into a folder that is then removed.
        predictions: Folder of disp_0, disp_1 and flow, named as the first images are; of scene flow from parts too.
        flip: With a model: average with the mirrored images' prediction.

    Raises:
        ValueError: If a name is unknown, there is no scene flow truth of the protocol's kind, or predictions are
            missing.
    """
    check_protocol(protocol)
    source = parse_source(data)
    items = scene_flow_items(source, protocol)
    with folder_for(predictions, model) as folder:
        if model is not None:
            from geossl.predict import SceneFlowRequest, predict_scene_flow

            request = SceneFlowRequest(save=FOLDERS, device=device, command=command, progress=progress)
            predict_scene_flow(model, data, folder, request, flip=flip)
        scores = score_scene_flow_folder(folder, items, protocol)
        flipped = read_meta(folder).flip
    full = scores.to_json()
    row = full["row"] | {"flip_postprocessing": "unknown" if flipped is None else flipped}
    full |= {"data": data, "command": command, "model": None if model is None else str(model)}
    if model is not None:
        row["predictions"] = "predicted by the model"
        note = leaks_of(model, source, {item.name for item in items})
        row = note.annotated(row)
        full["leaks"] = note.to_json()
    return Result([row], full | {"row": row})


def scene_flow_items(source: AnySource, protocol: str) -> list[SceneFlowItem]:
    """The images of a source whose scene flow to the next image is known.

    Raises:
        DataError: If there are none, or their truth is not what the protocol is defined on.
    """
    samples = build_targets(source)
    truths = {sample.name: t for sample in samples if (t := sample.scene_flow_truth) is not None}
    where = f"{source.kind} source {source.root}"
    if not truths:
        raise DataError(
            f"{where}: none of its {len(samples)} images has ground truth of scene flow (of KITTI 2015 disp_occ_0, "
            "disp_occ_1 and flow_occ)."
        )
    kinds = {truth.kind for truth in truths.values()}
    if kinds != {PROTOCOLS[protocol]}:
        raise DataError(
            f"protocol '{protocol}' is defined on {PROTOCOLS[protocol]} truth, but {where} has "
            f"{' and '.join(sorted(kinds))}; use another of {', '.join(PROTOCOLS)}."
        )
    return [SceneFlowItem(name, partial(load_scene_flow_truth, truth)) for name, truth in truths.items()]
