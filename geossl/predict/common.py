"""What every prediction shares: its summary, the model's size and device, the image as the network sees it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.engine.distributed import pick_device
from geossl.engine.model_folder import LoadedModel
from geossl.geometry.transforms import resize_image


@dataclass(frozen=True)
class PredictionSummary:
    """What a prediction did: files written now, files that were there already, seconds, and where."""

    written: int
    kept: int
    seconds: float
    out: Path


Progress = Callable[[int, int], None]


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


def report(progress: Progress | None, done: int, total: int) -> None:
    """Tells how much is done, where somebody asked."""
    if progress is not None:
        progress(done, total)


def to_model_size(image: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, *size) float in [0, 1], resized with antialiasing as in training."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    return (resize_image(tensor.float(), size) / 255).clamp(0, 1)
