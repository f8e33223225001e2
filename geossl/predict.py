"""From images to files: depth maps and trajectories of a trained model.

Depth is written at the source's resolution: the network sees the image at its training size, and its inverse depth is
resized bilinearly (inverse depth is what varies linearly over a plane's picture). OUT/meta.json says what the files
mean: unit, intrinsics, model, command. Interrupted and started again, what is there is not computed again.

    OUT/meta.json
    OUT/npy/<name>.npy     float32 (H, W) z-depth        OUT/pfm/<name>.pfm     the same
    OUT/png16/<name>.png   uint16, z-depth * 256         OUT/ply/<name>.ply     coloured points
    OUT/color/<name>.png   for the eye only: the colours' range is each picture's own
    OUT/<clip>.kitti.txt, OUT/<clip>.tum.txt             trajectories
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.data.folder import GUESSED_FIELD_OF_VIEW_DEG, guessed_camera
from geossl.engine.distributed import pick_device
from geossl.engine.model_folder import LoadedModel, load_model
from geossl.formats.image import write_image
from geossl.formats.kitti_png import write_depth_png
from geossl.formats.npy import write_npy
from geossl.formats.pfm import write_pfm
from geossl.formats.ply import write_ply
from geossl.formats.safe_paths import inside
from geossl.formats.trajectory import write_kitti_trajectory, write_tum_trajectory
from geossl.geometry.camera import backproject
from geossl.geometry.transforms import flip_K, resize_image, resize_K, upsample
from geossl.inputs import InputImage, gaps_of, grouped, open_source, read_ahead, warn_of_gaps
from geossl.prediction_folder import begin, common_meta, my_share
from geossl.types import MissingInput, PredictsDepth, PredictsMotion
from geossl.visualize import colorize_depth

DEPTH_OUTPUTS = {"npy": ".npy", "png16": ".png", "color": ".png", "pfm": ".pfm", "ply": ".ply"}
POSE_OUTPUTS = {"kitti": ".kitti.txt", "tum": ".tum.txt"}


@dataclass(frozen=True)
class PredictionSummary:
    """What a prediction did: files written now, files that were there already, seconds, and where."""

    written: int
    kept: int
    seconds: float
    out: Path


Progress = Callable[[int, int], None]


# --- depth -----------------------------------------------------------------------------------------------------------


def predict_depth(
    model: str | Path,
    source: str | Sequence[InputImage],
    out: str | Path,
    *,
    save: Sequence[str] = ("npy",),
    flip: bool = False,
    intrinsics: Sequence[float] | None = None,
    device: str = "auto",
    batch_size: int = 4,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> PredictionSummary:
    """Writes the depth of every image of a source.

    Args:
        model: Model folder, run folder or checkpoint.
        source: Image, folder, glob, video, or data specification `kind:root[,key=value]`; or what `open_source` gave.
        out: Folder of the predictions.
        save: Kinds of files, of `DEPTH_OUTPUTS`.
        flip: Average with the prediction of the mirrored image (Godard et al. 2017, section 4.1); meta.json says so.
        intrinsics: fx, fy, cx, cy in pixels of the source, for sources that do not say.
        device: auto, cpu, cuda or mps.
        batch_size: Images at a time.
        overwrite: Compute files again that exist, and allow another model's files to be replaced.
        command: The command line, for meta.json.
        progress: Called with (done, total) images.

    Raises:
        ValueError: If an output kind is unknown, intrinsics are needed but missing, the source is empty, or OUT holds
            another model's predictions.
        MissingInput: If the model does not predict depth.
    """
    start = time.perf_counter()
    out = Path(out)
    check_kinds(save, DEPTH_OUTPUTS)
    images = open_source(source, intrinsics) if isinstance(source, str) else list(source)
    if "ply" in save and any(image.K is None for image in images):
        raise ValueError("point clouds need the camera; give --intrinsics fx,fy,cx,cy in pixels of the source.")
    loaded = load_model(model, local_device(device))
    if not isinstance(loaded.method, PredictsDepth):
        raise MissingInput(f"{loaded.config.method} predicts no depth; give a model that does.")
    mine = my_share(images)

    def outputs(image: InputImage) -> dict[str, Path]:
        return {kind: inside(out / kind, image.name + DEPTH_OUTPUTS[kind]) for kind in save}

    meta = _depth_meta(loaded, images, flip, command)
    begin(out, meta, [path for image in mine for path in outputs(image).values()], overwrite)
    todo = [image for image in mine if not all(path.is_file() for path in outputs(image).values())]

    def write(image: InputImage, native: NDArray[np.uint8], depth: NDArray[np.float32]) -> None:
        for kind, path in outputs(image).items():
            if not path.is_file():
                _write_depth(kind, path, depth, native, image.K)

    done = len(mine) - len(todo)
    _report(progress, done, len(mine))
    with ThreadPoolExecutor(2) as readers, ThreadPoolExecutor(2) as writers:
        pending: deque[Future[None]] = deque()
        for group in grouped(read_ahead(readers, todo, 2 * batch_size), batch_size):
            depths = _infer_depth(loaded, [native for _, native in group], [image.K for image, _ in group], flip)
            for (image, native), depth in zip(group, depths, strict=True):
                pending.append(writers.submit(write, image, native, depth))
            while len(pending) > 4 * batch_size:
                pending.popleft().result()
            done += len(group)
            _report(progress, done, len(mine))
        for future in pending:
            future.result()
    return PredictionSummary(len(todo), len(mine) - len(todo), time.perf_counter() - start, out)


@torch.no_grad()
def _infer_depth(
    loaded: LoadedModel, natives: Sequence[NDArray[np.uint8]], Ks: Sequence[NDArray[np.float64] | None], flip: bool
) -> list[NDArray[np.float32]]:
    """Depth of images of any sizes, each at its own size."""
    device = next(loaded.method.parameters()).device
    size = model_size(loaded)
    resized = torch.cat([to_model_size(native, size) for native in natives]).to(device)
    matrices = []
    for native, K in zip(natives, Ks, strict=True):
        height, width = native.shape[:2]
        full = torch.tensor(guessed_camera((width, height)).K if K is None else K, dtype=torch.float64)
        matrices.append(resize_K(full, (height, width), size).float())
    inverse = inverse_depth(loaded.method, resized, torch.stack(matrices).to(device), flip)  # (B, 1, h, w)
    return [
        (1.0 / upsample(inverse[i : i + 1], native.shape[:2])[0, 0]).cpu().numpy() for i, native in enumerate(natives)
    ]


def inverse_depth(method: Any, image: Tensor, K: Tensor, flip: bool = False) -> Tensor:
    """(B, 3, h, w) RGB in [0, 1] -> (B, 1, h, w) 1 / z; with `flip`, merged with the mirrored image's prediction.

    The merge takes the left 5 % from the mirrored prediction, the right 5 % from the plain one (each is blind at its
    other edge), their mean between, with linear passages of 5 %.
    Source: Godard et al., CVPR 2017, section 4.1. https://arxiv.org/abs/1609.03677
    """
    plain = 1.0 / method.predict_depth(image, K).float()
    if not flip:
        return plain
    width = image.shape[-1]
    mirrored = 1.0 / method.predict_depth(image.flip(-1), flip_K(K, width)).float().flip(-1)
    column = torch.linspace(0, 1, width, device=image.device)
    left = 1.0 - (20.0 * (column - 0.05)).clamp(0, 1)
    right = left.flip(0)
    return right * plain + left * mirrored + (1.0 - left - right) * 0.5 * (plain + mirrored)


def to_model_size(image: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, *size) float in [0, 1], resized with antialiasing as in training."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    return (resize_image(tensor.float(), size) / 255).clamp(0, 1)


def _write_depth(
    kind: str, path: Path, depth: NDArray[np.float32], image: NDArray[np.uint8], K: NDArray[np.float64] | None
) -> None:
    if kind == "npy":
        write_npy(path, depth)
    elif kind == "png16":
        write_depth_png(path, depth)
    elif kind == "pfm":
        write_pfm(path, depth)
    elif kind == "color":
        write_image(path, colorize_depth(depth))
    elif kind == "ply" and K is not None:
        matrix = torch.tensor(K, dtype=torch.float32)[None]
        points = backproject(torch.from_numpy(depth)[None, None], matrix)  # (1, 3, H, W)
        write_ply(path, points[0].flatten(1).T.numpy(), image.reshape(-1, 3))


def _depth_meta(loaded: LoadedModel, images: Sequence[InputImage], flip: bool, command: str) -> dict[str, Any]:
    guess = f"a horizontal field of view of {GUESSED_FIELD_OF_VIEW_DEG:g} degrees, where K is null"
    return {
        **common_meta("depth", loaded, command),
        "flip_postprocessing": flip,
        "depth": "z along the optical axis, at the source's resolution; png16 holds depth * 256, 0 = unknown",
        "guessed_camera": guess if any(image.K is None for image in images) else None,
        "files": {image.name: {"source": image.origin, "K": _listed(image.K)} for image in images},
    }


# --- pose ------------------------------------------------------------------------------------------------------------


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
    _report(progress, done, total)
    for clip in todo:
        motions: list[NDArray[np.float64]] = []
        for chunk in _motions(loaded, clips[clip], batch_size):
            motions.extend(chunk)
            _report(progress, done + len(motions), total)
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


# --- small things ----------------------------------------------------------------------------------------------------


def model_size(loaded: LoadedModel) -> tuple[int, int]:
    """(height, width) of the images the model was trained on."""
    return int(loaded.info["height"]), int(loaded.info["width"])


def local_device(name: str) -> torch.device:
    """The device of this process, by LOCAL_RANK under torchrun."""
    return pick_device(name, int(os.environ.get("LOCAL_RANK", 0)))


def check_kinds(save: Sequence[str], known: Mapping[str, str]) -> None:
    """Raises ValueError if a kind of output is not known."""
    unknown = [kind for kind in save if kind not in known]
    if unknown or not save:
        raise ValueError(f"cannot save {', '.join(unknown) or 'nothing'}; choose from {', '.join(known)}.")


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _listed(K: NDArray[np.float64] | None) -> list[list[float]] | None:
    return None if K is None else [[float(x) for x in row] for row in K]
