"""Predictions of methods whose depth and motion are known in closed form."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from geossl.config import Strict, parse_experiment
from geossl.engine.checkpoint import save_checkpoint
from geossl.formats.image import read_image, write_image
from geossl.formats.kitti_png import read_depth_png
from geossl.formats.pfm import read_pfm
from geossl.formats.trajectory import read_indexed_kitti_trajectory, read_kitti_trajectory, read_tum_trajectory
from geossl.geometry.motion import motion_from_axis_angle
from geossl.inputs import open_source
from geossl.methods.method import Method
from geossl.predict import chain_motions, inverse_depth, pose_targets, predict_depth, predict_pose, to_model_size
from geossl.types import Batch, MissingInput, Objective

H, W = 64, 128  # of the model
CALLS: list[int] = []


class RampOptions(Strict):
    metric: bool = True
    pose_offsets: tuple[int, ...] = (1,)


class Ramp(Method):
    """Inverse depth that is linear in the column; motion that is read off the images' grey values."""

    Options = RampOptions

    def __init__(self, options: RampOptions) -> None:
        super().__init__(options)
        self.is_metric = options.metric
        self.pose_offsets = options.pose_offsets
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> Objective:
        raise NotImplementedError

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
        CALLS.append(len(image))
        u = torch.arange(image.shape[-1], dtype=torch.float32)
        return 1 / (0.02 + 0.001 * u).expand(len(image), 1, *image.shape[-2:])

    def predict_motions(self, target: Tensor, sources: list[Tensor]) -> Tensor:
        """Frame k is grey value 20 + 5 k; from one to the next the camera turns and moves by frame-dependent steps."""
        number = [((x.mean((1, 2, 3)) * 255 - 20) / 5).round().int().tolist() for x in (target, *sources)]
        poses = true_poses(40)
        T = [[np.linalg.inv(poses[s]) @ poses[t] for t, s in zip(number[0], row, strict=True)] for row in number[1:]]
        return torch.tensor(np.array(T)).transpose(0, 1).float()  # (B, S, 4, 4) T_source_target


class Blind(Method):
    """Predicts nothing."""

    Options = RampOptions

    def forward(self, batch: Batch) -> Objective:
        raise NotImplementedError


def true_poses(count: int) -> np.ndarray:
    """(N, 4, 4) T_world_camera of a bend, the first the identity."""
    poses = [np.eye(4)]
    for k in range(count - 1):
        axis_angle = torch.tensor([[0.01, 0.05 * np.sin(k), 0.002 * k]], dtype=torch.float64)
        translation = torch.tensor([[0.1, 0.02 * k, 1.0]], dtype=torch.float64)
        poses.append(poses[-1] @ motion_from_axis_angle(axis_angle, translation)[0].numpy())
    return np.stack(poses)


def checkpoint(folder: Path, method: str = "Ramp", bias: float = 0.0, **options: Any) -> Path:
    values = {"method": f"test_predict:{method}", "model": options, "data": {"height": H, "width": W}}
    experiment = parse_experiment(values)
    cls = {"Ramp": Ramp, "Blind": Blind}[method]
    model = cls(RampOptions(**options))
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, bias)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1)), *model.parameters()][-1:])
    path = folder / f"{method}_{bias}_{'_'.join(str(v) for v in options.values())}.safetensors"
    save_checkpoint(path, model, optimizer, experiment, {"step": 3})
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return checkpoint(tmp_path)


def pictures(folder: Path, count: int, size: tuple[int, int] = (48, 100)) -> Path:
    """Grey pictures 20, 25, 30, ... so that a frame's number can be read off."""
    for k in range(count):
        write_image(folder / f"frame_{k}.png", np.full((*size, 3), 20 + 5 * k, np.uint8))
    return folder


# --- depth -----------------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match=r"meta\.json is not JSON"):
        predict_depth(model, source, out)
    assert predict_depth(model, source, out, overwrite=True).written == 1


# --- sources ---------------------------------------------------------------------------------------------------------


def test_folder_is_read_in_natural_order_with_its_clips(tmp_path: Path) -> None:
    for clip in ("b", "a"):
        pictures(tmp_path / "in" / clip, 11)
    (tmp_path / "in" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "in" / ".thumbnails").mkdir()
    write_image(tmp_path / "in" / ".thumbnails" / "x.png", np.zeros((4, 4, 3), np.uint8))
    images = open_source(str(tmp_path / "in"))
    assert [image.name for image in images[:11]] == [f"a/frame_{k}" for k in range(11)]
    assert {image.clip for image in images} == {"a", "b"}
    assert [image.frame for image in images[11:]] == list(range(11))


