from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.formats.errors import FormatError
from geossl.formats.trajectory import (
    quaternion_from_rotation,
    read_indexed_kitti_trajectory,
    read_kitti_trajectory,
    read_tum_trajectory,
    rotation_from_quaternion,
    write_kitti_trajectory,
    write_tum_trajectory,
)


def random_poses(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    quaternions = rng.normal(size=(count, 4))
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = rotation_from_quaternion(quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True))
    poses[:, :3, 3] = rng.normal(size=(count, 3)) * 100
    return poses


def test_kitti_trajectory_round_trip_is_exact(tmp_path: Path) -> None:
    poses = random_poses(7)
    write_kitti_trajectory(tmp_path / "t.txt", poses)
    np.testing.assert_array_equal(read_kitti_trajectory(tmp_path / "t.txt"), poses)


def test_kitti_trajectory_with_frame_numbers(tmp_path: Path) -> None:
    poses = random_poses(3)
    write_kitti_trajectory(tmp_path / "t.txt", poses, np.array([0, 2, 3]))
    frames, read = read_indexed_kitti_trajectory(tmp_path / "t.txt")
    assert frames.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(read, poses)
    with pytest.raises(FormatError, match="its index column skips frames"):
        read_kitti_trajectory(tmp_path / "t.txt")


def test_read_trajectories_of_real_files(shared_data: Path) -> None:
    frames, _ = read_indexed_kitti_trajectory(shared_data / "trajectories" / "example_0" / "09.txt")
    assert (frames[0], len(frames)) == (2, 1589)
    assert read_kitti_trajectory(shared_data / "trajectories" / "gt" / "09.txt").shape == (1591, 4, 4)


def test_tum_trajectory_round_trip(tmp_path: Path) -> None:
    poses, times = random_poses(9), np.arange(9) * 0.1 + 1.3e9
    write_tum_trajectory(tmp_path / "t.txt", times, poses)
    read_times, read = read_tum_trajectory(tmp_path / "t.txt")
    np.testing.assert_array_equal(read_times, times)
    np.testing.assert_allclose(read, poses, atol=1e-12)


def test_tum_trajectory_reads_comments(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("# time tx ty tz qx qy qz qw\n1.5 1 2 3 0 0 0.70710678 0.70710678\n\n")
    _, poses = read_tum_trajectory(tmp_path / "t.txt")
    np.testing.assert_allclose(poses[0, :3, :3] @ [1, 0, 0], [0, 1, 0], atol=1e-8)  # a quarter turn about z


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 1e-2))
def test_quaternion_round_trip_and_scipy(values: list[float]) -> None:
    quaternion = np.array([values]) / np.linalg.norm(values)
    rotation = rotation_from_quaternion(quaternion)
    back = quaternion_from_rotation(rotation)
    assert np.abs(back @ quaternion[0]) == pytest.approx(1, abs=1e-12)  # q and -q are one rotation
    oracle = pytest.importorskip("scipy.spatial.transform").Rotation.from_quat(quaternion)
    np.testing.assert_allclose(rotation, oracle.as_matrix(), atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quaternion_of_a_half_turn(axis: int) -> None:
    rotation = -np.eye(3)
    rotation[axis, axis] = 1
    expected = np.zeros(4)
    expected[axis] = 1
    np.testing.assert_allclose(np.abs(quaternion_from_rotation(rotation[None])[0]), expected, atol=1e-15)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no poses"),
        ("1 2 3\n", "line 1 has 3 numbers; expected 12 or 13"),
        ("1 " * 12 + "\n" + "1 " * 13, "line 2 has 13 numbers"),
        ("1 " * 11 + "x", "line 1 holds a word"),
        ("1 " * 11 + "nan", "not finite"),
        ("0.5 " + "1 " * 12, "increasing frame numbers"),
        ("3 " + "1 " * 12 + "\n3 " + "1 " * 12, "increasing frame numbers"),
    ],
)
def test_kitti_trajectory_refuses_damaged_files(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(FormatError, match=f"t.txt.*{reason}"):
        read_indexed_kitti_trajectory(tmp_path / "t.txt")


def test_trajectory_refuses_binary_and_zero_quaternions(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(FormatError, match="not a text file"):
        read_kitti_trajectory(tmp_path / "t.txt")
    (tmp_path / "t.txt").write_text("0 1 2 3 0 0 0 0")
    with pytest.raises(FormatError, match="zero quaternion"):
        read_tum_trajectory(tmp_path / "t.txt")


def test_trajectory_writers_refuse_nan(tmp_path: Path) -> None:
    poses = random_poses(2)
    poses[1, 0, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        write_kitti_trajectory(tmp_path / "t.txt", poses)
    with pytest.raises(ValueError, match="3 timestamps and 2 poses"):
        write_tum_trajectory(tmp_path / "t.txt", np.arange(3), random_poses(2))
    assert not list(tmp_path.iterdir())
