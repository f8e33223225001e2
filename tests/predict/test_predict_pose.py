"""Trajectories of a method whose motion is known in closed form."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from predict_tiny import Ramp, checkpoint, pictures, true_poses

from geossl.formats.trajectory import read_indexed_kitti_trajectory, read_kitti_trajectory, read_tum_trajectory
from geossl.geometry.motion import motion_from_axis_angle
from geossl.inputs import open_source
from geossl.predict import chain_motions, pose_targets, predict_pose
from geossl.types import MissingInput


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return checkpoint(tmp_path)


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


def test_other_times_are_refused(model: Path, tmp_path: Path) -> None:
    source, out = str(pictures(tmp_path / "in", 4)), tmp_path / "out"
    predict_pose(model, source, out)
    with pytest.raises(ValueError, match="with times = frame number, these have frame number / 10 s"):
        predict_pose(model, source, out, rate_hz=10.0)
    predict_pose(model, source, out, rate_hz=10.0, overwrite=True)
    np.testing.assert_allclose(read_tum_trajectory(out / "in.tum.txt")[0], np.arange(4) / 10)


def test_motion_that_is_not_finite_is_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Ramp, "predict_motions", lambda self, target, sources: torch.full((len(target), len(sources), 4, 4), torch.nan)
    )
    with pytest.raises(ValueError, match=r"motion near .*frame_0\.png is not finite; the trajectory was not written"):
        predict_pose(model, str(pictures(tmp_path / "in", 4)), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.txt"))


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
