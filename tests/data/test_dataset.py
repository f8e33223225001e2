import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_trees import HEIGHT, WIDTH, picture, raw_drive, write

import geossl.data.dataset as dataset_module
from geossl.config import Data, KittiRaw
from geossl.data.check import UnreadableError, check
from geossl.data.dataset import SampleDataset, collate_readable
from geossl.data.images import ImageReader, ImageRef, resize_to, resized_K
from geossl.data.kitti_raw import samples
from geossl.data.samples import DataError, Sample

DATA = Data(source_offsets=(-1, 1), stereo=True)
H, W = 32, 96


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return raw_drive(tmp_path / "raw", frames=range(6))


def found(folder: Path, data: Data = DATA) -> list[Sample]:
    return samples(KittiRaw(root=folder.parents[1], cameras=("image_02",)), data)


def image_path(folder: Path, frame: int, camera: str = "image_02") -> Path:
    return folder / camera / "data" / f"{frame:010d}.png"


class CountingReader(ImageReader):
    """Counts what it decodes."""

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[str, int] = {}

    def read(self, image: ImageRef) -> np.ndarray:
        self.count[str(image)] = self.count.get(str(image), 0) + 1
        return super().read(image)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[CountingReader]:
    readers: list[CountingReader] = []

    def make() -> CountingReader:
        readers.append(CountingReader())
        return readers[-1]

    monkeypatch.setattr(dataset_module, "ImageReader", make)
    return readers


def test_a_sample_is_a_batch_of_one(folder: Path) -> None:
    batch = SampleDataset(found(folder), H, W)[2]
    assert len(batch) == 1 and batch.names == ("2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000003",)
    assert batch.index.tolist() == [2] and batch.source_offsets == (-1, 1)
    assert batch.target.image.dtype == torch.uint8 and batch.target.image.shape == (1, 3, H, W)
    assert batch.target.jittered is batch.target.image
    expected = [resize_to(picture(seed), H, W) for seed in (2003, 2002, 2004, 3003)]
    assert batch.stereo is not None
    for frame, image in zip((batch.target, *batch.sources, batch.stereo), expected, strict=True):
        assert frame.image[0].equal(image)
    K = found(folder)[2].target.camera.K
    np.testing.assert_allclose(batch.target.K[0], resized_K(K, (WIDTH, HEIGHT), H, W), rtol=1e-6)
    assert batch.T_stereo_target is not None and batch.T_stereo_target.dtype == torch.float32


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_caches_change_nothing(folder: Path, tmp_path: Path, cache: Any) -> None:
    plain = SampleDataset(found(folder), H, W)
    for _ in range(2):
        cached = SampleDataset(found(folder), H, W, cache=cache, cache_dir=tmp_path / "cache")
        for i in range(len(plain)):
            for a, b in zip(plain[i].frames, cached[i].frames, strict=True):
                assert a.image.equal(b.image) and a.K.equal(b.K)


def test_memory_cache_decodes_each_view_once(folder: Path, counted: list[CountingReader]) -> None:
    cached = SampleDataset(found(folder), H, W, cache="memory")
    for _ in range(2):
        for i in range(len(cached)):
            cached[i]
    assert len(counted[0].count) == 6 + 4 and set(counted[0].count.values()) == {1}


def test_disk_cache_is_found_again_and_notices_changes(
    folder: Path, tmp_path: Path, counted: list[CountingReader]
) -> None:
    def open_and_read(height: int = H) -> int:
        cached = SampleDataset(found(folder), height, W, cache="disk", cache_dir=tmp_path / "cache")
        for i in range(len(cached)):
            cached[i]
        return sum(counted[-1].count.values())

    assert open_and_read() == 10
    assert open_and_read() == 0
    assert open_and_read(height=64) == 10
    write(image_path(folder, 3), picture(99))
    os.utime(image_path(folder, 3), ns=(1, 1))
    assert open_and_read() == 1
    stored = next(path for path in (tmp_path / "cache" / f"{W}x{H}").rglob("*.rgb"))
    stored.write_bytes(b"cut off")
    assert open_and_read() <= 1
    assert stored.stat().st_size in (3 * H * W, 7)  # 7: of the image before it was changed


def test_disk_cache_lies_in_the_users_cache_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    SampleDataset(found(folder), H, W, cache="disk")[0]
    assert len(list((tmp_path / "xdg" / "geossl").rglob("*.rgb"))) == 4


