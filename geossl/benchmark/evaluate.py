"""Eigen scoring after the network, and LiDAR scans as depth maps, against the code in common use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from geossl.benchmark.contest import OURS, PLAIN, Contest
from geossl.benchmark.plain import PlainModules
from geossl.benchmark.samples import KITTI_SIZE, street
from geossl.data.synthetic.write import DATE, drive_name
from geossl.evaluation.depth import METRICS, score_depth
from geossl.evaluation.depth_protocols import get_protocol, scored_truth
from geossl.evaluation.lidar import velodyne_to_depth_eigen
from geossl.formats.calibration import read_kitti_raw_calibration
from geossl.formats.velodyne import read_velodyne

SCANS = 4
IMAGES = 16
CAMERA = 2


def evaluation_contests(
    plain: PlainModules | None,
    folder: Path,
    size: tuple[int, int] = (192, 640),
    file_size: tuple[int, int] = KITTI_SIZE,
) -> list[Contest]:
    """A contest of scoring and one of projecting.

    Truth is loaded before: on the plain side a dense map, on geossl's the pixels that are scored.

    Args:
        plain: The plain implementation.
        folder: Empty, for a street.
        size: (height, width) of the predictions.
        file_size: (height, width) of the truth.
    """
    street(folder, SCANS, file_size)
    scans = sorted((folder / DATE / drive_name(0) / "velodyne_points" / "data").glob("*.bin"))
    points = [whole_turn(read_velodyne(path)) for path in scans]
    calibration = read_kitti_raw_calibration(folder / DATE)
    height, width = file_size

    def our_maps() -> list[np.ndarray]:
        return [velodyne_to_depth_eigen(p, calibration, CAMERA, (width, height)) for p in points]

    truths = [our_maps()[i % len(points)] for i in range(IMAGES)]
    rng = np.random.default_rng(0)
    inverse = [rng.uniform(0.02, 0.5, size).astype(np.float32) for _ in range(IMAGES)]
    depths = [1 / values for values in inverse]
    protocol = get_protocol("eigen")
    scored = [scored_truth(truth, protocol) for truth in truths]

    def our_scores() -> list[float]:
        means = score_depth(depths, scored, protocol).means()
        return [means[name] for name in METRICS]

    scoring: dict[str, Callable[[], Any]] = {OURS: our_scores}
    maps: dict[str, Callable[[], Any]] = {OURS: our_maps}
    if plain is not None:
        P = calibration.P_velo(CAMERA)
        scoring = {PLAIN: lambda: list(plain.eigen.score(inverse, truths)), **scoring}
        maps = {PLAIN: lambda: [plain.eigen.depth_map(p, P, width, height) for p in points], **maps}
    name = f"{width}x{height}"
    return [
        Contest(f"Eigen scoring, {name}", scoring, goal=12, tolerance=1e-6, count=IMAGES),
        Contest(f"LiDAR to depth map, {name}", maps, goal=8, tolerance=0.0, count=len(points)),
    ]


def whole_turn(points: np.ndarray) -> np.ndarray:
    """A scan of what lies ahead, (N, 4), three times more to the left, behind and to the right, as a LiDAR sees it."""
    x, y, *others = points.T
    return np.concatenate([np.stack([a, b, *others], 1) for a, b in ((x, y), (-y, x), (-x, -y), (y, -x))])
