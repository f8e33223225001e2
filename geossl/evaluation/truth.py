"""From a reference to ground truth to a map of it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from geossl.evaluation.lidar import velodyne_to_depth, velodyne_to_depth_eigen
from geossl.formats.errors import FormatError
from geossl.formats.files import FileRef
from geossl.formats.image import decode_image
from geossl.formats.kitti_png import decode_depth_png, decode_disparity_png
from geossl.formats.truth import Truth
from geossl.formats.velodyne import decode_velodyne


def load_depth_truth(truth: Truth, projection: Literal["exact", "eigen", "eigen_z"] = "exact") -> np.ndarray:
    """The depth map of an image's ground truth.

    Args:
        truth: A sample's.
        projection: Of a LiDAR scan: `exact` (z, nearest pixel), `eigen` (as papers score the Eigen test set: the
            LiDAR's forward coordinate, a pixel up and left), `eigen_z` (the latter's pixels with z).

    Returns:
        (H, W) float32 z-depth in metres at the image's own size, 0 where unknown.

    Raises:
        FileNotFoundError, FormatError: If the file is missing or damaged, or has another size than the image.
    """
    where = str(truth.file)
    if truth.kind == "velodyne":
        points = decode_velodyne(truth.file.read(), where)
        if truth.calibration is None or truth.camera is None:
            raise ValueError(f"{where}: a LiDAR scan needs its calibration and camera to become a depth map.")
        if projection == "exact":
            return velodyne_to_depth(points, truth.calibration, truth.camera, truth.size)
        depth: Literal["velo_forward", "z"] = "velo_forward" if projection == "eigen" else "z"
        return velodyne_to_depth_eigen(points, truth.calibration, truth.camera, truth.size, depth)
    if truth.kind == "depth_png":
        return of_image_size(decode_depth_png(truth.file.read(), where), truth.size, truth.file)
    disparity_px = load_disparity_truth(truth)
    if truth.baseline_m is None:
        raise ValueError(f"{where}: disparity needs the baseline to become a depth map.")
    # The cameras' z differ by up to 3 mm on some days, which depth = fx b / disparity leaves out: below 0.5 %.
    known = disparity_px > 0
    depth_m = np.zeros_like(disparity_px)
    depth_m[known] = truth.K[0, 0] * truth.baseline_m / disparity_px[known]
    return depth_m


def load_disparity_truth(truth: Truth, visible_only: bool = False) -> np.ndarray:
    """(H, W) float32 disparity in pixels of a `disparity_png` truth, 0 where unknown.

    Args:
        truth: A sample's.
        visible_only: Only pixels that the other camera sees too.

    Raises:
        ValueError: If the truth is of another kind, or has no map of the visible pixels.
        FileNotFoundError, FormatError: If the file is missing, damaged, or of another size.
    """
    if truth.kind != "disparity_png":
        raise ValueError(f"{truth.file} is {truth.kind} ground truth; disparity is only in KITTI 2012 and 2015.")
    ref = truth.visible_disparity if visible_only else truth.file
    if ref is None:
        raise ValueError(f"{truth.file} has no map of the visible pixels beside it; unpack disp_noc.")
    return of_image_size(decode_disparity_png(ref.read(), str(ref)), truth.size, ref)


def load_object_map(truth: Truth) -> np.ndarray | None:
    """(H, W) bool, True on moving cars (KITTI 2015), or None where there is no such map."""
    if truth.object_map is None:
        return None
    return decode_image(truth.object_map.read(), str(truth.object_map))[..., 0] > 0


def of_image_size(values: np.ndarray, size: tuple[int, int], ref: FileRef) -> np.ndarray:
    """The map, (height, width, ...), if it has its image's size (width, height).

    Raises:
        FormatError: If not; names the file.
    """
    width, height = size
    if values.shape[:2] != (height, width):
        raise FormatError(
            str(ref), f"is {values.shape[1]}x{values.shape[0]}, but its image is {width}x{height}; unpack it again."
        )
    return values