def test_disk_cache_on_a_full_disk_is_given_up(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset_module, "write_bytes_atomic", full)
    data = SampleDataset(found(folder), H, W, cache="disk", cache_dir=tmp_path / "cache", on_error="skip")
    with pytest.warns(UserWarning, match=r"data\.cache: disk is given up: .* \(\[Errno 28\] No space left"):
        first = data[0]
    assert first.target.image.equal(SampleDataset(found(folder), H, W)[0].target.image)
    assert len(data[1]) == 1 and data.unreadable == []


def test_memory_cache_that_does_not_fit_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module.os, "sysconf", lambda name: 10 if "PAGES" in name else 4096)
    with pytest.raises(DataError, match=r"cache: memory would take .* Set data\.cache: disk or none"):
        SampleDataset(found(folder), H, W, cache="memory")


def test_a_missing_file_is_named_before_training(folder: Path) -> None:
    listed = found(folder)
    image_path(folder, 2).unlink()
    with pytest.raises(
        UnreadableError, match=r"3 of 4 samples use 1 unreadable image\(s\):\n .*0000000002\.png: does"
    ):
        SampleDataset(listed, H, W)
    with pytest.warns(UserWarning, match="skipped: 3 of 4 samples"):
        kept = SampleDataset(listed, H, W, on_error="skip")
    assert [s.frame for s in kept.samples] == [4] and len(kept.skipped) == 1
    assert kept[0].names[0].endswith("0000000004")


def test_an_empty_file_is_named_before_training(folder: Path) -> None:
    image_path(folder, 2).write_bytes(b"")
    with pytest.raises(UnreadableError, match=r"0000000002\.png: is empty"):
        SampleDataset(found(folder), H, W)


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_cut_off_file_is_named(folder: Path, cache: Any) -> None:
    path = image_path(folder, 0)
    path.write_bytes(path.read_bytes()[:-100])
    message = r"0000000000\.png: is cut off after \d+ bytes"
    with pytest.raises(UnreadableError, match=message):
        SampleDataset(found(folder), H, W, cache=cache)[0]
    if cache == "memory":
        with pytest.warns(UserWarning, match=message):
            kept = SampleDataset(found(folder), H, W, cache=cache, on_error="skip")
        assert len(kept) == 3
        return
    kept = SampleDataset(found(folder), H, W, on_error="skip")
    with pytest.warns(UserWarning, match=message):
        nothing = kept[0]
    assert len(nothing) == 0 and nothing.names[0].endswith("0000000001")
    assert kept.unreadable == [nothing.names[0]]
    assert collate_readable([nothing, kept[1], kept[2]]).index.tolist() == [1, 2]
    with pytest.raises(UnreadableError, match=r"no sample of the batch can be read: .*0000000001"):
        collate_readable([nothing])


def test_a_wrong_sized_file_is_named(folder: Path) -> None:
    write(image_path(folder, 3), picture(0, 64, 20))
    data = SampleDataset(found(folder), H, W)
    with pytest.raises(
        UnreadableError, match=r"0000000003\.png: is 64x20, but its camera's calibration is for 132x44"
    ):
        data[1]


def test_nothing_readable_is_an_error(folder: Path) -> None:
    listed = found(folder)
    shutil.rmtree(folder / "image_02")
    with pytest.warns(UserWarning), pytest.raises(DataError, match="no readable sample is left"):
        SampleDataset(listed, H, W, on_error="skip")


def test_datasets_go_to_other_processes(folder: Path) -> None:
    data = SampleDataset(found(folder), H, W)
    copy = pickle.loads(pickle.dumps(data.samples))
    assert SampleDataset(copy, H, W)[1].target.image.equal(data[1].target.image)


def test_check_lists_every_problem(folder: Path) -> None:
    assert check(found(folder)) == []
    listed = found(folder)
    image_path(folder, 0).unlink()
    write(image_path(folder, 1), picture(0, 64, 20))
    image_path(folder, 2).write_bytes(image_path(folder, 2).read_bytes()[:-100])
    image_path(folder, 3).write_text("no image")
    calls: list[tuple[int, int]] = []
    problems = check(listed, progress=lambda done, total: calls.append((done, total)))
    reasons = ["does not exist", "is 64x20; its calibration is for 132x44", "is cut off", "is not a readable image"]
    assert len(problems) == 4
    for number, (reason, problem) in enumerate(zip(reasons, problems, strict=True)):
        assert str(problem).startswith(f"{image_path(folder, number)}: {reason}")  # named once
        assert image_path(folder, number).name not in problem.reason
    assert calls == [(i, 10) for i in range(1, 11)]
