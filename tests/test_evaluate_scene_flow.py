"""`geossl evaluate sceneflow` on small data in KITTI 2015's layout and on the synthetic street."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from geossl.cli import app
from geossl.commands.evaluate_scene_flow import evaluate_scene_flow
from geossl.data.synthetic import StreetOptions, read_labels, write_street
from geossl.formats.image import write_image
from geossl.formats.kitti_png import write_disparity_png, write_flow_png

HEIGHT, WIDTH = 24, 40
FX, BASELINE_M = 70.0, 0.5
CALIBRATION = "".join(
    f"S_rect_0{c}: {WIDTH} {HEIGHT}\nP_rect_0{c}: {FX} 0 19 {x} 0 {FX} 11 0 0 0 1 0\n" for c, x in ((2, 0), (3, -35))
)
SCENES = ("000000", "000001")


def disparity(value: float) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), value, np.float32)


def motion(du: float, dv: float = 0) -> np.ndarray:
    return np.broadcast_to(np.float32([du, dv]), (HEIGHT, WIDTH, 2))


@pytest.fixture(scope="module")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs: 7 m away (5 px), 1 m nearer at the next time, 2 px to the right. The first 4 rows are hidden."""
    root = tmp_path_factory.mktemp("kitti")
    folder = root / "training"
    (folder / "calib_cam_to_cam").mkdir(parents=True)
    seen = np.arange(HEIGHT)[:, None].repeat(WIDTH, 1) >= 4
    for scene in SCENES:
        (folder / "calib_cam_to_cam" / f"{scene}.txt").write_text(CALIBRATION)
        for name in ("image_2/{}_10", "image_2/{}_11", "image_3/{}_10"):
            path = folder / f"{name.format(scene)}.png"
            path.parent.mkdir(exist_ok=True)
            write_image(path, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        for part, known in (("occ", np.ones_like(seen)), ("noc", seen)):
            for time, value in ((0, 5), (1, 35 / 6)):
                write_disparity_png(folder / f"disp_{part}_{time}" / f"{scene}_10.png", disparity(value) * known)
            write_flow_png(folder / f"flow_{part}" / f"{scene}_10.png", motion(2), known)
        objects = np.zeros((HEIGHT, WIDTH), np.uint8)
        objects[8:14] = 3
        (folder / "obj_map").mkdir(exist_ok=True)
        write_image(folder / "obj_map" / f"{scene}_10.png", objects)
    return root


def predicted(root: Path, first: np.ndarray, later: np.ndarray, flow: np.ndarray) -> Path:
    for scene in SCENES:
        write_disparity_png(root / "disp_0" / f"{scene}_10.png", first)
        write_disparity_png(root / "disp_1" / f"{scene}_10.png", later)
        write_flow_png(root / "flow" / f"{scene}_10.png", flow)
    return root


def spec(root: Path) -> str:
    return f"kitti_stereo:{root},year=2015"


def test_a_foreign_folder_is_scored(kitti: Path, tmp_path: Path) -> None:
    """D1 is wrong on rows 8 to 10 of 24 (all foreground), D2 on rows 2 to 5, Fl on rows 5 to 9."""
    row = np.arange(HEIGHT)[:, None]
    first, later = disparity(5) + 4 * ((row >= 8) & (row < 11)), disparity(35 / 6) + 4 * ((row >= 2) & (row < 6))
    flow = motion(2) + np.float32([0, 4]) * ((row >= 5) & (row < 10))[..., None]
    folder, out = predicted(tmp_path / "mine", first, later, flow), tmp_path / "result.json"
    arguments = ["--data", spec(kitti), "--protocol", "kitti2015", "--predictions", folder, "--json", out]
    done = CliRunner().invoke(app, ["evaluate", "sceneflow", *map(str, arguments)])
    assert done.exit_code == 0, done.stderr
    assert "d1_fg_pooled_percent: 50.0000" in done.stdout and "d1_bg_pooled_percent: 0.0000" in done.stdout
    full = json.loads(out.read_text())
    found = full["row"]
    assert (found["images"], found["pixels"], found["warnings"]) == (2, 2 * HEIGHT * WIDTH, [])
    for figure, rows in {
        "d1_all_pooled": 3 / 24, "d1_noc_pooled": 3 / 20, "d1_all_per_image": 3 / 24,
        "d2_all_pooled": 4 / 24, "d2_noc_pooled": 2 / 20, "d2_fg_pooled": 0, "d2_bg_pooled": 4 / 18,
        "fl_all_pooled": 5 / 24, "fl_fg_pooled": 2 / 6, "fl_noc_pooled": 5 / 20,
        "sf_all_pooled": 9 / 24, "sf_noc_pooled": 7 / 20, "sf_fg_pooled": 3 / 6,
        "outliers3d_all_pooled": 9 / 24, "acc3d_strict_all_pooled": 15 / 24,
    }.items():  # fmt: skip
        assert found[f"{figure}_percent"] == pytest.approx(100 * rows), figure
    assert full["figures"]["d2_noc_bg_pooled_percent"] == pytest.approx(100 * 2 / 14)
    assert [image["name"] for image in full["per_image"]] == [f"training/image_2/{s}_10" for s in SCENES]


def test_motion_is_in_metres_of_the_true_baseline(kitti: Path, tmp_path: Path) -> None:
    """No flow and no change of disparity: the error is the true motion, 1 m and 2 px at 6 m."""
    folder = predicted(tmp_path, disparity(5), disparity(5), motion(0))
    row = evaluate_scene_flow(spec(kitti), "kitti2015", predictions=folder).rows[0]
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    sideways = ((u + 2 - 19) * 6 - (u - 19) * 7) / FX
    expected = np.sqrt(sideways**2 + ((v - 11) / FX) ** 2 + 1).mean()
    assert row["epe3d_all_pooled_m"] == pytest.approx(expected, rel=2e-3)  # disparities are whole 1/256 px
    assert row["acc3d_relaxed_all_pooled_percent"] == 0 and row["outliers3d_all_pooled_percent"] == 100


def test_holes_are_filled_and_both_figures_given(kitti: Path, tmp_path: Path) -> None:
    first = disparity(5)
    first[10, :20], first[11, 30:] = 0, 20
    folder = predicted(tmp_path, first, disparity(35 / 6), motion(2))
    row = evaluate_scene_flow(spec(kitti), "kitti2015", predictions=folder).rows[0]
    assert row["missing_estimates"] == "filled from the background in 2 images"
    assert row["density_percent"] == pytest.approx(100 * 940 / 960)
    assert row["d1_all_pooled_percent"] == pytest.approx(100 * 10 / 960)
    assert row["d1_estimated_pooled_percent"] == pytest.approx(100 * 10 / 940)


def test_street_is_scored_by_its_labels(tmp_path: Path) -> None:
    """The truth itself scores (nearly) perfectly, and beats a world without motion."""
    street = tmp_path / "street"
    options = StreetOptions(sequences=1, frames=4, width=160, height=64, seed=3, standing=0)
    write_street(street, options, processes=1)
    for path in street.rglob("labels/*.npz"):
        labels = read_labels(path)
        name = (path.parents[1] / "image_02" / "data" / path.stem).relative_to(street)
        for out, later, flow in (
            ("truth", labels.disparity_px_next, labels.flow),
            ("still", labels.disparity_px, np.zeros_like(labels.flow)),
        ):
            write_disparity_png(tmp_path / out / "disp_0" / f"{name}.png", labels.disparity_px)
            write_disparity_png(tmp_path / out / "disp_1" / f"{name}.png", later)
            write_flow_png(tmp_path / out / "flow" / f"{name}.png", flow.transpose(1, 2, 0))
    data = f"kitti_raw:{street},cameras=[image_02]"
    truth, still = (
        evaluate_scene_flow(data, "synthetic", predictions=tmp_path / name).rows[0] for name in ("truth", "still")
    )
    assert truth["images"] == 3 and truth["sf_all_pooled_percent"] == 0
    assert truth["epe3d_all_pooled_m"] < 0.1 * still["epe3d_all_pooled_m"]  # of 1/256 px at the horizon
    assert still["d1_all_pooled_percent"] == 0 and still["sf_all_pooled_percent"] > 20
    assert truth["sf_noc_pooled_percent"] == 0 and "sf_fg_pooled_percent" in truth


def test_a_model_is_predicted_and_scored(kitti: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "predict"))
    from predict_tiny import checkpoint

    model, folder = checkpoint(tmp_path, "Mover"), tmp_path / "out"
    row = evaluate_scene_flow(spec(kitti), "kitti2015", model=model, predictions=folder).rows[0]
    again = evaluate_scene_flow(spec(kitti), "kitti2015", predictions=folder).rows[0]
    assert row["sf_all_pooled_percent"] == again["sf_all_pooled_percent"] > 0
    assert row["flip_postprocessing"] is False and row["predictions"] == "predicted by the model"
    assert row["leaks"].startswith("unknown") and "leaks" not in again
    # Depth and flow are scored from the same files.
    for kind, place in (("depth", "disp_0"), ("flow", "flow")):
        more = ["--kind", "disparity_px"] if kind == "depth" else []
        arguments = ["--data", spec(kitti), "--protocol", "kitti2015", "--predictions", folder / place, *more]
        done = CliRunner().invoke(app, ["evaluate", kind, *map(str, arguments)])
        assert done.exit_code == 0, done.stderr
    flow = f"fl_all_pooled_percent: {row['fl_all_pooled_percent']:.4f}"
    assert flow in done.stdout


def test_wrong_requests_are_explained(kitti: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean 'kitti2015'"):
        evaluate_scene_flow(spec(kitti), "kitti-2015", predictions=tmp_path)
    with pytest.raises(ValueError, match=r"protocol 'synthetic' is defined on street truth, but .* has kitti_png"):
        evaluate_scene_flow(spec(kitti), "synthetic", predictions=tmp_path)
    with pytest.raises(ValueError, match=r"2 of 2 predictions are missing in .*disp_0; the first is training/image_2"):
        evaluate_scene_flow(spec(kitti), "kitti2015", predictions=tmp_path)
    folder = predicted(tmp_path / "mine", disparity(5), disparity(5)[1:], motion(0))
    with pytest.raises(ValueError, match=r"disp_0.000000_10\.png and the files of the same name beside it"):
        evaluate_scene_flow(spec(kitti), "kitti2015", predictions=folder)
    shutil.copytree(kitti, tmp_path / "less")
    shutil.rmtree(tmp_path / "less" / "training" / "disp_occ_1")
    with pytest.raises(ValueError, match="none of its 2 images has ground truth of scene flow"):
        evaluate_scene_flow(spec(tmp_path / "less"), "kitti2015", predictions=folder)
