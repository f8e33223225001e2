"""Depth maps of every image of a source.

Depth is written at the source's resolution: the network sees the image at its training size, and its inverse depth is
resized bilinearly (inverse depth is what varies linearly over a plane's picture).

    OUT/npy/<name>.npy     float32 (H, W) z-depth        OUT/pfm/<name>.pfm     the same
    OUT/png16/<name>.png   uint16, z-depth * 256         OUT/ply/<name>.ply     coloured points
    OUT/color/<name>.png   for the eye only: the colours' range is each picture's own
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.data.folder import GUESSED_FIELD_OF_VIEW_DEG, guessed_camera
from geossl.engine.model_folder import LoadedModel, load_model
from geossl.formats.image import write_image
from geossl.formats.kitti_png import write_depth_png
from geossl.formats.npy import write_npy
from geossl.formats.pfm import write_pfm
from geossl.formats.ply import write_ply
from geossl.formats.safe_paths import inside
from geossl.geometry.camera import backproject
from geossl.geometry.transforms import flip_K, resize_K, upsample
from geossl.inputs import InputImage, open_source, read_ahead
from geossl.predict.common import (
    PredictionSummary,
    Progress,
    check_kinds,
    local_device,
    model_size,
    predict_batches,
    to_model_size,
)
from geossl.predict.flip import merge_mirrored
from geossl.predict.runtime import DepthRuntime, depth_runtime
from geossl.prediction_folder import begin, common_meta, my_share
from geossl.visualize import colorize_depth

DEPTH_OUTPUTS = {"npy": ".npy", "png16": ".png", "color": ".png", "pfm": ".pfm", "ply": ".ply"}


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
    runtime: str = "torch",
    precision: str = "fp32",
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
        runtime: torch, or openvino (the extra of that name; on the CPU).
        precision: fp32 or bf16, of the network.
        overwrite: Compute files again that exist, and allow another model's files to be replaced.
        command: The command line, for meta.json.
        progress: Called with (done, total) images.

    Raises:
        ValueError: If an output kind is unknown, intrinsics are needed but missing, the source is empty, a depth is
            not positive and finite (nothing of its batch is written), or OUT holds predictions of another model,
            camera, flip, runtime or precision.
        MissingInput: If the model does not predict depth, or OpenVINO is asked for and not installed.
    """
    start = time.perf_counter()
    out = Path(out)
    check_kinds(save, DEPTH_OUTPUTS)
    images = open_source(source, intrinsics) if isinstance(source, str) else list(source)
    if "ply" in save and any(image.K is None for image in images):
        raise ValueError("point clouds need the camera; give --intrinsics fx,fy,cx,cy in pixels of the source.")
    loaded = load_model(model, local_device(device))
    predictor = depth_runtime(loaded, runtime, precision)
    mine = my_share(images)

    def outputs(image: InputImage) -> dict[str, Path]:
        return {kind: inside(out / kind, image.name + DEPTH_OUTPUTS[kind]) for kind in save}

    meta = {**_depth_meta(loaded, images, flip, command), "runtime": runtime, "precision": precision}
    begin(out, meta, [path for image in mine for path in outputs(image).values()], overwrite)
    todo = [image for image in mine if not all(path.is_file() for path in outputs(image).values())]

    def write(image: InputImage, native: NDArray[np.uint8], depth: NDArray[np.float32]) -> None:
        for kind, path in outputs(image).items():
            if not path.is_file():
                _write_depth(kind, path, depth, native, image.K)

    def predict(batch: Sequence[tuple[InputImage, NDArray[np.uint8]]]) -> list[Callable[[], None]]:
        depths = infer_depth(loaded, [native for _, native in batch], [image.K for image, _ in batch], flip, predictor)
        for (image, _), depth in zip(batch, depths, strict=True):
            _check_depth(image, depth)
        return [partial(write, image, native, depth) for (image, native), depth in zip(batch, depths, strict=True)]

    predict_batches(
        lambda readers: read_ahead(readers, todo, 2 * batch_size),
        predict,
        batch_size,
        (len(mine) - len(todo), len(mine)),
        progress,
    )
    return PredictionSummary(len(todo), len(mine) - len(todo), time.perf_counter() - start, out)


@torch.no_grad()
def infer_depth(
    loaded: LoadedModel,
    natives: Sequence[NDArray[np.uint8]],
    Ks: Sequence[NDArray[np.float64] | None],
    flip: bool,
    predictor: DepthRuntime | None = None,
) -> list[NDArray[np.float32]]:
    """Depth of images of any sizes, each at its own size; by `predictor` where given, else by the model's method."""
    device = next(loaded.method.parameters()).device
    size = model_size(loaded)
    resized = torch.cat([to_model_size(native, size) for native in natives]).to(device)
    matrices = []
    for native, K in zip(natives, Ks, strict=True):
        height, width = native.shape[:2]
        full = torch.tensor(guessed_camera((width, height)).K if K is None else K, dtype=torch.float64)
        matrices.append(resize_K(full, (height, width), size).float())
    inverse = inverse_depth(
        predictor or loaded.method, resized, torch.stack(matrices).to(device), flip
    )  # (B, 1, h, w)
    return [
        (1.0 / upsample(inverse[i : i + 1], native.shape[:2])[0, 0]).cpu().numpy() for i, native in enumerate(natives)
    ]


def inverse_depth(method: Any, image: Tensor, K: Tensor, flip: bool = False) -> Tensor:
    """(B, 3, h, w) RGB in [0, 1] -> (B, 1, h, w) 1 / z; with `flip`, merged with the mirrored image's prediction."""
    plain = 1.0 / method.predict_depth(image, K).float()
    if not flip:
        return plain
    return merge_mirrored(
        plain, 1.0 / method.predict_depth(image.flip(-1), flip_K(K, image.shape[-1])).float().flip(-1)
    )


def _check_depth(image: InputImage, depth: NDArray[np.float32]) -> None:
    wrong = int((~(np.isfinite(depth) & (depth > 0))).sum())
    if wrong:
        raise ValueError(
            f"the depth of {image.origin} is not positive and finite at {wrong} of {depth.size} pixels; nothing of "
            "it was written. The training has diverged: take an earlier checkpoint, or train with a lower rate."
        )


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


def _listed(K: NDArray[np.float64] | None) -> list[list[float]] | None:
    return None if K is None else [[float(x) for x in row] for row in K]
