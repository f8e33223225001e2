"""What every prediction shares: its summary, the model's size and device, the image as the network sees it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.engine.distributed import pick_device
from geossl.engine.model_folder import LoadedModel
from geossl.geometry.transforms import resize_image
from geossl.inputs import grouped

Item = TypeVar("Item")


@dataclass(frozen=True)
class PredictionSummary:
    """What a prediction did: how many images, pairs or clips it wrote and found there already, seconds, and where."""

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


def predict_batches(
    read: Callable[[ThreadPoolExecutor], Iterable[Item]],
    predict: Callable[[list[Item]], Iterable[Callable[[], None]]],
    batch_size: int,
    counts: tuple[int, int],
    progress: Progress | None,
) -> None:
    """Predicts batch after batch, while other threads read what comes next and write what came before.

    Args:
        read: Threads for reading -> the items in order.
        predict: A batch of items -> what writes the files of each; if it raises, nothing of the batch is written.
        batch_size: Items at a time.
        counts: Done before, and in all, for the progress.
        progress: Called with (done, total).
    """
    done, total = counts
    report(progress, done, total)
    with ThreadPoolExecutor(2) as readers, ThreadPoolExecutor(2) as writers:
        pending: deque[Future[None]] = deque()
        for batch in grouped(read(readers), batch_size):
            pending.extend(map(writers.submit, list(predict(batch))))
            while len(pending) > 2 * batch_size:
                pending.popleft().result()
            done += len(batch)
            report(progress, done, total)
        for future in pending:
            future.result()


def to_model_size(image: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, *size) float in [0, 1], resized with antialiasing as in training."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    return (resize_image(tensor.float(), size) / 255).clamp(0, 1)
