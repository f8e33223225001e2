"""KITTI's GPS/IMU records and the poses that follow from them.

Convention: T_world_imu maps IMU points (x forward, y left, z up, metres) to a world of x east, y north, z up on a
Mercator map scaled by cos(latitude of the first record), its origin at the first record. Yaw 0 looks east.
Source: KITTI raw data development kit, convertOxtsToPose.m, latlonToMercator.m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from geossl.formats.atomic import write_text_atomic
from geossl.formats.errors import FormatError

EARTH_RADIUS_M = 6378137.0
_INTEGERS = ("navstat", "numsats", "posmode", "velmode", "orimode")


@dataclass(frozen=True)
class Oxts:
    """One record: the 30 numbers of a KITTI oxts file, in its order and with its names.

    Degrees for `lat` and `lon`; radians for `roll`, `pitch`, `yaw`; metres for `alt`; m/s for velocities (n, e: north,
    east; f, l, u: forward, left, up); m/s^2 for accelerations; rad/s for angular rates.
    """

    lat: float
    lon: float
    alt: float
    roll: float
    pitch: float
    yaw: float
    vn: float = 0.0
    ve: float = 0.0
    vf: float = 0.0
    vl: float = 0.0
    vu: float = 0.0
    ax: float = 0.0
    ay: float = 0.0
    az: float = 0.0
    af: float = 0.0
    al: float = 0.0
    au: float = 0.0
    wx: float = 0.0
    wy: float = 0.0
    wz: float = 0.0
    wf: float = 0.0
    wl: float = 0.0
    wu: float = 0.0
    pos_accuracy: float = 0.0
    vel_accuracy: float = 0.0
    navstat: int = 4
    numsats: int = 0
    posmode: int = 0
    velmode: int = 0
    orimode: int = 0


def read_oxts(path: str | Path) -> Oxts:
    """Reads one record.

    Raises:
        FormatError: If the file does not hold 30 numbers.
        OSError: If it cannot be opened.
    """
    return parse_oxts(Path(path).read_text(encoding="utf-8", errors="replace"), str(path))


def parse_oxts(text: str, where: str) -> Oxts:
    """As `read_oxts`, from the text of a file; `where` names it in messages."""
    words = text.split()
    names = [field.name for field in fields(Oxts)]
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise FormatError(
            where, "holds a word that is no number; expected the 30 numbers of an oxts record."
        ) from None
    if len(values) != len(names):
        raise FormatError(where, f"holds {len(values)} numbers; an oxts record has {len(names)}.")
    if not np.isfinite(values).all():
        raise FormatError(where, "holds a number that is not finite.")
    pairs = zip(names, values, strict=True)
    fields_of: dict[str, Any] = {name: int(value) if name in _INTEGERS else value for name, value in pairs}
    return Oxts(**fields_of)


def read_oxts_folder(folder: str | Path) -> list[Oxts]:
    """Reads every record of a drive's `oxts/data` folder in name order.

    Raises:
        FormatError: If there are none, or one does not hold 30 numbers.
    """
    paths = sorted(Path(folder).glob("*.txt"))
    if not paths:
        raise FormatError(folder, "holds no oxts records (*.txt); unpack the drive's sync archive.")
    return [read_oxts(path) for path in paths]


def write_oxts(path: str | Path, record: Oxts) -> None:
    """Writes one record so that `read_oxts` gives it back exactly."""
    write_text_atomic(path, " ".join(repr(getattr(record, field.name)) for field in fields(Oxts)) + "\n")


def oxts_poses(records: Sequence[Oxts]) -> np.ndarray:
    """(N, 4, 4) float64 T_world_imu of consecutive records; the first record's position is the origin."""
    if not records:
        return np.empty((0, 4, 4))
    scale = math.cos(math.radians(records[0].lat))
    poses = np.tile(np.eye(4), (len(records), 1, 1))
    for pose, record in zip(poses, records, strict=True):
        pose[:3, :3] = rotation_from_roll_pitch_yaw(record.roll, record.pitch, record.yaw)
        pose[:3, 3] = _mercator(record, scale)
    poses[:, :3, 3] -= poses[0, :3, 3].copy()
    return poses


def camera_poses(T_world_imu: np.ndarray, T_camera_imu: np.ndarray) -> np.ndarray:
    """(N, 4, 4) T_first_camera: each camera's pose in the first camera's frame, as KITTI odometry gives them.

    Args:
        T_world_imu: (N, 4, 4), from `oxts_poses`.
        T_camera_imu: (4, 4), from the calibration.
    """
    T_imu_camera = np.linalg.inv(T_camera_imu)
    T_world_camera = T_world_imu @ T_imu_camera
    return np.linalg.inv(T_world_camera[0]) @ T_world_camera


def oxts_from_pose(T_world_imu: np.ndarray, lat0: float, lon0: float, alt0: float = 0.0) -> Oxts:
    """The record of a pose: the inverse of `oxts_poses` for a world whose origin lies at `lat0`, `lon0` (degrees)."""
    scale = math.cos(math.radians(lat0))
    origin = _mercator(Oxts(lat0, lon0, alt0, 0, 0, 0), scale)
    x, y, z = (float(v) for v in origin + T_world_imu[:3, 3])
    lat = math.degrees(2 * math.atan(math.exp(y / (scale * EARTH_RADIUS_M))) - math.pi / 2)
    lon = math.degrees(x / (scale * EARTH_RADIUS_M))
    R = T_world_imu[:3, :3]
    roll, yaw = math.atan2(R[2, 1], R[2, 2]), math.atan2(R[1, 0], R[0, 0])
    pitch = math.atan2(-R[2, 0], math.hypot(R[2, 1], R[2, 2]))
    return Oxts(lat, lon, z, roll, pitch, yaw)


def rotation_from_roll_pitch_yaw(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """(3, 3) Rz(yaw) Ry(pitch) Rx(roll), radians."""
    cx, sx, cy, sy, cz, sz = (f(a) for a in (roll, pitch, yaw) for f in (math.cos, math.sin))
    Rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    Ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    Rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return Rz @ Ry @ Rx


def _mercator(record: Oxts, scale: float) -> np.ndarray:
    x = scale * EARTH_RADIUS_M * math.radians(record.lon)
    y = scale * EARTH_RADIUS_M * math.log(math.tan(math.radians(90 + record.lat) / 2))
    return np.array([x, y, record.alt])
