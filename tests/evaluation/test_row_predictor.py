from dataclasses import replace

import numpy as np
import pytest

from geossl.evaluation.depth import get_protocol, score_depth
from geossl.evaluation.row_predictor import fit_row_predictor, predict_rows, protocol_truth


def street(height: int, width: int, seed: int) -> np.ndarray:
    """Sparse truth of a road below the middle with obstacles; nothing known above."""
    rng = np.random.default_rng(seed)
    v = np.arange(height)[:, None] - height / 2 + 0.5
    depth = np.where(v > 0, height / np.maximum(v, 0.5), 0) * rng.uniform(0.4, 1.1, (height, width))
    return np.where(rng.random((height, width)) < 0.4, depth, 0)


def mean_abs_rel(row_depth: np.ndarray, truths: list[np.ndarray]) -> float:
    values = []
    for truth in truths:
        known = truth > 0
        values.append(np.mean(np.abs(predict_rows(row_depth, *truth.shape) - truth)[known] / truth[known]))
    return float(np.mean(values))


def test_fit_row_predictor_is_exact_on_a_world_of_rows() -> None:
    rows = np.linspace(3, 60, 16)
    truth = np.repeat(rows[:, None], 9, axis=1)
    np.testing.assert_array_equal(fit_row_predictor([truth, truth], height=16), rows)
    np.testing.assert_allclose(predict_rows(rows, 32, 5)[::2, 0], rows, rtol=1e-6)


def test_fit_row_predictor_is_the_weighted_median() -> None:
    # |d - g| / g summed over g = 1, 2, 2: with d = 1 it is 0.5 + 0.5 = 1, with d = 2 it is 1; over g = 1, 3, 3, d = 1
    # costs 4/3 and d = 3 costs 2: the near point wins although the plain median is 3.
    assert fit_row_predictor([np.array([[1.0, 3, 3]])], height=1)[0] == 1


def test_no_other_constant_beats_the_fit() -> None:
    truths = [street(24, 30, seed) for seed in range(4)] + [street(36, 10, 9)]
    fitted = fit_row_predictor(truths, height=12)
    best = mean_abs_rel(fitted, truths)
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = fitted.copy()
        row = rng.integers(12)
        changed[row] *= np.exp(rng.normal() * 0.3)
        assert mean_abs_rel(changed, truths) >= best - 1e-9


def test_rows_without_truth_take_the_nearest() -> None:
    truth = np.zeros((6, 4))
    truth[3], truth[5] = 10, 4
    assert fit_row_predictor([truth], height=6).tolist() == [10, 10, 10, 10, 10, 4]


def test_fit_row_predictor_counts_only_the_crop() -> None:
    truth = np.full((100, 100), 7.0)
    truth[:, :3] = 1  # outside Garg's crop
    assert set(fit_row_predictor([truth], height=10, crop="garg")) == {7.0}
    protocol = replace(get_protocol("eigen"), truth_range=(1e-3, 5.0))
    assert protocol_truth(truth, protocol).any() == False  # noqa: E712 - nothing below 5 m inside the crop


def test_row_predictor_under_a_protocol() -> None:
    truths = [street(24, 30, seed) for seed in range(3)]
    row_depth = fit_row_predictor(truths)
    scores = score_depth([predict_rows(row_depth, 24, 30)] * 3, truths, get_protocol("native"))
    assert scores.means()["abs_rel"] < 0.4


def test_fit_row_predictor_needs_truth() -> None:
    with pytest.raises(ValueError, match="no depth map has a known pixel"):
        fit_row_predictor([np.zeros((4, 4))])
    with pytest.raises(ValueError, match="crop 'x'"):
        fit_row_predictor([np.ones((4, 4))], crop="x")
