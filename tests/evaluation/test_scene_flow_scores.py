"""Scene flow scores against loops over pixels, written from the benchmark's description."""

import math
from pathlib import Path

import numpy as np
import pytest
from devkit_loops import slow_interpolation

from geossl.evaluation.scene_flow import SceneFlowScores, figures_of, score_scene_flow_image
from geossl.evaluation.scene_flow_truth import SceneFlowLabels, SceneFlowMaps
from geossl.formats.kitti_png import read_disparity_png, read_flow_png

K = np.array([[70.0, 0, 5.5], [0, 72, 4.25], [0, 0, 1]])
BASELINE_M = 0.54
H, W = 9, 12


def case(seed: int, holes: float = 0.2) -> tuple[SceneFlowMaps, SceneFlowLabels]:
    """An estimate and its truth, both with unknown pixels of every kind, about a third of them outliers."""
    rng = np.random.default_rng(seed)

    def hole(values: np.ndarray, share: float, filler: float) -> np.ndarray:
        where = rng.random((H, W)) < share
        return np.where(where if values.ndim == 2 else where[..., None], filler, values).astype(np.float32)

    d0, d1 = rng.uniform(2, 90, (2, H, W))
    flow = rng.normal(0, 60, (H, W, 2))
    truth = SceneFlowMaps(hole(d0, 0.3, 0), hole(d1, 0.3, 0), hole(flow, 0.3, np.nan))
    estimate = SceneFlowMaps(
        hole(np.abs(d0 + rng.normal(0, 2.5, (H, W))) + 0.1, holes, 0),
        hole(np.abs(d1 + rng.normal(0, 2.5, (H, W))) + 0.1, holes, np.nan),
        hole(flow + rng.normal(0, 3, (H, W, 2)), holes, np.inf),
    )
    visible = {part: rng.random((H, W)) < 0.7 for part in ("d1", "d2", "fl")}
    return estimate, SceneFlowLabels(truth, K, BASELINE_M, rng.integers(0, 3, (H, W)), visible)


def slow_fill(flow: np.ndarray) -> np.ndarray:
    """`slow_interpolation` of each component, made positive for it and back (exactly: eighths of pixels)."""
    known = np.isfinite(flow).all(axis=2)
    shifted = np.where(known[..., None], flow + 1024, 0)
    filled = np.stack([slow_interpolation(shifted[..., i].astype(np.float64)) for i in (0, 1)], axis=2)
    return np.where(filled > 0, filled - 1024, 0)


def point(u: float, v: float, disparity: float) -> np.ndarray:
    z = K[0, 0] * BASELINE_M / disparity
    return np.array([(u - K[0, 2]) * z / K[0, 0], (v - K[1, 2]) * z / K[1, 1], z])


