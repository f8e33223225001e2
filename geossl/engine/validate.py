"""Depth metrics on samples with labels, during the training.

The labels are used here only: a batch cannot carry them, so the training never sees them. Published tables come
from `geossl evaluate`; this is the whole image up to 80 m (protocol `native`), to tell whether the training goes
well and which checkpoint is best.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from geossl.config import Data
from geossl.data.build import build_samples
from geossl.data.dataset import SampleDataset
from geossl.data.samples import DataError
from geossl.engine.distributed import World, share_of
from geossl.evaluation.depth import METRICS, get_protocol, score_image
from geossl.evaluation.truth import load_depth_truth
from geossl.methods.method import Method
from geossl.types import Batch, PredictsDepth

MOST_IMAGES = 200  # a longer list is thinned evenly, so that validation stays a small part of the training

T = TypeVar("T")
Labelled = tuple[Batch, NDArray[np.float32]]
"""A sample (a uint8 batch of one at training size) and its depth, (H, W) metres at native size, 0 where unknown."""


def validate(method: Method, samples: Sequence[Labelled], world: World, precision: str = "fp32") -> dict[str, float]:
    """Scores a method's depth; the processes share the samples and all return the same.

    Args:
        method: In whatever mode; left in training mode.
        samples: Random access to labelled samples; unlabelled ones (nothing known within 80 m) are left out.

    Returns:
        `median/<metric>` after median scaling, `none/<metric>` without where the method is metric, `ratio_std` (spread
        of the scaling ratios about their median, relative) and `images`.

    Raises:
        ValueError: If the method predicts no depth, or no sample has labels.
    """
    if not isinstance(method, PredictsDepth):
        raise ValueError(f"{type(method).__name__} has no predict_depth; leave data.validation empty.")
    world.share_buffers(method)  # batch norm's statistics differ between processes
    method.eval()
    scalings = ("none", "median") if method.is_metric else ("median",)
    rows: list[tuple[int, dict[str, float]]] = []
    for index in share_of(range(len(samples)), world):
        batch, truth = samples[index]
        if not len(batch):  # unreadable, and data.on_error is skip
            continue
        depth = _predict(method, batch, world.device, precision)
        row: dict[str, float] = {}
        for scaling in scalings:
            score = score_image(depth, truth, get_protocol("native", scaling=scaling), batch.names[0])
            if score is not None:
                row |= {"ratio": score.ratio} | {f"{scaling}/{name}": score.metrics[name] for name in METRICS}
        if row:
            rows.append((index, row))
    method.train()
    # In the order of the samples, so that the means have the same bits for any number of processes.
    found = [
        row for _, row in sorted((item for part in world.gather(rows) for item in part), key=lambda item: item[0])
    ]
    if not found:
        raise ValueError("no validation sample has a known depth within 80 m; check data.validation's labels.")
    ratios = np.array([row.pop("ratio") for row in found])
    means = {name: float(np.mean([row[name] for row in found])) for name in found[0]}
    return means | {"ratio_std": float(np.std(ratios / np.median(ratios))), "images": float(len(found))}


def headline(figures: dict[str, float], is_metric: bool) -> float:
    """The score that decides which checkpoint is best: abs_rel, without scaling if the method is metric."""
    score = figures["none/abs_rel" if is_metric else "median/abs_rel"]
    return score if math.isfinite(score) else math.inf


@torch.no_grad()
def _predict(method: Any, batch: Batch, device: torch.device, precision: str) -> NDArray[np.float32]:
    """(h, w) z-depth of a sample's target at training size."""
    target = batch.to(device).target
    image = target.image.float() / 255
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    with torch.autocast(device.type, dtype, enabled=precision != "fp32"):
        depth = method.predict_depth(image, target.K)
    return np.asarray(depth[0, 0].float().cpu().numpy())


class LabelledSamples(Sequence[Labelled]):
    """The samples of `data.validation` that have labels: images at training size, depth at native size.

    Args:
        data: Of an experiment.

    Raises:
        DataError: If the sources have no labels, or as `build_samples` and `SampleDataset`.
    """

    def __init__(self, data: Data) -> None:
        # Depth needs the target view alone: the others would only be decoded.
        alone = {"stereo": False, "source_offsets": ()}
        data = data.model_copy(update=alone | {"stereo_sources": False})
        sources = [source.model_copy(update=alone) for source in data.validation]
        samples = [sample for i, source in enumerate(sources) for sample in build_samples(source, data, group=i)]
        labelled = thinned([sample for sample in samples if sample.truth is not None], MOST_IMAGES)
        if not labelled:
            raise DataError(f"none of the {len(samples)} samples of data.validation has depth labels; leave it empty.")
        self.dataset = SampleDataset(
            labelled, data.height, data.width, cache=data.cache, cache_dir=data.cache_dir, on_error=data.on_error
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        truth = self.dataset.samples[index].truth
        assert truth is not None
        return self.dataset[index], load_depth_truth(truth)

    def __iter__(self) -> Iterator[Labelled]:
        return (self[index] for index in range(len(self)))


def thinned(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of the items, evenly spaced."""
    count = min(len(items), most)
    return [items[index * len(items) // count] for index in range(count)]
