"""`geossl evaluate flow`: scores a model's flow, files of any method, or an untrained baseline on the same frames."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geossl.commands.evaluate import Progress, Result, folder_for
from geossl.commands.trained_on import leaks_of
from geossl.config import AnySource, parse_source
from geossl.data.build import build_targets
from geossl.data.samples import DataError, Sample, Wanted
from geossl.evaluation.flow import FlowScores
from geossl.evaluation.flow_baselines import BASELINES, baseline_flow
from geossl.evaluation.flow_files import FlowItem, score_flow_folder, score_flow_items
from geossl.evaluation.flow_protocols import FlowProtocol, get_flow_protocol
from geossl.evaluation.flow_truth import load_flow_truth
from geossl.formats.image import decode_grey


def evaluate_flow(
    data: str,
    protocol: str,
    *,
    model: Path | None = None,
    predictions: str | None = None,
    fill_missing: bool = False,
    device: str = "auto",
    command: str = "",
    progress: Progress | None = None,
) -> Result:
    """Scores optical flow against a data set's ground truth.

    With a model, the row's `leaks` says how many of the images it was trained on, and a warning which.

    Args:
        data: Data specification of the images.
        protocol: A name of `geossl.evaluation.flow_protocols.PROTOCOLS`.
        model: Predict with this model first: into `predictions` where given, else into a folder that is then removed.
        predictions: Folder of .flo, .npy or KITTI's 16-bit .png files named as the first images are; or a baseline to
            compute on the same frames: zero, farneback or dis (a folder of such a name is given as ./dis).
        fill_missing: Fill missing estimates from the background as KITTI's devkits do; else they are an error.

    Raises:
        ValueError: If a name is unknown, there is no flow truth, predictions are missing or lack estimates.
    """
    chosen = get_flow_protocol(protocol)
    source = parse_source(data)
    items = flow_items(source)
    if predictions in BASELINES and model is None:
        scores = score_baseline(predictions, source, items, chosen, progress=progress)
    else:
        with folder_for(None if predictions is None else Path(predictions), model) as folder:
            if model is not None:
                from geossl.predict import predict_flow

                predict_flow(model, data, folder, save=("flo",), device=device, command=command, progress=progress)
            scores = score_flow_folder(folder, items, chosen, missing="background" if fill_missing else "error")
    row, full = scores.row(), scores.to_json()
    full |= {"data": data, "command": command, "model": None if model is None else str(model)}
    if model is not None:
        row["predictions"] = full["row"]["predictions"] = "predicted by the model"
        note = leaks_of(model, source, {item.name for item in items})
        row = note.annotated(row)
        full |= {"row": note.annotated(full["row"]), "leaks": note.to_json()}
    return Result([row], full)


def flow_items(source: AnySource) -> list[FlowItem]:
    """The images of a source whose flow to the next image is known.

    Raises:
        DataError: If there are none.
    """
    samples = build_targets(source)
    items = [
        FlowItem(sample.name, partial(load_flow_truth, sample.flow_truth))
        for sample in samples
        if sample.flow_truth is not None
    ]
    if not items:
        raise DataError(
            f"{source.kind} source {source.root}: none of its {len(samples)} images has ground truth of optical flow."
        )
    return items


def score_baseline(
    name: str, source: AnySource, items: list[FlowItem], protocol: FlowProtocol, *, progress: Progress | None = None
) -> FlowScores:
    """Scores one of `BASELINES` on the source's labelled pairs.

    Raises:
        DataError: If a labelled image's next one is not there.
    """
    pairs = build_targets(source, Wanted(offsets=(1,)))
    by_name = {sample.name: sample for sample in pairs}
    alone = [item.name for item in items if item.name not in by_name]
    if alone:
        raise DataError(
            f"{len(alone)} of {len(items)} labelled images have no next image to compute {name} with; the first is "
            f"{alone[0]}. Unpack the second images."
        )

    def load(item: FlowItem) -> np.ndarray:
        return baseline_flow(name, *_grey_pair(by_name[item.name]))

    details: dict[str, Any] = {"predictions": f"{name}, computed on the same frames"}
    return score_flow_items(items, load, protocol, details=details, progress=progress)


def _grey_pair(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    refs = [view.image.file for view in (sample.target, sample.sources[0])]
    first, second = (decode_grey(ref.read(), str(ref)) for ref in refs)
    if first.shape != second.shape:
        raise DataError(f"{refs[0]} is {first.shape}, {refs[1]} {second.shape}; flow needs images of equal size.")
    return first, second
