import shutil
from pathlib import Path

import numpy as np
import pytest

from geossl.formats.calibration import (
    camera_number,
    parse_kitti_raw_calibration,
    parse_odometry_calibration,
    read_kitti_raw_calibration,
    read_odometry_calibration,
)
from geossl.formats.errors import FormatError

CAM_TO_CAM = """calib_time: 09-Jan-2012 13:57:47
R_rect_00: 1 0 0 0 1 0 0 0 1
S_rect_02: 640 192
P_rect_02: 400 0 320 20 0 400 96 4 0 0 1 0.02
S_rect_03: 640 192
P_rect_03: 400 0 320 -180 0 400 96 4 0 0 1 0.02
"""


def test_raw_calibration_splits_the_projection() -> None:
    # P[:, 3] = K t with t = ((20 - 320 * 0.02) / 400, (4 - 96 * 0.02) / 400, 0.02) = (0.034, 0.0052, 0.02)
    calibration = parse_kitti_raw_calibration({"calib_cam_to_cam.txt": CAM_TO_CAM}, "day")
    np.testing.assert_allclose(calibration.camera(2).T_cam_cam0rect[:3, 3], [0.034, 0.0052, 0.02])
    assert calibration.size("image_02") == (640, 192)
    np.testing.assert_array_equal(calibration.K(3), [[400, 0, 320], [0, 400, 96], [0, 0, 1]])
    np.testing.assert_allclose(calibration.T_a_b(3, 2)[:3, 3], [-0.5, 0, 0], atol=1e-12)  # a right camera: t_x < 0
    assert calibration.baseline_m(2, 3) == pytest.approx(0.5)


def test_lidar_points_are_turned_into_the_rectified_camera() -> None:
    turned = CAM_TO_CAM.replace("R_rect_00: 1 0 0 0 1 0 0 0 1", "R_rect_00: 0 -1 0 1 0 0 0 0 1")  # x to y, y to -x
    velo = "R: 0 -1 0 0 0 -1 1 0 0\nT: 1 2 3\n"  # x forward, y left, z up to z, -x, -y
    texts = {"calib_cam_to_cam.txt": turned, "calib_velo_to_cam.txt": velo}
    calibration = parse_kitti_raw_calibration(texts, "day")
    # (10, 0, 0) before the LiDAR is (1, 2, 13) in camera 0, (-2, 1, 13) rectified, and camera 2 adds its t.
    np.testing.assert_allclose(calibration.T_camera_velo(2) @ [10, 0, 0, 1], [-1.966, 1.0052, 13.02, 1])
    np.testing.assert_allclose(
        calibration.P_velo(2) @ [10, 0, 0, 1], calibration.camera(2).P @ [-2, 1, 13, 1], rtol=1e-12
    )


def test_raw_calibration_of_2011_09_26(shared_data: Path) -> None:
    calibration = read_kitti_raw_calibration(shared_data / "kitti_raw" / "2011_09_26")
    assert calibration.baseline_m("image_02", "image_03") == pytest.approx(0.5327, abs=5e-5)
    assert calibration.size(2) == (1242, 375)
    T = calibration.T_camera_velo(2)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(T[:3, :3] @ [1, 0, 0], [0, 0, 1], atol=0.02)  # the LiDAR's forward is the camera's z
    assert calibration.P_velo(2).shape == (3, 4)
    assert np.linalg.det(calibration.T_camera_imu(2)) == pytest.approx(1, abs=1e-5)


def test_object_calibration_equals_the_raw_one(shared_data: Path) -> None:
    """KITTI's object benchmark repeats the day's calibration in its own words."""
    raw = read_kitti_raw_calibration(shared_data / "kitti_raw" / "2011_09_26")
    same = read_odometry_calibration(next((shared_data / "kitti_object").rglob("calib/*.txt")))
    np.testing.assert_allclose(same.T_camera_velo(2), raw.T_camera_velo(2), atol=1e-9)
    np.testing.assert_allclose(same.T_camera_imu(2), raw.T_camera_imu(2), atol=1e-9)


def test_odometry_calibration(shared_data: Path) -> None:
    calibration = read_odometry_calibration(shared_data / "kitti_odometry" / "sequences" / "06" / "calib.txt")
    # -379.8145 / 707.0912 = -0.53715
    np.testing.assert_allclose(calibration.T_a_b("image_1", "image_0")[:3, 3], [-0.53715, 0, 0], atol=1e-5)
    assert calibration.size(0) is None
    assert calibration.T_camera_velo(0).shape == (4, 4)
    only_stereo = read_odometry_calibration(next((shared_data / "kitti_2012").rglob("calib/*.txt")))
    with pytest.raises(ValueError, match="has no camera 2; it has 0, 1"):
        only_stereo.K(2)


@pytest.mark.parametrize(("camera", "number"), [(2, 2), ("image_02", 2), ("image_3", 3), ("0", 0), ("01", 1)])
def test_camera_number(camera: int | str, number: int) -> None:
    assert camera_number(camera) == number


@pytest.mark.parametrize("camera", ["left", 4, "image_022", "image_04"])
def test_camera_number_refuses_others(camera: int | str) -> None:
    with pytest.raises(ValueError, match="should be 0 to 3"):
        camera_number(camera)


def test_missing_calibration_is_named(tmp_path: Path, shared_data: Path) -> None:
    day = tmp_path / "2011_09_26"
    with pytest.raises(FileNotFoundError, match=r"calib_cam_to_cam.txt is missing; unpack 2011_09_26_calib.zip"):
        read_kitti_raw_calibration(day)
    day.mkdir()
    shutil.copy(shared_data / "kitti_raw" / "2011_09_26" / "calib_cam_to_cam.txt", day)
    with pytest.raises(ValueError, match="does not say where the LiDAR is"):
        read_kitti_raw_calibration(day).T_camera_velo(2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("hello world", "no P_rect_xx line"),
        (CAM_TO_CAM.replace("S_rect_02: 640 192\n", ""), "no line 'S_rect_02'"),
        (CAM_TO_CAM.replace("96 4 0 0 1 0.02\nS", "96 4 0 0 1\nS"), "'P_rect_02' holds 11 numbers; expected 12"),
        (CAM_TO_CAM.replace("320 20", "320 twenty"), "no number"),
        (CAM_TO_CAM.replace("P_rect_02: 400", "P_rect_02: 0"), "no rectified camera"),
    ],
)
def test_raw_calibration_refuses_damaged_files(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=f"day/calib_cam_to_cam.txt.*{reason}"):
        parse_kitti_raw_calibration({"calib_cam_to_cam.txt": text}, "day")


def test_odometry_calibration_refuses_other_files() -> None:
    with pytest.raises(FormatError, match="no P0 to P3 line"):
        parse_odometry_calibration("R: 1 2 3", "calib.txt")
