"""Scene flow files of methods whose answer is known in closed form."""

import json
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from predict_tiny import H, Mover, W, checkpoint, pictures, true_poses
from typer.testing import CliRunner

from geossl.cli import app
from geossl.data.synthetic import StreetOptions, read_labels, write_street
from geossl.evaluation.scene_flow_files import read_scene_flow
from geossl.evaluation.scene_flow_truth import lift
from geossl.formats.image import read_image
from geossl.formats.kitti_png import read_disparity_png, read_flow_png
from geossl.geometry.conversion import scene_flow_from_parts, scene_flow_to_flow
from geossl.predict import SceneFlowRequest, predict_scene_flow, predict_scene_flow_from_parts
from geossl.predict.scene_flow import SCENE_FLOW_OUTPUTS, stereo_baselines
from geossl.types import MissingInput

HEIGHT, WIDTH = 48, 100
CAMERA = (60.0, 55.0, 49.0, 23.0)
K = np.array([[60.0, 0, 49], [0, 55, 23], [0, 0, 1]])
EVERYTHING = SceneFlowRequest(tuple(kind for kind in SCENE_FLOW_OUTPUTS if kind != "rrd"), 0.5, CAMERA)


def ramp_depth() -> np.ndarray:
    """(H, W) `Ramp`'s depth at the pictures' size: inverse depth is linear in the network's columns."""
    column = ((np.arange(WIDTH) + 0.5) * W / WIDTH - 0.5).clip(0, W - 1)
    return np.broadcast_to(1 / (0.02 + 0.001 * column), (HEIGHT, WIDTH))


def mover_motion(k: int) -> np.ndarray:
    """(H, W, 3) of the pair (k, k + 1), likewise."""
    column = ((np.arange(WIDTH) + 0.5) * W / WIDTH - 0.5).clip(0, W - 1)
    motion = np.stack([0.01 * column, np.full(WIDTH, 0.2), np.full(WIDTH, -(2 * k + 1) / 10)], 1)
    return np.broadcast_to(motion, (HEIGHT, WIDTH, 3))


def points(depth: np.ndarray) -> np.ndarray:
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    return lift(u, v, depth, K)


