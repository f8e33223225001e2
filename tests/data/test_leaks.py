from pathlib import Path

from data_trees import odometry_sequence, raw_drive

from geossl.config import Data, KittiOdometry, KittiRaw
from geossl.data import kitti_odometry, kitti_raw
from geossl.data.leaks import leaks

ALONE = Data(source_offsets=())


def test_same_frames_leak_whatever_the_camera(tmp_path: Path) -> None:
    raw_drive(tmp_path)
    left = kitti_raw.samples(KittiRaw(root=tmp_path, cameras=("image_02",)), ALONE)
    right = kitti_raw.samples(KittiRaw(root=tmp_path, cameras=("image_03",)), ALONE)
    found = leaks(left[:3], right)
    assert found.tested == 5 and not found.clean
    assert found.frames == tuple(("2011_09_26_drive_0001", i) for i in range(3))
    assert len(found.near) == 5 and found.recordings == {"2011_09_26_drive_0001": 5}
    assert str(found) == (
        "training uses 3 of 5 test frames, 5 within 10 frames, 5 from its own recordings: 2011_09_26_drive_0001 (5)"
    )


def test_source_views_count_as_trained_on(tmp_path: Path) -> None:
    raw_drive(tmp_path, frames=[0, 1, 2])
    train = kitti_raw.samples(KittiRaw(root=tmp_path, cameras=("image_02",)), Data(source_offsets=(-1, 1)))
    assert [s.frame for s in train] == [1]
    assert len(leaks(train, kitti_raw.samples(KittiRaw(root=tmp_path), ALONE)).frames) == 3


def test_odometry_is_traced_to_its_raw_drive(tmp_path: Path) -> None:
    """Sequence 09 is drive 2011_09_30_0033, which Eigen-Zhou trains on."""
    raw_drive(tmp_path / "raw", "2011_09_30_drive_0033", frames=range(30))
    raw_drive(tmp_path / "raw", "2011_09_26_drive_0001")
    odometry_sequence(tmp_path / "odometry", "09", count=50)
    train = kitti_raw.samples(KittiRaw(root=tmp_path / "raw", split="eigen_zhou_train"), Data())
    test = kitti_odometry.samples(KittiOdometry(root=tmp_path / "odometry", sequences=("09",)), ALONE)
    found = leaks(train, test)
    assert len(found.frames) == 30 and len(found.near) == 40 and found.recordings == {"2011_09_30_drive_0033": 50}


def test_other_recordings_are_clean(tmp_path: Path) -> None:
    raw_drive(tmp_path)
    raw_drive(tmp_path, "2011_09_26_drive_0005")
    found = kitti_raw.samples(KittiRaw(root=tmp_path), ALONE)
    result = leaks([s for s in found if "0001_sync" in s.name], [s for s in found if "0005_sync" in s.name])
    assert result.clean and str(result) == "no leak: training uses none of the recordings of the 5 test frames"


def test_far_frames_of_one_recording_are_clean_but_told(tmp_path: Path) -> None:
    raw_drive(tmp_path, frames=range(30), cameras=["image_02"])
    found = kitti_raw.samples(KittiRaw(root=tmp_path), ALONE)
    result = leaks(found[:10], found[25:])
    assert result.clean and result.recordings == {"2011_09_26_drive_0001": 5}
