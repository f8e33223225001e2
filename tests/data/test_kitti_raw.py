from pathlib import Path

import numpy as np
import pytest
from data_trees import BASELINE_M, CX, CY, FX, HEIGHT, WIDTH, picture, raw_calibration, raw_drive, write, zip_drives

from geossl.config import Data, KittiRaw
from geossl.data.dataset import SampleDataset
from geossl.data.kitti_raw import samples
from geossl.data.samples import DataError, Sample

MONO = Data(source_offsets=(-1, 1))
ALONE = Data(source_offsets=())


def frames(found: list[Sample], camera: str = "image_02") -> list[int]:
    return [s.frame for s in found if camera in s.clip]


def test_samples_of_all_frames(tmp_path: Path) -> None:
    raw_drive(tmp_path)
    found = samples(KittiRaw(root=tmp_path), MONO)
    assert frames(found) == frames(found, "image_03") == [1, 2, 3]
    assert found[0].name == "2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000001"
    assert found[0].clip == "2011_09_26/2011_09_26_drive_0001_sync/image_02"
    assert found[0].target.recording == "2011_09_26_drive_0001"
    camera = found[0].target.camera
    assert camera.size == (WIDTH, HEIGHT)
    np.testing.assert_allclose(camera.K, [[FX, 0, CX], [0, FX, CY], [0, 0, 1]])


def test_stereo_motion_has_the_true_baseline_for_either_target(tmp_path: Path) -> None:
    raw_drive(tmp_path)
    for intrinsics in ("calibrated", "nominal"):
        source = KittiRaw(root=tmp_path, intrinsics=intrinsics)
        found = samples(source, Data(source_offsets=(), stereo=True))
        by_camera = {s.clip[-8:]: s for s in found}
        left, right = by_camera["image_02"], by_camera["image_03"]
        expected = np.eye(4)
        expected[0, 3] = -BASELINE_M  # a point lies further left in the right camera
        np.testing.assert_allclose(left.T_stereo_target, expected, atol=1e-12)
        np.testing.assert_allclose(right.T_stereo_target, np.linalg.inv(expected), atol=1e-12)
        assert left.stereo is not None and "image_03" in str(left.stereo.image)
        assert right.stereo is not None and "image_02" in str(right.stereo.image)
        nominal = [[0.58 * WIDTH, 0, 0.5 * WIDTH], [0, 1.92 * HEIGHT, 0.5 * HEIGHT], [0, 0, 1]]
        assert np.allclose(left.target.camera.K, nominal) == (intrinsics == "nominal")


def test_archives_give_the_same_samples_bit_for_bit(tmp_path: Path) -> None:
    raw_drive(tmp_path / "unpacked", scans=[1])
    raw_drive(tmp_path / "unpacked", "2011_09_28_drive_0002", suffix=".jpg")
    zip_drives(tmp_path / "unpacked", tmp_path / "zipped")
    data = Data(source_offsets=(-1, 1), stereo=True)
    unpacked, zipped = (samples(KittiRaw(root=tmp_path / kind), data) for kind in ("unpacked", "zipped"))
    assert [s.name for s in unpacked] == [s.name for s in zipped] and len(zipped) == 12
    first, second = (SampleDataset(found, 32, 96) for found in (unpacked, zipped))
    for i in range(len(first)):
        a, b = first[i], second[i]
        for x, y in zip(a.frames, b.frames, strict=True):
            assert x.image.equal(y.image) and x.K.equal(y.K)
        assert a.T_stereo_target is not None and b.T_stereo_target is not None
        assert a.T_stereo_target.equal(b.T_stereo_target)
    truths = [s.truth for s in (unpacked[0], zipped[0])]
    assert all(t is not None and t.kind == "velodyne" for t in truths)
    assert truths[0].file.read() == truths[1].file.read()  # type: ignore[union-attr]


def test_a_drive_with_one_camera_gives_that(tmp_path: Path) -> None:
    raw_drive(tmp_path, cameras=["image_02"])
    assert len(samples(KittiRaw(root=tmp_path), MONO)) == 3
    with pytest.raises(DataError, match=r"image_02 has no other camera.*Unpack the drive's image_03"):
        samples(KittiRaw(root=tmp_path), Data(stereo=True))
    assert len(samples(KittiRaw(root=tmp_path, stereo=False), Data(stereo=True))) == 3


def test_drives_and_cameras_choose(tmp_path: Path) -> None:
    raw_drive(tmp_path)
    raw_drive(tmp_path, "2011_09_26_drive_0005")
    source = KittiRaw(root=tmp_path, drives=("2011_09_26_drive_0005_sync",), cameras=("image_03",))
    found = samples(source, ALONE)
    assert {s.clip for s in found} == {"2011_09_26/2011_09_26_drive_0005_sync/image_03"} and len(found) == 5
    with pytest.raises(
        DataError, match=r"2011_09_26_drive_005_sync is not under .* Did you mean 2011_09_26_drive_000"
    ):
        samples(KittiRaw(root=tmp_path, drives=("2011_09_26_drive_005_sync",)), ALONE)


