import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_trees import odometry_sequence, raw_drive

from geossl.commands.evaluate import true_trajectories
from geossl.config import KittiOdometry, KittiRaw, KittiStereo
from geossl.data.poses import clip_poses
from geossl.data.samples import DataError
from geossl.formats.errors import FormatError
from geossl.formats.oxts import oxts_from_pose, write_oxts
from geossl.formats.trajectory import read_kitti_trajectory, write_kitti_trajectory


def turned(angle: float, x: float, z: float) -> np.ndarray:
    """(4, 4) of a camera turned about its y axis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s, x], [0, 1, 0, 0], [-s, 0, c, z], [0, 0, 0, 1]])


def test_odometry_poses_are_those_of_the_clips_camera(tmp_path: Path) -> None:
    odometry_sequence(tmp_path, cameras=["image_0", "image_2"])
    given = [turned(0.1 * i, 0.02 * i, 1.0 * i) for i in range(4)]
    rows = [" ".join(f"{v:.17g}" for v in T[:3].reshape(-1)) for T in given]
    (tmp_path / "poses" / "06.txt").write_text("\n".join(rows) + "\n")
    found = clip_poses(KittiOdometry(root=tmp_path, sequences=("06",)))
    assert set(found) == {"sequences/06/image_0", "sequences/06/image_2"}
    np.testing.assert_allclose(found["sequences/06/image_0"].T_first_camera, given, atol=1e-12)
    # Camera 2 sits 0.06 m to the left of camera 0: its centre in camera 0 is (-0.06, 0, 0).
    poses = found["sequences/06/image_2"].T_first_camera
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-12)
    centre = given[3] @ [-0.06, 0, 0, 1] + [0.06, 0, 0, 0]
    np.testing.assert_allclose(poses[3][:, 3], centre, atol=1e-9)
    np.testing.assert_allclose(poses[3][:3, :3], given[3][:3, :3], atol=1e-12)


def test_raw_poses_follow_from_oxts(tmp_path: Path) -> None:
    """A car that drives 1 m a frame to the east: the camera moves along its own z."""
    folder = raw_drive(tmp_path)
    for frame in range(5):
        T = np.eye(4)
        T[0, 3] = frame  # IMU x forward = east at yaw 0
        path = folder / "oxts" / "data" / f"{frame:010d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_oxts(path, oxts_from_pose(T, 49.0, 8.4))
    found = clip_poses(KittiRaw(root=tmp_path))
    poses = found["2011_09_26/2011_09_26_drive_0001_sync/image_03"]
    assert poses.frames.tolist() == [0, 1, 2, 3, 4]
    expected = np.tile(np.eye(4), (5, 1, 1))
    expected[:, 2, 3] = range(5)
    np.testing.assert_allclose(poses.T_first_camera, expected, atol=1e-5)
    assert not clip_poses(KittiRaw(root=tmp_path, drives=("2011_09_26_drive_0001",), cameras=("image_00",)))
    for drive in ("2011_09_26_drive_0001", "2011_09_26/2011_09_26_drive_0001_sync"):  # as samples take them
        assert set(clip_poses(KittiRaw(root=tmp_path, drives=(drive,)))) == set(found)


@pytest.mark.parametrize("packed", [False, True])
def test_odometry_is_scored_against_the_file_of_camera_0(tmp_path: Path, packed: bool) -> None:
    odometry_sequence(tmp_path, cameras=["image_2"])
    file = tmp_path / "poses" / "06.txt"
    given = np.stack([turned(0.1 * i, 0.02 * i, 1.0 * i) for i in range(4)])
    write_kitti_trajectory(file, given)
    if packed:
        with zipfile.ZipFile(tmp_path / "data_odometry_poses.zip", "w") as archive:
            archive.write(file, "dataset/poses/06.txt")
        file.unlink()
    ((clip, truth),) = true_trajectories(KittiOdometry(root=tmp_path, sequences=("06",)), ["sequences/06/image_2"])
    assert clip == "sequences/06/image_2"
    np.testing.assert_allclose(truth, given, atol=1e-12)


def test_clips_without_poses_are_absent(tmp_path: Path) -> None:
    odometry_sequence(tmp_path, poses=False)
    assert clip_poses(KittiOdometry(root=tmp_path, sequences=("06",))) == {}
    raw_drive(tmp_path / "raw")
    assert clip_poses(KittiRaw(root=tmp_path / "raw")) == {}
    with pytest.raises(DataError, match="kitti_stereo data come without poses"):
        clip_poses(KittiStereo(root=tmp_path))


def test_wrong_poses_are_named(tmp_path: Path) -> None:
    odometry_sequence(tmp_path, count=4)
    poses = tmp_path / "poses" / "06.txt"
    poses.write_text("\n".join(poses.read_text().splitlines()[:3]) + "\n")
    source = KittiOdometry(root=tmp_path, sequences=("06",))
    with pytest.raises(DataError, match=r"06\.txt has 3 poses, but sequences/06/image_0 has frame 3"):
        clip_poses(source)
    poses.write_text("1 2 3\n")
    with pytest.raises(FormatError, match="line 1 has 3 numbers; expected 12 or 13"):
        clip_poses(source)
    poses.write_text("a\n")
    with pytest.raises(FormatError, match="line 1 holds a word that is no number"):
        clip_poses(source)


def test_real_poses(shared_data: Path) -> None:
    root = shared_data / "kitti_odometry"
    found = clip_poses(KittiOdometry(root=root, sequences=("06", "02")))
    file = read_kitti_trajectory(root / "poses" / "06.txt")
    first = np.linalg.inv(file[0]) @ file
    ours = found["sequences/06/image_0"].T_first_camera
    np.testing.assert_allclose(np.linalg.inv(ours[0]) @ ours, first, atol=1e-9)
    assert set(found) == {f"sequences/{s}/image_{c}" for s, c in (("06", 0), ("06", 1), ("02", 2), ("02", 3))}
