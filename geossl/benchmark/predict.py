"""Depth export, from the image file to the written map and picture, against one image after the other."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from geossl.benchmark.contest import OURS, PLAIN, Contest
from geossl.benchmark.kernels import smooth
from geossl.benchmark.plain import PlainModules
from geossl.benchmark.samples import KITTI_SIZE
from geossl.config import parse_experiment
from geossl.engine.checkpoint import save_checkpoint
from geossl.formats.image import write_image
from geossl.formats.npy import read_npy
from geossl.methods import build_method
from geossl.predict import predict_depth

IMAGES = 48  # so many that loading the model hardly counts
GOALS = {"fp32": 1.8, "bf16": 7.0}


def export_contests(plain: PlainModules | None, folder: Path, device: torch.device, **given: Any) -> list[Contest]:
    """`export_contest` on torch, and on the CPU on OpenVINO in both precisions, where it is installed."""
    ways = [("torch", "fp32")]
    if device.type == "cpu" and find_spec("openvino") is not None:
        ways += [("openvino", "fp32"), ("openvino", "bf16")]
    return [
        export_contest(plain, folder / f"{runtime}_{precision}", device, runtime, precision, **given)
        for runtime, precision in ways
    ]


def export_contest(
    plain: PlainModules | None,
    folder: Path,
    device: torch.device,
    runtime: str = "torch",
    precision: str = "fp32",
    batch: int = 4,
    size: tuple[int, int] = (192, 640),
    file_size: tuple[int, int] = KITTI_SIZE,
    images: int = IMAGES,
) -> Contest:
    """Depth of a folder of jpg images with an untrained Monodepth2: an npy and a picture each.

    The time includes loading the model, on both sides.

    The results compared are the depth maps, with the same filter on both sides (published: Lanczos, geossl: bilinear
    with antialiasing).

    Args:
        plain: The plain implementation.
        folder: Empty, for images, model and results.
        device: Of the network.
        runtime, precision: Of geossl's side, see `predict_depth`.
        batch: Images at a time on geossl's side.
        size: (height, width) that the network sees.
        file_size: (height, width) of the files.
        images: How many.
    """
    height, width = size
    model, weights = untrained_model(folder, size)
    files = [folder / "images" / f"{i:04d}.jpg" for i in range(images)]
    generator = torch.Generator().manual_seed(0)
    for path in files:
        picture = smooth((1, 3, *file_size), generator)[0].permute(1, 2, 0)
        write_image(path, (255 * picture).byte().numpy())

    def ours() -> list[np.ndarray]:
        out = folder / "ours"
        kinds = ("npy", "color")
        predict_depth(
            model,
            str(files[0].parent),
            out,
            save=kinds,
            device=device.type,
            batch_size=batch,
            runtime=runtime,
            precision=precision,
            overwrite=True,
        )
        return [read_npy(out / "npy" / f"{path.stem}.npy") for path in files[:3]]

    def theirs(resample: Image.Resampling) -> Callable[[], Any]:
        def export() -> list[np.ndarray]:
            assert plain is not None
            networks = plain.export.load_networks(torch.load(weights, weights_only=True), device)
            plain.export.export_depth(networks, files, folder / "plain", height, width, device, resample)
            return [np.load(folder / "plain" / f"{path.stem}.npy") for path in files[:3]]

        return export

    sides: dict[str, Callable[[], Any]] = {OURS: ours}
    checks = None
    if plain is not None:
        checks = {PLAIN: theirs(Image.Resampling.BILINEAR), OURS: ours}
        sides = {PLAIN: theirs(Image.Resampling.LANCZOS), OURS: ours}
    part = f"depth export, {runtime} {precision}, {width}x{height} of {file_size[1]}x{file_size[0]}"
    return Contest(part, sides, GOALS[precision], tolerance=1e-2, checks=checks, count=images)


def untrained_model(folder: Path, size: tuple[int, int]) -> tuple[Path, Path]:
    """A checkpoint of Monodepth2 with random weights, and the same weights as torch saves them."""
    values = {"model": {"encoder_weights": None}, "data": {"height": size[0], "width": size[1]}}
    experiment = parse_experiment(values)
    torch.manual_seed(0)
    method = build_method(experiment.method, experiment.model)
    folder.mkdir(parents=True, exist_ok=True)
    model, weights = folder / "model.safetensors", folder / "weights.pth"
    save_checkpoint(model, method, torch.optim.Adam(method.parameters()), experiment, {"step": 0})
    torch.save(method.state_dict(), weights)
    return model, weights
