"""References to ground truth: which file holds it, of what kind, and the camera it belongs to.

Samples carry them as references only, so that training never reads a label; evaluation turns them into maps.
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


@dataclass(frozen=True, eq=False)
class FlowTruth:
    """Where the optical flow from one image to the next in time lies.

    Attributes:
        kind: `kitti_png` (16-bit PNG, zero is unknown), `flo` (Middlebury's .flo) or `street` (a label file of the
            synthetic street, which also says what is hidden in the next image).
        flow: The file; of KITTI `flow_occ`, or `flow_noc` where only that is there.
        size: (width, height) of the image it belongs to, pixels.
        visible_flow: KITTI's `flow_noc`: flow of the pixels that are seen in the next image too.
        occlusions: Sintel's map of the pixels that are hidden in the next image (value > 0).
        invalid: Sintel's map of the pixels whose flow should not be scored (value > 0).
        object_map: KITTI 2015's map of moving cars (value > 0), for foreground figures.
    """

    kind: Literal["kitti_png", "flo", "street"]
    flow: FileRef
    size: tuple[int, int]
    visible_flow: FileRef | None = None
    occlusions: FileRef | None = None
    invalid: FileRef | None = None
    object_map: FileRef | None = None

    @property
    def visible_only(self) -> bool:
        """Whether the flow of hidden pixels is not known, so that there are no figures of all pixels."""
        return self.visible_flow == self.flow


@dataclass(frozen=True, eq=False)
class SceneFlowTruth:
    """Where the scene flow from one image to the next in time lies: disparity, its change, and flow.

    Attributes:
        kind: `kitti_png` (three 16-bit PNGs, zero is unknown) or `street` (a label file of the synthetic street, which
            says everything).
        disparity: The first image's; KITTI 2015's disp_occ_0, or the label file.
        size: (width, height) of the first image, pixels.
        disparity_next: The second time's disparity at the first image's pixels: disp_occ_1.
        flow: KITTI's flow_occ.
        visible: The three maps of the pixels that the other images see too: disp_noc_0, disp_noc_1, flow_noc.
        object_map: KITTI 2015's map of moving cars (value > 0), for foreground figures.
        K: (3, 3) float64 of the first image, as calibrated; the label file has its own.
        baseline_m: Distance to the other camera; the label file has its own.
    """

    kind: Literal["kitti_png", "street"]
    disparity: FileRef
    size: tuple[int, int]
    disparity_next: FileRef | None = None
    flow: FileRef | None = None
    visible: tuple[FileRef, FileRef, FileRef] | None = None
    object_map: FileRef | None = None
    K: np.ndarray | None = None
    baseline_m: float | None = None
