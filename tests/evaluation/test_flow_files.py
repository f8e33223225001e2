from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geossl.evaluation.flow import score_flow_image
from geossl.evaluation.flow_baselines import BASELINES, baseline_flow
from geossl.evaluation.flow_files import FlowItem, find_flow, read_flow, score_flow_folder, unique_ends
from geossl.evaluation.flow_protocols import get_flow_protocol
from geossl.evaluation.flow_truth import FlowLabels, load_flow_truth
from geossl.formats.errors import FormatError
from geossl.formats.files import FileRef
from geossl.formats.flo import write_flo
from geossl.formats.image import decode_grey, write_image
from geossl.formats.kitti_png import write_flow_png
from geossl.formats.npy import write_npy
from geossl.formats.truth import FlowTruth

FLOW = np.random.default_rng(0).integers(-640, 640, (6, 9, 2)).astype(np.float32) / 64  # exact in 16 bits
KNOWN = np.ones((6, 9), bool)
NAMES = ("training/image_2/000000_10", "training/image_2/000001_10")
ITEMS = [FlowItem(name, lambda: FlowLabels(FLOW, KNOWN)) for name in NAMES]
NATIVE = get_flow_protocol("native")


def ref(path: Path) -> FileRef:
    return FileRef(str(path))


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    ".flo": write_flo,
    ".png": write_flow_png,
    ".npy": write_npy,
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("name", ["{}", "image_2/{}", "training/image_2/{}"])
@pytest.mark.parametrize("place", ["", "own"])
def test_any_folder_is_scored(tmp_path: Path, suffix: str, name: str, place: str) -> None:
    own = {".flo": "flo", ".png": "png16", ".npy": "npy"}[suffix] if place else ""
    for item in ITEMS:
        path = tmp_path / own / (name.format(Path(item.name).name) + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[suffix](path, FLOW + np.float32([3, 4]))
    done: list[tuple[int, int]] = []
    row = score_flow_folder(tmp_path, ITEMS, NATIVE, progress=lambda i, n: done.append((i, n))).row()
    assert row["epe_all_pooled"] == 5.0 and row["images"] == 2 and done == [(1, 2), (2, 2)]


def test_ends_of_names_that_two_share_are_not_looked_for() -> None:
    names = ["clean/alley_1/frame_0001", "clean/alley_2/frame_0001", "x"]
    assert list(unique_ends(names)) == [
        ["clean/alley_1/frame_0001", "alley_1/frame_0001"], ["clean/alley_2/frame_0001", "alley_2/frame_0001"], ["x"],
    ]  # fmt: skip


def test_scores_carry_the_images_names_and_messages_the_files(tmp_path: Path) -> None:
    for item in ITEMS:
        write_flo(tmp_path / "flo" / f"{item.name}.flo", FLOW)
    scores = score_flow_folder(tmp_path, ITEMS, NATIVE)
    assert [image.name for image in scores.images] == list(NAMES)
    hole = FLOW.copy()
    hole[2, 3] = np.nan
    write_flo(tmp_path / "flo" / f"{NAMES[1]}.flo", hole)
    with pytest.raises(ValueError, match=r"000001_10\.flo: 1 of 54 scored pixels have no estimate.*--fill-missing"):
        score_flow_folder(tmp_path, ITEMS, NATIVE)
    row = score_flow_folder(tmp_path, ITEMS, NATIVE, missing="background").row()
    assert row["missing_estimates"] == "filled from the background in 1 images"


def test_an_invalid_pixel_of_a_kitti_png_is_no_estimate(tmp_path: Path) -> None:
    valid = KNOWN.copy()
    valid[0, 0] = False
    write_flow_png(tmp_path / "000000_10.png", FLOW, valid)
    assert np.isnan(read_flow(tmp_path / "000000_10.png")[0, 0]).all()
    with pytest.raises(ValueError, match=r"000000_10\.png: 1 of 54 scored pixels"):
        score_flow_folder(tmp_path, ITEMS[:1], NATIVE)


def test_missing_predictions_are_counted_and_named(tmp_path: Path) -> None:
    write_flo(tmp_path / "000000_10.flo", FLOW)
    with pytest.raises(
        ValueError, match=r"1 of 2 predictions are missing in .*the first is training/image_2/000001_10"
    ):
        score_flow_folder(tmp_path, ITEMS, NATIVE)
    with pytest.raises(ValueError, match="there is no folder of predictions"):
        score_flow_folder(tmp_path / "no", ITEMS, NATIVE)
    with pytest.raises(ValueError, match="no images to score"):
        score_flow_folder(tmp_path, [], NATIVE)
    with pytest.raises(ValueError, match="leads out of"):
        find_flow(tmp_path, "../../../secret")


@pytest.mark.parametrize(
    ("suffix", "write", "reason"),
    [
        (".flo", lambda p: p.write_bytes(b"PIEX" + bytes(500)), "starts with b'PIEX'"),
        (".flo", lambda p: (write_flo(p, FLOW), p.write_bytes(p.read_bytes()[:-4])), "but has 440"),
        (".flo", lambda p: (write_flo(p, FLOW), p.write_bytes(p.read_bytes() + b"1234")), "but has 448"),
        (".flo", lambda p: p.write_bytes(b""), "starts with b''"),
        (".png", lambda p: write_image(p, np.zeros((6, 9, 3), np.uint8)), "has 8 bits and 3"),
        (".png", lambda p: (write_flow_png(p, FLOW), p.write_bytes(p.read_bytes()[:-20])), "cut off"),
        (".npy", lambda p: write_npy(p, np.zeros((6, 9))), r"holds \(6, 9\)"),
        (".npy", lambda p: write_npy(p, np.zeros((6, 9, 2), complex)), "complex128"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path: Path, suffix: str, write: Callable[[Path], object], reason: str) -> None:
    path = tmp_path / f"000000_10{suffix}"
    write(path)
    with pytest.raises(FormatError, match=rf"000000_10\{suffix}: .*{reason}"):
        score_flow_folder(tmp_path, ITEMS[:1], NATIVE)


def test_npy_may_have_its_channels_first(tmp_path: Path) -> None:
    for name, values in (("a", FLOW), ("b", FLOW.transpose(2, 0, 1)), ("c", FLOW.transpose(2, 0, 1)[None])):
        write_npy(tmp_path / f"{name}.npy", values)
        np.testing.assert_array_equal(read_flow(tmp_path / f"{name}.npy"), FLOW)
    with pytest.raises(ValueError, match=r"not '\.txt'"):
        read_flow(tmp_path / "a.txt")


# --- truth -----------------------------------------------------------------------------------------------------------


def test_kitti_truth_has_visibility_and_objects(tmp_path: Path) -> None:
    valid, seen = KNOWN.copy(), KNOWN.copy()
    valid[0], seen[:3] = False, False
    write_flow_png(tmp_path / "occ.png", FLOW, valid)
    write_flow_png(tmp_path / "noc.png", FLOW, seen)
    write_image(tmp_path / "objects.png", np.arange(54, dtype=np.uint8).reshape(6, 9) // 50)
    occ, noc, objects = (ref(tmp_path / f"{name}.png") for name in ("occ", "noc", "objects"))
    labels = load_flow_truth(FlowTruth("kitti_png", occ, (9, 6), visible_flow=noc, object_map=objects))
    np.testing.assert_array_equal(labels.flow[valid], FLOW[valid])
    np.testing.assert_array_equal(labels.valid, valid)
    assert labels.visible is not None and labels.objects is not None and not labels.visible_only
    np.testing.assert_array_equal(labels.visible, seen)
    np.testing.assert_array_equal(labels.visible_flow, np.where(seen[..., None], FLOW, 0))
    assert (labels.objects > 0).sum() == 4
    only = load_flow_truth(FlowTruth("kitti_png", noc, (9, 6), visible_flow=noc))
    assert only.visible_only and only.objects is None
    with pytest.raises(FormatError, match=r"occ\.png: is 9x6, but its image is 9x7"):
        load_flow_truth(FlowTruth("kitti_png", occ, (9, 7)))


def test_sintel_truth_leaves_invalid_pixels_out(tmp_path: Path) -> None:
    flow = FLOW.copy()
    flow[1, 1] = np.nan
    write_flo(tmp_path / "f.flo", flow)
    hidden, invalid = np.zeros((6, 9), np.uint8), np.zeros((6, 9), np.uint8)
    hidden[2], invalid[3, :2] = 255, 255
    write_image(tmp_path / "hidden.png", hidden)
    write_image(tmp_path / "invalid.png", invalid)
    path, occlusions, unscored = (ref(tmp_path / name) for name in ("f.flo", "hidden.png", "invalid.png"))
    labels = load_flow_truth(FlowTruth("flo", path, (9, 6), occlusions=occlusions, invalid=unscored))
    assert labels.visible is not None and labels.valid.sum() == 54 - 1 - 2
    np.testing.assert_array_equal(labels.visible, hidden == 0)
    assert load_flow_truth(FlowTruth("flo", path, (9, 6))).visible is None


def test_street_truth_is_its_labels(tmp_path: Path) -> None:
    from geossl.data.synthetic import StreetOptions, write_street
    from geossl.data.synthetic.write import label_path

    write_street(tmp_path, StreetOptions(sequences=1, frames=1, width=64, height=32, seed=3), processes=1)
    labels = load_flow_truth(FlowTruth("street", ref(label_path(tmp_path, 0, 0)), (64, 32)))
    assert labels.flow.shape == (32, 64, 2) and labels.visible is not None and labels.objects is not None
    assert 0.3 < labels.valid.mean() <= 1 and np.isfinite(labels.flow[labels.valid]).all()
    score = score_flow_image(labels.flow, labels)
    assert score is not None and score.regions["all"].error_sum_px == 0


def test_real_noc_is_part_of_occ(shared_data: Path) -> None:
    """Its flow is nearly the same, which is why it is kept."""
    folder = shared_data / "kitti_2012" / "training"
    for name in ("000027_10.png", "000074_10.png", "000138_10.png"):
        occ, noc = (read_flow(folder / f"flow_{part}" / name) for part in ("occ", "noc"))
        seen = np.isfinite(noc).all(axis=2)
        assert np.isfinite(occ[seen]).all() and 0 < np.abs(occ - noc)[seen].max() < 2


# --- baselines -------------------------------------------------------------------------------------------------------


def shifted_pair(height: int = 61, width: int = 95, shift: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random picture, and the same with everything moved right."""
    import cv2

    picture = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (height, width + shift)), (0, 0), 2)
    picture = np.round(127 + 100 * picture / np.abs(picture).max()).astype(np.uint8)
    return picture[:, shift:], picture[:, :width]


@pytest.mark.parametrize("name", ["farneback", "dis"])
def test_baselines_find_a_shift(name: str) -> None:
    flow = baseline_flow(name, *shifted_pair())
    assert flow.shape == (61, 95, 2) and flow.dtype == np.float32
    np.testing.assert_allclose(np.median(flow, axis=(0, 1)), (3, 0), atol=0.1)


def test_zero_is_zero_and_sizes_must_agree() -> None:
    first, second = shifted_pair()
    assert not baseline_flow("zero", first, second).any()
    assert set(BASELINES) == {"zero", "farneback", "dis"}
    with pytest.raises(ValueError, match="equal size"):
        baseline_flow("zero", first, second[1:])


@pytest.mark.parametrize(
    ("pair", "noc", "everything"),
    [
        ("kitti_2012/training/image_0/000027", 5.40, 10.39),
        ("kitti_2012/training/image_0/000074", 13.87, 20.49),
        ("kitti_2012/training/image_0/000138", 1.42, 2.52),
        ("kitti_2015/training/image_2/000000", 23.73, None),
    ],
)
def test_dis_on_real_pairs(shared_data: Path, pair: str, noc: float, everything: float | None) -> None:
    """Measured with OpenCV 5.0 by a plain script of imread(path, 0) and DIS; other releases may differ a little."""
    base = shared_data / pair
    greys = [decode_grey(ref(base.parent / f"{base.name}_{t}.png").read(), pair) for t in (10, 11)]
    estimate = baseline_flow("dis", *greys)
    for kind, expected in (("noc", noc), ("occ", everything)):
        if expected is not None:
            path = ref(base.parents[1] / f"flow_{kind}" / f"{base.name}_10.png")
            score = score_flow_image(estimate, load_flow_truth(FlowTruth("kitti_png", path, estimate.shape[1::-1])))
            assert score is not None
            assert score.regions["all"].error_sum_px / score.pixels == pytest.approx(expected, abs=0.006)
