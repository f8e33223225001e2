from itertools import islice
from pathlib import Path

import pytest
import torch
from data_trees import odometry_sequence, raw_drive

from geossl.config import Data, KittiOdometry, KittiRaw, Train
from geossl.data.build import build_dataset, build_loader, build_samples, build_targets, in_order
from geossl.data.check import UnreadableError
from geossl.data.samples import DataError, Wanted
from geossl.types import Batch, signature


@pytest.fixture
def data(tmp_path: Path) -> Data:
    raw_drive(tmp_path / "raw", frames=range(8))
    odometry_sequence(tmp_path / "odometry", count=6)
    return Data(
        train=(
            KittiRaw(root=tmp_path / "raw", weight=3),
            KittiOdometry(root=tmp_path / "odometry", sequences=("06",), stereo=True),
        ),
        height=64,
        width=96,
        num_workers=0,
    )


def same(a: Batch, b: Batch) -> bool:
    pairs = zip(a.frames, b.frames, strict=True)
    return a.names == b.names and all(x.image.equal(y.image) and x.K.equal(y.K) for x, y in pairs)


def test_batches_come_from_one_source_each(data: Data) -> None:
    loader = build_loader(data, Train(batch_size=3))
    assert loader.steps_per_epoch == (12 + 8) // 3
    seen = [signature(batch) for batch in islice(loader, 12)]
    assert set(seen) == {"96x64 sources -1,+1", "96x64 sources -1,+1 stereo"}
    assert seen.count("96x64 sources -1,+1") in (8, 9, 10)


def test_batches_are_the_same_for_any_number_of_workers(data: Data) -> None:
    train = Train(batch_size=3, seed=5)
    single = list(islice(build_loader(data, train), 9))
    with_workers = build_loader(data.model_copy(update={"num_workers": 2}), train, start_step=4)
    for expected, found in zip(single[4:], islice(with_workers, 5), strict=True):
        assert same(expected, found)


def test_processes_share_each_batch(data: Data) -> None:
    train = Train(batch_size=4, seed=1)
    whole = list(islice(build_loader(data, train), 4))
    parts = [list(islice(build_loader(data, train, rank=r, world_size=2), 4)) for r in range(2)]
    for i, batch in enumerate(whole):
        assert batch.names == parts[0][i].names + parts[1][i].names
        assert batch.index.equal(torch.cat([parts[0][i].index, parts[1][i].index]))


def test_workers_pass_errors_on(data: Data, tmp_path: Path) -> None:
    for path in (tmp_path / "raw").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:-50])
    only = data.model_copy(update={"train": data.train[:1], "num_workers": 1})
    with pytest.raises(UnreadableError, match="is cut off after"):
        next(iter(build_loader(only, Train(batch_size=2))))


@pytest.mark.filterwarnings("ignore:skipped sample")
def test_skipped_samples_are_counted_over_workers(data: Data, tmp_path: Path) -> None:
    path = next((tmp_path / "raw").rglob("image_02/data/0000000003.png"))
    path.write_bytes(path.read_bytes()[:-50])
    only = data.model_copy(update={"train": data.train[:1], "num_workers": 2, "on_error": "skip"})
    loader = build_loader(only, Train(batch_size=12))
    batch = next(iter(loader))
    assert len(batch) == 9
    assert sorted(name[-2:] for name in loader.dataset.unreadable) == ["02", "03", "04"]


def test_in_order_gives_every_sample_once(data: Data) -> None:
    dataset = build_dataset(data, data.train)
    batches = list(in_order(dataset, 5))
    assert [name for batch in batches for name in batch.names] == [s.name for s in dataset.samples]
    assert [len(batch) for batch in batches] == [5, 5, 2, 5, 3]


def test_groups_and_weights_follow_the_sources(data: Data) -> None:
    dataset = build_dataset(data, data.train)
    assert dataset.groups == [0] * 12 + [1] * 8 and dataset.weights == [3, 1]
    assert {s.group for s in build_samples(data.train[1], data, group=7)} == {7}


@pytest.mark.parametrize("own", [{}, {"stereo": True}, {"source_offsets": (-2, 3)}])
def test_targets_are_the_same_whatever_the_source_says_of_views(data: Data, tmp_path: Path, own: dict) -> None:
    (tmp_path / "odometry" / "sequences" / "06" / "image_1" / "000002.png").unlink()
    source = KittiOdometry(root=tmp_path / "odometry", sequences=("06",), cameras=("image_0",), **own)
    targets = build_targets(source, group=3)
    assert [(s.frame, s.sources, s.stereo, s.group) for s in targets] == [(k, (), None, 3) for k in range(6)]
    assert [s.frame for s in build_targets(source, Wanted(offsets=(1,)))] == list(range(5))
    assert [s.frame for s in build_targets(source, Wanted(stereo=True))] == [0, 1, 3, 4, 5]


def test_near_views_are_those_that_exist_and_leave_out_no_target(data: Data) -> None:
    found = build_targets(data.train[1], Wanted(offsets=(1,), near=(-2, 2)))[:5]
    assert [(s.frame, {step: view.frame - s.target.frame for step, view in s.near.items()}) for s in found] == [
        (0, {2: 2}), (1, {2: 2}), (2, {-2: -2, 2: 2}), (3, {-2: -2, 2: 2}), (4, {-2: -2}),
    ]  # fmt: skip


def test_no_sources_is_an_error(data: Data) -> None:
    with pytest.raises(DataError, match="the config names no data"):
        build_loader(data.model_copy(update={"train": ()}), Train())


def test_a_batch_must_divide_over_the_processes(data: Data) -> None:
    with pytest.raises(DataError, match="does not divide over 2 processes"):
        build_loader(data, Train(batch_size=3), world_size=2)


def test_real_sources_mix(shared_data: Path) -> None:
    data = Data(
        train=(
            KittiOdometry(root=shared_data / "kitti_odometry", sequences=("06", "02"), stereo=True),
            KittiRaw(root=shared_data / "kitti_raw", drives=("2011_09_26_drive_9002_sync",)),
        ),
        height=96,
        width=320,
        num_workers=0,
    )
    loader = build_loader(data, Train(batch_size=2))
    found = {signature(batch) for batch in islice(loader, 10)}
    assert found == {"320x96 sources -1,+1", "320x96 sources -1,+1 stereo"}
