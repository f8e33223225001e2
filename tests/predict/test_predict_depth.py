"""Depth files of a method whose depth is known in closed form."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from predict_tiny import CALLS, H, Ramp, RampOptions, W, checkpoint, pictures
from torch import Tensor

from geossl.formats.image import read_image
from geossl.formats.kitti_png import read_depth_png
from geossl.formats.pfm import read_pfm
from geossl.predict import inverse_depth, predict_depth, to_model_size
from geossl.types import MissingInput


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return checkpoint(tmp_path)


def test_inverse_depth_is_resized_linearly_to_the_source_s_size(model: Path, tmp_path: Path) -> None:
    predict_depth(model, str(pictures(tmp_path / "in", 1, (48, 100))), tmp_path / "out")
    depth = np.load(tmp_path / "out" / "npy" / "frame_0.npy")
    assert depth.dtype == np.float32
    assert depth.shape == (48, 100)
    # Column u of 100 lies at (u + 0.5) * 128 / 100 - 0.5 of the model's 128.
    u = ((np.arange(100) + 0.5) * W / 100 - 0.5).clip(0, W - 1)
    np.testing.assert_allclose(depth, np.tile(1 / (0.02 + 0.001 * u), (48, 1)), rtol=1e-5)


def test_every_kind_of_file_holds_the_same_depth(model: Path, tmp_path: Path) -> None:
    source, out = str(pictures(tmp_path / "in", 2)), tmp_path / "out"
    kinds = ("npy", "png16", "pfm", "color", "ply")
    summary = predict_depth(model, source, out, save=kinds, intrinsics=(50, 60, 40, 20))
    assert (summary.written, summary.kept) == (2, 0)
    depth = np.load(out / "npy" / "frame_1.npy")
    np.testing.assert_allclose(read_depth_png(out / "png16" / "frame_1.png"), depth, atol=0.5 / 256 + 1e-6)
    np.testing.assert_array_equal(read_pfm(out / "pfm" / "frame_1.pfm"), depth)
    assert read_image(out / "color" / "frame_1.png").shape == (48, 100, 3)
    header, body = (out / "ply" / "frame_1.ply").read_bytes().split(b"end_header\n")
    assert b"element vertex 4800" in header
    point = np.frombuffer(body[:12], np.float32)  # pixel (0, 0): ((0 - cx) / fx * z, (0 - cy) / fy * z, z)
    z = depth[0, 0]
    np.testing.assert_allclose(point, [-40 / 50 * z, -20 / 60 * z, z], rtol=1e-5)
    assert list(body[12:15]) == [25, 25, 25]


def test_meta_says_unit_camera_model_and_command(model: Path, tmp_path: Path) -> None:
    source, out = str(pictures(tmp_path / "in", 1)), tmp_path / "out"
    predict_depth(model, source, out, intrinsics=(50, 60, 40, 20), flip=True, command="geossl predict depth ...")
    meta = json.loads((out / "meta.json").read_text())
    assert meta["units"] == "metres"
    assert meta["flip_postprocessing"] is True
    assert meta["command"] == "geossl predict depth ..."
    assert meta["model_size"] == {"width": W, "height": H}
    assert len(meta["checkpoint_hash"]) >= 16
    assert meta["files"]["frame_0"]["K"] == [[50, 0, 40], [0, 60, 20], [0, 0, 1]]
    assert meta["files"]["frame_0"]["source"].endswith("in/frame_0.png")
    assert meta["guessed_camera"] is None


def test_meta_says_up_to_scale_and_guessed_camera(tmp_path: Path) -> None:
    model = checkpoint(tmp_path, metric=False)
    predict_depth(model, str(pictures(tmp_path / "in", 1)), tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["units"] == "up_to_scale"
    assert meta["files"]["frame_0"]["K"] is None
    assert "60 degrees" in meta["guessed_camera"]


def test_done_files_are_not_done_again(model: Path, tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", 3), tmp_path / "out"
    predict_depth(model, str(source), out)
    (out / "npy" / "frame_1.npy").unlink()
    before = (out / "npy" / "frame_0.npy").stat().st_mtime_ns
    CALLS.clear()
    summary = predict_depth(model, str(source), out)
    assert (summary.written, summary.kept) == (1, 2)
    assert CALLS == [1]
    assert (out / "npy" / "frame_0.npy").stat().st_mtime_ns == before
    assert predict_depth(model, str(source), out, save=("npy", "pfm")).written == 3  # another kind is missing


def test_another_model_s_folder_is_refused_unless_overwritten(model: Path, tmp_path: Path) -> None:
    source, out, other = str(pictures(tmp_path / "in", 1)), tmp_path / "out", checkpoint(tmp_path, bias=1.0)
    predict_depth(model, source, out)
    before = json.loads((out / "meta.json").read_text())
    with pytest.raises(ValueError, match=r"holds predictions with checkpoint_hash.*--overwrite"):
        predict_depth(other, source, out)
    assert json.loads((out / "meta.json").read_text()) == before
    assert predict_depth(other, source, out, overwrite=True).written == 1
    assert json.loads((out / "meta.json").read_text())["checkpoint_hash"] != before["checkpoint_hash"]


def test_another_source_of_the_same_name_is_refused(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_depth(model, str(pictures(tmp_path / "a", 1)), out)
    with pytest.raises(ValueError, match=r"'frame_0' from .*a/frame_0.png, this one is from .*b/frame_0.png"):
        predict_depth(model, str(pictures(tmp_path / "b", 1)), out)


def test_another_camera_is_refused(model: Path, tmp_path: Path) -> None:
    source, out = str(pictures(tmp_path / "in", 1)), tmp_path / "out"
    predict_depth(model, source, out, save=("ply",), intrinsics=(100, 100, 60, 30))
    assert predict_depth(model, source, out, save=("ply",), intrinsics=(100, 100, 60, 30)).kept == 1
    with pytest.raises(ValueError, match=r"'frame_0' with K \[\[100.*this one is with K \[\[200.*--overwrite"):
        predict_depth(model, source, out, save=("npy",), intrinsics=(200, 200, 60, 30))


def test_depth_that_is_not_finite_is_not_written(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = str(pictures(tmp_path / "in", 1)), tmp_path / "out"
    monkeypatch.setattr(Ramp, "predict_depth", lambda self, image, K: torch.full_like(image[:, :1], torch.nan))
    with pytest.raises(ValueError, match=r"depth of .*frame_0\.png is not positive and finite at \d+ of \d+ pixels"):
        predict_depth(model, source, out)
    assert not list(out.rglob("*.npy"))


def test_a_second_source_is_added_to_the_folder(model: Path, tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", 2), tmp_path / "out"
    for k in range(2):
        predict_depth(model, str(source / f"frame_{k}.png"), out)
    assert set(json.loads((out / "meta.json").read_text())["files"]) == {"frame_0", "frame_1"}


def test_processes_share_the_images(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = str(pictures(tmp_path / "in", 5)), tmp_path / "out"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert predict_depth(model, source, out).written == 2
    assert not (out / "meta.json").exists()
    monkeypatch.setenv("RANK", "0")
    # The other process's files are there without a meta.json; they are none of this one's.
    assert predict_depth(model, source, out).written == 3
    assert len(list((out / "npy").glob("*.npy"))) == 5
    assert len(json.loads((out / "meta.json").read_text())["files"]) == 5


def test_flip_takes_each_side_from_the_view_that_sees_it() -> None:
    method, K = Ramp(RampOptions()), torch.eye(3)[None]
    merged = inverse_depth(method, torch.zeros(1, 3, H, W), K, flip=True)[0, 0, 0]
    plain = 0.02 + 0.001 * torch.arange(W, dtype=torch.float32)
    torch.testing.assert_close(merged[0], plain[-1])  # the left edge: only the mirrored prediction
    torch.testing.assert_close(merged[-1], plain[-1])  # the right edge: only the plain one
    torch.testing.assert_close(merged[W // 2], (plain[W // 2] + plain[W - 1 - W // 2]) / 2)


def test_flip_of_a_symmetric_prediction_changes_nothing() -> None:
    class Symmetric(Ramp):
        def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
            return 1 / (0.1 + image.mean(1, keepdim=True))

    image, method, K = torch.rand(2, 3, 8, 30), Symmetric(RampOptions()), torch.eye(3).expand(2, 3, 3)
    torch.testing.assert_close(inverse_depth(method, image, K, flip=True), inverse_depth(method, image, K))


def test_camera_reaches_the_model_resized_and_mirrored(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def record(self: Ramp, image: Tensor, K: Tensor) -> Tensor:
        seen.append(K[0])
        return torch.ones_like(image[:, :1])

    monkeypatch.setattr(Ramp, "predict_depth", record)
    source = str(pictures(tmp_path / "in", 1, size=(48, 100)))
    predict_depth(model, source, tmp_path / "out", flip=True, intrinsics=(60, 55, 40, 23))
    sx, sy = W / 100, H / 48
    cx, cy = 40.5 * sx - 0.5, 23.5 * sy - 0.5
    for K, across in zip(seen, (cx, W - 1 - cx), strict=True):
        torch.testing.assert_close(K, torch.tensor([[60 * sx, 0, across], [0, 55 * sy, cy], [0, 0, 1]]))


def test_image_reaches_the_model_as_in_training() -> None:
    from geossl.data.images import resize_to

    image = np.random.default_rng(0).integers(0, 256, (75, 121, 3), dtype=np.uint8)
    trained_on = resize_to(image, H, W).float() / 255
    torch.testing.assert_close(to_model_size(image, (H, W))[0], trained_on, atol=1.01 / 255, rtol=0)
    assert (to_model_size(image, (H, W))[0] - trained_on).abs().mean() < 0.3 / 255  # rounding only


# --- wrong input -----------------------------------------------------------------------------------------------------


def test_model_without_depth_is_refused(tmp_path: Path) -> None:
    model = checkpoint(tmp_path, "Blind")
    with pytest.raises(MissingInput, match="predicts no depth"):
        predict_depth(model, str(pictures(tmp_path / "in", 1)), tmp_path / "out")


def test_unknown_output_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot save tiff; choose from npy, png16"):
        predict_depth(model, str(pictures(tmp_path / "in", 1)), tmp_path / "out", save=("tiff",))


def test_point_cloud_without_camera_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--intrinsics fx,fy,cx,cy"):
        predict_depth(model, str(pictures(tmp_path / "in", 1)), tmp_path / "out", save=("ply",))


def test_truncated_image_is_named_and_loses_nothing(model: Path, tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", 3), tmp_path / "out"
    data = (source / "frame_2.png").read_bytes()
    (source / "frame_2.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"frame_2\.png"):
        predict_depth(model, str(source), out, batch_size=1)
    (source / "frame_2.png").write_bytes(data)
    assert predict_depth(model, str(source), out, batch_size=1).kept >= 1


def test_damaged_meta_is_named(model: Path, tmp_path: Path) -> None:
    source, out = str(pictures(tmp_path / "in", 1)), tmp_path / "out"
    predict_depth(model, source, out)
    (out / "meta.json").write_text("{")
    with pytest.raises(ValueError, match=r"meta\.json: is not JSON"):
        predict_depth(model, source, out)
    assert predict_depth(model, source, out, overwrite=True).written == 1
