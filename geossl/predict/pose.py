"""The camera's trajectory of every clip of a source: OUT/<clip>.kitti.txt, OUT/<clip>.tum.txt."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.engine.model_folder import LoadedModel, load_model
from geossl.formats.safe_paths import inside
from geossl.formats.trajectory import write_kitti_trajectory, write_tum_trajectory
from geossl.inputs import InputImage, gaps_of, grouped, open_source, read_ahead, warn_of_gaps
from geossl.predict.common import (
    PredictionSummary,
    Progress,
    check_kinds,
    local_device,
    model_size,
    report,
    to_model_size,
)
from geossl.prediction_folder import begin, common_meta, my_share
from geossl.types import MissingInput, PredictsMotion

POSE_OUTPUTS = {"kitti": ".kitti.txt", "tum": ".tum.txt"}


def predict_pose(
    model: str | Path,
    source: str | Sequence[InputImage],
    out: str | Path,
    *,
    save: Sequence[str] = ("kitti", "tum"),
    rate_hz: float | None = None,
    intrinsics: Sequence[float] | None = None,
    device: str = "auto",
    batch_size: int = 8,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> PredictionSummary:
    """Writes the camera's trajectory of every clip of a source.

    A clip is a recording of one camera: a folder of images, a video, a drive's camera. Its poses are T_world_camera
    with the first frame as the world, chained from the motions between neighbouring frames:
    `T_world_next = T_world_this @ inv(T_next_this)`, where `T_next_this = predict_motion(this, next)`.

    Where a clip's frames are listed and their numbers jump (a split's list, missing files), its trajectory is still
    one file, so that it can be scored as the clip's: neighbours in the list are chained, whatever lies between them.
    The files then carry the frames' numbers, meta.json lists the `gaps`, and one warning names them, because a network
    that has learnt one step underestimates a longer one. Folders and videos are counted as they come, without gaps.

    Args:
        save: Kinds of files, of `POSE_OUTPUTS`.
        rate_hz: Frames a second, for TUM's times; without it a frame's number is its time.

    The other arguments and errors are those of `predict_depth`. A clip needs two frames.
    """
    start = time.perf_counter()
    out = Path(out)
    check_kinds(save, POSE_OUTPUTS)
    images = open_source(source, intrinsics) if isinstance(source, str) else list(source)
    clips = clips_of(images)
    short = [name for name, frames in clips.items() if len(frames) < 2]
    if short:
        raise ValueError(f"clip {short[0]} has one frame only; a trajectory needs two or more.")
    loaded = load_model(model, local_device(device))
    if not isinstance(loaded.method, PredictsMotion) or not loaded.method.pose_offsets:
        raise MissingInput(
            f"{loaded.config.method} predicts no camera motion (no pose network); give a model that does."
        )
    mine = my_share(list(clips))

    def outputs(clip: str) -> dict[str, Path]:
        return {kind: inside(out, clip + POSE_OUTPUTS[kind]) for kind in save}

    meta = {
        **common_meta("pose", loaded, command),
        "poses": "T_world_camera (x right, y down, z forward), the first frame is the identity",
        "times": "frame number" if rate_hz is None else f"frame number / {rate_hz:g} s",
        "files": {
            clip: {"source": frames[0].origin, "frames": len(frames), "gaps": gaps_of(frames)}
            for clip, frames in clips.items()
        },
    }
    begin(out, meta, [path for clip in mine for path in outputs(clip).values()], overwrite)
    todo = [clip for clip in mine if not all(path.is_file() for path in outputs(clip).values())]
    warn_of_gaps({clip: gaps for clip in todo if (gaps := gaps_of(clips[clip]))})
    total, done = sum(len(clips[clip]) - 1 for clip in todo), 0
    report(progress, done, total)
    for clip in todo:
        motions: list[NDArray[np.float64]] = []
        for chunk in _motions(loaded, clips[clip], batch_size):
            motions.extend(chunk)
            report(progress, done + len(motions), total)
        done += len(motions)
        poses, frames = chain_motions(motions), np.array([image.frame for image in clips[clip]])
        whole = np.array_equal(frames, np.arange(len(frames)))  # else the frame's number is the first column
        for kind, path in outputs(clip).items():
            if kind == "kitti":
                write_kitti_trajectory(path, poses, None if whole else frames)
            else:
                write_tum_trajectory(path, frames / (rate_hz or 1.0), poses)
    return PredictionSummary(len(todo), len(mine) - len(todo), time.perf_counter() - start, out)


@torch.no_grad()
def _motions(
    loaded: LoadedModel, frames: Sequence[InputImage], batch_size: int
) -> Iterator[list[NDArray[np.float64]]]:
    """T_next_this of neighbouring frames, a batch at a time; every frame is decoded once."""
    method: Any = loaded.method
    size, device = model_size(loaded), next(method.parameters()).device
    offsets = tuple(method.pose_offsets)
    targets = pose_targets(len(frames), offsets)
    held: dict[int, Tensor] = {}  # frames that a window still needs
    with ThreadPoolExecutor(2) as readers:
        decoded = enumerate(read_ahead(readers, frames, 2 * batch_size))
        for pairs in grouped(enumerate(targets), batch_size):
            while len(held) == 0 or max(held) < max(t + max(0, *offsets) for _, t in pairs):
                index, (_, native) = next(decoded)
                held[index] = to_model_size(native, size).to(device)
            target = torch.cat([held[t] for _, t in pairs])
            sources = [torch.cat([held[t + o] for _, t in pairs]) for o in offsets]
            T = method.predict_motions(target, sources).double().cpu().numpy()  # (B, S, 4, 4) T_source_target
            if not np.isfinite(T).all():
                raise ValueError(
                    f"the motion near {frames[pairs[0][0]].origin} is not finite; the trajectory was not written. The "
                    "training has diverged: take an earlier checkpoint, or train with a lower rate."
                )
            yield [_neighbour_motion(T[k], offsets, i - t) for k, (i, t) in enumerate(pairs)]
            held = {i: x for i, x in held.items() if i >= pairs[-1][1] + min(0, *offsets)}


def pose_targets(frames: int, offsets: Sequence[int]) -> list[int]:
    """For each pair of neighbours (i, i + 1) the window's target that sees both: i where its window fits.

    Raises:
        ValueError: If the clip is shorter than a window, or no window spans neighbours.
    """
    low, high = min(0, *offsets), max(0, *offsets)
    reach = {0, *offsets}
    targets = []
    for i in range(frames - 1):
        fitting = [t for t in range(max(0, -low), frames - max(0, high)) if {i - t, i + 1 - t} <= reach]
        if not fitting:
            raise ValueError(
                f"a clip of {frames} frames cannot be covered by windows with pose offsets {list(offsets)}; "
                f"it needs {high - low + 1} frames or more, and offsets next to each other."
            )
        targets.append(min(fitting, key=lambda t: (abs(t - i), t)))
    return targets


def _neighbour_motion(T: NDArray[np.float64], offsets: Sequence[int], this: int) -> NDArray[np.float64]:
    """T_next_this from a window's (S, 4, 4) T_source_target; `this` is the earlier frame's offset from the target."""
    to = {0: np.eye(4), **dict(zip(offsets, T, strict=True))}
    return to[this + 1] @ np.linalg.inv(to[this])


def chain_motions(motions: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """N - 1 motions T_next_this -> (N, 4, 4) T_world_camera, the first the identity, in float64.

    Each motion's rotation is first replaced by the nearest rotation, so that float32 rounding does not build up.
    """
    poses = [np.eye(4)]
    for motion in motions:
        T = np.array(motion, dtype=np.float64)
        U, _, Vt = np.linalg.svd(T[:3, :3])
        R = U @ Vt
        inverse = np.eye(4)
        inverse[:3, :3], inverse[:3, 3] = R.T, -R.T @ T[:3, 3]
        poses.append(poses[-1] @ inverse)
    return np.stack(poses)


def clips_of(images: Sequence[InputImage]) -> dict[str, list[InputImage]]:
    """The images of each clip, in their order."""
    clips: dict[str, list[InputImage]] = {}
    for image in images:
        clips.setdefault(image.clip, []).append(image)
    return clips
