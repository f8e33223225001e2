"""LiDAR maps are bit-equal to the plain ones, scores and resized values those of numpy and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from geossl.evaluation.depth import depth_metrics, get_protocol, score_image
from geossl.evaluation.lidar import velodyne_to_depth, velodyne_to_depth_eigen
from geossl.formats.calibration import Calibration, Camera
from geossl.kernels import available, use
from geossl.kernels.evaluation import evaluation_kernels_run, middle_values, resized_at

pytestmark = pytest.mark.skipif("cpu" not in available(), reason="the CPU kernels were not built")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("columns", [3, 4])
@pytest.mark.parametrize("size", [(11, 7), (1242, 375), (1, 9)])
def test_lidar_maps_are_those_of_numpy(seed: int, columns: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(-1, 20, 3000), rng.uniform(-15, 15, 3000), rng.uniform(-9, 9, 3000)])
    points = np.column_stack([points, rng.uniform(0, 1, 3000)]).astype(np.float32)[:, :columns].copy()
    points[:2] = [[np.nan] * columns, [np.inf] * columns]
    points[2:600, 0] = 0  # depths of 0, which are no empty pixels
    scale = size[0] / 11
    P = np.array([[6.0 * scale, 0, 5.2 * scale, 0.3], [0, 6.0 * scale, 3.1 * scale, -0.2], [0, 0, 1, 0.01]])
    T = np.array([[0, -1, 0, 0.02], [0, 0, -1, -0.05], [1, 0, 0, -0.25], [0, 0, 0, 1.0]])
    calibration = Calibration("small", {2: Camera(P, size)}, T)

    def maps() -> list[np.ndarray]:
        return [
            velodyne_to_depth(points, calibration),
            velodyne_to_depth_eigen(points, calibration),
            velodyne_to_depth_eigen(points, calibration, depth="z"),
        ]

    assert evaluation_kernels_run(points)
    ours = maps()
    with use("plain"), np.errstate(invalid="ignore"):
        assert not evaluation_kernels_run(points)
        plain = maps()
    for found, expected in zip(ours, plain, strict=True):
        assert found.dtype == np.float32 and found.any()
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(16, 32), (1, 5), (7, 1), (47, 91), (60, 100)])
@pytest.mark.parametrize("inverse", [False, True])
def test_resized_values_are_opencv_s(shape: tuple[int, int], inverse: bool) -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 60, shape).astype(np.float32)
    resized = cv2.resize(1 / depth if inverse else depth, (91, 47), interpolation=cv2.INTER_LINEAR)
    for pixels in (np.arange(47 * 91), np.sort(rng.choice(47 * 91, 60, replace=False)), np.array([], np.int64)):
        expected = resized.reshape(-1)[pixels]
        found = resized_at(depth, (47, 91), pixels, inverse)
        np.testing.assert_allclose(found, 1 / expected if inverse else expected, rtol=2e-6)


@pytest.mark.parametrize("name", ["eigen", "sfmlearner", "packnet", "eigen_benchmark", "monodepth_eigen"])
def test_scores_are_those_without_kernels(name: str) -> None:
    rng = np.random.default_rng(1)
    truth = np.where(rng.random((47, 91)) < 0.3, rng.uniform(2, 90, (47, 91)), 0).astype(np.float32)
    depth = rng.uniform(1, 60, (16, 32)).astype(np.float32)
    ours = score_image(depth, truth, get_protocol(name))
    with use("plain"):
        plain = score_image(depth, truth, get_protocol(name))
    assert ours is not None and plain is not None
    assert ours.pixels == plain.pixels and ours.ratio == pytest.approx(plain.ratio, rel=1e-6)
    assert dict(ours.metrics) == pytest.approx(dict(plain.metrics), rel=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 101, 5000])
@pytest.mark.parametrize("kind", ["spread", "close", "equal", "extreme"])
def test_middle_values_are_those_of_sorting(count: int, kind: str) -> None:
    rng = np.random.default_rng(count)
    values = {
        "spread": rng.uniform(0.5, 80, count),
        "close": 7 + 1e-6 * rng.integers(0, 4, count),
        "equal": np.full(count, 3.25),
        "extreme": rng.choice([1e-45, 1e-20, 1, 3e38, np.inf], count),
    }[kind].astype(np.float32)
    ordered = np.sort(values)
    assert middle_values(values) == (ordered[(count - 1) // 2], ordered[count // 2])


@pytest.mark.parametrize("count", [1, 2, 7, 4096])
def test_metrics_are_numpy_s(count: int) -> None:
    rng = np.random.default_rng(2)
    truth = rng.uniform(0.1, 80, count)
    prediction = truth * np.exp(rng.choice([1e-9, 0.1, 0.3, 3], count) * rng.standard_normal(count))
    prediction[0] = truth[0]
    ours = depth_metrics(prediction, truth)
    with use("plain"):
        plain = depth_metrics(prediction, truth)
    assert ours == pytest.approx(plain, rel=1e-12, abs=1e-15)
