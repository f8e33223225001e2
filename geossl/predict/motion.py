"""What moves by itself in successive images: optical flow against the rigid flow of depth and camera motion.

Depth and motion come from one model, flow from another; both flows are those of the source's resolution. <name> is the
first image's name.

    OUT/rigid/<name>.png       KITTI's flow: what the camera's motion alone induces, du and dv * 64 + 2^15
    OUT/residual/<name>.npy    float32 (H, W) px between the flow and the rigid flow; inf behind the camera
    OUT/moving/<name>.png      255 = moves by itself, 0 = does not, or nobody can tell
    OUT/static/<name>.png      255 = stands still, 0 = does not, or nobody can tell
    OUT/color/<name>.png       for the eye only: the image, what moves in red, what nobody can tell darkened

The rule is that of `geossl.geometry.rigidity`. Nobody can tell of pixels whose flow, forth and back, does not return.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geossl.engine.model_folder import LoadedModel, load_model
from geossl.formats.image import write_image
from geossl.formats.kitti_png import write_flow_png
from geossl.formats.npy import write_npy
from geossl.formats.safe_paths import inside
from geossl.geometry.conversion import rigid_flow
from geossl.geometry.rigidity import (
    LEAST_OF_LENGTH,
    LEAST_OF_MEDIAN,
    LEAST_OF_WIDTH,
    distance_from_rigid,
    moving_and_static,
)
from geossl.geometry.visibility import forward_backward_check
from geossl.inputs import InputImage
from geossl.predict.common import PredictionSummary, Progress, check_kinds, local_device, model_size
from geossl.predict.depth import infer_depth
from geossl.predict.flow import ABSOLUTE, RELATIVE, infer_flows, windows_of
from geossl.predict.pairs import Pair, Picture, open_pairs, predict_pairs, require_cameras
from geossl.predict.scene_flow_inference import Group, camera_of, motion_offsets, motions_to_next
from geossl.prediction_folder import begin, my_share, parts_meta
from geossl.types import MissingInput, PredictsDepth, PredictsFlow

MOTION_OUTPUTS = {"rigid": ".png", "residual": ".npy", "moving": ".png", "static": ".png", "color": ".png"}
RED = np.array([230, 30, 30], np.float32)


def predict_motion(
    model: str | Path,
    flow: str | Path,
    source: str | Sequence[InputImage],
    out: str | Path,
    *,
    save: Sequence[str] = ("residual", "moving", "static", "color"),
    intrinsics: Sequence[float] | None = None,
    device: str = "auto",
    batch_size: int = 4,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> PredictionSummary:
    """Writes what moves by itself between the successive images of every clip of a source.

    Args:
        model: Model folder, run folder or checkpoint of depth and camera motion.
        flow: The same of optical flow.
        source: Folder, glob, video, or data specification `kind:root[,key=value]`, of which every target is paired
            with the image after it; or what `open_source` gave.
        out: Folder of the predictions.
        save: Kinds of files, of `MOTION_OUTPUTS`.

    The other arguments are those of `predict_depth`.

    Raises:
        ValueError: If an output kind is unknown, there is no pair, the camera is not known, a prediction is not finite
            (nothing of its batch is written), or OUT holds another prediction.
        MissingInput: If a model does not predict its part.
    """
    start = time.perf_counter()
    out = Path(out)
    check_kinds(save, MOTION_OUTPUTS)
    depth_model, flow_model = _models(model, flow, device)
    windows = windows_of(flow_model.method.flow_offsets)  # type: ignore[arg-type]
    steps = sorted({0, 1, *motion_offsets(depth_model), *(step for window, _ in windows for step in window)})
    pairs = open_pairs(source, steps, intrinsics=intrinsics)
    require_cameras(pairs, "rigid flow")
    mine = my_share(pairs)

    def outputs(pair: Pair) -> dict[str, Path]:
        return {kind: inside(out / kind, pair.first.name + MOTION_OUTPUTS[kind]) for kind in save}

    written = [path for pair in mine for path in outputs(pair).values()]
    begin(out, _meta(depth_model, flow_model, pairs, steps, command), written, overwrite)
    todo = [pair for pair in mine if not all(path.is_file() for path in outputs(pair).values())]

    def write(pair: Pair, image: Picture, maps: MotionMaps) -> None:
        for kind, path in outputs(pair).items():
            if not path.is_file():
                _write(kind, path, image, maps)

    def predict(group: Group) -> list[Callable[[], None]]:
        found = infer_motion(depth_model, flow_model, group)
        return [partial(write, pair, images[0], maps) for (pair, images), maps in zip(group, found, strict=True)]

    predict_pairs(todo, steps, predict, batch_size, len(mine), progress)
    return PredictionSummary(len(todo), len(mine) - len(todo), time.perf_counter() - start, out)


def _models(model: str | Path, flow: str | Path, device: str) -> tuple[LoadedModel, LoadedModel]:
    depth_model, flow_model = (load_model(path, local_device(device)) for path in (model, flow))
    if not isinstance(depth_model.method, PredictsDepth) or not motion_offsets(depth_model):
        raise MissingInput(
            f"{depth_model.config.method} does not predict both depth and the camera's motion to the next image; give "
            "a model that was trained on video."
        )
    if not isinstance(flow_model.method, PredictsFlow) or 1 not in flow_model.method.flow_offsets:
        raise MissingInput(
            f"{flow_model.config.method} predicts no flow to the next image; give --flow a model that does."
        )
    return depth_model, flow_model


@dataclass(frozen=True)
class MotionMaps:
    """Of a pair: rigid flow (H, W, 2) and residual (H, W) float32 px; in_front, moving and static (H, W) bool."""

    rigid: NDArray[np.float32]
    residual: NDArray[np.float32]
    in_front: NDArray[np.bool_]
    moving: NDArray[np.bool_]
    static: NDArray[np.bool_]


@torch.no_grad()
def infer_motion(depth_model: LoadedModel, flow_model: LoadedModel, group: Group) -> list[MotionMaps]:
    """The maps of each pair at its images' own size; each model sees images of its own training size.

    Raises:
        ValueError: If depth, motion or flow is not finite.
    """
    method: Any = flow_model.method
    flows = infer_flows(
        method, [images for _, images in group], windows_of(method.flow_offsets), model_size(flow_model)
    )
    depths = infer_depth(depth_model, [images[0] for _, images in group], [pair.first.K for pair, _ in group], False)
    motions = motions_to_next(depth_model, group)
    assert motions is not None
    found = []
    for i, (pair, _) in enumerate(group):
        forward, backward = (flow.cpu() for flow in flows[i])
        depth, T, K = torch.from_numpy(depths[i])[None, None], motions[i : i + 1], camera_of(pair).float()
        if not all(bool(x.isfinite().all()) for x in (forward, backward, depth, T)):
            raise ValueError(
                f"depth, motion or flow of {pair.text} is not finite; nothing of it was written. A training has "
                "diverged: take an earlier checkpoint, or train with a lower rate."
            )
        rigid, in_front = rigid_flow(depth, K, T)
        residual = distance_from_rigid(forward, rigid, in_front)
        maps = (
            residual,
            in_front,
            *moving_and_static(residual, forward, forward_backward_check(forward, backward, RELATIVE, ABSOLUTE)),
        )
        found.append(MotionMaps(rigid[0].permute(1, 2, 0).numpy(), *(x[0, 0].numpy() for x in maps)))
    return found


def _write(kind: str, path: Path, image: Picture, maps: MotionMaps) -> None:
    if kind == "rigid":
        write_flow_png(path, maps.rigid, maps.in_front)
    elif kind == "residual":
        write_npy(path, maps.residual)
    elif kind == "color":
        write_image(path, color_by_rigidity(image, maps.moving, maps.static))
    else:
        write_image(path, np.where({"moving": maps.moving, "static": maps.static}[kind], np.uint8(255), np.uint8(0)))


def color_by_rigidity(image: Picture, moving: NDArray[np.bool_], static: NDArray[np.bool_]) -> Picture:
    """(H, W, 3) the image as it is where it stands still, reddened where it moves, darkened where neither is known."""
    picture = image.astype(np.float32)
    shown = np.where(moving[..., None], 0.4 * picture + 0.6 * RED, 0.4 * picture)
    return np.where(static[..., None], picture, shown).round().astype(np.uint8)


def _meta(
    depth: LoadedModel, flow: LoadedModel, pairs: Sequence[Pair], steps: Sequence[int], command: str
) -> dict[str, Any]:
    check = f"|f + b_w|^2 <= {RELATIVE:g} (|f|^2 + |b_w|^2) + {ABSOLUTE:g} px^2 and the flow stays in the image"
    rule = f"max({LEAST_OF_WIDTH:.6f} of the width, {LEAST_OF_LENGTH:g} |f|, {LEAST_OF_MEDIAN:g} times the median)"
    return {
        **parts_meta("motion", depth, flow, command),
        "units": "pixels of the source",
        "parts": ["depth and motion", "flow"],
        "residual": "npy (H, W): length of flow f minus rigid flow, px; inf where the point comes behind the camera",
        "moving": f"255 where the residual is over {rule} and {check}",
        "static": "255 where it is not, and the same check holds",
        "rigid": "KITTI's flow, within -512 and 511.98 px; unknown where the point comes to lie behind the camera",
        "files": {
            pair.first.name: {
                "source": [pair.first.origin, pair.second.origin],
                "K": np.asarray(pair.first.K).tolist(),
                "replicated": [step for step in steps if step not in pair.images],
            }
            for pair in pairs
        },
    }
