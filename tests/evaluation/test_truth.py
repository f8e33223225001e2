from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from geossl.evaluation.truth import load_depth_truth, load_disparity_truth, load_object_map
from geossl.formats.calibration import parse_odometry_calibration
from geossl.formats.errors import FormatError
from geossl.formats.files import FileRef, FileTree
from geossl.formats.kitti_png import write_depth_png, write_disparity_png
from geossl.formats.truth import Truth

K = np.array([[100.0, 0, 20], [0, 100, 10], [0, 0, 1]])
SIZE = (41, 21)


def test_depth_png_is_read(tmp_path: Path) -> None:
    depth = np.zeros((21, 41), np.float32)
    depth[3, 5] = 12.5
    write_depth_png(tmp_path / "d.png", depth)
    truth = Truth("depth_png", FileRef(str(tmp_path / "d.png")), SIZE, K)
    np.testing.assert_array_equal(load_depth_truth(truth), depth)
    with pytest.raises(FormatError, match=r"d\.png: is 41x21, but its image is 42x21"):
        load_depth_truth(replace(truth, size=(42, 21)))
    with pytest.raises(ValueError, match="is depth_png ground truth"):
        load_disparity_truth(truth)


def test_disparity_becomes_depth(tmp_path: Path) -> None:
    disparity = np.zeros((21, 41), np.float32)
    disparity[3, 5] = 5.0
    write_disparity_png(tmp_path / "d.png", disparity)
    truth = Truth("disparity_png", FileRef(str(tmp_path / "d.png")), SIZE, K, baseline_m=0.5)
    depth = load_depth_truth(truth)
    assert depth[3, 5] == pytest.approx(100 * 0.5 / 5) and np.count_nonzero(depth) == 1
    np.testing.assert_array_equal(load_disparity_truth(truth), disparity)
    with pytest.raises(ValueError, match="unpack disp_noc"):
        load_disparity_truth(truth, visible_only=True)
    write_disparity_png(tmp_path / "noc.png", disparity[1:])
    smaller = replace(truth, visible_disparity=FileRef(str(tmp_path / "noc.png")))
    with pytest.raises(FormatError, match=r"noc\.png: is 41x20, but its image is 41x21"):
        load_disparity_truth(smaller, visible_only=True)
    assert load_object_map(truth) is None
    cv2.imwrite(str(tmp_path / "o.png"), np.eye(21, 41, dtype=np.uint8))
    objects = load_object_map(replace(truth, object_map=FileRef(str(tmp_path / "o.png"))))
    assert objects is not None and objects.dtype == bool and objects.sum() == 21


def test_velodyne_is_projected(tmp_path: Path) -> None:
    P = " ".join(str(float(x)) for x in np.column_stack([K, [0, 0, 0]]).reshape(-1))
    calibration = parse_odometry_calibration(f"P0: {P}\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n", "calib")
    np.array([[10, -1.0, 0.5, 0]], np.float32).tofile(tmp_path / "s.bin")  # x forward, y left, z up
    truth = Truth("velodyne", FileRef(str(tmp_path / "s.bin")), SIZE, K, calibration, 0)
    rows, columns = load_depth_truth(truth).nonzero()
    assert (rows.tolist(), columns.tolist()) == ([5], [30])  # u = 20 + 100 * 1/10, v = 10 - 100 * 0.5/10
    rows, columns = load_depth_truth(truth, "eigen").nonzero()
    assert (rows.tolist(), columns.tolist()) == ([4], [29])
    with pytest.raises(ValueError, match="needs its calibration"):
        load_depth_truth(replace(truth, calibration=None))


def test_real_lidar_agrees_with_real_disparity(shared_data: Path) -> None:
    """KITTI 2015 scene 2 has both: the medians of their depths differ by under 2 %."""
    from geossl.formats.calibration import read_kitti_raw_calibration

    calibration = read_kitti_raw_calibration(shared_data / "kitti_raw" / "2011_09_26")
    tree = FileTree(shared_data / "kitti_2015" / "training")
    scan, disparity = tree.find("velodyne/000002_10.bin"), tree.find("disp_occ_0/000002_10.png")
    assert scan is not None and disparity is not None
    common = ((1242, 375), calibration.K(2), calibration, 2, calibration.baseline_m(2, 3))
    lidar = load_depth_truth(Truth("velodyne", scan, *common))
    stereo = load_depth_truth(Truth("disparity_png", disparity, *common))
    both = (lidar > 0) & (stereo > 0)
    assert both.sum() > 5000
    ratio = lidar[both] / stereo[both]
    assert np.median(ratio) == pytest.approx(1, abs=0.02)
