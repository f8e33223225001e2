import json
from pathlib import Path

import numpy as np
import pytest

from geossl.evaluation.flow import (
    RegionCounts,
    collect_flow_scores,
    figures_of,
    fill_flow,
    flow_outliers,
    regions_of,
    resize_flow,
    score_flow_image,
)
from geossl.evaluation.flow_protocols import PROTOCOLS, FlowProtocol, get_flow_protocol
from geossl.evaluation.flow_truth import FlowLabels
from geossl.formats.kitti_png import read_flow_png

EVERYTHING = FlowProtocol(
    "everything",
    ("pooled", "per_image"),
    epe=("all", "noc", "occ", "bg", "fg", "s0-10", "s10-40", "s40+"),
    fl=("all", "noc", "occ", "bg", "fg", "noc_bg", "noc_fg"),
    over=("all", "noc", "s40+"),
)


def made(seed: int, height: int = 11, width: int = 17) -> tuple[np.ndarray, FlowLabels]:
    """A truth with motions of every speed, pixels without truth, and an estimate with errors around the thresholds."""
    rng = np.random.default_rng(seed)
    truth = (rng.normal(0, 1, (height, width, 2)) * rng.choice([3, 20, 60], (height, width, 1))).astype(np.float32)
    error = rng.normal(0, 1, (height, width, 2)) * rng.choice([0.5, 2, 6], (height, width, 1))
    valid = rng.random((height, width)) < 0.7
    truth[~valid] = rng.choice([0, np.nan, 1e3])
    visible, objects = rng.random((height, width)) < 0.6, rng.integers(0, 3, (height, width))
    return (np.nan_to_num(truth) + error).astype(np.float32), FlowLabels(truth, valid, visible, objects)


def slow_figures(pairs: list[tuple[np.ndarray, FlowLabels]]) -> dict[str, float]:
    """Pixel by pixel, from the definitions."""
    inside = {
        "all": lambda vis, obj, speed: True,
        "noc": lambda vis, obj, speed: vis,
        "occ": lambda vis, obj, speed: not vis,
        "bg": lambda vis, obj, speed: obj == 0,
        "fg": lambda vis, obj, speed: obj != 0,
        "noc_bg": lambda vis, obj, speed: vis and obj == 0,
        "noc_fg": lambda vis, obj, speed: vis and obj != 0,
        "s0-10": lambda vis, obj, speed: speed < 10,
        "s10-40": lambda vis, obj, speed: 10 <= speed <= 40,
        "s40+": lambda vis, obj, speed: speed > 40,
    }
    errors: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in inside}
    for estimate, labels in pairs:
        assert labels.visible is not None and labels.objects is not None
        for name in inside:
            errors[name].append([])
        for v in range(estimate.shape[0]):
            for u in range(estimate.shape[1]):
                if not labels.valid[v, u]:
                    continue
                (tu, tv), (eu, ev) = (map(float, x[v, u]) for x in (labels.flow, estimate))
                speed = (tu * tu + tv * tv) ** 0.5
                for name, test in inside.items():
                    if test(bool(labels.visible[v, u]), int(labels.objects[v, u]), speed):
                        errors[name][-1].append((((tu - eu) ** 2 + (tv - ev) ** 2) ** 0.5, speed))
    figures = {}
    for kind, regions in (("epe", EVERYTHING.epe), ("fl", EVERYTHING.fl), ("over", EVERYTHING.over)):
        for name in regions:
            images = errors[name]
            pooled = [[pair for image in images for pair in image]]
            for average, groups in (("pooled", pooled), ("per_image", [image for image in images if image])):
                if kind == "epe":
                    values = [sum(e for e, _ in g) / len(g) for g in groups]
                    figures[f"epe_{name}_{average}"] = sum(values) / len(values)
                elif kind == "fl":
                    values = [100 * sum(e > 3 and e > 0.05 * s for e, s in g) / len(g) for g in groups]
                    figures[f"fl_{name}_{average}_percent"] = sum(values) / len(values)
                else:
                    for t in (2, 3, 4, 5):
                        values = [100 * sum(e > t for e, _ in g) / len(g) for g in groups]
                        figures[f"over_{t}px_{name}_{average}_percent"] = sum(values) / len(values)
    return figures