def slow_figures(estimate: SceneFlowMaps, labels: SceneFlowLabels) -> dict[str, float]:
    """Figure and region -> the mean over its pixels, by loops."""
    truth, seen, objects = labels.maps, labels.visible, labels.objects
    assert seen is not None and objects is not None
    filled = [slow_interpolation(estimate.disparity_px), slow_interpolation(estimate.disparity_next_px)]
    filled.append(slow_fill(estimate.flow))
    values: dict[str, list[float]] = {}

    def note(figure: str, value: float, foreground: bool, visible: bool | None, estimated: bool) -> None:
        side = "fg" if foreground else "bg"
        names = ["all", side, *(["noc", f"noc_{side}"] if visible else []), *(["estimated"] if estimated else [])]
        for name in names:
            values.setdefault(f"{figure}_{name}", []).append(value)

    for v in range(H):
        for u in range(W):
            found: dict[str, tuple[bool, bool, bool]] = {}
            for part, i, true, own in (
                ("d1", 0, truth.disparity_px[v, u], estimate.disparity_px[v, u]),
                ("d2", 1, truth.disparity_next_px[v, u], estimate.disparity_next_px[v, u]),
            ):
                if true > 0:
                    error = abs(float(filled[i][v, u]) - float(true))
                    wrong = (error > 3 and error / float(true) > 0.05) or filled[i][v, u] <= 0
                    found[part] = bool(wrong), bool(seen[part][v, u]), math.isfinite(own) and own > 0
            du, dv = (float(x) for x in truth.flow[v, u])
            if math.isfinite(du):
                error = math.hypot(filled[2][v, u, 0] - du, filled[2][v, u, 1] - dv)
                wrong = error > 3 and error / math.hypot(du, dv) > 0.05
                found["fl"] = wrong, bool(seen["fl"][v, u]), bool(np.isfinite(estimate.flow[v, u]).all())
            for part, (wrong, visible, there) in found.items():
                note(part, wrong, objects[v, u] > 0, visible, there)
            if len(found) < 3:
                continue
            foreground, there = objects[v, u] > 0, all(x[2] for x in found.values())
            note("sf", any(x[0] for x in found.values()), foreground, all(x[1] for x in found.values()), there)
            true = point(u + du, v + dv, truth.disparity_next_px[v, u]) - point(u, v, truth.disparity_px[v, u])
            e0, e1, (eu, ev) = filled[0][v, u], filled[1][v, u], filled[2][v, u]
            error = (
                float(np.linalg.norm(point(u + eu, v + ev, e1) - point(u, v, e0) - true)) if e0 * e1 > 0 else math.inf
            )
            relative = error / float(np.linalg.norm(true))
            note("epe3d", error, foreground, None, there)
            note("acc3d_strict", error < 0.05 or relative < 0.05, foreground, None, there)
            note("acc3d_relaxed", error < 0.1 or relative < 0.1, foreground, None, there)
            note("outliers3d", error > 0.3 or relative > 0.1, foreground, None, there)
    return {name: float(np.mean(of)) for name, of in values.items()}


@pytest.mark.parametrize("seed", range(12))
def test_every_figure_equals_the_loops(seed: int) -> None:
    estimate, labels = case(seed, holes=(0, 0.2, 0.6)[seed % 3])
    score = score_scene_flow_image(estimate, labels)
    assert score is not None and score.filled == (seed % 3 > 0)
    slow = slow_figures(estimate, labels)
    found = {f"{figure}_{region}": s.mean for figure, of in score.shares.items() for region, s in of.items()}
    assert {name for name, value in found.items() if not math.isnan(value)} == set(slow)
    for name, value in slow.items():
        assert found[name] == pytest.approx(value, rel=2e-5), name  # float32 maps
    assert 0 < found["d1_all"] < found["sf_all"] <= 1 and 0 < found["outliers3d_all"] <= 1


def test_devkit_counts_of_its_demo(shared_data: Path) -> None:
    """The official devkit's D1: 14967 of 111127 estimated pixels, 15164 of 111326 after its interpolation."""
    folder = shared_data / "kitti_2015" / "devkit_demo"
    maps = []
    for kind in ("est", "gt"):
        disparity = read_disparity_png(folder / f"disp_{kind}.png")
        flow, valid = read_flow_png(folder / f"flow_{kind}.png")
        size = (min(disparity.shape[0], len(flow)), min(disparity.shape[1], flow.shape[1]))
        assert size == disparity.shape == flow.shape[:2]
        maps.append(SceneFlowMaps(disparity, disparity, np.where(valid[..., None], flow, np.float32("nan"))))
    score = score_scene_flow_image(maps[0], SceneFlowLabels(maps[1], K, BASELINE_M))
    assert score is not None
    d1, d2 = score.shares["d1"], score.shares["d2"]
    assert (d1["estimated"].amount, d1["estimated"].pixels) == (14967, 111127)
    assert (d1["all"].amount, d1["all"].pixels) == (15164, 111326)
    assert d1 == d2 and "bg" not in d1 and "noc" not in d1
    figures = figures_of([score.shares])
    assert figures["d1_estimated_pooled_percent"] == pytest.approx(100 * 14967 / 111127)
    assert figures["d1_all_pooled_percent"] == pytest.approx(100 * 15164 / 111326)


