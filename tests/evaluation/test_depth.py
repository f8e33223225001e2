import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.evaluation.depth import depth_metrics, resize_depth, score_depth, score_image
from geossl.evaluation.depth_protocols import (
    PROTOCOLS,
    DepthProtocol,
    crop_bounds,
    get_protocol,
    scored_pixels,
    scored_truth,
)

PLAIN = DepthProtocol("plain", truth_range=None, clip=None)


def sparse_truth(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((height, width)) < 0.3, rng.uniform(2, 70, (height, width)), 0).astype(np.float32)


def test_depth_metrics_closed_form() -> None:
    metrics = depth_metrics(np.array([2.0, 3.0]), np.array([1.0, 4.0]))
    assert metrics["abs_rel"] == pytest.approx((1 / 1 + 1 / 4) / 2)
    assert metrics["sq_rel"] == pytest.approx((1 / 1 + 1 / 4) / 2)
    assert metrics["rmse"] == pytest.approx(1)
    assert metrics["rmse_log"] == pytest.approx(np.sqrt((np.log(2) ** 2 + np.log(3 / 4) ** 2) / 2))
    # ratios 2 and 1.333: below 1.25^2 = 1.5625 is one of two, below 1.25^3 = 1.953 one of two
    assert (metrics["delta1"], metrics["delta2"], metrics["delta3"]) == (0, 0.5, 0.5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=1, max_size=20))
def test_depth_metrics_equal_a_loop(pairs: list[tuple[float, float]]) -> None:
    n = len(pairs)
    metrics = depth_metrics(np.array([p for p, _ in pairs]), np.array([g for _, g in pairs]))
    assert metrics["abs_rel"] == pytest.approx(sum(abs(p - g) / g for p, g in pairs) / n)
    assert metrics["sq_rel"] == pytest.approx(sum((p - g) ** 2 / g for p, g in pairs) / n)
    assert metrics["delta2"] == pytest.approx(sum(max(p / g, g / p) < 1.25**2 for p, g in pairs) / n)


def test_depth_metrics_refuse_nothing() -> None:
    with pytest.raises(ValueError, match="not empty"):
        depth_metrics(np.array([]), np.array([]))


def test_crop_bounds_of_kitti() -> None:
    assert crop_bounds("garg", 375, 1242) == (slice(153, 371), slice(44, 1197))
    assert crop_bounds("eigen", 375, 1242) == (slice(124, 342), slice(44, 1197))
    assert crop_bounds("none", 375, 1242) == (slice(0, 375), slice(0, 1242))


def test_scored_pixels_are_strictly_within_the_range() -> None:
    truth = np.array([[0.0, 1e-3, 0.002, 79.9, 80.0, 90.0, np.nan, np.inf, -1]])
    protocol = DepthProtocol("x")
    assert scored_pixels(truth, protocol).tolist() == [[False, False, True, True] + [False] * 5]
    assert scored_pixels(truth, get_protocol("eigen_benchmark")).sum() == 5  # all known truth, no cap


