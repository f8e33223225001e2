"""What validations of every task share: labelled samples, and rows of scores over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch

from geossl.config import Data
from geossl.data.build import build_targets
from geossl.data.dataset import SampleDataset
from geossl.data.samples import Sample, Wanted
from geossl.engine.distributed import World, share_of
from geossl.engine.precision import autocast
from geossl.methods.method import Method
from geossl.types import Batch

MOST_IMAGES = 200  # a longer list is thinned evenly, so that validation stays a small part of the training

T = TypeVar("T")
Truth = TypeVar("Truth")
Row = TypeVar("Row")


class LabelledSamples(Sequence[tuple[Batch, Truth]], Generic[Truth]):
    """Samples and their truth, read when asked for: a uint8 batch of one at training size, the truth at its own.

    Args:
        dataset: The samples' images.
        load: The truth of a sample.
    """

    def __init__(self, dataset: SampleDataset, load: Callable[[Sample], Truth]) -> None:
        self.dataset, self.load = dataset, load

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[index], self.load(self.dataset.samples[index])

    def __iter__(self) -> Iterator[tuple[Batch, Truth]]:
        return (self[index] for index in range(len(self)))


def labelled_samples(
    data: Data, offsets: tuple[int, ...], has_label: Callable[[Sample], bool], load: Callable[[Sample], Truth]
) -> Sequence[tuple[Batch, Truth]]:
    """The labelled samples of `data.validation`, at most `MOST_IMAGES`; none where nothing is labelled.

    Args:
        data: Of an experiment.
        offsets: Time steps of the source views to load; views that are not scored would only be decoded.
        has_label: Whether a sample has labels of the task.
        load: Reads them.

    Raises:
        DataError: As `build_targets` and `SampleDataset`.
    """
    wanted = Wanted(offsets)
    samples = [s for i, source in enumerate(data.validation) for s in build_targets(source, wanted, group=i)]
    labelled = thinned([sample for sample in samples if has_label(sample)], MOST_IMAGES)
    if not labelled:
        return ()
    dataset = SampleDataset(
        labelled, data.height, data.width, cache=data.cache, cache_dir=data.cache_dir, on_error=data.on_error
    )
    return LabelledSamples(dataset, load)


def score_samples(
    method: Method,
    samples: Sequence[tuple[Batch, Truth]],
    world: World,
    precision: str,
    score: Callable[[Batch, Truth], Row | None],
) -> list[Row]:
    """The scores of all samples in their order, the same in every process, so that means have the same bits.

    Args:
        method: Put in evaluation mode, and left in training mode.
        samples: Shared between the processes. Unreadable ones (`data.on_error: skip`) are left out.
        precision: Of the networks.
        score: (batch on the device with float images, truth) -> a row, or None to leave the sample out.
    """
    world.share_buffers(method)  # batch norm's statistics differ between processes
    method.eval()
    rows: list[tuple[int, Row]] = []
    for index in share_of(range(len(samples)), world):
        batch, truth = samples[index]
        if not len(batch):
            continue
        with torch.no_grad(), autocast(precision, world.device):
            row = score(batch.to(world.device), truth)
        if row is not None:
            rows.append((index, row))
    method.train()
    return [row for _, row in sorted((item for part in world.gather(rows) for item in part), key=lambda item: item[0])]


def thinned(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of the items, evenly spaced."""
    count = min(len(items), most)
    return [items[index * len(items) // count] for index in range(count)]