def test_sf_is_the_union_of_the_three() -> None:
    """Five pixels: exact, wrong at first, wrong at second, wrong flow, and unknown at second."""
    d, flow = np.full((1, 5), 40, np.float32), np.zeros((1, 5, 2), np.float32)
    truth = SceneFlowMaps(d, np.array([[40, 40, 40, 40, 0]], np.float32), flow)
    wrong = flow.copy()
    wrong[0, 3] = 3, 4
    estimate = SceneFlowMaps(d + np.float32([0, 4, 0, 0, 4]), d + np.float32([0, 0, 4, 0, 4]), wrong)
    score = score_scene_flow_image(estimate, SceneFlowLabels(truth, K, 10 * BASELINE_M))  # 9 m away
    assert score is not None
    assert {figure: (s["all"].amount, s["all"].pixels) for figure, s in score.shares.items() if figure != "epe3d"} == {
        "d1": (2, 5), "d2": (1, 4), "fl": (1, 5), "sf": (3, 4),
        "acc3d_strict": (1, 4), "acc3d_relaxed": (1, 4), "outliers3d": (3, 4),
    }  # fmt: skip


def test_motion_in_metres_is_that_of_the_worked_number() -> None:
    camera = np.array([[700.0, 0, 0], [0, 700, 0], [0, 0, 1]])
    one = np.ones((1, 1), np.float32)
    maps = SceneFlowMaps(35 * one, 50 * one, np.zeros((1, 1, 2), np.float32))
    np.testing.assert_allclose(maps.scene_flow(camera, 0.5), [[[0, 0, -3]]], atol=1e-12)
    # 7 px to the right at 7 m is 7 cm
    moved = SceneFlowMaps(50 * one, 50 * one, np.array([[[7, 0]]], np.float32))
    np.testing.assert_allclose(moved.scene_flow(camera, 0.5), [[[0.07, 0, 0]]], atol=1e-12)


def test_pooled_and_per_image_are_named() -> None:
    def score(width: int, off: float) -> object:
        d, flow = np.full((1, width), 20, np.float32), np.zeros((1, width, 2), np.float32)
        labels = SceneFlowLabels(SceneFlowMaps(d, d, flow), K, BASELINE_M)
        return score_scene_flow_image(SceneFlowMaps(d + off, d, flow), labels, "x")

    scores = SceneFlowScores("kitti2015", (score(1, 9), score(3, 0)), ("empty",), {})  # type: ignore[arg-type]
    row = scores.row()
    assert (row["d1_all_pooled_percent"], row["d1_all_per_image_percent"], row["sf_all_pooled_percent"]) == (
        25,
        50,
        25,
    )
    assert row["epe3d_all_pooled_m"] == pytest.approx(row["epe3d_all_per_image_m"] / 2)
    assert (row["images"], row["pixels"], row["density_percent"], row["missing_estimates"]) == (2, 4, 100, "none")
    assert row["warnings"] == ["1 images have no pixel with full truth and are not scored"]
    assert not any("estimated_pooled" in name or "fg" in name for name in row)
    full = scores.to_json()
    assert full["per_image"][0]["d1_all_percent"] == 100 and full["figures"]["d1_estimated_pooled_percent"] == 25


def test_wrong_estimates_are_refused() -> None:
    estimate, labels = case(0)
    small = SceneFlowMaps(*(x[1:] for x in (estimate.disparity_px, estimate.disparity_next_px, estimate.flow)))
    with pytest.raises(ValueError, match=r"a: the prediction is \(8, 12\), the truth \(9, 12\)"):
        score_scene_flow_image(small, labels, "a")
    empty = SceneFlowMaps(estimate.disparity_px, np.zeros((H, W)), estimate.flow)
    with pytest.raises(ValueError, match="a: the prediction has no estimate of d2 at all"):
        score_scene_flow_image(empty, labels, "a")
    with pytest.raises(ValueError, match=r"flow has shape \(9, 12\); expected \(9, 12, 2\)"):
        SceneFlowMaps(estimate.disparity_px, estimate.disparity_px, estimate.disparity_px)
    nothing = SceneFlowMaps(np.zeros((H, W)), labels.maps.disparity_next_px, labels.maps.flow)
    assert score_scene_flow_image(estimate, SceneFlowLabels(nothing, K, BASELINE_M)) is None
