"""Optical flow of successive images, forth and back, with what it says of itself.

Flow is written at the source's resolution: the network sees both images at its training size (or another that is
asked for), and its flow is resized bilinearly, u and v by their own ratios. Visibility and confidence are then worked
out at the source's resolution. <name> is the first image's name, as the benchmarks name their files.

    OUT/flo/<name>.flo            float32 (du, dv) px     OUT/npy/<name>.npy    float32 (H, W, 2) px
    OUT/png16/<name>.png          KITTI's, du and dv * 64 + 2^15, all valid
    OUT/visible/<name>.png        255 = the pixel is seen in the second image, 0 = it is not
    OUT/confidence/<name>.png     confidence * 255; 0 = the flow leaves the image
    OUT/color/<name>.png          for the eye only; OUT/color_legend.png says which colour is which motion
    OUT/video/<clip>.mp4          the colour pictures of a clip, one after the other
    OUT/backward/<kind>/<name>    the same of the flow from the second image to the first
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.data.images import Video
from geossl.engine.model_folder import LoadedModel, load_model
from geossl.formats.flo import write_flo
from geossl.formats.image import read_image, write_image
from geossl.formats.kitti_png import write_flow_png
from geossl.formats.npy import write_npy
from geossl.formats.safe_paths import inside
from geossl.formats.video import write_video
from geossl.geometry.precision import float32_island
from geossl.geometry.transforms import resize_flow
from geossl.geometry.visibility import forward_backward_check
from geossl.geometry.warping import warp_by_flow
from geossl.inputs import VIDEO_SUFFIXES, InputImage
from geossl.predict.common import (
    PredictionSummary,
    Progress,
    check_kinds,
    local_device,
    model_size,
    to_model_size,
)
from geossl.predict.pairs import Pair, Picture, open_pairs, predict_pairs
from geossl.prediction_folder import begin, common_meta, my_share
from geossl.types import MissingInput, PredictsFlow
from geossl.visualize import colorize_flow, flow_legend

FLOW_OUTPUTS = {
    "flo": ".flo",
    "png16": ".png",
    "npy": ".npy",
    "color": ".png",
    "visible": ".png",
    "confidence": ".png",
    "video": ".mp4",
}
MAX_PX = 64.0  # of the colours
RATE_HZ = 10.0  # KITTI's, of videos whose source does not say
RELATIVE, ABSOLUTE = 0.01, 0.5  # of the forward-backward check

Size = tuple[int, int] | Literal["model", "native"]
Window = tuple[tuple[int, ...], int]
"""Time steps, from a pair's first image, of a network's target and sources; and which of its flows is asked for."""


def predict_flow(
    model: str | Path,
    source: str | Sequence[InputImage],
    out: str | Path,
    *,
    second: str | Path | None = None,
    save: Sequence[str] = ("flo",),
    size: Size = "model",
    max_px: float = MAX_PX,
    rate_hz: float | None = None,
    device: str = "auto",
    batch_size: int = 4,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> PredictionSummary:
    """Writes the flow between the successive images of every clip of a source, in both directions.

    A model that sees more than two images is given the pair's neighbours; at a clip's ends the nearest image takes the
    place of one that is missing, and meta.json says of which pairs.

    Args:
        model: Model folder, run folder or checkpoint.
        source: Folder, glob, video, or data specification `kind:root[,key=value]`, of which every target is paired
            with the image after it; or what `open_source` gave; or one image, with `second`.
        out: Folder of the predictions.
        second: The second image of a source that is one image.
        save: Kinds of files, of `FLOW_OUTPUTS`; a video brings its colour pictures with it.
        size: What the network sees: `model`, the size it was trained on; `native`, the source's; or (height, width).
        max_px: Flow of the colours' full strength.
        rate_hz: Frames a second of the videos; default the source video's, else 10.
        device: auto, cpu, cuda or mps.
        batch_size: Pairs at a time.
        overwrite: Compute files again that exist, and allow another model's files to be replaced.
        command: The command line, for meta.json.
        progress: Called with (done, total) pairs.

    Raises:
        ValueError: If an output kind is unknown, there is no pair, the images of a pair differ in size, a flow is not
            finite (nothing of its batch is written), or OUT holds another prediction.
        MissingInput: If the model does not predict the flow to the next image.
    """
    start = time.perf_counter()
    out = Path(out)
    check_kinds(save, FLOW_OUTPUTS)
    if not 0 < max_px < np.inf:
        raise ValueError(f"max_px is {max_px}; expected a length above 0 in pixels.")
    video = "video" in save
    kinds = list(dict.fromkeys(["color" if kind == "video" else kind for kind in save]))
    loaded = load_model(model, local_device(device))
    method: Any = loaded.method
    if not isinstance(method, PredictsFlow) or 1 not in method.flow_offsets:
        raise MissingInput(
            f"{loaded.config.method} predicts no flow from an image to the next; give a model that does."
        )
    windows = windows_of(method.flow_offsets)
    steps = sorted({step for window, _ in windows for step in window})
    pairs = open_pairs(source, steps, second)
    mine = _share(pairs, whole_clips=video)
    clips: dict[str, list[Pair]] = {}
    for pair in mine:
        clips.setdefault(pair.first.clip, []).append(pair)

    def outputs(pair: Pair) -> list[tuple[str, str, Path]]:
        places = {"forward": out, "backward": out / "backward"}
        return [
            (direction, kind, inside(place / kind, pair.first.name + FLOW_OUTPUTS[kind]))
            for direction, place in places.items()
            for kind in kinds
        ]

    videos = {clip: inside(out / "video", clip + FLOW_OUTPUTS["video"]) for clip in clips} if video else {}
    written = [path for pair in mine for _, _, path in outputs(pair)]
    begin(out, _meta(loaded, pairs, steps, size, max_px, command), [*written, *videos.values()], overwrite)
    if "color" in kinds and int(os.environ.get("RANK", 0)) == 0:
        write_image(out / "color_legend.png", flow_legend(max_px))
    todo = [pair for pair in mine if not all(path.is_file() for _, _, path in outputs(pair))]

    def write(pair: Pair, maps: Mapping[str, FlowMaps]) -> None:
        for direction, kind, path in outputs(pair):
            if not path.is_file():
                _write(kind, path, maps[direction], max_px)

    def predict(group: Sequence[tuple[Pair, dict[int, Picture]]]) -> list[Callable[[], None]]:
        flows = infer_flows(method, [images for _, images in group], windows, _network_size(size, loaded))
        return [partial(write, pair, _maps(pair, *both)) for (pair, _), both in zip(group, flows, strict=True)]

    predict_pairs(todo, steps, predict, batch_size, len(mine), progress)
    renewed = {pair.first.clip for pair in todo}
    for clip, path in videos.items():
        if clip in renewed or not path.is_file():
            colors = (inside(out / "color", pair.first.name + FLOW_OUTPUTS["color"]) for pair in clips[clip])
            write_video(path, map(read_image, colors), rate_hz or _rate_of(source))
    return PredictionSummary(len(todo), len(mine) - len(todo), time.perf_counter() - start, out)


# --- inference -------------------------------------------------------------------------------------------------------


def windows_of(offsets: Sequence[int]) -> tuple[Window, Window]:
    """What a network must see for the flow from a pair's first image (step 0) to its second (step 1), and back.

    A network that also predicts the flow to the image before is asked for it, so the windows of neighbouring pairs are
    the same; of any other the backward flow is the forward flow of the clip played backwards.
    """
    forward = (0, *offsets), offsets.index(1)
    if -1 in offsets:
        return forward, ((1, *(1 + offset for offset in offsets)), offsets.index(-1))
    return forward, ((1, *(1 - offset for offset in offsets)), offsets.index(1))


@torch.no_grad()
def infer_flows(
    method: Any, pairs: Sequence[Mapping[int, Picture]], windows: Sequence[Window], size: tuple[int, int] | None
) -> list[tuple[Tensor, ...]]:
    """The flow of each window of each pair, at the images' own size.

    Args:
        method: A `PredictsFlow`.
        pairs: Images (H, W, 3) uint8 by time step; one that is the same array in two pairs is seen once.
        windows: As `windows_of` gives.
        size: (height, width) that the network sees; None for the images' own.

    Returns:
        For each pair, for each window: (1, 2, H, W) pixels of the images.
    """
    device = next(method.parameters()).device
    seen: dict[int, Tensor] = {}
    for images in pairs:
        for image in images.values():
            if id(image) not in seen:
                seen[id(image)] = to_model_size(image, size or image.shape[:2]).to(device)

    def key(images: Mapping[int, Picture], window: Window) -> tuple[int, ...]:
        return tuple(id(images[step]) for step in window[0])

    by_size: dict[torch.Size, list[tuple[int, ...]]] = {}
    for wanted in dict.fromkeys(key(images, window) for images in pairs for window in windows):
        by_size.setdefault(seen[wanted[0]].shape, []).append(wanted)
    flows: dict[tuple[int, ...], Tensor] = {}
    for group in by_size.values():
        target, *sources = [torch.cat([seen[i] for i in column]) for column in zip(*group, strict=True)]
        flows.update(zip(group, method.predict_flows(target, sources).float(), strict=True))  # (S, 2, h, w) each
    return [
        tuple(resize_flow(flows[key(images, window)][None, window[1]], images[0].shape[:2]) for window in windows)
        for images in pairs
    ]


@dataclass(frozen=True)
class FlowMaps:
    """One direction of a pair: flow (H, W, 2) float32 px, visible (H, W) bool, confidence (H, W) float32."""

    flow: NDArray[np.float32]
    visible: NDArray[np.bool_]
    confidence: NDArray[np.float32]


def _maps(pair: Pair, forward: Tensor, backward: Tensor) -> dict[str, FlowMaps]:
    for name, flow in (("forward", forward), ("backward", backward)):
        wrong = int((~torch.isfinite(flow)).any(1).sum())
        if wrong:
            raise ValueError(
                f"the {name} flow of {pair.text} is not finite at {wrong} of {flow[0, 0].numel()} pixels; nothing of "
                "it was written. The training has diverged: take an earlier checkpoint, or train with a lower rate."
            )
    found = {}
    for name, one, other in (("forward", forward, backward), ("backward", backward, forward)):
        visible = forward_backward_check(one, other, RELATIVE, ABSOLUTE)
        confidence = flow_confidence(one, other, RELATIVE, ABSOLUTE)
        found[name] = FlowMaps(
            one[0].permute(1, 2, 0).cpu().numpy(), visible[0, 0].cpu().numpy(), confidence[0, 0].cpu().numpy()
        )
    return found


@torch.no_grad()
@float32_island
def flow_confidence(flow: Tensor, backward_flow: Tensor, relative: float = 0.01, absolute: float = 0.5) -> Tensor:
    """How nearly the flow forth and back returns: t / (t + |f + b_w|^2), t = relative (|f|^2 + |b_w|^2) + absolute.

    Args:
        flow: (B, 2, H, W) first to second. backward_flow: (B, 2, H, W) second to first.

    Returns:
        (B, 1, H, W) in (0, 1], and 0 where the flow leaves the image. 1 is an exact return; 1/2 and more is what
        `forward_backward_check` with the same two numbers calls visible.

    Convention: f = (3, 0) and b_w = (-2, 0) give t = 0.01 (9 + 4) + 0.5 = 0.63 and 0.63 / 1.63 = 0.387.
    """
    warped, inside_image = warp_by_flow(backward_flow, flow)
    residual = (flow + warped).square().sum(1, keepdim=True)
    limit = relative * (flow.square() + warped.square()).sum(1, keepdim=True) + absolute
    return torch.where(inside_image, limit / (limit + residual), torch.zeros_like(residual))


# --- files -----------------------------------------------------------------------------------------------------------


def _write(kind: str, path: Path, maps: FlowMaps, max_px: float) -> None:
    if kind == "flo":
        write_flo(path, maps.flow)
    elif kind == "png16":
        write_flow_png(path, maps.flow)
    elif kind == "npy":
        write_npy(path, maps.flow)
    elif kind == "color":
        write_image(path, colorize_flow(maps.flow, max_px))
    elif kind == "visible":
        write_image(path, np.where(maps.visible, np.uint8(255), np.uint8(0)))
    elif kind == "confidence":
        write_image(path, (maps.confidence * 255).round().astype(np.uint8))


def _meta(
    loaded: LoadedModel, pairs: Sequence[Pair], steps: Sequence[int], size: Size, max_px: float, command: str
) -> dict[str, Any]:
    check = f"{RELATIVE:g} (|f|^2 + |b_w|^2) + {ABSOLUTE:g} px^2, b_w(x) = b(x + f(x)), at the source's resolution"
    width, height = (size[1], size[0]) if not isinstance(size, str) else (None, None)
    return {
        **common_meta("flow", loaded, command),
        "units": "pixels of the source",
        "flow": "(du, dv) from each pixel of the first image to its place in the second; backward/ holds the second "
        "image's flow to the first, under the first one's name. npy is (H, W, 2); png16 is KITTI's, within -512 and "
        "511.98 px, all valid",
        "visible": f"255 where |f + b_w|^2 <= t, t = {check}, and the flow stays in the image",
        "confidence": "255 * t / (t + |f + b_w|^2), t as for visible: 1 .. 255, and 0 where the flow leaves the image",
        "network_size": size if isinstance(size, str) else {"width": width, "height": height},
        "max_px": max_px,
        "replicated": "time steps from the first image that the network asks for and the clip does not have; the "
        "nearest image took their place",
        "files": {
            pair.first.name: {
                "source": [pair.first.origin, pair.second.origin],
                "replicated": [step for step in steps if step not in pair.images],
            }
            for pair in pairs
        },
    }


def _network_size(size: Size, loaded: LoadedModel) -> tuple[int, int] | None:
    if size == "model":
        return model_size(loaded)
    return None if size == "native" else size


def _share(pairs: Sequence[Pair], whole_clips: bool) -> Sequence[Pair]:
    """This process's part: single pairs, or whole clips, which one process must have to write a video of each."""
    if not whole_clips:
        return my_share(pairs)
    clips = set(my_share(list(dict.fromkeys(pair.first.clip for pair in pairs))))
    return [pair for pair in pairs if pair.first.clip in clips]


def _rate_of(source: str | Sequence[InputImage]) -> float:
    """Frames a second of a source that is a video file and says so."""
    if isinstance(source, str) and Path(source).is_file() and Path(source).suffix.lower() in VIDEO_SUFFIXES:
        return Video(source).rate_hz or RATE_HZ
    return RATE_HZ
