"""Tiny data sets in the official layouts, made for tests."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 132, 44
FX, CX, CY = 76.0, 64.5, 20.25
BASELINE_M = 0.54
LEFT_X, RIGHT_X = 0.06, 0.06 - BASELINE_M  # of cameras 2 and 3 seen from camera 0


def picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(H, W, 3) uint8, different for each seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


def projection(t_x: float) -> list[float]:
    return [FX, 0, CX, FX * t_x, 0, FX, CY, 0, 0, 0, 1, 0]


def row(numbers: Sequence[float]) -> str:
    return " ".join(f"{x:.12e}" for x in numbers)


def raw_calibration(folder: Path, velodyne: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["calib_time: 01-Jan-2000 00:00:00", "R_rect_00: 1 0 0 0 1 0 0 0 1"]
    for camera, x in enumerate((0.0, -BASELINE_M, LEFT_X, RIGHT_X)):
        lines += [f"S_rect_0{camera}: {WIDTH:.6e} {HEIGHT:.6e}", f"P_rect_0{camera}: {row(projection(x))}"]
    (folder / "calib_cam_to_cam.txt").write_text("\n".join(lines) + "\n")
    if velodyne:
        # LiDAR x forward, y left, z up -> camera z, -x, -y
        (folder / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n")
        (folder / "calib_imu_to_velo.txt").write_text("R: 1 0 0 0 1 0 0 0 1\nT: 0 0 0\n")


def raw_drive(
    root: Path,
    drive: str = "2011_09_26_drive_0001",
    frames: Sequence[int] = range(5),
    cameras: Sequence[str] = ("image_02", "image_03"),
    suffix: str = ".png",
    scans: Sequence[int] = (),
) -> Path:
    """A drive of KITTI raw with its date's calibration; returns the drive's folder."""
    date = root / drive[:10]
    raw_calibration(date)
    folder = date / f"{drive}_sync"
    for camera in cameras:
        for frame in frames:
            write(folder / camera / "data" / f"{frame:010d}{suffix}", picture(1000 * int(camera[-1]) + frame))
    for frame in scans:
        path = folder / "velodyne_points" / "data" / f"{frame:010d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.array([[10, 0, 0, 0.5], [20, -2, 0.5, 0.1]], np.float32).tofile(path)
    return folder


def zip_drives(root: Path, out: Path) -> Path:
    """The same data as the official archives: one per drive and one per date's calibration."""
    out.mkdir(parents=True)
    for date in sorted(root.iterdir()):
        with zipfile.ZipFile(out / f"{date.name}_calib.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(date.glob("*.txt")):
                archive.write(file, f"{date.name}/{file.name}")
        for drive in sorted(path for path in date.iterdir() if path.is_dir()):
            with zipfile.ZipFile(out / f"{drive.name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for file in sorted(path for path in drive.rglob("*") if path.is_file()):
                    archive.write(file, file.relative_to(root).as_posix())
    return out


def odometry_sequence(
    root: Path,
    sequence: str = "06",
    count: int = 4,
    cameras: Sequence[str] = ("image_0", "image_1"),
    poses: bool = True,
) -> Path:
    folder = root / "sequences" / sequence
    for camera in cameras:
        for frame in range(count):
            write(folder / camera / f"{frame:06d}.png", picture(100 * int(camera[-1]) + frame))
    xs = (0.0, -BASELINE_M, LEFT_X, RIGHT_X)
    (folder / "calib.txt").write_text("".join(f"P{i}: {row(projection(x))}\n" for i, x in enumerate(xs)))
    if poses:
        (root / "poses").mkdir(exist_ok=True)
        lines = [row([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0.5 * frame]) for frame in range(count)]
        (root / "poses" / f"{sequence}.txt").write_text("\n".join(lines) + "\n")
    return folder
