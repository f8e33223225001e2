"""Scene flow of successive images: depth and 3-D motion of every pixel of the first.

It is written at the source's resolution, whatever the networks see. <name> is the first image's name, as the
benchmarks name their files.

    OUT/disp_0/<name>.png    KITTI's disparity of the first image, 16 bits, px * 256
    OUT/disp_1/<name>.png    disparity at the second time at the first image's pixels
    OUT/flow/<name>.png      KITTI's flow to the second image, du and dv * 64 + 2^15
    OUT/npy/<name>.npy       float32 (H, W, 3): where each point is at the second time minus where it was
    OUT/depth/<name>.npy     float32 (H, W) z-depth of the first image
    OUT/ply/<name>.ply       points in the image's colours, their motion as properties motion_x, motion_y, motion_z

A point that comes to lie behind the camera has no disparity at the second time and no flow: both are unknown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.config import parse_source
from geossl.data.build import build_targets
from geossl.data.samples import DataError, Wanted
from geossl.engine.model_folder import LoadedModel, load_model
from geossl.formats.kitti_png import write_disparity_png, write_flow_png
from geossl.formats.npy import write_npy
from geossl.formats.ply import write_ply
from geossl.formats.rrd import import_rerun, write_rrd
from geossl.formats.safe_paths import inside
from geossl.geometry.camera import backproject
from geossl.geometry.conversion import scene_flow_to_flow
from geossl.inputs import InputImage, is_specification
from geossl.predict.common import PredictionSummary, Progress, check_kinds, local_device
from geossl.predict.flow import ABSOLUTE, RELATIVE, windows_of
from geossl.predict.pairs import Pair, open_pairs, predict_pairs, require_cameras
from geossl.predict.scene_flow_inference import (
    Group,
    camera_of,
    infer_from_parts,
    infer_scene_flow,
    motion_offsets,
)
from geossl.prediction_folder import begin, common_meta, my_share, parts_meta
from geossl.types import MissingInput, PredictsDepth, PredictsFlow, PredictsSceneFlow
from geossl.visualize_points import color_by_motion

SCENE_FLOW_OUTPUTS = {
    "disp_0": ".png",
    "disp_1": ".png",
    "flow": ".png",
    "npy": ".npy",
    "depth": ".npy",
    "ply": ".ply",
    "rrd": ".rrd",
}
DISPARITIES = frozenset({"disp_0", "disp_1"})
FULL_COLOUR = 2.0  # length of the recordings' strongest colour, in the unit of depth: 72 km/h at 10 Hz


@dataclass(frozen=True)
class SceneFlowRequest:
    """What is asked for, whichever model answers.

    Attributes:
        save: Kinds of files, of `SCENE_FLOW_OUTPUTS`.
        baseline_m: Distance of the stereo cameras that disparities are written for; None takes the source's own.
        intrinsics: fx, fy, cx, cy in pixels of the source, for sources that do not say.
        device: auto, cpu, cuda or mps.
        batch_size: Pairs at a time.
        overwrite: Compute files again that exist, and allow another model's files to be replaced.
        command: The command line, for meta.json.
        progress: Called with (done, total) pairs.
    """

    save: Sequence[str] = ("disp_0", "disp_1", "flow")
    baseline_m: float | None = None
    intrinsics: Sequence[float] | None = None
    device: str = "auto"
    batch_size: int = 4
    overwrite: bool = False
    command: str = ""
    progress: Progress | None = None


def predict_scene_flow(
    model: str | Path,
    source: str | Sequence[InputImage],
    out: str | Path,
    request: SceneFlowRequest = SceneFlowRequest(),
    *,
    flip: bool = False,
) -> PredictionSummary:
    """Writes the scene flow between the successive images of every clip of a source.

    Args:
        model: Model folder, run folder or checkpoint.
        source: Folder, glob, video, or data specification `kind:root[,key=value]`, of which every target is paired
            with the image after it; or what `open_source` gave.
        out: Folder of the predictions.
        request: What to write, and how.
        flip: Average with the prediction of the mirrored images; meta.json says so.

    Raises:
        ValueError: If an output kind is unknown, there is no pair, the camera (or for disparities the baseline) is not
            known, disparities are asked of a model without metres, a prediction is not finite (nothing of its batch is
            written), or OUT holds another prediction.
        MissingInput: If the model does not predict scene flow.
    """
    loaded = load_model(model, local_device(request.device))
    if not isinstance(loaded.method, PredictsSceneFlow):
        raise MissingInput(
            f"{loaded.config.method} predicts no scene flow; give a model that does, or --depth MODEL --flow MODEL."
        )
    meta = {**common_meta("scene_flow", loaded, request.command), "flip_postprocessing": flip}
    return _predict(partial(infer_scene_flow, loaded, flip=flip), meta, {0, 1}, source, Path(out), request)


def predict_scene_flow_from_parts(
    depth_model: str | Path,
    flow_model: str | Path,
    source: str | Sequence[InputImage],
    out: str | Path,
    request: SceneFlowRequest = SceneFlowRequest(),
) -> PredictionSummary:
    """Writes the scene flow that depth of both images and the flow between them amount to: the same files.

    Points that the second image does not show, by the forward-backward check of the flow, stand still where the depth
    model also predicts the camera's motion, else they keep their depth along the flow; meta.json says which.

    Raises:
        ValueError: As `predict_scene_flow`.
        MissingInput: If a model does not predict its part.
    """
    device = local_device(request.device)
    depth, flow = load_model(depth_model, device), load_model(flow_model, device)
    if not isinstance(depth.method, PredictsDepth):
        raise MissingInput(f"{depth.config.method} predicts no depth; give --depth a model that does.")
    if not isinstance(flow.method, PredictsFlow) or 1 not in flow.method.flow_offsets:
        raise MissingInput(f"{flow.config.method} predicts no flow to the next image; give --flow a model that does.")
    steps = {step for window, _ in windows_of(flow.method.flow_offsets) for step in window}
    offsets = motion_offsets(depth)
    meta = _parts_meta(depth, flow, bool(offsets), request.command)
    infer = partial(infer_from_parts, depth, flow, relative=RELATIVE, absolute=ABSOLUTE)
    return _predict(infer, meta, {0, 1, *steps, *offsets}, source, Path(out), request)


def _predict(
    infer: Callable[[Group], list[tuple[Tensor, Tensor]]],
    meta: dict[str, Any],
    steps: set[int],
    source: str | Sequence[InputImage],
    out: Path,
    request: SceneFlowRequest,
) -> PredictionSummary:
    start = time.perf_counter()
    check_kinds(request.save, SCENE_FLOW_OUTPUTS)
    if "rrd" in request.save:
        import_rerun()  # so that it is missed before anything is computed
    pairs = open_pairs(source, steps, intrinsics=request.intrinsics)
    require_cameras(pairs, "scene flow")
    baselines = _baselines(pairs, source, request, meta["units"])
    mine = my_share(pairs)

    def outputs(pair: Pair) -> dict[str, Path]:
        return {kind: inside(out / kind, pair.first.name + SCENE_FLOW_OUTPUTS[kind]) for kind in request.save}

    written = [path for pair in mine for path in outputs(pair).values()]
    begin(out, _meta(meta, pairs, steps, baselines, request), written, request.overwrite)
    todo = [pair for pair in mine if not all(path.is_file() for path in outputs(pair).values())]

    def write(pair: Pair, image: NDArray[np.uint8], depth: Tensor, scene_flow: Tensor) -> None:
        paths = {kind: path for kind, path in outputs(pair).items() if not path.is_file()}
        _write(paths, image, depth, scene_flow, camera_of(pair).float(), baselines.get(pair.first.name, np.nan))

    def predict(group: Group) -> list[Callable[[], None]]:
        estimates = infer(group)
        for (pair, _), estimate in zip(group, estimates, strict=True):
            _check_finite(pair, *estimate)
        return [partial(write, pair, images[0], *of) for (pair, images), of in zip(group, estimates, strict=True)]

    size = request.batch_size
    predict_pairs(todo, sorted(steps), predict, size, len(mine), request.progress)
    return PredictionSummary(len(todo), len(mine) - len(todo), time.perf_counter() - start, out)


def _baselines(
    pairs: Sequence[Pair], source: str | Sequence[InputImage], request: SceneFlowRequest, units: str
) -> dict[str, float]:
    """Baseline in metres by name of the pair; none where no disparities are asked for."""
    if not DISPARITIES & set(request.save):
        return {}
    if units != "metres":
        raise ValueError(
            "the model's depth is up to scale, which gives no disparities; save flow,npy,depth,ply, or take a model "
            "that was trained with stereo."
        )
    if request.baseline_m is not None:
        return {pair.first.name: request.baseline_m for pair in pairs}
    known = stereo_baselines(source) if is_specification(source) else {}
    lacking = [pair.first.name for pair in pairs if pair.first.name not in known]
    if lacking:
        raise ValueError(
            f"disparities need the distance of two cameras, and {len(lacking)} of {len(pairs)} images have no other "
            f"camera; the first is {lacking[0]}. Give --baseline-m (metres), or save flow,npy,depth,ply."
        )
    return known


def stereo_baselines(spec: str) -> dict[str, float]:
    """Distance to the other camera along the image rows, metres, by name of a data specification's targets.

    Only of those whose other image, or whose disparity truth, is there.
    """
    source = parse_source(spec)
    truths = {sample.name: sample.truth for sample in build_targets(source)}
    found = {name: t.baseline_m for name, t in truths.items() if t is not None and t.baseline_m is not None}
    try:
        stereo = build_targets(source, Wanted(stereo=True))
    except DataError:  # there is no other camera
        return found
    return found | {s.name: abs(float(s.T_stereo_target[0, 3])) for s in stereo if s.T_stereo_target is not None}


def _check_finite(pair: Pair, depth: Tensor, scene_flow: Tensor) -> None:
    wrong = int((~(torch.isfinite(depth) & (depth > 0) & torch.isfinite(scene_flow).all(1, keepdim=True))).sum())
    if wrong:
        raise ValueError(
            f"the depth or scene flow of {pair.text} is not finite at {wrong} of {depth.numel()} pixels; nothing of "
            "it was written. The training has diverged: take an earlier checkpoint, or train with a lower rate."
        )


def _write(
    paths: Mapping[str, Path],
    image: NDArray[np.uint8],
    depth: Tensor,
    scene_flow: Tensor,
    K: Tensor,
    baseline_m: float,
) -> None:
    """Writes the files, by kind, of (1, 1, H, W) depth and (1, 3, H, W) scene flow."""
    fx_baseline = float(K[0, 0, 0]) * baseline_m
    projected = cache(partial(scene_flow_to_flow, depth, scene_flow, K))  # once, and only if a kind needs it
    for kind, path in paths.items():
        if kind == "disp_0":
            write_disparity_png(path, fx_baseline / depth[0, 0].numpy())
        elif kind == "disp_1":
            z, (_, in_front) = (depth + scene_flow[:, 2:])[0, 0].numpy(), projected()
            write_disparity_png(path, fx_baseline / np.where(in_front[0, 0].numpy(), z, np.inf))
        elif kind == "flow":
            flow, in_front = projected()
            write_flow_png(path, flow[0].permute(1, 2, 0).numpy(), in_front[0, 0].numpy())
        elif kind == "npy":
            write_npy(path, np.ascontiguousarray(scene_flow[0].permute(1, 2, 0).numpy()))
        elif kind == "depth":
            write_npy(path, depth[0, 0].numpy())
        elif kind == "ply":
            points, motion = (x[0].flatten(1).numpy() for x in (backproject(depth, K), scene_flow))
            names = ("motion_x", "motion_y", "motion_z")
            write_ply(path, points.T, image.reshape(-1, 3), dict(zip(names, motion, strict=True)))
        elif kind == "rrd":
            points, motion = (x[0].flatten(1).T.numpy() for x in (backproject(depth, K), scene_flow))
            write_rrd(path, points, motion, color_by_motion(motion, FULL_COLOUR))


# --- meta.json -------------------------------------------------------------------------------------------------------


def _parts_meta(depth: LoadedModel, flow: LoadedModel, moves: bool, command: str) -> dict[str, Any]:
    check = f"|f + b_w|^2 > {RELATIVE:g} (|f|^2 + |b_w|^2) + {ABSOLUTE:g} px^2 or out of view"
    rule = "stand still by the depth model's camera motion" if moves else "keep their depth along the flow"
    meta = parts_meta("scene_flow", depth, flow, command)
    return {**meta, "parts": ["depth", "flow"], "hidden": f"points not seen again ({check}) {rule}"}


def _meta(
    meta: Mapping[str, Any],
    pairs: Sequence[Pair],
    steps: set[int],
    baselines: Mapping[str, float],
    request: SceneFlowRequest,
) -> dict[str, Any]:
    return {
        **meta,
        "baseline_m": request.baseline_m,
        "scene_flow": "npy (H, W, 3), in the unit of depth: where each point is at the second time, in the camera's "
        "coordinates then, minus where it was; x right, y down, z forward",
        "disparity": "disp_0, disp_1: px * 256 within 1/256 and 255.996 px, fx * baseline_m / z, 0 = unknown; disp_1 "
        "is the second time's at the first image's pixels",
        "flow": "KITTI's, within -512 and 511.98 px; unknown where the point comes to lie behind the camera",
        "files": {
            pair.first.name: {
                "source": [pair.first.origin, pair.second.origin],
                "K": np.asarray(pair.first.K).tolist(),
                "baseline_m": baselines.get(pair.first.name),
                "replicated": [step for step in sorted(steps) if step not in pair.images],
            }
            for pair in pairs
        },
    }
