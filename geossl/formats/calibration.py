"""KITTI's calibration files: intrinsics and every transform between cameras, LiDAR and IMU.

Convention: all rectified cameras look the same way. P_rect_xx = K [I | t], and t = K^-1 P[:, 3] maps points of the
rectified camera 0 to camera xx: x_xx = x_0 + t. All three components of t count: on 2011_09_26 t of camera 2 is
(0.0597, -0.0004, 0.0027) m, and the two colour cameras are 0.5327 m apart.
Source: Geiger et al., IJRR 2013, and the readme of the KITTI raw data development kit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geossl.formats.errors import FormatError


@dataclass(frozen=True)
class Camera:
    """One rectified camera.

    Attributes:
        P: (3, 4) float64, maps points of the rectified camera 0 to this camera's homogeneous pixels.
        size: (width, height) of its images in pixels, or None where the file does not say.
    """

    P: np.ndarray
    size: tuple[int, int] | None = None

    @property
    def K(self) -> np.ndarray:
        """(3, 3) pixels."""
        return self.P[:, :3].copy()

    @property
    def T_cam_cam0rect(self) -> np.ndarray:
        """(4, 4) maps points of the rectified camera 0 to this camera."""
        T = np.eye(4)
        T[:3, 3] = np.linalg.solve(self.P[:, :3], self.P[:, 3])
        return T


@dataclass(frozen=True)
class Calibration:
    """Rectified cameras by number, and where the LiDAR and the IMU are.

    A camera is named by its number (2) or its folder (`image_02`, `image_2`).

    Attributes:
        where: The file or folder it was read from, for messages.
        cameras: By number, 0 to 3.
        T_cam0rect_velo: (4, 4) maps LiDAR points to the rectified camera 0 (R_rect_00 included), None if not given.
        T_velo_imu: (4, 4) maps IMU points to the LiDAR, None if not given.
    """

    where: str
    cameras: Mapping[int, Camera]
    T_cam0rect_velo: np.ndarray | None = None
    T_velo_imu: np.ndarray | None = None

    def camera(self, camera: int | str) -> Camera:
        """The camera of that number or folder name.

        Raises:
            ValueError: If there is none.
        """
        number = camera_number(camera)
        if number not in self.cameras:
            known = ", ".join(str(c) for c in sorted(self.cameras))
            raise ValueError(f"{self.where} has no camera {number}; it has {known}.")
        return self.cameras[number]

    def K(self, camera: int | str) -> np.ndarray:
        """(3, 3) float64 intrinsics in pixels of the camera's own images."""
        return self.camera(camera).K

    def size(self, camera: int | str) -> tuple[int, int] | None:
        """(width, height) of the camera's images, or None where the file does not say."""
        return self.camera(camera).size

    def T_a_b(self, camera_a: int | str, camera_b: int | str) -> np.ndarray:
        """(4, 4) float64, maps points of camera b to camera a; rectified, so a translation."""
        return self.camera(camera_a).T_cam_cam0rect @ np.linalg.inv(self.camera(camera_b).T_cam_cam0rect)

    def baseline_m(self, camera_a: int | str, camera_b: int | str) -> float:
        """Distance of two cameras along the image rows, in metres: what fx / disparity_px is multiplied with."""
        return float(abs(self.T_a_b(camera_a, camera_b)[0, 3]))

    def T_camera_velo(self, camera: int | str) -> np.ndarray:
        """(4, 4) float64, maps LiDAR points to the rectified camera.

        Raises:
            ValueError: If the LiDAR's calibration was not given.
        """
        if self.T_cam0rect_velo is None:
            raise ValueError(
                f"{self.where} does not say where the LiDAR is; add the LiDAR's calibration file or line."
            )
        return self.camera(camera).T_cam_cam0rect @ self.T_cam0rect_velo

    def P_velo(self, camera: int | str) -> np.ndarray:
        """(3, 4) float64, maps LiDAR points to the camera's homogeneous pixels. Raises as `T_camera_velo`."""
        return self.camera(camera).K @ self.T_camera_velo(camera)[:3]

    def T_camera_imu(self, camera: int | str) -> np.ndarray:
        """(4, 4) float64, maps IMU points to the rectified camera.

        Raises:
            ValueError: If the IMU's calibration was not given.
        """
        if self.T_velo_imu is None:
            raise ValueError(f"{self.where} does not say where the IMU is; add calib_imu_to_velo.txt.")
        return self.T_camera_velo(camera) @ self.T_velo_imu


def camera_number(camera: int | str) -> int:
    """2 for 2, `image_02` or `image_2`.

    Raises:
        ValueError: If it is no camera of KITTI's.
    """
    match = re.fullmatch(r"(?:image_)?0?([0-3])", str(camera))
    if match is None:
        raise ValueError(f"camera {camera!r} should be 0 to 3 or image_00 to image_03.")
    return int(match[1])


def read_kitti_raw_calibration(date_folder: str | Path) -> Calibration:
    """Reads the calibration files of a KITTI raw date folder.

    `calib_cam_to_cam.txt` is needed; without `calib_velo_to_cam.txt` or `calib_imu_to_velo.txt` the transforms to the
    LiDAR or the IMU are unknown, and asking for them says so.

    Raises:
        FileNotFoundError: If `calib_cam_to_cam.txt` is missing.
        FormatError: If a file lacks an entry.
    """
    folder = Path(date_folder)
    texts: dict[str, str] = {}
    for name in ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt", "calib_imu_to_velo.txt"):
        path = folder / name
        if path.is_file():
            texts[name] = path.read_text(encoding="utf-8", errors="replace")
    return parse_kitti_raw_calibration(texts, str(folder))


