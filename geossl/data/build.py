"""From the data section of a config to samples, data sets and endless batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from geossl.config import AnySource, Data, Train
from geossl.data import flying_chairs, folder, kitti_odometry, kitti_raw, kitti_stereo, sintel, video
from geossl.data.dataset import SampleDataset, collate_readable
from geossl.data.exclude import Exclusion, without_benchmarks
from geossl.data.sampler import HomogeneousBatchSampler
from geossl.data.samples import ALONE, DataError, Sample, Wanted
from geossl.types import Batch

KINDS: Mapping[str, Callable[[Any, Data | Wanted], list[Sample]]] = {
    "kitti_raw": kitti_raw.samples,
    "kitti_odometry": kitti_odometry.samples,
    "kitti_stereo": kitti_stereo.samples,
    "sintel": sintel.samples,
    "flying_chairs": flying_chairs.samples,
    "folder": folder.samples,
    "video": video.samples,
}
PREFETCHED = 4  # batches each worker prepares ahead


def build_samples(source: AnySource, data: Data, group: int = 0) -> list[Sample]:
    """The samples of one source.

    Args:
        source: Where and what.
        data: The views that samples have, where the source does not say.
        group: Marks the samples as coming from one source.

    Raises:
        DataError: If the data do not fit the request; see each kind's `samples`.
        FileNotFoundError: If the root or a calibration is missing.
    """
    return open_source(source, data, group)[0]


def build_targets(source: AnySource, wanted: Wanted = ALONE, group: int = 0) -> list[Sample]:
    """The samples of one source with the wanted views and no others, whatever the source says itself.

    What is predicted, scored and compared goes by the targets: a view that nobody looks at would leave out those that
    lack it, a clip's first and last, say.

    Raises:
        DataError, FileNotFoundError: As `build_samples`.
    """
    return open_source(source, wanted, group)[0]


def open_source(source: AnySource, data: Data | Wanted, group: int = 0) -> tuple[list[Sample], Exclusion | None]:
    """As `build_samples` or `build_targets`, with what the source's `exclude` left out, to be printed, or None."""
    samples = [replace(sample, group=group) for sample in KINDS[source.kind](source, data)]
    return without_benchmarks(source, samples)


def build_dataset(data: Data, sources: Sequence[AnySource], cache_dir: str | Path | None = None) -> SampleDataset:
    """The samples of several sources as one data set, each source a group.

    Raises:
        DataError: If there are no sources, or as `build_samples` and `SampleDataset`.
    """
    if not sources:
        raise DataError("the config names no data; list at least one source under data.train.")
    opened = [open_source(source, data, group=i) for i, source in enumerate(sources)]
    return SampleDataset(
        [sample for samples, _ in opened for sample in samples],
        data.height,
        data.width,
        cache=data.cache,
        cache_dir=cache_dir or data.cache_dir,
        on_error=data.on_error,
        weights=[source.weight for source in sources],
        notes=[str(exclusion) for _, exclusion in opened if exclusion is not None],
    )


class TrainLoader:
    """One process's training batches, without end; `steps_per_epoch` of them are an epoch."""

    def __init__(self, dataset: SampleDataset, sampler: HomogeneousBatchSampler, num_workers: int) -> None:
        self.dataset, self.sampler = dataset, sampler
        self.steps_per_epoch = sampler.steps_per_epoch
        self._loader = _loader(dataset, num_workers, batch_sampler=sampler)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)


def build_loader(data: Data, train: Train, rank: int = 0, world_size: int = 1, start_step: int = 0) -> TrainLoader:
    """The batches of `data.train`, from a step on; the same for any number of workers.

    Raises:
        DataError: As `build_dataset`, or if the batch does not divide over the processes.
    """
    dataset = build_dataset(data, data.train)
    sampler = HomogeneousBatchSampler(
        dataset.groups,
        train.batch_size,
        weights=dataset.weights,
        seed=train.seed,
        rank=rank,
        world_size=world_size,
        start_step=start_step,
    )
    return TrainLoader(dataset, sampler, data.num_workers)


def in_order(dataset: SampleDataset, batch_size: int, num_workers: int = 0) -> Iterator[Batch]:
    """Every sample once, in order, for prediction and validation; samples of one batch come from one group."""
    batches: list[list[int]] = []
    for index, group in enumerate(dataset.groups):
        full = not batches or len(batches[-1]) == batch_size or dataset.groups[batches[-1][0]] != group
        if full:
            batches.append([])
        batches[-1].append(index)
    return iter(_loader(dataset, num_workers, batch_sampler=batches))


def _loader(dataset: SampleDataset, num_workers: int, batch_sampler: Any) -> DataLoader[Batch]:
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        collate_fn=collate_readable,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
        prefetch_factor=PREFETCHED if num_workers else None,
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # its draws, of which nothing depends, stay out of the global state
    )


def _start_worker(worker: int) -> None:
    """One thread a worker: workers are the parallelism.

    0, not 1: OpenCV then leaves its pool alone, whose threads a forked process does not have and would wait for.
    """
    cv2.setNumThreads(0)
