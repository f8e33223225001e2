import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from geossl.cli import app
from geossl.commands.evaluate_flow import evaluate_flow
from geossl.commands.trained_on import Training
from geossl.data.synthetic import StreetOptions, write_street
from geossl.formats.flo import write_flo
from geossl.formats.image import write_image
from geossl.formats.kitti_png import write_flow_png

HEIGHT, WIDTH = 75, 123
CALIBRATION = "".join(
    f"S_rect_0{c}: {WIDTH} {HEIGHT}\nP_rect_0{c}: 70 0 61 {x} 0 70 37 0 0 0 1 0\n" for c, x in ((2, 4), (3, -34))
)


@pytest.fixture(scope="module")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs in KITTI 2015's layout: everything moves 3 px right; pixels of the first 5 rows are hidden."""
    root = tmp_path_factory.mktemp("kitti")
    folder = root / "training"
    (folder / "calib_cam_to_cam").mkdir(parents=True)
    for scene in ("000000", "000001"):
        (folder / "calib_cam_to_cam" / f"{scene}.txt").write_text(CALIBRATION)
        rng = np.random.default_rng(int(scene))
        picture = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, WIDTH + 3, 3)).astype(np.float32), (0, 0), 2)
        picture = np.clip(4 * (picture - 127) + 127, 0, 255).astype(np.uint8)
        for number, image in ((10, picture[:, 3:]), (11, picture[:, :WIDTH])):
            (folder / "image_2").mkdir(parents=True, exist_ok=True)
            write_image(folder / "image_2" / f"{scene}_{number}.png", np.ascontiguousarray(image))
        flow, valid = np.zeros((HEIGHT, WIDTH, 2), np.float32), np.ones((HEIGHT, WIDTH), bool)
        flow[..., 0] = 3
        seen = valid.copy()
        seen[:5] = False
        write_flow_png(folder / "flow_occ" / f"{scene}_10.png", flow, valid)
        write_flow_png(folder / "flow_noc" / f"{scene}_10.png", flow, seen)
        objects = np.zeros((HEIGHT, WIDTH), np.uint8)
        objects[20:40] = 1
        (folder / "obj_map").mkdir(exist_ok=True)
        write_image(folder / "obj_map" / f"{scene}_10.png", objects)
    return root


def spec(root: Path) -> str:
    return f"kitti_stereo:{root},year=2015"


def test_a_foreign_folder_is_scored(kitti: Path, tmp_path: Path) -> None:
    """5 px off on objects, 20 of 75 rows, else exact."""
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[..., 0] = 3
    flow[20:40] += (3, 4)
    for scene in ("000000", "000001"):
        write_flow_png(tmp_path / "mine" / f"{scene}_10.png", flow)
    out = tmp_path / "result.json"
    arguments = ["--data", spec(kitti), "--protocol", "kitti2015", "--predictions", tmp_path / "mine", "--json", out]
    done = CliRunner().invoke(app, ["evaluate", "flow", *map(str, arguments)])
    assert done.exit_code == 0, done.stderr
    assert "fl_fg_pooled_percent: 100.0000" in done.stdout and "fl_bg_pooled_percent: 0.0000" in done.stdout
    full = json.loads(out.read_text())
    row = full["row"]
    assert row["images"] == 2 and row["warnings"] == []
    assert row["epe_all_pooled"] == pytest.approx(5 * 20 / 75) and row["epe_occ_pooled"] == 0
    assert row["epe_noc_per_image"] == pytest.approx(5 * 20 / 70)
    assert row["fl_all_per_image_percent"] == pytest.approx(100 * 20 / 75)
    assert [image["name"] for image in full["per_image"]] == [f"training/image_2/{s}_10" for s in ("000000", "000001")]


def test_baselines_are_scored_on_the_same_frames(kitti: Path) -> None:
    zero, dis, farneback = (
        evaluate_flow(spec(kitti), "kitti2015", predictions=name).rows[0] for name in ("zero", "dis", "farneback")
    )
    assert zero["epe_all_pooled"] == 3 and zero["fl_all_pooled_percent"] == 0
    assert zero["predictions"] == "zero, computed on the same frames"
    assert dis["epe_all_pooled"] < 0.5 and farneback["epe_all_pooled"] < 1


def test_a_missing_second_image_is_named(kitti: Path, tmp_path: Path) -> None:
    shutil.copytree(kitti, tmp_path, dirs_exist_ok=True)
    (tmp_path / "training" / "image_2" / "000001_11.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 labelled images have no next image .* training/image_2/000001_10"):
        evaluate_flow(spec(tmp_path), "kitti2015", predictions="dis")


def test_visible_truth_alone_gives_figures_of_visible_pixels(kitti: Path, tmp_path: Path) -> None:
    shutil.copytree(kitti, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "training" / "flow_occ")
    for scene in ("000000", "000001"):
        write_flo(tmp_path / "mine" / f"{scene}_10.flo", np.zeros((HEIGHT, WIDTH, 2)))
    row = evaluate_flow(spec(tmp_path), "kitti2015", predictions=str(tmp_path / "mine")).rows[0]
    assert row["epe_noc_pooled"] == 3 and "epe_all_pooled" not in row
    assert "does not define all" in row["warnings"][0]