def parse_kitti_raw_calibration(texts: Mapping[str, str], where: str) -> Calibration:
    """As `read_kitti_raw_calibration`, from the files' texts by file name; `where` names their folder in messages."""
    if "calib_cam_to_cam.txt" not in texts:
        date = Path(where).name
        raise FileNotFoundError(
            f"{where}/calib_cam_to_cam.txt is missing; unpack {date}_calib.zip of KITTI raw beside the drives."
        )
    file = f"{where}/calib_cam_to_cam.txt"
    entries = _parse_entries(texts["calib_cam_to_cam.txt"], file)
    cameras = {}
    for number in range(4):
        if f"P_rect_{number:02d}" in entries:
            width, height = _entry(entries, f"S_rect_{number:02d}", 2, file)
            P = _entry(entries, f"P_rect_{number:02d}", 12, file).reshape(3, 4)
            cameras[number] = _camera(P, (round(width), round(height)), file)
    if not cameras:
        raise FormatError(file, "has no P_rect_xx line; it is not KITTI's calib_cam_to_cam.txt.")

    T_cam0rect_velo = T_velo_imu = None
    if "calib_velo_to_cam.txt" in texts:
        R_rect = np.eye(4)
        R_rect[:3, :3] = _entry(entries, "R_rect_00", 9, file).reshape(3, 3)
        T_cam0rect_velo = R_rect @ _rigid(texts["calib_velo_to_cam.txt"], f"{where}/calib_velo_to_cam.txt")
    if "calib_imu_to_velo.txt" in texts:
        T_velo_imu = _rigid(texts["calib_imu_to_velo.txt"], f"{where}/calib_imu_to_velo.txt")
    return Calibration(where, cameras, T_cam0rect_velo, T_velo_imu)


def read_odometry_calibration(path: str | Path) -> Calibration:
    """Reads a calibration of KITTI odometry, stereo 2012 or object: lines P0 to P3, `Tr` (and `R0_rect`) if given.

    Raises:
        FormatError: If there is no P line, or a line has not as many numbers as it should.
        OSError: If the file cannot be opened.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return parse_odometry_calibration(text, str(path))


def parse_odometry_calibration(text: str, where: str) -> Calibration:
    """As `read_odometry_calibration`, from the text of a file; `where` names it in messages."""
    entries = _parse_entries(text, where)
    cameras = {
        number: _camera(_entry(entries, f"P{number}", 12, where).reshape(3, 4), None, where)
        for number in range(4)
        if f"P{number}" in entries
    }
    if not cameras:
        raise FormatError(where, "has no P0 to P3 line; it is not a KITTI odometry calibration.")

    def rigid(names: tuple[str, ...]) -> np.ndarray | None:
        for name in names:
            if name in entries:
                T = np.eye(4)
                T[:3] = _entry(entries, name, 12, where).reshape(3, 4)
                return T
        return None

    T_cam0rect_velo = rigid(("Tr", "Tr_velo_to_cam", "Tr_velo_cam"))
    if T_cam0rect_velo is not None and "R0_rect" in entries:  # object benchmark: Tr leads to the unrectified camera
        R_rect = np.eye(4)
        R_rect[:3, :3] = _entry(entries, "R0_rect", 9, where).reshape(3, 3)
        T_cam0rect_velo = R_rect @ T_cam0rect_velo
    return Calibration(where, cameras, T_cam0rect_velo, rigid(("Tr_imu_to_velo", "Tr_imu_velo")))


def _parse_entries(text: str, where: str) -> dict[str, str]:
    entries = {}
    for line in text.splitlines():
        name, _, values = line.strip().partition(" ")
        if name:
            entries[name.rstrip(":")] = values
    if not entries:
        raise FormatError(where, "is empty; unpack the calibration again.")
    return entries


def _entry(entries: Mapping[str, str], name: str, count: int, where: str) -> np.ndarray:
    if name not in entries:
        raise FormatError(where, f"has no line '{name}'; unpack the calibration again.")
    try:
        values = np.array([float(word) for word in entries[name].split()], np.float64)
    except ValueError:
        raise FormatError(where, f"line '{name}' holds a word that is no number: {entries[name][:60]!r}") from None
    if len(values) != count or not np.isfinite(values).all():
        raise FormatError(where, f"line '{name}' holds {len(values)} numbers; expected {count} finite ones.")
    return values


def _camera(P: np.ndarray, size: tuple[int, int] | None, where: str) -> Camera:
    if P[0, 0] <= 0 or P[1, 1] <= 0 or not np.array_equal(P[2, :3], [0, 0, 1]):
        raise FormatError(where, f"holds a projection that is no rectified camera: {P.tolist()}.")
    return Camera(P, size)


def _rigid(text: str, where: str) -> np.ndarray:
    entries = _parse_entries(text, where)
    T = np.eye(4)
    T[:3, :3] = _entry(entries, "R", 9, where).reshape(3, 3)
    T[:3, 3] = _entry(entries, "T", 3, where)
    return T