def test_median_scaling_removes_any_scale() -> None:
    truth = sparse_truth()
    prediction = np.where(truth > 0, truth, 5) * 1.1
    protocol = DepthProtocol("x", scaling="median")
    one, other = (score_image(prediction * s, truth, protocol) for s in (1, 0.037))
    assert one is not None and other is not None
    assert one.metrics["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert other.metrics == pytest.approx(one.metrics, abs=1e-6)
    assert other.ratio == pytest.approx(1 / 1.1 / 0.037)


def test_scaling_none_and_factor() -> None:
    truth = sparse_truth()
    half = np.where(truth > 0, truth, 5) / 2
    plain = score_image(half, truth, get_protocol("native"))
    double = score_image(half, truth, get_protocol("native", scaling=2))
    assert plain is not None and plain.metrics["abs_rel"] == pytest.approx(0.5)
    assert plain.ratio == pytest.approx(2)  # told even where it is not applied
    assert double is not None and double.metrics["abs_rel"] == pytest.approx(0, abs=1e-7)


def test_median_is_numpys_mid_point_or_torchs_lower_one() -> None:
    truth, prediction = np.array([[1.0, 2, 3, 4]]), np.ones((1, 4))
    middle = score_image(prediction, truth, DepthProtocol("x", scaling="median"))
    lower = score_image(prediction, truth, DepthProtocol("x", scaling="median", median="lower"))
    assert middle is not None and middle.ratio == 2.5
    assert lower is not None and lower.ratio == 2 == torch.median(torch.from_numpy(truth)).item()


def test_clipping_comes_after_scaling_unless_the_protocol_says_otherwise() -> None:
    truth, prediction = np.array([[10.0, 10, 10]]), np.array([[100.0, 100, 100]])
    after = DepthProtocol("x", scaling="factor", factor=0.1)
    before = DepthProtocol("x", scaling="factor", factor=0.1, clip_before_scaling=True)
    one, other = score_image(prediction, truth, after), score_image(prediction, truth, before)
    assert one is not None and one.metrics["abs_rel"] == pytest.approx(0)  # 100 * 0.1 = 10
    assert other is not None and other.metrics["abs_rel"] == pytest.approx(0.2)  # 80 * 0.1 = 8


@pytest.mark.parametrize(
    ("name", "ratio"), [("eigen", 25), ("sfmlearner", 25), ("eigen_benchmark", 25), ("packnet", 20), ("sc_depth", 20)]
)
def test_published_protocols_scale_by_their_own_median(name: str, ratio: float) -> None:
    truth = np.zeros((10, 10))
    truth[5, 3:7] = 10, 20, 30, 40
    score = score_image(np.ones((10, 10)), truth, get_protocol(name))
    assert score is not None and score.ratio == ratio


@pytest.mark.parametrize(("name", "seen_m"), [("native", 80), ("monodepth_garg", 160), ("monodepth_eigen", 160)])
def test_published_protocols_clip_in_their_own_order(name: str, seen_m: float) -> None:
    score = score_image(np.full((10, 10), 100.0), np.full((10, 10), 10.0), get_protocol(name, scaling=2))
    assert score is not None and score.metrics["abs_rel"] == pytest.approx((seen_m - 10) / 10)


def test_prediction_beyond_the_cap_counts_as_the_cap() -> None:
    score = score_image(np.array([[500.0]]), np.array([[40.0]]), get_protocol("native"))
    assert score is not None and score.metrics["abs_rel"] == pytest.approx(1)  # 80 against 40


def test_resize_is_of_inverse_depth_or_of_depth() -> None:
    depth = np.array([[1.0, 3.0], [2.0, 4.0]], np.float32)
    inverse = resize_depth(depth, 5, 6, PLAIN)
    np.testing.assert_allclose(inverse, 1 / cv2.resize(1 / depth, (6, 5), interpolation=cv2.INTER_LINEAR))
    as_depth = resize_depth(depth, 5, 6, DepthProtocol("x", resize="depth"))
    oracle = torch.nn.functional.interpolate(torch.from_numpy(depth)[None, None], (5, 6), mode="bilinear")
    np.testing.assert_allclose(as_depth, oracle[0, 0].numpy(), rtol=1e-6)
    assert resize_depth(depth, 2, 2, PLAIN) is depth


@pytest.mark.parametrize(("shape", "size"), [((2, 2), (5, 6)), ((4, 7), (9, 5)), ((1, 3), (4, 4)), ((3, 1), (1, 5))])
def test_resize_with_aligned_corners_equals_torch(shape: tuple[int, int], size: tuple[int, int]) -> None:
    depth = np.random.default_rng(0).uniform(1, 9, shape).astype(np.float32)
    ours = resize_depth(depth, *size, DepthProtocol("x", resize="depth", corners_aligned=True))
    torchs = torch.nn.functional.interpolate(
        torch.from_numpy(depth)[None, None], size, mode="bilinear", align_corners=True
    )
    np.testing.assert_allclose(ours, torchs[0, 0].numpy(), rtol=1e-5)


def slow_eigen(prediction: np.ndarray, truth: np.ndarray, median: bool, factor: float) -> dict[str, float]:
    """Monodepth2's steps, one after the other, in loops."""
    height, width = truth.shape
    resized = 1 / cv2.resize((1 / prediction).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    ps, gs = [], []
    for v in range(height):
        for u in range(width):
            inside = int(0.40810811 * height) <= v < int(0.99189189 * height)
            inside &= int(0.03594771 * width) <= u < int(0.96405229 * width)
            if inside and 1e-3 < truth[v, u] < 80:
                ps.append(float(resized[v, u]))
                gs.append(float(truth[v, u]))
    scale = float(np.median(gs) / np.median(ps)) if median else factor
    ps = [min(max(p * scale, 1e-3), 80) for p in ps]
    n = len(gs)
    pairs = list(zip(ps, gs, strict=True))
    return {
        "abs_rel": sum(abs(p - g) / g for p, g in pairs) / n,
        "sq_rel": sum((p - g) ** 2 / g for p, g in pairs) / n,
        "rmse": (sum((p - g) ** 2 for p, g in pairs) / n) ** 0.5,
        "rmse_log": (sum((np.log(p) - np.log(g)) ** 2 for p, g in pairs) / n) ** 0.5,
        "delta1": sum(max(p / g, g / p) < 1.25 for p, g in pairs) / n,
        "delta2": sum(max(p / g, g / p) < 1.25**2 for p, g in pairs) / n,
        "delta3": sum(max(p / g, g / p) < 1.25**3 for p, g in pairs) / n,
    }


@pytest.mark.parametrize("scaling", ["median", 5.4, "none"])
def test_eigen_protocol_equals_the_steps_in_loops(scaling: str | float) -> None:
    rng = np.random.default_rng(3)
    truths = [sparse_truth(47, 91, seed) * 1.3 for seed in range(3)]  # some of it beyond 80 m
    predictions = [rng.uniform(1, 60, (16, 32)) for _ in truths]
    scores = score_depth(iter(predictions), iter(truths), get_protocol("eigen", scaling=scaling))
    factor = scaling if isinstance(scaling, float) else 1.0
    slow = [slow_eigen(p, t, scaling == "median", factor) for p, t in zip(predictions, truths, strict=True)]
    for name, value in scores.means().items():
        assert value == pytest.approx(np.mean([image[name] for image in slow]), rel=1e-5), name


def test_row_says_everything() -> None:
    truths = [sparse_truth(seed=s) for s in range(3)]
    predictions = [np.where(t > 0, t, 5) * s for t, s in zip(truths, (1, 2, 4), strict=True)]
    predictions[1] = cv2.resize(predictions[1], (15, 10))
    row = score_depth(predictions, truths, get_protocol("eigen"), names=["a", "b", "c"]).row()
    assert row["protocol"] == "eigen" and row["images"] == 3
    assert row["truth"] == "eigen_velo_forward" and row["crop"] == "garg"
    assert row["cap"] == "0.001 m < truth < 80 m" and row["clip"] == "0.001 to 80 m after scaling"
    assert row["scaling"] == "numpy median"
    assert row["resize"] == "inverse_depth, bilinear, edges aligned; from 15x10"
    assert row["warnings"] == []


def test_ratio_statistics_closed_form() -> None:
    truth = np.full((4, 5), 8.0)
    scores = score_depth([truth / s for s in (1, 2, 4)], [truth] * 3, PLAIN)
    assert scores.ratio_median() == 2
    assert scores.ratio_std() == pytest.approx(np.std([0.5, 1, 2]))
    assert [image.ratio for image in scores.images] == [1, 2, 4]


def test_images_without_truth_are_named_and_not_averaged() -> None:
    truth = np.full((4, 5), 8.0)
    scores = score_depth([truth, truth * 2], [truth * 0, truth], PLAIN, names=["empty", "full"])
    assert scores.without_truth == ("empty",) and scores.means()["abs_rel"] == pytest.approx(1)
    assert "1 images have no truth" in scores.row()["warnings"][0]
    assert len(scores.to_json()["per_image"]) == 1
    with pytest.raises(ValueError, match="none of 1 images has truth"):
        score_depth([truth], [truth * 0], PLAIN)


def test_as_many_predictions_as_truths() -> None:
    truth = np.full((4, 5), 8.0)
    with pytest.raises(ValueError, match="predictions end after 1 images"):
        score_depth([truth], [truth, truth], PLAIN)
    with pytest.raises(ValueError, match="fx_baselines end after 1 images"):
        score_depth([truth] * 2, [truth] * 2, get_protocol("kitti2015"), fx_baselines=[400.0])


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_predictions_must_be_positive_where_scored(bad: float) -> None:
    truth = np.full((4, 5), 8.0)
    truth[0, 0] = 0
    prediction = truth + 1
    prediction[0, 0] = bad  # no truth there: no harm
    assert score_image(prediction, truth, PLAIN, "a") is not None
    prediction[2, 2] = bad
    with pytest.raises(ValueError, match="a: 1 of 19 scored pixels are not positive and finite"):
        score_image(prediction, truth, PLAIN, "a")


def test_wrong_shapes_are_refused() -> None:
    truth = np.full((4, 5), 8.0)
    with pytest.raises(ValueError, match="transpose"):
        score_image(truth.T, truth, PLAIN, "a")
    with pytest.raises(ValueError, match="one depth map"):
        score_image(truth[None], truth, PLAIN, "a")


def test_kitti2015_scores_disparity_outliers_of_the_unclipped_depth() -> None:
    # fx * b = 400: truth 40 and 20 px (10 and 20 m); a depth of 11 m is 36.4 px: off by 3.6 px and 9 %, an outlier.
    truth = np.array([[10.0, 10, 20, 0]])
    prediction = np.array([[10.0, 11, 20.5, 3]])
    objects = np.array([[0, 1, 1, 0]])
    scores = score_depth([prediction], [truth], get_protocol("kitti2015"), fx_baselines=[400.0], objects=[objects])
    means = scores.means()
    assert means["d1_all_percent"] == pytest.approx(100 / 3)
    assert (means["d1_bg_percent"], means["d1_fg_percent"]) == (0, 50)
    assert (means["abs_rel_bg"], means["abs_rel_fg"]) == pytest.approx((0, (1 / 10 + 0.5 / 20) / 2))
    assert scores.row()["d1_pooling"] == "pooled"
    without = score_depth([prediction], [truth], get_protocol("kitti2015"))
    assert "D1 is missing" in without.row()["warnings"][0]


def test_abs_rel_by_object_is_the_mean_of_the_images_that_have_such_pixels() -> None:
    truth, prediction = np.array([[10.0, 10, 20, 0]]), np.array([[11.0, 12, 20, 3]])
    maps = [np.array([[0, 0, 0, 1]]), np.array([[0, 5, 5, 0]])]
    scores = score_depth([prediction] * 2, [truth] * 2, PLAIN, objects=maps)
    assert "abs_rel_fg" not in scores.images[0].metrics
    assert scores.row()["abs_rel_bg"] == pytest.approx((0.1 + 0.1) / 2)  # (0.1 + 0.2 + 0) / 3 and 0.1
    assert scores.row()["abs_rel_fg"] == pytest.approx(0.1)  # (0.2 + 0) / 2 of the second
    assert scores.to_json()["per_image"][1]["abs_rel_fg"] == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"object map is \(4, 1\), the truth \(1, 4\)"):
        score_image(prediction, truth, PLAIN, "a", objects=maps[0].T)


def test_d1_pooled_and_per_image_differ_as_they_should() -> None:
    truths = [np.full((1, 1), 10.0), np.full((1, 3), 10.0)]
    predictions = [np.full((1, 1), 20.0), np.full((1, 3), 10.0)]
    pooled = score_depth(predictions, truths, get_protocol("kitti2015"), fx_baselines=[400.0] * 2).means()
    each = score_depth(predictions, truths, get_protocol("monodepth_kitti2015"), fx_baselines=[400.0] * 2).means()
    assert pooled["d1_all_percent"] == pytest.approx(25) and each["d1_all_percent"] == pytest.approx(50)


def test_get_protocol_takes_a_scaling_and_names_what_is_unknown() -> None:
    assert get_protocol("eigen", scaling=5.4).name == "eigen"  # one of its published scalings
    assert get_protocol("eigen", scaling="5.4").factor == 5.4
    with pytest.raises(ValueError, match="Did you mean 'eigen'"):
        get_protocol("eigne")
    with pytest.raises(ValueError, match="scaling 'mean' should be none, median or a positive factor"):
        get_protocol("eigen", scaling="mean")
    with pytest.raises(ValueError, match="a positive factor"):
        get_protocol("eigen", scaling=-1)
    with pytest.raises(ValueError, match="crop 'grag'"):
        DepthProtocol("mine", crop="grag")
    assert set(PROTOCOLS) >= {"eigen", "eigen_benchmark", "kitti2015", "native", "sfmlearner", "packnet"}


@pytest.mark.parametrize("name", ["eigen", "packnet", "native", "kitti2015"])
def test_truth_chosen_before_gives_the_same_scores(name: str) -> None:
    truth, protocol = sparse_truth(47, 91) * 1.3, get_protocol(name)
    chosen = scored_truth(truth, protocol)
    rows, columns = np.nonzero(scored_pixels(truth, protocol))
    np.testing.assert_array_equal(chosen.pixels, rows * 91 + columns)
    np.testing.assert_array_equal(chosen.depth, truth[rows, columns])
    depth = np.random.default_rng(3).uniform(1, 60, (16, 32)).astype(np.float32)
    both = [score_image(depth, given, protocol, fx_baseline=400.0) for given in (truth, chosen)]
    assert both[0] is not None and both[0] == both[1]


def test_truth_chosen_by_another_protocol_is_refused() -> None:
    chosen = scored_truth(sparse_truth(), get_protocol("eigen"))
    assert score_image(np.ones((20, 30)), chosen, get_protocol("eigen", scaling=5.4)) is not None
    with pytest.raises(ValueError, match=r"chosen for crop garg .* but 'native' has none"):
        score_image(np.ones((20, 30)), chosen, get_protocol("native"))