def test_holes_are_an_error_or_filled(kitti: Path, tmp_path: Path) -> None:
    flow = np.full((HEIGHT, WIDTH, 2), (3, 0), np.float32)
    flow[50, 60:70] = np.nan
    for scene in ("000000", "000001"):
        write_flo(tmp_path / f"{scene}_10.flo", flow)
    with pytest.raises(ValueError, match=r"000000_10\.flo: 10 of 9225 scored pixels"):
        evaluate_flow(spec(kitti), "kitti2015", predictions=str(tmp_path))
    row = evaluate_flow(spec(kitti), "kitti2015", predictions=str(tmp_path), fill_missing=True).rows[0]
    assert row["epe_all_pooled"] == 0
    assert row["missing_estimates"] == "filled from the background in 2 images"


def test_street_zero_flow_has_the_mean_motion_as_error(tmp_path: Path) -> None:
    write_street(tmp_path, StreetOptions(sequences=1, frames=3, width=96, height=64, seed=3, standing=0), processes=1)
    row = evaluate_flow(f"kitti_raw:{tmp_path},cameras=[image_02]", "native", predictions="zero").rows[0]
    classes = [row[f"epe_{name}_pooled"] for name in ("s0-10", "s10-40")]
    assert 0 < classes[0] < 10 <= classes[1] <= 40
    assert row["epe_noc_pooled"] < row["epe_occ_pooled"]


def test_wrong_requests_are_explained(kitti: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean 'kitti2015'"):
        evaluate_flow(spec(kitti), "kitti-2015", predictions="zero")
    write_image(tmp_path / "0.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="none of its 1 images has ground truth of optical flow"):
        evaluate_flow(f"folder:{tmp_path},intrinsics=[8,8,4,4]", "native", predictions="zero")
    assert CliRunner().invoke(app, ["evaluate", "flow", "--data", "x", "--protocol", "sintel"]).exit_code == 2


def test_real_pairs_by_command(shared_data: Path) -> None:
    """Means of the three pairs' 5.40, 13.87, 1.42 px over visible pixels and of 10.39, 20.49, 2.52 px over all."""
    source = f"kitti_stereo:{shared_data / 'kitti_2012'},year=2012"
    row = evaluate_flow(source, "kitti2012", predictions="dis").rows[0]
    assert row["epe_noc_per_image"] == pytest.approx(6.90, abs=0.01)
    assert row["epe_all_per_image"] == pytest.approx(11.13, abs=0.01)


def test_a_models_files_are_predicted_scored_and_removed(
    kitti: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    def predict(model: Path, source: str, out: Path, *, save: tuple[str, ...], **others: Any) -> None:
        folders.append(out)
        assert (model, source, save) == (tmp_path / "model", spec(kitti), ("flo",))
        for scene in ("000000", "000001"):
            write_flo(out / "flo" / "training" / "image_2" / f"{scene}_10.flo", np.zeros((HEIGHT, WIDTH, 2)))

    monkeypatch.setattr("geossl.predict.predict_flow", predict)
    monkeypatch.setattr(
        "geossl.commands.trained_on.training_of", lambda model: Training((), ("its data are not here",))
    )
    result = evaluate_flow(spec(kitti), "kitti2015", model=tmp_path / "model")
    assert result.rows[0]["epe_all_pooled"] == 3 and result.rows[0]["leaks"] == "unknown (its data are not here)"
    assert result.rows[0]["predictions"] == "predicted by the model" and not folders[0].exists()
    assert result.full["leaks"]["unknown"] == ["its data are not here"]
    kept = evaluate_flow(spec(kitti), "kitti2015", model=tmp_path / "model", predictions=str(tmp_path / "kept"))
    assert kept.rows[0]["epe_all_pooled"] == 3 and (tmp_path / "kept" / "flo").is_dir()


def test_predictions_stay_where_scoring_fails(kitti: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged label does not cost what was predicted."""
    shutil.copytree(kitti, tmp_path / "kitti")
    label = tmp_path / "kitti" / "training" / "flow_occ" / "000001_10.png"
    label.write_bytes(label.read_bytes()[:-50])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def predict(model: Path, source: str, out: Path, **others: Any) -> None:
        for scene in ("000000", "000001"):
            write_flo(out / "flo" / "training" / "image_2" / f"{scene}_10.flo", np.zeros((HEIGHT, WIDTH, 2)))

    monkeypatch.setattr("geossl.predict.predict_flow", predict)
    arguments = ["--data", spec(tmp_path / "kitti"), "--protocol", "kitti2015", "--model", tmp_path / "model"]
    done = CliRunner().invoke(app, ["evaluate", "flow", *map(str, arguments)])
    (folder,) = tmp_path.glob("geossl-*")
    assert done.exit_code == 1 and str(label) in done.stderr
    assert f"What was predicted is kept: give --predictions {folder} too" in done.stderr
    assert len(list(folder.rglob("*.flo"))) == 2


def test_nothing_stays_where_nothing_was_predicted(
    kitti: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(model: Path, source: str, out: Path, **others: Any) -> None:
        (out / "meta.json").write_text("{}")
        raise ValueError("not finite")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("geossl.predict.predict_flow", predict)
    with pytest.raises(ValueError, match="not finite") as caught:
        evaluate_flow(spec(kitti), "kitti2015", model=tmp_path / "model")
    assert not list(tmp_path.glob("geossl-*")) and not hasattr(caught.value, "__notes__")