@pytest.mark.parametrize("images", [1, 3])
def test_figures_equal_the_loops(images: int) -> None:
    pairs = [made(seed, 11 + seed, 17 - seed) for seed in range(images)]
    scores = [score_flow_image(estimate, labels) for estimate, labels in pairs]
    figures = figures_of([score.regions for score in scores if score is not None], EVERYTHING)
    slow = slow_figures(pairs)
    assert figures.keys() == slow.keys()
    for name, value in slow.items():
        assert figures[name] == pytest.approx(value, rel=1e-9), name


def test_devkit_counts_of_its_demo(shared_data: Path) -> None:
    """The official devkit: 23031 of 111326 pixels are outliers, the mean end-point error is 12.20 px."""
    folder = shared_data / "kitti_2015" / "devkit_demo"
    (estimate, estimated), (truth, valid) = (read_flow_png(folder / f"flow_{n}.png") for n in ("est", "gt"))
    assert estimated.all()
    score = score_flow_image(estimate, FlowLabels(truth, valid))
    assert score is not None
    counts = score.regions["all"]
    assert (counts.outliers, counts.pixels) == (23031, 111326)
    row = collect_flow_scores([("demo", score)], get_flow_protocol("kitti2015")).row()
    assert round(row["epe_all_pooled"], 2) == 12.20
    assert row["fl_all_pooled_percent"] == row["fl_all_per_image_percent"] == pytest.approx(100 * 23031 / 111326)


def test_outliers_need_both_thresholds_strictly() -> None:
    error = np.array([3.0, 3.01, 4.0, 5.0, 5.01, 3.01])
    motion = np.array([10.0, 10.0, 100.0, 100.0, 100.0, 0.0])
    assert flow_outliers(error, motion).tolist() == [False, True, False, False, True, True]


def test_speed_classes_have_their_borders() -> None:
    flow = np.zeros((1, 4, 2), np.float32)
    flow[0, :, 0] = [9.999, 10, 40, 40.001]
    regions = regions_of(FlowLabels(flow, np.ones((1, 4), bool)))
    assert {name: np.flatnonzero(r).tolist() for name, r in regions.items() if name != "all"} == {
        "s0-10": [0], "s10-40": [1, 2], "s40+": [3],
    }  # fmt: skip


def test_pooled_and_per_image_differ_as_they_should() -> None:
    """Image 1: one pixel, 10 px off. Image 2: three pixels, exact. Pooled 2.5 px and 25 %, per image 5 px and 50 %."""
    images = [{"all": RegionCounts(1, 10.0, 1, (1, 1, 1, 1))}, {"all": RegionCounts(3)}]
    protocol = FlowProtocol("p", ("pooled", "per_image"), epe=("all",), fl=("all",))
    assert figures_of(images, protocol) == {
        "epe_all_pooled": 2.5, "fl_all_pooled_percent": 25,
        "epe_all_per_image": 5.0, "fl_all_per_image_percent": 50,
    }  # fmt: skip


def test_an_image_without_a_pixel_of_a_region_is_left_out_of_its_mean() -> None:
    protocol = FlowProtocol("p", ("per_image",), epe=("occ",))
    figures = figures_of([{"occ": RegionCounts(0)}, {"occ": RegionCounts(2, 8.0)}], protocol)
    assert figures == {"epe_occ_per_image": 4.0}
    assert np.isnan(figures_of([{"occ": RegionCounts(0)}], protocol)["epe_occ_per_image"])


def test_missing_estimates_are_an_error_with_their_number() -> None:
    estimate, labels = made(3)
    v, u = np.argwhere(labels.valid)[4]
    estimate[v, u, 1] = np.inf
    with pytest.raises(ValueError, match=rf"a\.flo: 1 of {labels.valid.sum()} scored pixels have no estimate"):
        score_flow_image(estimate, labels, "a.flo")
    estimate, labels = made(3)
    estimate[tuple(np.argwhere(~labels.valid)[0])] = np.nan
    assert score_flow_image(estimate, labels) is not None  # nobody asks there


