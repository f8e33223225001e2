from pathlib import Path

import pytest

from geossl.data.samples import DataError
from geossl.data.splits import (
    RawFrame,
    eigen_test,
    eigen_test_drives,
    eigen_zhou,
    kitti_stereo_frames,
    read_file_list,
    static_frames,
)


def test_eigen_test_has_697_images_of_28_drives() -> None:
    assert len(eigen_test()) == len(set(eigen_test())) == 697
    assert len(eigen_test_drives()) == 28
    assert eigen_test()[0] == RawFrame("2011_09_26_drive_0002", "image_02", 69)
    assert eigen_test()[-1].drive == "2011_10_03_drive_0047"


def test_lists_equal_their_sources(shared_data: Path) -> None:
    lists = shared_data / "splits" / "kitti_raw"
    published = (lists / "test_files_eigen.txt").read_text().split()
    ours = [f"{e.drive[:10]}/{e.drive}_sync/{e.camera}/data/{e.frame:010d}.png" for e in eigen_test()]
    assert ours == published
    assert eigen_test_drives() == set((lists / "test_scenes_eigen.txt").read_text().split())
    static = (line.split() for line in (lists / "static_frames.txt").read_text().splitlines())
    assert static_frames() == {(drive.removesuffix("_sync"), int(frame)) for _, drive, frame in static}
    mapping = (shared_data / "kitti_2015" / "train_mapping.txt").read_text().split("\n")
    from_devkit = {
        (2015, "training", f"{i:06d}"): (line.split()[1].removesuffix("_sync"), int(line.split()[2]))
        for i, line in enumerate(mapping)
        if line.strip()
    }
    assert from_devkit == {k: v for k, v in kitti_stereo_frames().items() if k[0] == 2015}


def test_counts_of_the_lists() -> None:
    assert len(static_frames()) == 8044
    assert len(kitti_stereo_frames()) == 142 + 89 + 66


def test_eigen_zhou_leaves_out_test_drives_static_frames_and_ends() -> None:
    frames = {
        ("2011_09_26_drive_0002", "image_02"): range(50),  # an Eigen test drive
        ("2011_09_26_drive_0011", "image_02"): range(233),  # stands in 117-134 and 136-231
        ("2011_09_26_drive_0011", "image_03"): range(233),
        ("2011_09_26_drive_0011", "image_00"): range(233),  # not a colour camera
        ("2011_09_26_drive_0001", "image_02"): [0, 1, 2, 4, 5, 6],  # frame 3 is missing
    }
    train, val = eigen_zhou(frames)
    entries = sorted(train + val)
    assert not {e.drive for e in entries} & eigen_test_drives()
    assert [e.frame for e in entries if e.camera == "image_03"] == [*range(1, 117), 135]
    assert [e.frame for e in entries if e.drive.endswith("0001")] == [1, 5]
    assert {e.camera for e in entries} == {"image_02", "image_03"}


def test_eigen_zhou_validation_is_a_tenth_and_apart() -> None:
    train, val = eigen_zhou({("2000_01_01_drive_0001", c): range(1002) for c in ("image_02", "image_03")})
    assert (len(train), len(val)) == (1800, 200)
    assert not set(train) & set(val)
    assert eigen_zhou({("2000_01_01_drive_0001", c): range(1002) for c in ("image_03", "image_02")}) == (train, val)


def test_eigen_zhou_published_sizes_follow_from_the_published_total() -> None:
    entries = list(range(39_810 + 4_424))
    assert (len([p for p in entries if p % 10]), len(entries[::10])) == (39_810, 4_424)


def test_read_file_list_reads_all_forms(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(
        "# a comment\n"
        "2011_09_26/2011_09_26_drive_0001_sync/image_03/data/0000000005.png\n"
        "2011_09_26/2011_09_26_drive_0001_sync 6 r\n"
        "2011_09_26/2011_09_26_drive_0001_sync 7 l  # and another\n"
        "\n"
        "2011_09_26/2011_09_26_drive_0001_sync 0000000008\n"
        "2011_09_26_drive_0001_sync_03 0000000009\n"
    )
    found = [(e.drive, e.camera[-1], e.frame) for e in read_file_list(path)]
    drive = "2011_09_26_drive_0001"
    assert found == [(drive, "3", 5), (drive, "3", 6), (drive, "2", 7), (drive, "2", 8), (drive, "3", 9)]


@pytest.mark.parametrize(
    "line",
    [
        "../../etc/passwd",
        "/2011_09_26/2011_09_26_drive_0001_sync 5 l",
        "2011_09_26/2011_09_26_drive_0001_sync 5 x",
        "x",
    ],
)
def test_read_file_list_names_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text("2011_09_26/2011_09_26_drive_0001_sync 6 r\n" + line + "\n")
    with pytest.raises(DataError, match=r"list\.txt line 2: .* should read like"):
        read_file_list(path)


def test_read_file_list_names_what_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'eigen' is neither a file list nor one of eigen_zhou_train"):
        read_file_list("eigen")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match=r"empty\.txt lists no images"):
        read_file_list(tmp_path / "empty.txt")