# --- of one model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_kind_of_file_says_the_same(tmp_path: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = checkpoint(tmp_path, "Mover"), tmp_path / "out"
    projecting = Mock(side_effect=scene_flow_to_flow)
    monkeypatch.setattr("geossl.predict.scene_flow.scene_flow_to_flow", projecting)
    request = SceneFlowRequest(EVERYTHING.save, 0.5, CAMERA, batch_size=batch_size)
    summary = predict_scene_flow(model, str(pictures(tmp_path / "in", 4)), out, request)
    assert (summary.written, summary.kept) == (3, 0)
    assert projecting.call_count == 3  # once a pair, though two kinds of files need it
    for k in range(3):
        name, depth, motion = f"frame_{k}", ramp_depth(), mover_motion(k)
        stored = np.load(out / "npy" / f"{name}.npy")
        assert (stored.dtype, stored.shape) == (np.float32, (HEIGHT, WIDTH, 3))
        np.testing.assert_allclose(stored, motion, atol=1e-5)
        np.testing.assert_allclose(np.load(out / "depth" / f"{name}.npy"), depth, rtol=1e-5)
        disparity, later = (read_disparity_png(out / folder / f"{name}.png") for folder in ("disp_0", "disp_1"))
        np.testing.assert_allclose(disparity, 30 / depth, atol=0.5 / 256 + 1e-5)
        np.testing.assert_allclose(later, 30 / (depth + motion[..., 2]), atol=0.5 / 256 + 1e-5)
        flow, valid = read_flow_png(out / "flow" / f"{name}.png")
        moved = points(depth) + motion
        v, u = np.mgrid[:HEIGHT, :WIDTH]
        expected = np.stack(
            [60 * moved[..., 0] / moved[..., 2] + 49 - u, 55 * moved[..., 1] / moved[..., 2] + 23 - v], 2
        )
        np.testing.assert_allclose(flow, expected, atol=0.5 / 64 + 1e-4)
        assert valid.all()
        # What the scorer makes of the three files is the motion that was predicted.
        maps = read_scene_flow([out / folder / f"{name}.png" for folder in ("disp_0", "disp_1", "flow")])
        np.testing.assert_allclose(maps.scene_flow(K, 0.5)[:, 50:], motion[:, 50:], atol=0.05)
        header, body = (out / "ply" / f"{name}.ply").read_bytes().split(b"end_header\n")
        fields = [("xyz", "<f4", 3), ("colour", "u1", 3), ("motion", "<f4", 3)]
        cloud = np.frombuffer(body, fields).reshape(HEIGHT, WIDTH)
        np.testing.assert_allclose(cloud["xyz"], points(depth), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(cloud["motion"], motion, atol=1e-5)
        np.testing.assert_array_equal(cloud["colour"], read_image(tmp_path / "in" / f"{name}.png"))
        assert b"property float motion_z\n" in header


def test_camera_reaches_the_model_resized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    original = Mover.predict_scene_flow

    def record(self: Mover, target: torch.Tensor, source: torch.Tensor, K: torch.Tensor, K_source: None) -> object:
        seen.append(K[0])
        return original(self, target, source, K, K_source)

    monkeypatch.setattr(Mover, "predict_scene_flow", record)
    request = SceneFlowRequest(("npy",), intrinsics=CAMERA)
    predict_scene_flow(
        checkpoint(tmp_path, "Mover"), str(pictures(tmp_path / "in", 2)), tmp_path / "out", request, flip=True
    )
    sx, sy = W / WIDTH, H / HEIGHT
    cx, cy = 49.5 * sx - 0.5, 23.5 * sy - 0.5
    for found, across in zip(seen, (cx, W - 1 - cx), strict=True):
        torch.testing.assert_close(found, torch.tensor([[60 * sx, 0, across], [0, 55 * sy, cy], [0, 0, 1]]))


def test_a_recording_for_rerun_is_written_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed: pip install 'geossl[viz3d]'")
    folder = str(pictures(tmp_path / "in", 2))
    predict_scene_flow(checkpoint(tmp_path, "Mover"), folder, tmp_path, SceneFlowRequest(("rrd",), None, CAMERA))
    recording = (tmp_path / "rrd" / "frame_0.rrd").read_bytes()
    assert recording[:4] == b"RRF2" and b"camera/points" in recording
    # both times of every point: 3 float32 and a colour of 4 bytes each
    assert len(recording) > 2 * HEIGHT * WIDTH * 3


def test_a_missing_rerun_is_named_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    folder, out = str(pictures(tmp_path / "in", 2)), tmp_path / "out"
    with pytest.raises(ImportError, match=r"pip install 'geossl\[viz3d\]'"):
        predict_scene_flow(checkpoint(tmp_path, "Mover"), folder, out, SceneFlowRequest(("npy", "rrd"), None, CAMERA))
    assert not out.exists()


def test_what_is_there_is_not_computed_again(tmp_path: Path) -> None:
    model, out, folder = checkpoint(tmp_path, "Mover"), tmp_path / "out", str(pictures(tmp_path / "in", 4))
    predict_scene_flow(model, folder, out, EVERYTHING)
    (out / "flow" / "frame_1.png").unlink()
    before = (out / "disp_0" / "frame_1.png").stat().st_mtime_ns
    summary = predict_scene_flow(model, folder, out, EVERYTHING)
    assert (summary.written, summary.kept) == (1, 2)
    assert (out / "flow" / "frame_1.png").is_file() and (out / "disp_0" / "frame_1.png").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"baseline_m = 0\.5, these have 0\.6"):
        predict_scene_flow(model, folder, out, SceneFlowRequest(("disp_0",), 0.6, CAMERA))
    with pytest.raises(ValueError, match="flip_postprocessing = False, these have True"):
        predict_scene_flow(model, folder, out, EVERYTHING, flip=True)
    with pytest.raises(ValueError, match="checkpoint_hash"):
        predict_scene_flow(checkpoint(tmp_path, "Mover", bias=0.1), folder, out, EVERYTHING)


