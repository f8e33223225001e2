"""The car's sensors, laid out like KITTI's, and the calibration files that say where they are.

The calibration that rendering uses is the one a reader gets back from the files, with their rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.options import StreetOptions
from geossl.formats.calibration import Calibration, parse_kitti_raw_calibration
from geossl.formats.oxts import rotation_from_roll_pitch_yaw

BASELINE_M = 0.532
_TIME = "calib_time: 01-Jan-2000 12:00:00"
LEFT, RIGHT = 2, 3
# the camera looks 1.65 m above the road, the LiDAR sits 0.08 m higher and 0.27 m behind it, the IMU near the axle
_VELO_TO_CAM = (-0.004, -0.076, -0.272)
_IMU_TO_VELO = (-0.81, 0.32, -0.8)
_CAMERA_X = {0: 0.0, 1: 0.537, 2: -0.06, 3: -0.06 + BASELINE_M}  # positions right of camera 0


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        K: (3, 3) float64 pixels.
        width: Pixels.
        height: Pixels.
    """

    K: NDArray[np.float64]
    width: int
    height: int


def calibration_texts(options: StreetOptions) -> dict[str, str]:
    """The three calibration files of a date folder by name."""
    w, h = options.width, options.height
    f, cx, cy = round(0.581 * w, 3), round(0.4915 * w, 3), round(0.4635 * h, 3)
    rectify = rotation_from_roll_pitch_yaw(0.002, -0.003, 0.0015)
    lines = [_TIME, "corner_dist: 9.950000e-02"]
    for camera, x in _CAMERA_X.items():
        K = (f, 0, cx, 0, f, cy, 0, 0, 1)
        P = (f, 0, cx, -f * x, 0, f, cy, 0, 0, 0, 1, 0)
        entries = {"S": (w, h), "K": K, "D": (0,) * 5, "R": np.eye(3).ravel(), "T": (-x, 0, 0)}
        entries |= {"S_rect": (w, h), "R_rect": (rectify if camera == 0 else np.eye(3)).ravel(), "P_rect": P}
        lines += [f"{name}_{camera:02d}: {_numbers(values)}" for name, values in entries.items()]
    axes = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # LiDAR forward, left, up -> camera right, down, forward
    R_cam_velo = rotation_from_roll_pitch_yaw(0.004, 0.002, -0.003) @ axes
    R_velo_imu = rotation_from_roll_pitch_yaw(0.002, -0.001, 0.001)
    velo = [*_rigid(R_cam_velo, _VELO_TO_CAM), "delta_f: 0 0", "delta_c: 0 0"]
    return {
        "calib_cam_to_cam.txt": "\n".join(lines) + "\n",
        "calib_velo_to_cam.txt": "\n".join(velo) + "\n",
        "calib_imu_to_velo.txt": "\n".join(_rigid(R_velo_imu, _IMU_TO_VELO)) + "\n",
    }


def make_calibration(options: StreetOptions) -> Calibration:
    """The calibration as read from `calibration_texts`."""
    return parse_kitti_raw_calibration(calibration_texts(options), "synthetic street")


def make_camera(calibration: Calibration, options: StreetOptions) -> Camera:
    return Camera(calibration.K(LEFT), options.width, options.height)


def _numbers(values: object) -> str:
    return " ".join(f"{float(v):.6e}" for v in np.asarray(values, np.float64))


def _rigid(R: NDArray[np.float64], t: tuple[float, float, float]) -> list[str]:
    return [_TIME, f"R: {_numbers(R.ravel())}", f"T: {_numbers(t)}"]
