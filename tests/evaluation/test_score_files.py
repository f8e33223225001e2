import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geossl.evaluation.depth_protocols import get_protocol
from geossl.evaluation.score_files import (
    DepthItem,
    find_prediction,
    read_prediction,
    score_depth_folder,
)
from geossl.formats.errors import FormatError
from geossl.formats.image import write_image
from geossl.formats.kitti_png import read_disparity_png, write_depth_png, write_disparity_png
from geossl.formats.npy import write_npy
from geossl.formats.prediction_meta import read_meta

TRUTH = np.tile(np.array([[10.0], [20.0], [40.0]]), (1, 4)).astype(np.float32)
NATIVE = get_protocol("native")
ITEMS = [DepthItem(name, lambda: TRUTH) for name in ("day/drive/0000000001", "day/drive/0000000002")]


def write_folder(root: Path, units: str | None = "metres", factor: float = 1.1) -> Path:
    for item in ITEMS:
        write_npy(root / "npy" / f"{item.name}.npy", TRUTH * factor)
    if units is not None:
        (root / "meta.json").write_text(json.dumps({"units": units, "flip_postprocessing": True}))
    return root


def test_score_depth_folder(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    write_folder(tmp_path)
    scores = score_depth_folder(tmp_path, ITEMS, NATIVE, progress=lambda i, n: done.append((i, n)))
    row = scores.row()
    assert row["abs_rel"] == pytest.approx(0.1, abs=1e-6) and row["images"] == 2
    assert (row["metric"], row["flip_postprocessing"], row["warnings"]) == ("metres", True, [])
    assert done == [(1, 2), (2, 2)]
    assert [image.name for image in scores.images] == [item.name for item in ITEMS]
    json.dumps(scores.to_json())


def test_plain_pairs_will_do(tmp_path: Path) -> None:
    pairs: list[tuple[str, Callable[[], np.ndarray]]] = [(item.name, item.load_truth) for item in ITEMS]
    assert score_depth_folder(write_folder(tmp_path), pairs, NATIVE).row()["images"] == 2


def test_up_to_scale_without_scaling_warns(tmp_path: Path) -> None:
    write_folder(tmp_path, units="up_to_scale")
    assert "up to scale" in score_depth_folder(tmp_path, ITEMS, NATIVE).row()["warnings"][0]
    median = score_depth_folder(tmp_path, ITEMS, get_protocol("native", scaling="median")).row()
    assert median["warnings"] == [] and median["metric"] == "up_to_scale"


def test_foreign_folder_without_meta_warns(tmp_path: Path) -> None:
    row = score_depth_folder(write_folder(tmp_path, units=None), ITEMS, NATIVE).row()
    assert "taken as metres" in row["warnings"][0] and row["flip_postprocessing"] == "unknown"


def test_predictions_are_found_in_every_place(tmp_path: Path) -> None:
    assert find_prediction(tmp_path, "a/1") is None
    write_depth_png(tmp_path / "a" / "1.png", TRUTH)
    for place in ("a/1.png", "a/1.npy", "png16/a/1.png", "npy/a/1.npy"):
        path = tmp_path / place
        if path.suffix == ".npy":
            write_npy(path, TRUTH)
        else:
            write_depth_png(path, TRUTH)
        assert find_prediction(tmp_path, "a/1") == path
    with pytest.raises(ValueError, match="leads out of"):
        find_prediction(tmp_path, "../../../secret")


def test_missing_predictions_are_counted_and_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "npy" / f"{ITEMS[1].name}.npy").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 predictions are missing in .*0000000002.*geossl predict depth"):
        score_depth_folder(tmp_path, ITEMS, NATIVE)
    with pytest.raises(ValueError, match="no folder of predictions"):
        score_depth_folder(tmp_path / "none", ITEMS, NATIVE)
    with pytest.raises(ValueError, match="no images to score"):
        score_depth_folder(tmp_path, [], NATIVE)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.ones((2, 3, 4)), r"holds \(2, 3, 4\)"),
        (np.ones((4, 3)), "transpose"),
        (np.full((3, 4), np.nan), "12 of 12 scored pixels are not positive and finite"),
        (np.zeros((3, 4)), "not positive"),
        (np.array([["a"]]), "real numbers"),
    ],
)
def test_bad_predictions_are_named_with_their_file(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    write_folder(tmp_path)
    write_npy(tmp_path / "npy" / f"{ITEMS[1].name}.npy", values)
    with pytest.raises(ValueError, match=rf"0000000002\.npy: .*{reason}"):
        score_depth_folder(tmp_path, ITEMS, NATIVE)


def test_damaged_predictions_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    path = tmp_path / "npy" / f"{ITEMS[0].name}.npy"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FormatError, match=r"0000000001\.npy"):
        score_depth_folder(tmp_path, ITEMS, NATIVE)
    write_image(tmp_path / "a.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(FormatError, match="8 bits"):
        read_prediction(tmp_path / "a.png")
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(FormatError, match=r"meta\.json: is not JSON"):
        read_meta(tmp_path)


def test_foreign_kinds_give_the_same_scores(tmp_path: Path) -> None:
    """Depth 11, 22, 44 m as inverse depth, and as disparity of an image of half the width: 400 / depth / 2."""
    depth = TRUTH * 1.1
    items = [DepthItem("x", lambda: TRUTH, fx_baseline=400.0)]
    expected = 0.1
    write_npy(tmp_path / "inverse" / "x.npy", 1 / depth)
    inverse = score_depth_folder(tmp_path / "inverse", items, NATIVE, kind="inverse_depth")
    assert inverse.means()["abs_rel"] == pytest.approx(expected, abs=1e-6)
    write_npy(tmp_path / "half" / "x.npy", 400 / depth[:, ::2] / 2)
    half = score_depth_folder(tmp_path / "half", items, NATIVE, kind="disparity_px")
    assert half.means()["abs_rel"] == pytest.approx(expected, abs=1e-6)
    write_disparity_png(tmp_path / "png" / "x.png", 400 / depth)
    png = score_depth_folder(tmp_path / "png", items, NATIVE, kind="disparity_px")
    assert png.means()["abs_rel"] == pytest.approx(expected, abs=1e-3)
    assert png.row()["warnings"] == []
    with pytest.raises(ValueError, match="need the camera's focal length"):
        score_depth_folder(tmp_path / "png", [DepthItem("x", lambda: TRUTH)], NATIVE, kind="disparity_px")
    with pytest.raises(ValueError, match="kind 'disp'"):
        score_depth_folder(tmp_path / "png", items, NATIVE, kind="disp")  # type: ignore[arg-type]


def test_real_disparity_truth_scores_itself_perfectly(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "kitti_2015" / "training" / "disp_occ_0" / "000009_10.png"
    disparity = read_disparity_png(path)
    fx_baseline = 721.5377 * 0.5327

    def truth() -> np.ndarray:
        known = disparity > 0
        return np.where(known, fx_baseline / np.where(known, disparity, 1), 0)

    write_disparity_png(tmp_path / "000009_10.png", disparity)
    items = [DepthItem("000009_10", truth, fx_baseline)]
    means = score_depth_folder(tmp_path, items, get_protocol("kitti2015"), kind="disparity_px").means()
    assert means["d1_all_percent"] == 0 and means["abs_rel"] < 0.02  # only truth beyond the 80 m clip differs