def test_filled_estimates_are_said_so() -> None:
    """Of 4 pixels one lacks an estimate; it takes the smaller u and the smaller v of its row's neighbours."""
    estimate = np.array([[[5.0, 1], [np.nan, np.nan], [3, 4], [0, 0]]], np.float32)
    truth = np.array([[[5.0, 1], [3, 1], [3, 4], [0, 0]]], np.float32)
    labels = FlowLabels(truth, np.ones((1, 4), bool))
    score = score_flow_image(estimate, labels, missing="background")
    assert score is not None and score.regions["all"].error_sum_px == 0
    row = collect_flow_scores([("a", score)], get_flow_protocol("chairs")).row()
    assert row["missing_estimates"] == "filled from the background in 1 images" and row["density_percent"] == 75
    complete = score_flow_image(truth, labels, missing="background")
    assert collect_flow_scores([("a", complete)], get_flow_protocol("chairs")).row()["missing_estimates"] == "none"


def slow_fill(flow: np.ndarray) -> np.ndarray:
    """The devkit's loops: gaps in rows, rows' ends, columns' ends; what stays missing is zero flow."""
    F = np.where(np.isfinite(flow).all(axis=2)[..., None], flow, 0).astype(np.float64)
    valid = np.isfinite(flow).all(axis=2)
    height, width = valid.shape
    for v in range(height):
        count = 0
        for u in range(width):
            if not valid[v, u]:
                count += 1
                continue
            if count and u - count > 0:
                F[v, u - count : u] = np.minimum(F[v, u - count - 1], F[v, u])
                valid[v, u - count : u] = True
            count = 0
        known = np.flatnonzero(valid[v])
        if len(known):
            F[v, : known[0]], F[v, known[-1] + 1 :] = F[v, known[0]], F[v, known[-1]]
            valid[v] = True
    for u in range(width):
        known = np.flatnonzero(valid[:, u])
        if len(known):
            F[: known[0], u], F[known[-1] + 1 :, u] = F[known[0], u], F[known[-1], u]
    return F


@pytest.mark.parametrize("seed", range(12))
def test_fill_flow_equals_the_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    flow = rng.integers(-50, 50, (9, 12, 2)).astype(np.float32)
    flow[rng.random((9, 12)) > rng.uniform(0.02, 0.6)] = np.nan
    np.testing.assert_array_equal(fill_flow(flow), slow_fill(flow))
    assert not fill_flow(np.full((3, 4, 2), np.nan)).any()


def test_resized_flow_scales_u_and_v_apart() -> None:
    """A constant flow (2, 3) of a 5 x 4 image is (2 * 15 / 5, 3 * 8 / 4) = (6, 6) px of a 15 x 8 one."""
    resized = resize_flow(np.full((4, 5, 2), (2, 3), np.float32), 8, 15)
    assert resized.shape == (8, 15, 2)
    np.testing.assert_allclose(resized, 6, rtol=1e-6)


def test_a_smaller_prediction_is_brought_to_the_truth() -> None:
    """Zooming by 1.1 is linear in the pixel, so bilinear interpolation is exact inside."""

    def zoom(height: int, width: int) -> np.ndarray:
        v, u = np.mgrid[0:height, 0:width].astype(np.float32)
        return np.stack([0.1 * (u + 0.5 - width / 2), 0.1 * (v + 0.5 - height / 2)], axis=2)

    valid = np.zeros((22, 34), bool)
    valid[2:-2, 2:-2] = True
    score = score_flow_image(zoom(11, 17), FlowLabels(zoom(22, 34), valid))
    assert score is not None and score.resized_from == (11, 17)
    assert score.regions["all"].error_sum_px / score.pixels < 1e-6
    row = collect_flow_scores([("a", score)], get_flow_protocol("native")).row()
    assert row["resized"] == 1


def test_visible_truth_only_gives_no_figures_of_all_pixels() -> None:
    estimate, labels = made(1)
    noc = FlowLabels(labels.flow, labels.valid, labels.valid, labels.objects, visible_only=True)
    score = score_flow_image(estimate, noc)
    assert score is not None
    row = collect_flow_scores([("a", score)], get_flow_protocol("kitti2015")).row()
    assert {key for key in row if key.startswith("epe")} == {"epe_noc_pooled", "epe_noc_per_image"}
    assert {key for key in row if key.startswith("fl_") and "pooled" in key} == {
        "fl_noc_pooled_percent", "fl_noc_bg_pooled_percent", "fl_noc_fg_pooled_percent",
    }  # fmt: skip
    assert "does not define all" in row["warnings"][0]