def test_png_wins_over_jpg_of_the_same_frame(tmp_path: Path) -> None:
    folder = raw_drive(tmp_path, cameras=["image_02"])
    for frame in range(5):
        write(folder / "image_02" / "data" / f"{frame:010d}.jpg", picture(frame))
    found = samples(KittiRaw(root=tmp_path), ALONE)
    assert len(found) == 5 and all(s.target.image.file.suffix == ".png" for s in found)


def test_eigen_zhou_from_a_tree(tmp_path: Path) -> None:
    raw_drive(tmp_path, frames=range(30))
    raw_drive(tmp_path, "2011_09_26_drive_0002", frames=range(30))  # an Eigen test drive
    train = samples(KittiRaw(root=tmp_path, split="eigen_zhou_train"), MONO)
    val = samples(KittiRaw(root=tmp_path, split="eigen_zhou_val"), MONO)
    assert len(train) + len(val) == 2 * 28 and len(val) == 6
    assert not {s.name for s in train} & {s.name for s in val}
    assert {s.target.recording for s in train + val} == {"2011_09_26_drive_0001"}
    left = samples(KittiRaw(root=tmp_path, split="eigen_zhou_train", cameras=("image_02",)), MONO)
    assert {s.name for s in left} == {s.name for s in train if "image_02" in s.name}
    with pytest.raises(DataError, match="split 'eigen_zhou' should be eigen_zhou_train or eigen_zhou_val"):
        samples(KittiRaw(root=tmp_path, split="eigen_zhou"), MONO)


def test_eigen_test_keeps_missing_images_to_be_reported(tmp_path: Path) -> None:
    raw_drive(tmp_path, "2011_09_26_drive_0002", frames=[69, 54], cameras=["image_02"], scans=[69])
    source = KittiRaw(root=tmp_path, split="eigen_test", drives=("2011_09_26_drive_0002",))
    found = samples(source, ALONE)
    assert len(found) == 25 and found[0].frame == 69 and found[1].frame == 54
    assert found[0].truth is not None and found[1].truth is None
    assert [s.target.image.file.exists() for s in found].count(True) == 2
    assert str(found[2].target.image) == str(
        tmp_path / "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000042.png"
    )


def test_file_list_chooses_frames_in_its_order(tmp_path: Path) -> None:
    raw_drive(tmp_path)
    path = tmp_path / "list.txt"
    path.write_text("2011_09_26/2011_09_26_drive_0001_sync 3 r\n2011_09_26/2011_09_26_drive_0001_sync 1 l\n")
    found = samples(KittiRaw(root=tmp_path, split=str(path)), MONO)
    assert [(s.frame, s.clip[-8:]) for s in found] == [(3, "image_03"), (1, "image_02")]


def test_a_missing_calibration_is_named(tmp_path: Path) -> None:
    raw_drive(tmp_path)
    (tmp_path / "2011_09_26" / "calib_cam_to_cam.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"calib_cam_to_cam\.txt is missing; unpack 2011_09_26_calib\.zip"):
        samples(KittiRaw(root=tmp_path), MONO)


def test_an_empty_split_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it holds no YYYY_MM_DD/YYYY_MM_DD_drive_NNNN_sync folders"):
        samples(KittiRaw(root=tmp_path), MONO)
    raw_drive(tmp_path, frames=[0, 5])
    with pytest.raises(DataError, match=r"gives no samples: its drives are 2011_09_26_drive_0001; .*\[-1, 1\]"):
        samples(KittiRaw(root=tmp_path), MONO)
    with pytest.raises(FileNotFoundError, match="does not exist or is no folder"):
        samples(KittiRaw(root=tmp_path / "nowhere"), MONO)


def test_depth_root_gives_improved_depth(tmp_path: Path) -> None:
    raw_drive(tmp_path / "raw", scans=[2])
    inside = "2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02/0000000002.png"
    write(tmp_path / "depth" / "val" / inside, picture(0))
    source = KittiRaw(root=tmp_path / "raw", cameras=("image_02",), depth_root=tmp_path / "depth")
    found = samples(source, ALONE)
    assert [s.truth.kind if s.truth else None for s in found] == [None, None, "depth_png", None, None]


def test_without_lidar_calibration_there_is_no_truth(tmp_path: Path) -> None:
    raw_drive(tmp_path, scans=[2])
    for name in ("velo_to_cam", "imu_to_velo"):
        (tmp_path / "2011_09_26" / f"calib_{name}.txt").unlink()
    raw_calibration(tmp_path / "2011_09_26", velodyne=False)
    assert all(s.truth is None for s in samples(KittiRaw(root=tmp_path), ALONE))


def test_real_recordings(shared_data: Path) -> None:
    root = shared_data / "kitti_raw"
    found = samples(KittiRaw(root=root), MONO)
    drives = [s.target.recording for s in found]
    assert drives.count("2011_09_26_drive_9001") == 46 and drives.count("2011_09_26_drive_9002") == 89
    assert [s.truth is not None for s in found] == [d.endswith("9001") for d in drives]
    assert found[0].target.camera.K[0, 0] == pytest.approx(721.5377)
    batch = SampleDataset(found[:1], 192, 640)[0]
    assert batch.target.K[0, 0, 2] == pytest.approx((609.5593 + 0.5) * 640 / 1242 - 0.5)
