from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.data.sampler import HomogeneousBatchSampler, keyed_generator
from geossl.data.samples import DataError


def take(sampler: HomogeneousBatchSampler, count: int) -> list[list[int]]:
    return list(islice(sampler, count))


def test_an_epoch_holds_each_sample_once() -> None:
    sampler = HomogeneousBatchSampler([0] * 23, 4, seed=3)
    assert sampler.steps_per_epoch == 5
    for epoch in range(3):
        drawn = np.concatenate(sampler.epoch(epoch))
        assert len(drawn) == len(set(drawn.tolist())) == 20


def test_epochs_and_seeds_differ() -> None:
    sampler = HomogeneousBatchSampler([0] * 64, 8, seed=3)
    other = HomogeneousBatchSampler([0] * 64, 8, seed=4)
    orders = [np.concatenate(s.epoch(e)).tolist() for s in (sampler, other) for e in range(3)]
    assert len({tuple(order) for order in orders}) == 6


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    per_process=st.integers(1, 4),
    world=st.integers(1, 3),
    start=st.integers(0, 60),
    seed=st.integers(-5, 5),
)
def test_resume_and_shares_are_exact(sizes: list[int], per_process: int, world: int, start: int, seed: int) -> None:
    groups = [g for g, size in enumerate(sizes) for _ in range(size)]
    batch = per_process * world

    def make(**more: int) -> HomogeneousBatchSampler:
        return HomogeneousBatchSampler(groups, batch, seed=seed, **more)

    whole = take(make(), start + 5)
    assert take(make(start_step=start), 5) == whole[start:]
    shares = [take(make(start_step=start, rank=r, world_size=world), 5) for r in range(world)]
    assert all(len(b) == per_process for share in shares for b in share)
    assert [[i for part in parts for i in part] for parts in zip(*shares, strict=True)] == whole[start:]
    assert all(len({groups[i] for i in b}) == 1 for b in whole)


def test_batches_follow_the_weights() -> None:
    groups = [0] * 300 + [1] * 20 + [2] * 80
    sampler = HomogeneousBatchSampler(groups, 4, weights=[1.0, 2.0, 1.0])
    assert sampler.steps_per_epoch == 100
    for epoch in range(3):
        count = Counter(groups[int(batch[0])] for batch in sampler.epoch(epoch))
        assert all(abs(count[g] - expected) <= 1 for g, expected in ((0, 25), (1, 50), (2, 25)))
    drawn = Counter(int(i) for batch in sampler.epoch(0) for i in batch if groups[int(i)] == 1)
    assert set(drawn.values()) <= {9, 10, 11} and len(drawn) == 20  # whole orders, one after another


def test_rare_groups_get_their_share_over_epochs() -> None:
    groups = [0] * 40 + [1] * 4
    sampler = HomogeneousBatchSampler(groups, 4, weights=[1.0, 0.01])
    count = Counter(groups[int(batch[0])] for epoch in range(400) for batch in sampler.epoch(epoch))
    expected = 400 * sampler.steps_per_epoch * 0.01 / 1.01
    assert count[1] == pytest.approx(expected, rel=0.5)


def test_fewer_samples_than_a_batch_repeat() -> None:
    sampler = HomogeneousBatchSampler([0] * 3, 8)
    assert sampler.steps_per_epoch == 1
    assert set(Counter(take(sampler, 1)[0]).values()) == {2, 3}


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(DataError, match=r"batch_size 5 does not divide over 2 processes; .* e\.g\. 4"):
        HomogeneousBatchSampler([0] * 9, 5, world_size=2)
    with pytest.raises(DataError, match=r"2 weighted sources have \[0, 3\] samples; each needs at least one"):
        HomogeneousBatchSampler([1] * 3, 1, weights=[1, 1])
    with pytest.raises(DataError, match=r"3 weighted sources have \[3\] samples"):
        HomogeneousBatchSampler([0] * 3, 1, weights=[1, 1, 1])


def test_keyed_generator_is_the_same_everywhere() -> None:
    """NumPy keeps Philox's stream fixed; were it to change, resumed trainings would."""
    values = keyed_generator(7, 2, 5).random(3)
    np.testing.assert_array_equal(values, keyed_generator(7, 2, 5).random(3))
    others = [
        keyed_generator(*key).random(3)
        for key in ((8, 2, 5), (7, 3, 5), (7, 2, 6), (-7, 2, 5), (2**63 + 1, 2, 5), (2**63, 2, 5))
    ]
    assert len({value for draws in (values, *others) for value in draws.tolist()}) == 3 * (1 + len(others))