def test_visible_pixels_are_scored_by_their_own_flow() -> None:
    flow, known = np.zeros((1, 2, 2), np.float32), np.ones((1, 2), bool)
    seen = np.array([[True, False]])
    labels = FlowLabels(flow, known, seen, visible_flow=flow + np.float32([0, 1]))
    score = score_flow_image(flow, labels)
    assert score is not None
    assert {n: score.regions[n].error_sum_px for n in ("all", "noc", "occ")} == {"all": 0, "noc": 1, "occ": 0}


def test_a_region_that_one_image_lacks_is_left_out() -> None:
    scores = [score_flow_image(*made(seed)) for seed in (1, 2)]
    estimate, labels = made(3)
    scores.append(score_flow_image(estimate, FlowLabels(labels.flow, labels.valid)))
    row = collect_flow_scores([(str(i), s) for i, s in enumerate(scores)], get_flow_protocol("sintel")).row()
    assert "epe_all_pooled" in row and "epe_noc_pooled" not in row
    assert row["warnings"][0].startswith("the truth of 1 of 3 images does not define noc, occ")


def test_images_without_truth_are_counted() -> None:
    estimate, labels = made(1)
    empty = FlowLabels(labels.flow, np.zeros_like(labels.valid))
    assert score_flow_image(estimate, empty) is None
    scores = collect_flow_scores([("a", score_flow_image(*made(1))), ("b", None)], get_flow_protocol("chairs"))
    assert scores.without_truth == ("b",) and "1 images have no pixel" in scores.row()["warnings"][0]
    with pytest.raises(ValueError, match="none of 1 images has flow truth"):
        collect_flow_scores([("b", None)], get_flow_protocol("chairs"))


def test_row_and_json_name_every_choice() -> None:
    score = score_flow_image(*made(1))
    scores = collect_flow_scores([("a", score)], get_flow_protocol("kitti2012"), details={"predictions": "x"})
    row = scores.row()
    assert row["averages"] == "per_image (the benchmark's own), pooled" and "5 %" in row["fl"]
    assert row["predictions"] == "x" and row["images"] == 1
    assert [t for t in (2, 3, 4, 5) if f"over_{t}px_noc_per_image_percent" in row] == [2, 3, 4, 5]
    image = json.loads(json.dumps(scores.to_json()))["per_image"][0]
    assert image["epe_noc"] == pytest.approx(row["epe_noc_pooled"])
    assert image["counts"]["all"]["pixels"] == row["pixels"]


def test_wrong_shapes_are_named() -> None:
    estimate, labels = made(1)
    with pytest.raises(ValueError, match=r"a\.npy: the prediction has shape \(11, 17\)"):
        score_flow_image(estimate[..., 0], labels, "a.npy")
    with pytest.raises(ValueError, match="transpose it"):
        score_flow_image(estimate.transpose(1, 0, 2), labels)
    with pytest.raises(ValueError, match="flow has shape"):
        FlowLabels(estimate[:-1], labels.valid)
    with pytest.raises(ValueError, match="objects has shape"):
        FlowLabels(estimate, labels.valid, None, np.zeros((2, 2)))


def test_protocols_are_known_by_name() -> None:
    assert set(PROTOCOLS) == {"kitti2015", "kitti2012", "sintel", "chairs", "native"}
    with pytest.raises(ValueError, match="Did you mean 'kitti2015'"):
        get_flow_protocol("kiti2015")
    with pytest.raises(ValueError, match="regions sky"):
        FlowProtocol("p", ("pooled",), epe=("sky",))
    with pytest.raises(ValueError, match="averages"):
        FlowProtocol("p", ())


def test_resize_agrees_with_torch() -> None:
    import torch.nn.functional as F
    from torch import from_numpy

    flow = np.random.default_rng(0).normal(0, 9, (7, 12, 2)).astype(np.float32)
    expected = F.interpolate(from_numpy(flow.transpose(2, 0, 1))[None], (15, 19), mode="bilinear", align_corners=False)
    expected = expected[0].permute(1, 2, 0).numpy() * np.array([19 / 12, 15 / 7], np.float32)
    np.testing.assert_allclose(resize_flow(flow, 15, 19), expected, atol=1e-4)
