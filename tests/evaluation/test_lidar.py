"""The depth map of a scan against loops written from the published steps, pixel by pixel."""

import math
from pathlib import Path

import numpy as np
import pytest

from geossl.evaluation.lidar import velodyne_to_depth, velodyne_to_depth_eigen
from geossl.formats.calibration import Calibration, Camera, read_kitti_raw_calibration
from geossl.formats.velodyne import read_velodyne


def matrices_from_files(folder: Path) -> np.ndarray:
    """(3, 4) LiDAR to pixels of camera 2, read without geossl's own parser."""
    lines = dict(
        line.split(": ", 1)
        for name in ("calib_cam_to_cam", "calib_velo_to_cam")
        for line in (folder / f"{name}.txt").read_text().splitlines()
    )

    def numbers(name: str) -> np.ndarray:
        return np.array(lines[name].split(), dtype=np.float64)

    rotation, rigid = np.eye(4), np.eye(4)
    rotation[:3, :3] = numbers("R_rect_00").reshape(3, 3)
    rigid[:3, :3], rigid[:3, 3] = numbers("R").reshape(3, 3), numbers("T")
    return numbers("P_rect_02").reshape(3, 4) @ rotation @ rigid


def slow_depth(points: np.ndarray, P: np.ndarray, width: int, height: int) -> np.ndarray:
    depth = np.zeros((height, width))
    for x, y, z in points[:, :3].astype(np.float64):
        a, b, c = (row[0] * x + row[1] * y + row[2] * z + row[3] for row in P)
        if c <= 0:
            continue
        u, v = math.floor(a / c + 0.5), math.floor(b / c + 0.5)
        if 0 <= u < width and 0 <= v < height and (depth[v, u] == 0 or c < depth[v, u]):
            depth[v, u] = c
    return depth.astype(np.float32)


def slow_depth_eigen(points: np.ndarray, P: np.ndarray, width: int, height: int, forward: bool) -> np.ndarray:
    depth = np.zeros((height, width))
    groups: dict[int, list[tuple[int, int, float]]] = {}
    for x, y, z in points[:, :3].astype(np.float64):
        if x < 0:
            continue
        a, b, c = (row[0] * x + row[1] * y + row[2] * z + row[3] for row in P)
        u, v = round(a / c) - 1, round(b / c) - 1  # Python rounds halves to even, as numpy does
        if 0 <= u < width and 0 <= v < height:
            value = x if forward else c
            depth[v, u] = value
            groups.setdefault(v * (width - 1) + u - 1, []).append((v, u, value))
    for members in groups.values():
        if len(members) > 1:
            v, u, _ = members[0]
            depth[v, u] = min(value for _, _, value in members)
    depth[depth < 0] = 0
    return depth.astype(np.float32)


def test_velodyne_to_depth_equals_the_loop_on_real_scans(shared_data: Path) -> None:
    folder = shared_data / "kitti_raw" / "2011_09_26"
    P, calibration = matrices_from_files(folder), read_kitti_raw_calibration(folder)
    for frame in (0, 5):
        drive = folder / "2011_09_26_drive_9001_sync"
        points = read_velodyne(drive / "velodyne_points" / "data" / f"{frame:010d}.bin")
        exact = velodyne_to_depth(points, calibration, "image_02")
        np.testing.assert_array_equal(exact, slow_depth(points, P, 1242, 375))
        assert 10_000 < (exact > 0).sum() < 30_000
        for depth in ("velo_forward", "z"):
            published = velodyne_to_depth_eigen(points, calibration, "image_02", depth=depth)
            slow = slow_depth_eigen(points, P, 1242, 375, forward=depth == "velo_forward")
            np.testing.assert_array_equal(published, slow)


def test_velodyne_to_depth_ignores_what_the_camera_does_not_see(shared_data: Path) -> None:
    """Frame 16 is a whole scan: leaving out all that lies behind changes nothing."""
    folder = shared_data / "kitti_raw" / "2011_09_26"
    scan = folder / "2011_09_26_drive_9001_sync" / "velodyne_points" / "data" / "0000000016.bin"
    points, calibration = read_velodyne(scan), read_kitti_raw_calibration(folder)
    front = points[points[:, 0] > 0.5]
    assert len(front) < 0.7 * len(points)
    np.testing.assert_array_equal(velodyne_to_depth(points, calibration), velodyne_to_depth(front, calibration))


def small_calibration() -> tuple[Calibration, np.ndarray]:
    P = np.array([[6.0, 0, 5.2, 0.3], [0, 6.0, 3.1, -0.2], [0, 0, 1, 0.01]])
    T = np.array([[0, -1, 0, 0.02], [0, 0, -1, -0.05], [1, 0, 0, -0.25], [0, 0, 0, 1.0]])
    return Calibration("small", {2: Camera(P, (11, 7))}, T), P @ T


@pytest.mark.parametrize("seed", range(5))
def test_velodyne_to_depth_equals_the_loop_where_points_share_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(-1, 20, 3000), rng.uniform(-15, 15, 3000), rng.uniform(-9, 9, 3000)])
    points = np.column_stack([points, rng.uniform(0, 1, 3000)]).astype(np.float32)
    calibration, P = small_calibration()
    np.testing.assert_array_equal(velodyne_to_depth(points, calibration), slow_depth(points, P, 11, 7))
    for depth in ("velo_forward", "z"):
        published = velodyne_to_depth_eigen(points, calibration, depth=depth)
        np.testing.assert_array_equal(published, slow_depth_eigen(points, P, 11, 7, depth == "velo_forward"))


def test_published_duplicate_index_joins_a_row_end_with_the_next_row_start() -> None:
    """Pixels (row 2, column 10) and (row 3, column 0) of 11 columns share the index 2 * 10 + 9 = 3 * 10 - 1."""
    calibration = Calibration("unit", {2: Camera(np.eye(3, 4), (11, 7))}, np.eye(4))
    x_forward = np.array([[11.0, 3, 1], [1, 4, 1]])  # published pixel: round(11) - 1 = 10, 2 ; 0, 3
    depth = velodyne_to_depth_eigen(x_forward, calibration)
    assert (
        depth[2, 10] == 1 and depth[3, 0] == 1
    )  # the first one takes the least forward x of the two, 1 instead of 11
    assert velodyne_to_depth_eigen(x_forward[::-1], calibration)[2, 10] == 11


def test_velodyne_to_depth_rounds_to_the_nearest_centre_and_keeps_the_nearest_point() -> None:
    calibration = Calibration("unit", {0: Camera(np.eye(3, 4), (6, 4))}, np.eye(4))
    points = np.array([[2.4, 1.4, 1], [2.5 * 3, 1.5 * 3, 3], [2.6 * 2, 1.6 * 2, 2], [1, 1, -1], [-0.51, 0, 1]])
    depth = velodyne_to_depth(points, calibration, 0)
    expected = np.zeros((4, 6))
    expected[1, 2], expected[2, 3] = 1, 2
    np.testing.assert_array_equal(depth, expected)


def test_velodyne_to_depth_asks_for_what_is_missing() -> None:
    no_size = Calibration("here", {0: Camera(np.eye(3, 4))}, np.eye(4))
    with pytest.raises(ValueError, match="here does not say how large"):
        velodyne_to_depth(np.ones((1, 4)), no_size, 0)
    with pytest.raises(ValueError, match="where the LiDAR is"):
        velodyne_to_depth(np.ones((1, 4)), Calibration("here", {0: Camera(np.eye(3, 4), (4, 4))}), 0)
    with pytest.raises(ValueError, match="points has shape"):
        velodyne_to_depth(np.ones(4), no_size, 0, (4, 4))
