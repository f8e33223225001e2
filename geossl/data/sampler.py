"""Which samples make which batch: a function of (seed, epoch, step) alone.

All processes compute the same global batches and take their share of each, so a training can be resumed at any step,
and with another number of processes, without any saved state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from geossl.data.samples import DataError


class HomogeneousBatchSampler(Sampler[list[int]]):
    """Batches of sample indices, without end; each batch from one group.

    An epoch is `steps_per_epoch` = number of samples // batch_size steps (at least 1). Each step draws its group with
    the groups' weights (systematically: a group's share of an epoch's steps is exact to one step), then the next
    samples of a random order of that group. Where a group is asked for more samples than it has, a new random order
    follows, so small groups repeat; where for fewer, the rest waits for another epoch's order.

    Args:
        groups: Each sample's group, 0, 1, ...
        batch_size: Samples a step over all processes.
        weights: Relative number of batches from each group.
        seed: The order's seed.
        rank, world_size: This process, and how many there are.
        start_step: First step, counted from the start of the training.

    Raises:
        DataError: If the batch does not divide over the processes, or a group has no samples.
    """

    def __init__(
        self,
        groups: Sequence[int],
        batch_size: int,
        *,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
    ) -> None:
        if batch_size % world_size:
            raise DataError(
                f"batch_size {batch_size} does not divide over {world_size} processes; batch_size counts the samples "
                f"of all processes, e.g. {max(1, batch_size // world_size) * world_size}."
            )
        self._members = [np.flatnonzero(np.asarray(groups) == g) for g in range(max(groups, default=-1) + 1)]
        self._weights = np.array(weights if weights is not None else [1.0] * len(self._members), np.float64)
        if len(self._weights) != len(self._members) or any(not len(members) for members in self._members):
            counts = [len(members) for members in self._members]
            raise DataError(f"{len(self._weights)} weighted sources have {counts} samples; each needs at least one.")
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.start_step = start_step
        self.steps_per_epoch = max(1, len(groups) // batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, step = divmod(self.start_step, self.steps_per_epoch)
        while True:
            for batch in self.epoch(epoch)[step:]:
                yield self._share(batch)
            epoch, step = epoch + 1, 0

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The global batches of an epoch: `steps_per_epoch` arrays of `batch_size` sample indices."""
        plan = self._generator(epoch, stream=0)
        shares = np.cumsum(self._weights) / self._weights.sum()
        points = (np.arange(self.steps_per_epoch) + plan.random()) / self.steps_per_epoch
        group_of_step = plan.permutation(np.minimum(np.searchsorted(shares, points, side="right"), len(shares) - 1))
        batches: list[np.ndarray] = [np.empty(0, np.int64)] * self.steps_per_epoch
        for group, members in enumerate(self._members):
            steps = np.flatnonzero(group_of_step == group)
            if len(steps):
                order = self._generator(epoch, stream=1 + group)
                rounds = -(-len(steps) * self.batch_size // len(members))
                drawn = np.concatenate([order.permutation(members) for _ in range(rounds)])
                for i, step in enumerate(steps):
                    batches[step] = drawn[i * self.batch_size : (i + 1) * self.batch_size]
        return batches

    def _share(self, batch: np.ndarray) -> list[int]:
        """This process's part of a global batch."""
        count = self.batch_size // self.world_size
        return [int(index) for index in batch[self.rank * count : (self.rank + 1) * count]]

    def _generator(self, epoch: int, stream: int) -> np.random.Generator:
        return keyed_generator(self.seed, epoch, stream)


def keyed_generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """Random numbers of their own for each (seed, epoch, stream), without going through the others."""
    key = np.array([seed % 2**64, epoch], np.uint64)  # as arrays: lists go through float64 and lose digits
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], np.uint64)))