def test_flip_merges_with_the_mirrored_images(tmp_path: Path) -> None:
    """Sideways motion m(u) of the mirrored pair is -m(W - 1 - u); in the middle both count alike."""
    model, out, folder = checkpoint(tmp_path, "Mover"), tmp_path / "out", str(pictures(tmp_path / "in", 2))
    predict_scene_flow(model, folder, out, SceneFlowRequest(("npy",), None, CAMERA), flip=True)
    found, plain = np.load(out / "npy" / "frame_0.npy"), mover_motion(0)
    mirrored = plain[:, ::-1] * [-1, 1, 1]
    np.testing.assert_allclose(found[:, 20:80], (plain + mirrored)[:, 20:80] / 2, atol=1e-5)
    np.testing.assert_allclose(found[:, 0], mirrored[:, 0], atol=1e-2)
    assert json.loads((out / "meta.json").read_text())["flip_postprocessing"] is True


def test_points_that_come_behind_the_camera_are_unknown(tmp_path: Path) -> None:
    """A bias of -10 m: what is nearer than 10.1 m ends behind the camera."""
    model, out = checkpoint(tmp_path, "Mover", bias=-10.0), tmp_path / "out"
    predict_scene_flow(model, str(pictures(tmp_path / "in", 2)), out, EVERYTHING)
    behind = ramp_depth() < 10.1
    assert 0.1 < behind.mean() < 0.9
    np.testing.assert_array_equal(read_disparity_png(out / "disp_1" / "frame_0.png") == 0, behind)
    np.testing.assert_array_equal(~read_flow_png(out / "flow" / "frame_0.png")[1], behind)
    assert (read_disparity_png(out / "disp_0" / "frame_0.png") > 0).all()


