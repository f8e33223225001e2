"""A reference to ground truth: which file holds it, of what kind, and the camera it belongs to.

Samples carry it as a reference only, so that training never reads a label; evaluation turns it into a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from geossl.formats.calibration import Calibration
from geossl.formats.files import FileRef


@dataclass(frozen=True, eq=False)
class Truth:
    """Where the ground truth of one image lies.

    Attributes:
        kind: `velodyne` (a LiDAR scan to project), `depth_png` (KITTI's improved depth, value/256 m) or
            `disparity_png` (KITTI stereo, value/256 px).
        file: The file.
        size: (width, height) of the image it belongs to, pixels.
        K: (3, 3) float64 of that image, as calibrated.
        calibration: Of the recording; needed for `velodyne`.
        camera: The image's camera number in it.
        baseline_m: Distance to the other camera; turns disparity into depth.
        object_map: KITTI 2015's map of moving cars (value > 0), for foreground figures.
        visible_disparity: Disparity without the pixels that the other camera does not see (KITTI's `noc`).
    """

    kind: Literal["velodyne", "depth_png", "disparity_png"]
    file: FileRef
    size: tuple[int, int]
    K: np.ndarray
    calibration: Calibration | None = None
    camera: int | None = None
    baseline_m: float | None = None
    object_map: FileRef | None = None
    visible_disparity: FileRef | None = None
