from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geossl.formats.errors import FormatError
from geossl.formats.kitti_png import (
    read_depth_png,
    read_disparity_png,
    read_flow_png,
    write_depth_png,
    write_disparity_png,
    write_flow_png,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
FAST = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FAST
@given(hnp.arrays(np.uint16, SHAPES))
def test_depth_png_round_trip_is_exact_on_the_grid(tmp_path: Path, stored: np.ndarray) -> None:
    path = tmp_path / "d.png"
    write_depth_png(path, stored / 256)
    np.testing.assert_array_equal(read_depth_png(path), stored.astype(np.float32) / 256)
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), stored)


@FAST
@given(hnp.arrays(np.float32, SHAPES, elements=st.floats(0.0, 300.0, width=32)))
def test_depth_png_rounds_to_the_nearest(tmp_path: Path, depth: np.ndarray) -> None:
    write_depth_png(tmp_path / "d.png", depth)
    read = read_depth_png(tmp_path / "d.png")
    np.testing.assert_array_equal(read > 0, depth > 0)  # what is known stays known
    inside = (depth >= 1 / 256) & (depth <= 65535 / 256)
    assert (np.abs(read - depth)[inside] <= 1 / 512 + 1e-6).all()
    assert (read[depth > 65535 / 256] == np.float32(65535 / 256)).all()


def test_depth_png_stores_the_worked_number(tmp_path: Path) -> None:
    write_depth_png(tmp_path / "d.png", np.array([[80.0, 0.0, np.nan, np.inf, -3.0]]))
    assert cv2.imread(str(tmp_path / "d.png"), cv2.IMREAD_UNCHANGED).tolist() == [[20480, 0, 0, 0, 0]]


def test_disparity_png_keeps_a_valid_zero_known(tmp_path: Path) -> None:
    write_disparity_png(tmp_path / "d.png", np.array([[0.0, 0.0, 12.5]]), np.array([[True, False, True]]))
    assert read_disparity_png(tmp_path / "d.png").tolist() == [[1 / 256, 0, 12.5]]


@FAST
@given(hnp.arrays(np.uint16, SHAPES.map(lambda s: (*s, 2))), st.randoms(use_true_random=False))
def test_flow_png_round_trip_is_exact_on_the_grid(tmp_path: Path, stored: np.ndarray, random) -> None:
    valid = np.array([random.random() < 0.7 for _ in range(stored[..., 0].size)]).reshape(stored.shape[:2])
    flow = (stored.astype(np.float32) - 32768) / 64
    write_flow_png(tmp_path / "f.png", flow, valid)
    read, read_valid = read_flow_png(tmp_path / "f.png")
    np.testing.assert_array_equal(read_valid, valid)
    np.testing.assert_array_equal(read, np.where(valid[..., None], flow, 0))


def test_flow_png_stores_the_worked_number_and_rounds(tmp_path: Path) -> None:
    # u = 1 px is 32768 + 64, v = -1 px is 32768 - 64; OpenCV reads B, G, R. 0.009 px is 0.576 steps: one step.
    write_flow_png(tmp_path / "f.png", np.array([[[1.0, -1.0], [0.009, 0.0], [np.nan, 0.0], [600.0, -600.0]]]))
    stored = cv2.imread(str(tmp_path / "f.png"), cv2.IMREAD_UNCHANGED)
    assert stored.tolist() == [[[1, 32704, 32832], [1, 32768, 32769], [0, 0, 0], [1, 0, 65535]]]


def test_flow_png_of_zero_flow_is_valid(tmp_path: Path) -> None:
    write_flow_png(tmp_path / "f.png", np.zeros((2, 3, 2)))
    flow, valid = read_flow_png(tmp_path / "f.png")
    assert valid.all() and not flow.any()


def test_kitti_png_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(FormatError, match=r"x.png: has 8 bits and 3 channel"):
        read_flow_png(path)
    cv2.imwrite(str(path), np.zeros((4, 5), np.uint8))
    with pytest.raises(FormatError, match="has 8 bits and 1 channel"):
        read_depth_png(path)
    cv2.imwrite(str(path), np.zeros((4, 5, 3), np.uint16))
    with pytest.raises(FormatError, match=r"16 bits and 3 channel.*expected a 16-bit PNG with 1 channel"):
        read_disparity_png(path)
    path.write_bytes(b"\xff\xd8\xff not a png")
    with pytest.raises(FormatError, match="is not a PNG file"):
        read_depth_png(path)


def test_kitti_png_refuses_a_cut_file(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    write_depth_png(path, np.random.default_rng(0).uniform(1, 80, (40, 50)))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="is cut off"):
        read_depth_png(path)


def test_flow_png_writer_refuses_wrong_shapes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \(H, W, 2\)"):
        write_flow_png(tmp_path / "f.png", np.zeros((2, 4, 5)))
    with pytest.raises(ValueError, match="valid has shape"):
        write_flow_png(tmp_path / "f.png", np.zeros((4, 5, 2)), np.ones((5, 4), bool))
    assert not list(tmp_path.iterdir())


def test_read_flow_png_agrees_with_opencv_on_real_files(shared_data: Path) -> None:
    for path in [*shared_data.rglob("flow_noc/*.png")][:2]:
        blue_green_red = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float64)
        flow, valid = read_flow_png(path)
        assert 0.05 < valid.mean() < 0.6
        np.testing.assert_array_equal(flow[valid], ((blue_green_red[..., [2, 1]] - 32768) / 64)[valid])