def test_wrong_requests_are_explained(tmp_path: Path) -> None:
    model, out, folder = checkpoint(tmp_path, "Mover"), tmp_path / "out", str(pictures(tmp_path / "in", 2))
    for request, message in (
        (SceneFlowRequest(("disp_0",), 0.5), "needs the camera, and .*frame_0.png has none; give --intrinsics"),
        (SceneFlowRequest(("disp_1",), None, CAMERA), "1 of 1 images have no other camera; the first is frame_0"),
        (SceneFlowRequest(("flo",), 0.5, CAMERA), "cannot save flo; choose from disp_0"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_scene_flow(model, folder, out, request)
    with pytest.raises(ValueError, match="up to scale, which gives no disparities"):
        predict_scene_flow(checkpoint(tmp_path, "Mover", metric=False), folder, out, EVERYTHING)
    with pytest.raises(MissingInput, match="predicts no scene flow; give a model that does, or --depth"):
        predict_scene_flow(checkpoint(tmp_path, "Ramp"), folder, out, EVERYTHING)
    with pytest.raises(ValueError, match="not finite at 4800 of 4800 pixels"):
        predict_scene_flow(checkpoint(tmp_path, "Mover", poison=True), folder, tmp_path / "poisoned", EVERYTHING)
    assert not out.exists() and not (tmp_path / "poisoned" / "flow").exists()


# --- from parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("offsets", [(1,), (-1, 1)])
def test_parts_are_depth_at_the_end_of_the_flow(tmp_path: Path, moves: bool, offsets: tuple[int, ...]) -> None:
    depth_model = checkpoint(tmp_path, "Ramp", pose_offsets=offsets if moves else ())
    flow_model, out = checkpoint(tmp_path, "Shift", flow_offsets=offsets), tmp_path / "out"
    predict_scene_flow_from_parts(depth_model, flow_model, str(pictures(tmp_path / "in", 4)), out, EVERYTHING)
    meta = json.loads((out / "meta.json").read_text())
    assert meta["method"] == ["predict_tiny:Ramp", "predict_tiny:Shift"] and meta["units"] == "metres"
    assert ("stand still by" in meta["hidden"]) == moves
    assert meta["files"]["frame_0"]["replicated"] == ([-1] if -1 in offsets else [])
    depth, poses = ramp_depth(), true_poses(40)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    for k in range(3):
        flow = np.array([(2 * k + 3) * WIDTH / W, -48 / 64])
        du, dv = flow
        seen = (u + du <= WIDTH - 1) & (v + dv >= 0)
        inverse = 1 / depth[0]
        z = np.where(seen, 1 / np.interp(u + du, np.arange(WIDTH), inverse), depth)
        expected = lift(u + du, v + dv, z, K) - points(depth)
        if moves:
            T = np.linalg.inv(poses[k + 1]) @ poses[k]
            still = points(depth) @ T[:3, :3].T + T[:3, 3] - points(depth)
            expected = np.where(seen[..., None], expected, still)
        found = np.load(out / "npy" / f"frame_{k}.npy")
        np.testing.assert_allclose(found, expected, atol=2e-3, rtol=1e-3)
        stored, _ = read_flow_png(out / "flow" / f"frame_{k}.png")
        np.testing.assert_allclose(stored[seen], np.broadcast_to(flow, stored.shape)[seen], atol=1 / 64 + 1e-3)


def test_parts_need_their_models(tmp_path: Path) -> None:
    folder, ramp, shift = (
        str(pictures(tmp_path / "in", 2)),
        checkpoint(tmp_path, "Ramp"),
        checkpoint(tmp_path, "Shift"),
    )
    with pytest.raises(MissingInput, match="Shift predicts no depth; give --depth"):
        predict_scene_flow_from_parts(shift, shift, folder, tmp_path / "out", EVERYTHING)
    with pytest.raises(MissingInput, match="Ramp predicts no flow to the next image; give --flow"):
        predict_scene_flow_from_parts(ramp, ramp, folder, tmp_path / "out", EVERYTHING)


# --- sources and the command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street")
    write_street(folder, StreetOptions(sequences=1, frames=3, width=128, height=64, seed=3, standing=0), processes=1)
    return folder


def test_true_parts_make_the_true_scene_flow(street: Path) -> None:
    """Of a street's labels, where the next image shows the point: but for edges, where bilinear depth mixes two."""
    one, other, *_ = (read_labels(path) for path in sorted(street.rglob("labels/*.npz")))
    depth, later = (torch.from_numpy(np.where(x.valid, x.depth, 1e4))[None, None] for x in (one, other))
    flow, visible = torch.from_numpy(one.flow)[None], torch.from_numpy(one.flow_valid_noc)[None, None]
    camera, T = torch.tensor(one.K)[None].float(), torch.tensor(one.T_next_camera)[None].float()
    found = scene_flow_from_parts(depth, later, flow.nan_to_num(), visible, camera, T)[0].numpy()
    error_m = np.linalg.norm(found - one.scene_flow, axis=0)
    seen, still = one.flow_valid_noc & one.static, one.valid & one.static
    size_m = np.median(np.linalg.norm(one.scene_flow, axis=0)[seen])
    assert np.median(error_m[seen]) < 0.01 * size_m and np.mean(error_m[seen] < 0.2 * size_m) > 0.75
    hidden = still & ~one.visible_next
    assert hidden.any() and error_m[hidden].max() < 1e-3  # what stands still moves with the camera


def test_the_baseline_is_the_sources_own(street: Path, tmp_path: Path) -> None:
    spec = f"kitti_raw:{street},cameras=[image_02]"
    baselines = stereo_baselines(spec)
    assert len(baselines) == 3 and len(set(baselines.values())) == 1
    out = tmp_path / "out"
    summary = predict_scene_flow(checkpoint(tmp_path, "Mover"), spec, out, SceneFlowRequest(("disp_0", "depth")))
    assert summary.written == 2
    files = json.loads((out / "meta.json").read_text())["files"]
    for name, entry in files.items():
        assert entry["baseline_m"] == baselines[name]
        disparity = read_disparity_png(out / "disp_0" / f"{name}.png")
        depth = np.load(out / "depth" / f"{name}.npy")
        np.testing.assert_allclose(disparity * depth, entry["K"][0][0] * entry["baseline_m"], rtol=0.02)


def test_the_command_takes_a_model_or_its_parts(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 2)
    camera = ["--intrinsics", "60,55,49,23", "--baseline-m", "0.5"]
    arguments = [checkpoint(tmp_path, "Mover"), folder, "-o", tmp_path / "one", "--json", *camera]
    done = CliRunner().invoke(app, ["predict", "sceneflow", *map(str, arguments)])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["written"] == 1
    parts = ["--depth", checkpoint(tmp_path, "Ramp"), "--flow", checkpoint(tmp_path, "Shift")]
    done = CliRunner().invoke(
        app, ["predict", "sceneflow", str(folder), *map(str, [*parts, "-o", tmp_path / "two", *camera])]
    )
    assert done.exit_code == 0, done.stderr
    for out in ("one", "two"):
        assert {path.name for path in (tmp_path / out).iterdir()} == {"disp_0", "disp_1", "flow", "meta.json"}
