"""LiDAR scans as depth maps, depth maps in the pixels that are scored, and their errors, on the CPU; of numpy arrays.

The functions run where `evaluation_kernels_run` says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geossl.kernels import cpu_kernels_run
from geossl.kernels.library import INT, LONG, POINTER, kernel


def evaluation_kernels_run(*arrays: np.ndarray, dtype: type = np.float32) -> bool:
    """Whether the kernels compute a function of arrays: of that type, in row-major order, and kernels in use."""
    return all(x.dtype == dtype and x.flags.c_contiguous for x in arrays) and cpu_kernels_run()


def lidar_map(points: np.ndarray, P: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As `evaluation.lidar.velodyne_to_depth`.

    Args:
        points: (N, 3) or (N, 4) float32, row-major.
        P: (3, 4) float64 from LiDAR points to pixels.
        size: (width, height) of the map.
    """
    width, height = size
    P, depth = np.ascontiguousarray(P, np.float64), np.zeros((height, width), np.float32)
    run = kernel("geossl_lidar_map", POINTER, LONG, INT, POINTER, POINTER, INT, INT)
    run(_at(points), len(points), points.shape[1], _at(P), _at(depth), height, width)
    return depth


def lidar_map_eigen(points: np.ndarray, P: np.ndarray, size: tuple[int, int], forward: bool) -> np.ndarray:
    """As `evaluation.lidar.velodyne_to_depth_eigen`; `forward` stores the LiDAR's forward coordinate instead of z.

    Args: As `lidar_map`.
    """
    width, height = size
    P, depth = np.ascontiguousarray(P, np.float64), np.zeros((height, width), np.float32)
    seams = np.zeros((height + 1, 2), np.int32)
    run = kernel("geossl_lidar_map_eigen", POINTER, LONG, INT, POINTER, INT, POINTER, POINTER, INT, INT)
    run(_at(points), len(points), points.shape[1], _at(P), int(forward), _at(depth), _at(seams), height, width)
    return depth


def resized_at(values: np.ndarray, size: tuple[int, int], pixels: np.ndarray, inverse: bool) -> np.ndarray:
    """Values of a map that is resized bilinearly, edges aligned, in some of the pixels.

    Args:
        values: (h, w) float32, row-major.
        size: (height, width) to which it is resized.
        pixels: (N,) row * width + column, ascending.
        inverse: Resize 1 / values, and return the inverse of that.

    Returns:
        (N,) float32.
    """
    pixels, found = np.ascontiguousarray(pixels, np.int64), np.empty(len(pixels), np.float32)
    run = kernel("geossl_resized_at", POINTER, *[INT] * 4, POINTER, LONG, INT, POINTER)
    run(_at(values), *values.shape, *size, _at(pixels), len(pixels), int(inverse), _at(found))
    return found


def middle_values(values: np.ndarray) -> tuple[float, float]:
    """The two middle ones of (N,) positive float32 values in their order, the same twice where N is odd."""
    scratch, middle = np.empty(len(values), np.uint32), np.empty(2, np.float32)
    kernel("geossl_middle", POINTER, LONG, POINTER, POINTER)(_at(values), len(values), _at(scratch), _at(middle))
    return float(middle[0]), float(middle[1])


def depth_sums(prediction: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Over matching positive depths p and g, what the metrics of `evaluation.depth_scores` are means of.

    Args:
        prediction, truth: (N,) float64.
        thresholds: (3,) float64.

    Returns:
        (7,) sums of |p - g| / g, (p - g)^2 / g, (p - g)^2, log(p / g)^2, and of max(p / g, g / p) < each threshold.
    """
    sums = np.empty(7)
    run = kernel("geossl_depth_sums", POINTER, POINTER, LONG, POINTER, POINTER)
    run(_at(prediction), _at(truth), len(truth), _at(thresholds), _at(sums))
    return sums


def _at(values: np.ndarray) -> Any:
    return values.ctypes.data