def test_folder_s_intrinsics_are_read(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    (tmp_path / "intrinsics.txt").write_text("50 60 40 20")
    np.testing.assert_array_equal(open_source(str(tmp_path))[0].K, [[50, 0, 40], [0, 60, 20], [0, 0, 1]])


def test_glob_names_are_relative_to_its_fixed_part(tmp_path: Path) -> None:
    for clip in ("a", "b"):
        pictures(tmp_path / "in" / clip, 2)
    images = open_source(f"{tmp_path}/in/*/frame_1.png")
    assert [image.name for image in images] == ["a/frame_1", "b/frame_1"]
    assert [image.name for image in open_source(f"{tmp_path}/in/a/*.png")] == ["frame_0", "frame_1"]


def test_video_is_read_frame_by_frame(tmp_path: Path) -> None:
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for k in range(5):
        writer.write(np.full((48, 64, 3), 20 + 30 * k, np.uint8))
    writer.release()
    if not path.is_file() or path.stat().st_size == 0:
        pytest.skip("this OpenCV writes no video")
    images = open_source(str(path))
    assert len(images) == 5
    assert [round(float(image.read().mean()) / 30 - 20 / 30) for image in images] == list(range(5))
    assert images[0].K is None
    assert images[3].name.startswith("drive/")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nowhere", FileNotFoundError, "nowhere does not exist"),
        ("nowhere/*.png", ValueError, "holds no images"),
        ("kitti_raw:nowhere", OSError, "nowhere"),
        ("kitti_raw:nowhere,splitt=x", ValueError, "did you mean 'split'"),
    ],
)
def test_wrong_source_is_named(
    source: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        open_source(source)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    write_image(tmp_path / "frame_0.jpg", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"both be written as 'frame_0'"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("intrinsics", [(1, 2, 3), (0, 60, 1, 1), (float("nan"), 1, 1, 1)])
def test_wrong_intrinsics_are_refused(tmp_path: Path, intrinsics: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="fx, fy, cx, cy in pixels"):
        open_source(str(pictures(tmp_path, 1)), intrinsics)


# --- pose ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offsets", [(1,), (-1, 1), (-2, -1, 1, 2), (-1,)])
@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_trajectory_is_the_chain_of_true_motions(tmp_path: Path, offsets: tuple[int, ...], batch_size: int) -> None:
    model = checkpoint(tmp_path, metric=True, pose_offsets=offsets)
    source, out = str(pictures(tmp_path / "clip", 12)), tmp_path / "out"
    predict_pose(model, source, out, batch_size=batch_size, rate_hz=10.0)
    poses = read_kitti_trajectory(out / "clip.kitti.txt")
    np.testing.assert_array_equal(poses[0], np.eye(4))
    np.testing.assert_allclose(poses, true_poses(12), atol=2e-5)
    times, same = read_tum_trajectory(out / "clip.tum.txt")
    np.testing.assert_allclose(times, np.arange(12) / 10)
    np.testing.assert_allclose(same, poses, atol=1e-6)


def test_every_clip_has_its_trajectory(model: Path, tmp_path: Path) -> None:
    for clip in ("one", "two"):
        pictures(tmp_path / "in" / clip, 4)
    out = tmp_path / "out"
    assert predict_pose(model, str(tmp_path / "in"), out).written == 2
    (out / "two.kitti.txt").unlink()
    assert predict_pose(model, str(tmp_path / "in"), out).written == 1
    assert json.loads((out / "meta.json").read_text())["files"]["one"]["frames"] == 4


def test_frames_with_gaps_are_numbered(model: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    numbers = (10, 12, 13, 40)
    images = [
        replace(image, frame=number)
        for image, number in zip(open_source(str(pictures(tmp_path / "in", 4))), numbers, strict=True)
    ]
    with pytest.warns(UserWarning, match=r"jump in in \(frame 13 to 40, the widest of 2 gaps\); .* chained") as caught:
        predict_pose(model, images, tmp_path / "out")
    assert len(caught) == 1
    frames, poses = read_indexed_kitti_trajectory(tmp_path / "out" / "in.kitti.txt")
    assert frames.tolist() == [10, 12, 13, 40]
    np.testing.assert_allclose(poses, true_poses(4), atol=2e-5)  # as if they were neighbours
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["files"]["in"]["gaps"] == [[10, 12], [13, 40]]


def test_one_warning_names_the_gaps_of_all_clips(model: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    for clip in ("a", "b", "c", "d", "whole"):
        pictures(tmp_path / "in" / clip, 3)
    images = [
        image if image.clip == "whole" else replace(image, frame=image.frame * 5)
        for image in open_source(str(tmp_path / "in"))
    ]
    with pytest.warns(UserWarning, match=r"a \(frame 0 to 5.*b \(.*c \(.*\) and 1 more clips;") as caught:
        predict_pose(model, images, tmp_path / "out")
    assert len(caught) == 1
    assert predict_pose(model, images, tmp_path / "out").kept == 5  # nothing computed, nothing to warn of


def test_frames_from_any_number_on_have_no_gap(model: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    images = [replace(image, frame=7 + image.frame) for image in open_source(str(pictures(tmp_path / "in", 3)))]
    predict_pose(model, images, tmp_path / "out")  # a warning would be an error
    assert read_indexed_kitti_trajectory(tmp_path / "out" / "in.kitti.txt")[0].tolist() == [7, 8, 9]


def test_chain_keeps_rotations_orthonormal() -> None:
    T = motion_from_axis_angle(torch.tensor([[0.01, 0.2, -0.03]]), torch.tensor([[0.0, 0.0, 1.0]]))[0].double().numpy()
    rotations = chain_motions([T * np.array([[1 + 1e-6, 1, 1, 1]])] * 2000)[:, :3, :3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (2001, 1, 1)), atol=1e-11)


def test_pose_targets_prefer_the_frame_itself() -> None:
    assert pose_targets(5, (1,)) == [0, 1, 2, 3]
    assert pose_targets(5, (-1,)) == [1, 2, 3, 4]
    assert pose_targets(5, (-1, 1)) == [1, 1, 2, 3]


@pytest.mark.parametrize(("frames", "offsets"), [(2, (-1, 1)), (4, (-2, -1, 1, 2)), (9, (2,))])
def test_clip_that_no_window_covers_is_refused(frames: int, offsets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be covered by windows"):
        pose_targets(frames, offsets)


def test_single_image_has_no_trajectory(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one frame only"):
        predict_pose(model, str(pictures(tmp_path / "in", 1)), tmp_path / "out")


def test_model_without_motion_is_refused(tmp_path: Path) -> None:
    for model in (checkpoint(tmp_path, "Blind"), checkpoint(tmp_path, pose_offsets=())):
        with pytest.raises(MissingInput, match="predicts no camera motion"):
            predict_pose(model, str(pictures(tmp_path / "in", 3)), tmp_path / "out")
