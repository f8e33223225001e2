from pathlib import Path

import numpy as np
import pytest
from devkit_loops import slow_interpolation

from geossl.evaluation.stereo import average_d1, count_d1, disparity_outliers, interpolate_background
from geossl.formats.image import read_image
from geossl.formats.kitti_png import read_disparity_png


def test_devkit_counts_of_its_demo(shared_data: Path) -> None:
    """The official devkit: 14967 of 111127 estimated pixels, 15164 of 111326 after its background interpolation."""
    folder = shared_data / "kitti_2015" / "devkit_demo"
    truth, estimate = read_disparity_png(folder / "disp_gt.png"), read_disparity_png(folder / "disp_est.png")
    counts = count_d1(estimate, truth)
    assert (counts.outliers_estimated, counts.pixels_estimated) == (14967, 111127)
    assert (counts.outliers_all, counts.pixels_all) == (15164, 111326)
    assert counts.density_percent == pytest.approx(100 * 111127 / 111326)
    assert counts.estimated_percent == pytest.approx(100 * 14967 / 111127)


@pytest.mark.parametrize("seed", range(20))
def test_interpolate_background_equals_the_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    disparity = np.where(rng.random((9, 12)) < rng.uniform(0.02, 0.6), rng.integers(1, 90, (9, 12)), 0)
    np.testing.assert_array_equal(interpolate_background(disparity), slow_interpolation(disparity))


def test_interpolate_background_takes_the_farther_side() -> None:
    row = np.array([[0.0, 8, 0, 0, 3, np.nan]])
    assert interpolate_background(row).tolist() == [[8, 8, 3, 3, 3, 3]]
    assert not interpolate_background(np.zeros((3, 4))).any()


def test_outliers_need_both_thresholds_strictly() -> None:
    truth = np.array([10.0, 10, 100, 100, 100, 60])
    estimate = np.array([13.0, 13.01, 104, 105, 105.01, 63])
    assert disparity_outliers(estimate, truth).tolist() == [False, True, False, False, True, False]
    assert disparity_outliers(estimate, truth, strict=False).tolist() == [True, True, False, True, True, True]


def test_count_d1_splits_background_and_foreground() -> None:
    truth = np.array([[20.0, 20, 20, 20, 0]])
    estimate = np.array([[20.0, 30, 30, 20, 99]])
    counts = count_d1(estimate, truth, np.array([[0, 0, 1, 2, 0]]))
    assert (counts.outliers_bg, counts.pixels_bg, counts.outliers_fg, counts.pixels_fg) == (1, 2, 1, 2)
    assert counts.percent() == {"d1_all_percent": 50, "d1_bg_percent": 50, "d1_fg_percent": 50}
    assert list(count_d1(estimate, truth).percent()) == ["d1_all_percent"]


def test_a_missing_estimate_is_an_outlier_unless_filled() -> None:
    truth = np.full((1, 4), 20.0)
    estimate = np.array([[20.0, 0, np.nan, 20.0]])
    assert count_d1(estimate, truth).outliers_all == 0
    assert count_d1(estimate, truth, interpolate=False).outliers_all == 2
    assert count_d1(estimate, truth).pixels_estimated == 2


def test_pooled_and_per_image_averages_differ() -> None:
    counts = [count_d1(np.full((1, n), px), np.full((1, n), 20.0)) for n, px in ((1, 40.0), (3, 20.0))]
    assert average_d1(counts, "pooled") == {"d1_all_percent": 25}
    assert average_d1(counts, "per_image") == {"d1_all_percent": 50}


def test_d1_of_real_truth_against_itself(shared_data: Path) -> None:
    folder = shared_data / "kitti_2015" / "training"
    name = "000009_10.png"
    truth = read_disparity_png(folder / "disp_occ_0" / name)
    objects = read_image(folder / "obj_map" / name)[..., 0]
    counts = count_d1(truth * 1.2, truth, objects)
    assert counts.pixels_fg > 1000 and counts.pixels_all == (truth > 0).sum()
    assert counts.outliers_all == ((truth * np.float32(1.2) - truth) > 3)[truth > 0].sum()


def test_count_d1_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="estimate_px is"):
        count_d1(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="objects is"):
        count_d1(np.ones((2, 3)), np.ones((2, 3)), np.ones((3, 2)))
