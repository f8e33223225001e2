import math
from pathlib import Path

import numpy as np
import pytest

from geossl.formats.errors import FormatError
from geossl.formats.oxts import (
    Oxts,
    camera_poses,
    oxts_from_pose,
    oxts_poses,
    parse_oxts,
    read_oxts,
    read_oxts_folder,
    rotation_from_roll_pitch_yaw,
    write_oxts,
)


def test_oxts_round_trip_is_exact(tmp_path: Path) -> None:
    record = Oxts(49.0 + 1 / 3, 8.4, 116.4, 0.01, -0.02, 2.5, vf=13.1, numsats=9)
    write_oxts(tmp_path / "0.txt", record)
    assert read_oxts(tmp_path / "0.txt") == record
    assert len((tmp_path / "0.txt").read_text().split()) == 30
    assert read_oxts_folder(tmp_path) == [record]


def test_oxts_poses_of_a_drive_north(tmp_path: Path) -> None:
    # One minute of latitude is about a nautical mile: 6378137 * pi / 180 / 60 = 1855.3 m.
    start, end = Oxts(49.0, 8.4, 100, 0, 0, math.pi / 2), Oxts(49.0 + 1 / 60, 8.4, 103, 0, 0, math.pi / 2)
    poses = oxts_poses([start, end])
    np.testing.assert_allclose(poses[0, :3, 3], 0)
    np.testing.assert_allclose(poses[1, :3, 3], [0, 1855.3, 3], atol=0.5)
    np.testing.assert_allclose(poses[1, :3, :3] @ [1, 0, 0], [0, 1, 0], atol=1e-12)  # the car looks north


def test_rotation_from_roll_pitch_yaw_turns_as_the_data_format_says() -> None:
    # dataformat.txt: positive pitch is front down, positive roll left side up, positive yaw counter-clockwise.
    assert rotation_from_roll_pitch_yaw(0, 0.1, 0)[2, 0] < 0
    assert rotation_from_roll_pitch_yaw(0.1, 0, 0)[2, 1] > 0
    np.testing.assert_allclose(rotation_from_roll_pitch_yaw(0, 0, math.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_oxts_from_pose_inverts_oxts_poses() -> None:
    rng = np.random.default_rng(0)
    T = np.tile(np.eye(4), (6, 1, 1))
    for i in range(1, 6):
        T[i, :3, :3] = rotation_from_roll_pitch_yaw(*rng.uniform(-1, 1, 3))
        T[i, :3, 3] = rng.uniform(-300, 300, 3)
    np.testing.assert_allclose(oxts_poses([oxts_from_pose(pose, 49.0, 8.4, 110.0) for pose in T]), T, atol=1e-5)


def test_camera_poses_start_at_identity_and_see_the_motion() -> None:
    T_camera_imu = np.array([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, 0.3], [0, 0, 0, 1.0]])
    T = np.tile(np.eye(4), (2, 1, 1))
    T[1, 0, 3] = 5  # forward is x for the IMU, z for the camera
    poses = camera_poses(T, T_camera_imu)
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(poses[1, :3, 3], [0, 0, 5], atol=1e-12)


def test_oxts_refuses_wrong_records(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"a.txt: holds 2 numbers"):
        parse_oxts("1 2", "a.txt")
    with pytest.raises(FormatError, match="no number"):
        parse_oxts("1 two", "a.txt")
    with pytest.raises(FormatError, match="holds no oxts records"):
        read_oxts_folder(tmp_path)


def test_read_oxts_of_a_real_record(shared_data: Path) -> None:
    record = read_oxts(next(shared_data.rglob("oxts/data/*.txt")))
    assert record.lat == 49.015003823272 and record.orimode == 6
    assert math.hypot(record.vn, record.ve) == pytest.approx(math.hypot(record.vf, record.vl), rel=1e-4)
