"""From a LiDAR scan to the depth map of a camera: exactly, and as the Eigen test set's published code does it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from geossl.formats.calibration import Calibration
from geossl.kernels.evaluation import evaluation_kernels_run, lidar_map, lidar_map_eigen


def velodyne_to_depth(
    points: np.ndarray, calibration: Calibration, camera: int | str = 2, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Depth of the nearest LiDAR point in every pixel.

    Args:
        points: (N, 3) or (N, 4) LiDAR points, metres.
        calibration: With the LiDAR's pose.
        camera: Number or folder of the rectified camera.
        size: (width, height) of the depth map; None takes the calibration's.

    Returns:
        (H, W) float32 z-depth in metres, 0 where no point falls.

    Convention: a point belongs to the pixel whose centre is nearest (u = 10.4 to column 10, 10.5 to column 11).
    """
    width, height = _size(calibration, camera, size)
    P = _projection(points, calibration, camera)
    if evaluation_kernels_run(points):
        return lidar_map(points, P, (width, height))
    u, v, z = _project(points, P)
    column, row = np.floor(u + 0.5), np.floor(v + 0.5)
    seen = np.flatnonzero((z > 0) & (column >= 0) & (row >= 0) & (column < width) & (row < height))
    pixel, value = (row[seen] * width + column[seen]).astype(np.intp), z[seen].astype(np.float32)
    depth = np.zeros(height * width, np.float32)
    depth[pixel] = value
    np.minimum.at(depth, pixel, value)
    return depth.reshape(height, width)


def velodyne_to_depth_eigen(
    points: np.ndarray,
    calibration: Calibration,
    camera: int | str = 2,
    size: tuple[int, int] | None = None,
    depth: Literal["velo_forward", "z"] = "velo_forward",
) -> np.ndarray:
    """The depth map against which papers score the Eigen test set, its peculiarities included.

    Arguments and result as `velodyne_to_depth`; `depth` "velo_forward" stores the LiDAR's forward coordinate (as
    Monodepth, SfMLearner and Monodepth2 score), "z" the camera's z.

    Differs from `velodyne_to_depth`: points behind the LiDAR are dropped instead of points behind the camera; pixels
    are round(u) - 1 and round(v) - 1, a pixel up and left; where several points fall into a pixel the least depth
    is found by an index that gives (row, W - 1) and (row + 1, 0) the same number, so of those two only the one
    that came first in the scan gets the least.
    Source: the steps of Monodepth2's `generate_depth_map`, which follows Monodepth's.
    """
    width, height = _size(calibration, camera, size)
    P = _projection(points, calibration, camera)
    if evaluation_kernels_run(points):
        return lidar_map_eigen(points, P, (width, height), depth == "velo_forward")
    points = points[points[:, 0] >= 0]
    u, v, z = _project(points, P)
    column, row = np.round(u) - 1, np.round(v) - 1
    found = np.flatnonzero((column >= 0) & (row >= 0) & (column < width) & (row < height))
    column, row = column[found], row[found]
    value = np.maximum((points[:, 0] if depth == "velo_forward" else z)[found], 0).astype(np.float32)
    pixel, index = (row * width + column).astype(np.intp), (row * (width - 1) + column).astype(np.intp)

    result = np.zeros(height * width, np.float32)
    result[pixel] = value  # the last point of a pixel stays
    # Of these only what the points refer to is ever written or read.
    least, first = np.empty(height * width, np.float32), np.empty(height * width, np.intp)
    least[index] = value
    np.minimum.at(least, index, value)
    first[index[::-1]] = pixel[::-1]
    result[first[index]] = least[index]  # where there is one point, what it is already
    return result.reshape(height, width)


def _size(calibration: Calibration, camera: int | str, size: tuple[int, int] | None) -> tuple[int, int]:
    size = size or calibration.size(camera)
    if size is None:
        raise ValueError(f"{calibration.where} does not say how large the images are; give size=(width, height).")
    return size


def _projection(points: np.ndarray, calibration: Calibration, camera: int | str) -> np.ndarray:
    """(3, 4) from LiDAR points to pixels; refuses what are no points."""
    if points.ndim != 2 or points.shape[1] not in (3, 4):
        raise ValueError(f"points has shape {points.shape}; expected (N, 3) or (N, 4): x, y, z, reflectance.")
    return calibration.P_velo(camera)


def _project(points: np.ndarray, P: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u, v in pixels and z in metres, each (N,) float64."""
    homogeneous = np.ones((len(points), 4))
    homogeneous[:, :3] = points[:, :3]
    u_z, v_z, z = P @ homogeneous.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return u_z / z, v_z / z, z
