"""Flow files of a method whose flow is known in closed form."""

import json
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from predict_tiny import H, Shift, W, checkpoint, pictures
from typer.testing import CliRunner

from geossl.cli import app
from geossl.data.build import KINDS
from geossl.data.images import Video
from geossl.formats.flo import read_flo
from geossl.formats.image import read_image, write_image
from geossl.formats.kitti_png import read_flow_png
from geossl.geometry.visibility import forward_backward_check
from geossl.inputs import open_source
from geossl.predict import predict_flow
from geossl.predict.flow import FLOW_OUTPUTS, flow_confidence, windows_of
from geossl.predict.pairs import open_pairs
from geossl.types import MissingInput
from geossl.visualize import colorize_flow

SIZE = (48, 100)  # of the pictures: the network's pixels are 100/128 and 48/64 of theirs


@pytest.fixture
def model(tmp_path: Path) -> Path:
    Shift.windows.clear()
    Shift.sizes.clear()
    return checkpoint(tmp_path, "Shift")


def true_flow(this: int, other: int, size: tuple[int, int] = SIZE, seen: tuple[int, int] = (H, W)) -> np.ndarray:
    """(2,) the flow of `Shift` in pixels of `size`, where the network sees `seen`."""
    place = [np.array([2 * k + k**2, -k]) for k in (this, other)]
    return (place[1] - place[0]) * [size[1] / seen[1], size[0] / seen[0]]


def meta_of(out: Path) -> dict:
    return json.loads((out / "meta.json").read_text())


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offsets", [(1,), (-1, 1), (1, -1), (-2, -1, 1, 2), (1, 2)])
@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_flow_forth_and_back_is_the_true_one(tmp_path: Path, offsets: tuple[int, ...], batch_size: int) -> None:
    model, out = checkpoint(tmp_path, "Shift", flow_offsets=offsets), tmp_path / "out"
    summary = predict_flow(model, str(pictures(tmp_path / "in", 5)), out, batch_size=batch_size)
    assert (summary.written, summary.kept) == (4, 0)
    for k in range(4):
        forward, backward = (read_flo(out / place / "flo" / f"frame_{k}.flo") for place in ("", "backward"))
        assert forward.shape == (*SIZE, 2)
        np.testing.assert_allclose(forward, np.broadcast_to(true_flow(k, k + 1), forward.shape), rtol=1e-5)
        np.testing.assert_allclose(backward, np.broadcast_to(true_flow(k + 1, k), forward.shape), rtol=1e-5)
    assert not (out / "flo" / "frame_4.flo").exists()


def test_every_kind_of_file_holds_the_same_flow(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_flow(model, str(pictures(tmp_path / "in", 2)), out, save=list(FLOW_OUTPUTS), max_px=8)
    for place, (this, other) in {out: (0, 1), out / "backward": (1, 0)}.items():
        flow = np.load(place / "npy" / "frame_0.npy")
        assert (flow.dtype, flow.shape) == (np.float32, (*SIZE, 2))
        np.testing.assert_allclose(flow[3, 4], true_flow(this, other), rtol=1e-5)
        np.testing.assert_array_equal(read_flo(place / "flo" / "frame_0.flo"), flow)
        stored, valid = read_flow_png(place / "png16" / "frame_0.png")
        np.testing.assert_allclose(stored, flow, atol=0.5 / 64 + 1e-6)
        assert valid.all()
        np.testing.assert_array_equal(read_image(place / "color" / "frame_0.png"), colorize_flow(flow, 8))
        # Forth and back agree exactly: seen wherever the flow stays inside, with full confidence.
        v, u = np.mgrid[: SIZE[0], : SIZE[1]]
        inside = (
            (u + flow[..., 0] >= 0) & (u + flow[..., 0] <= 99) & (v + flow[..., 1] >= 0) & (v + flow[..., 1] <= 47)
        )
        assert 0 < inside.sum() < inside.size
        for kind in ("visible", "confidence"):
            stored = cv2.imread(str(place / kind / "frame_0.png"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(stored, np.where(inside, 255, 0))
    assert read_image(out / "color_legend.png").any()


def test_meta_says_what_the_files_hold(tmp_path: Path) -> None:
    model, out = checkpoint(tmp_path, "Shift", flow_offsets=(-1, 1)), tmp_path / "out"
    predict_flow(model, str(pictures(tmp_path / "in", 4)), out, max_px=20, command="geossl predict flow ...")
    meta = meta_of(out)
    assert (meta["kind"], meta["units"], meta["max_px"]) == ("flow", "pixels of the source", 20)
    assert meta["command"] == "geossl predict flow ..."
    assert meta["network_size"] == "model"
    assert [Path(file).name for file in meta["files"]["frame_0"]["source"]] == ["frame_0.png", "frame_1.png"]
    # The window of frame 0 lacks -1, that of the last pair's second frame lacks 2.
    assert [meta["files"][f"frame_{k}"]["replicated"] for k in range(3)] == [[-1], [], [2]]
    assert "t / (t + |f + b_w|^2)" in meta["confidence"]


def test_missing_neighbours_are_the_nearest_frame(tmp_path: Path) -> None:
    Shift.windows.clear()
    model = checkpoint(tmp_path, "Shift", flow_offsets=(-1, 1))
    predict_flow(model, str(pictures(tmp_path / "in", 3)), tmp_path / "out")
    assert Shift.windows == [(0, 0, 1), (1, 0, 2), (2, 1, 2)]  # each once, though two pairs ask for the second


def test_windows_are_those_of_the_clip_or_of_the_clip_played_backwards() -> None:
    assert windows_of((1,)) == (((0, 1), 0), ((1, 0), 0))
    assert windows_of((-1, 1)) == (((0, -1, 1), 1), ((1, 0, 2), 0))
    assert windows_of((1, 2)) == (((0, 1, 2), 0), ((1, 0, -1), 0))


@pytest.mark.parametrize(("size", "seen"), [("model", (H, W)), ("native", SIZE), ((32, 96), (32, 96))])
def test_network_sees_the_size_that_is_asked_for(
    model: Path, tmp_path: Path, size: str | tuple[int, int], seen: tuple[int, int]
) -> None:
    predict_flow(model, str(pictures(tmp_path / "in", 2)), tmp_path / "out", size=size)
    assert Shift.sizes == [(2, 3, *seen)]
    flow = read_flo(tmp_path / "out" / "flo" / "frame_0.flo")
    np.testing.assert_allclose(flow[0, 0], true_flow(0, 1, seen=seen), rtol=1e-5)


def test_clips_of_several_sizes_share_a_batch_at_their_own_size(model: Path, tmp_path: Path) -> None:
    for clip, size in (("a", (48, 100)), ("b", (50, 70))):
        pictures(tmp_path / "in" / clip, 2, size)
    predict_flow(model, str(tmp_path / "in"), tmp_path / "out", size="native")
    assert Shift.sizes == [(2, 3, 48, 100), (2, 3, 50, 70)]
    assert read_flo(tmp_path / "out" / "flo" / "b" / "frame_0.flo").shape == (50, 70, 2)


# --- confidence ------------------------------------------------------------------------------------------------------


def test_confidence_is_half_at_the_limit_of_visibility() -> None:
    torch.manual_seed(0)
    flow = 4 * torch.rand(3, 2, 23, 31)
    back = -flow + 0.5 * torch.randn(3, 2, 23, 31)
    confidence = flow_confidence(flow, back)
    visible = forward_backward_check(flow, back)
    assert 0.1 < visible.float().mean() < 0.9
    torch.testing.assert_close(confidence >= 0.5, visible)
    assert confidence.min() == 0  # some flows leave the image
    assert confidence.max() <= 1


def test_confidence_of_a_worked_example() -> None:
    flow, back = torch.zeros(1, 2, 1, 9), torch.zeros(1, 2, 1, 9)
    flow[:, 0], back[:, 0] = 3, -2
    confidence = flow_confidence(flow, back)[0, 0, 0]
    torch.testing.assert_close(confidence[:6], torch.full((6,), 0.63 / 1.63))
    assert confidence[6:].tolist() == [0, 0, 0]  # beyond the last column


def test_least_confidence_in_the_image_is_written_as_1() -> None:
    """At most |f + b_w|^2 = 2 (|f|^2 + |b_w|^2), so a confidence is above 0.01 / 2.01, and 255 times that is 1.27."""
    same = torch.full((1, 2, 5, 3000), 0.0)
    same[:, 0] = 2000  # forth, and on instead of back
    confidence = flow_confidence(same, same)[0, 0, 0]
    assert (confidence[:1000] * 255).round().eq(1).all() and confidence[1000:].eq(0).all()


# --- again, and by several processes ---------------------------------------------------------------------------------


def test_done_files_are_not_done_again(model: Path, tmp_path: Path) -> None:
    source, out = str(pictures(tmp_path / "in", 4)), tmp_path / "out"
    predict_flow(model, source, out)
    before = (out / "flo" / "frame_0.flo").stat().st_mtime_ns
    (out / "backward" / "flo" / "frame_1.flo").unlink()
    Shift.windows.clear()
    summary = predict_flow(model, source, out)
    assert (summary.written, summary.kept) == (1, 2)
    assert Shift.windows == [(1, 2), (2, 1)]
    assert (out / "flo" / "frame_0.flo").stat().st_mtime_ns == before


def test_another_range_size_or_second_image_is_refused(model: Path, tmp_path: Path) -> None:
    source, out = str(pictures(tmp_path / "in", 3) / "frame_0.png"), tmp_path / "out"
    second, third = (tmp_path / "in" / f"frame_{k}.png" for k in (1, 2))
    predict_flow(model, source, out, second=second)
    with pytest.raises(ValueError, match=r"max_px = 64\.0, these have 32"):
        predict_flow(model, source, out, second=second, max_px=32)
    with pytest.raises(ValueError, match=r"network_size = model, these have native"):
        predict_flow(model, source, out, second=second, size="native")
    with pytest.raises(ValueError, match=r"'frame_0' from .*frame_1.*, this one is from .*frame_2"):
        predict_flow(model, source, out, second=third)
    assert predict_flow(model, source, out, second=third, overwrite=True).written == 1
    np.testing.assert_allclose(read_flo(out / "flo" / "frame_0.flo")[0, 0], true_flow(0, 2), rtol=1e-5)


def test_processes_share_the_pairs(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = str(pictures(tmp_path / "in", 6)), tmp_path / "out"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert predict_flow(model, source, out, save=("color",)).written == 2
    assert not (out / "meta.json").exists()
    assert not (out / "color_legend.png").exists()
    monkeypatch.setenv("RANK", "0")
    assert predict_flow(model, source, out, save=("color",)).written == 3
    assert len(list((out / "backward" / "color").glob("*.png"))) == 5
    assert len(meta_of(out)["files"]) == 5


def test_processes_share_whole_clips_for_videos(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for clip in ("a", "b", "c"):
        pictures(tmp_path / "in" / clip, 3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, clips in (("1", ["b"]), ("0", ["a", "b", "c"])):
        monkeypatch.setenv("RANK", rank)
        predict_flow(model, str(tmp_path / "in"), tmp_path / "out", save=("video",))
        assert sorted(path.stem for path in (tmp_path / "out" / "video").iterdir()) == clips


# --- videos ----------------------------------------------------------------------------------------------------------


def test_video_in_gives_video_out_at_its_rate(model: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "drive.avi", tmp_path / "out"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (100, 48))
    for k in range(4):
        writer.write(np.full((48, 100, 3), 20 + 5 * k, np.uint8))
    writer.release()
    predict_flow(model, str(path), out, save=("video",), max_px=10)
    video = Video(str(out / "video" / "drive.mp4"))
    assert (video.count, video.rate_hz) == (3, 20)
    first = read_image(out / "color" / "drive" / "000000.png")
    assert np.abs(video.read(0).astype(int) - first).mean() < 6  # lossy


def test_video_is_made_of_pictures_that_are_there(model: Path, tmp_path: Path) -> None:
    source, out = str(pictures(tmp_path / "clip", 4)), tmp_path / "out"
    predict_flow(model, source, out, save=("color",))
    Shift.windows.clear()
    summary = predict_flow(model, source, out, save=("video",), rate_hz=5)
    assert (summary.written, summary.kept) == (0, 3)
    assert Shift.windows == []
    video = Video(str(out / "video" / "clip.mp4"))
    assert (video.count, video.rate_hz) == (3, 5)
    (out / "color" / "frame_1.png").unlink()  # a picture that is made again makes the video again
    before = (out / "video" / "clip.mp4").stat().st_mtime_ns
    predict_flow(model, source, out, save=("video",))
    assert (out / "video" / "clip.mp4").stat().st_mtime_ns != before


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_stay_within_clips_and_skip_gaps(tmp_path: Path) -> None:
    from dataclasses import replace

    for clip in ("a", "b"):
        pictures(tmp_path / clip, 4)
    images = [image for image in open_source(str(tmp_path)) if image.name != "a/frame_1"]
    images = [replace(image, frame=image.frame + 7) for image in images]
    pairs = open_pairs(images, steps=(-1, 2))
    assert [(pair.first.name, pair.second.name) for pair in pairs] == [
        ("a/frame_2", "a/frame_3"),
        ("b/frame_0", "b/frame_1"),
        ("b/frame_1", "b/frame_2"),
        ("b/frame_2", "b/frame_3"),
    ]
    assert [sorted(pair.images) for pair in pairs] == [[0, 1], [0, 1, 2], [-1, 0, 1, 2], [-1, 0, 1]]
    assert [pairs[1].nearest(step) for step in (-2, -1, 0, 2, 5)] == [0, 0, 0, 2, 2]


def test_targets_of_a_data_set_are_paired_with_the_frames_after_them(shared_data: Path) -> None:
    root = shared_data / "kitti_2012"
    if not root.is_dir():
        pytest.skip(f"no KITTI 2012 at {root}")
    (first, *_), count = (pairs := open_pairs(f"kitti_stereo:{root},year=2012", steps=(-1, 2))), len(pairs)
    assert count == 3  # the reference frames only
    assert first.first.name == "training/image_0/000027_10"
    assert [Path(first.images[step].origin).stem for step in (-1, 0, 1)] == ["000027_09", "000027_10", "000027_11"]
    assert 2 not in first.images
    assert first.second.read().shape == first.first.read().shape
    everything = open_pairs(f"kitti_stereo:{root},year=2012,frames=all")
    assert len(everything) == 4 + 3 + 1


def test_a_data_set_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = Mock(side_effect=KINDS["folder"])
    monkeypatch.setitem(KINDS, "folder", listing)
    pairs = open_pairs(f"folder:{pictures(tmp_path, 4)},intrinsics=[60,55,49,23]", steps=(-2, -1, 2))
    assert [sorted(pair.images) for pair in pairs] == [[0, 1, 2], [-1, 0, 1, 2], [-2, -1, 0, 1]]
    assert [Path(pairs[2].images[step].origin).stem for step in (-2, 1)] == ["frame_0", "frame_3"]
    assert {image.name[-7:] for image in pairs[2].images.values()} == {"frame_2"}
    assert listing.call_count == 1


def test_data_sets_of_pairs_and_of_clips_are_read(shared_data: Path) -> None:
    chairs, sintel = shared_data / "flying_chairs", shared_data / "sintel"
    if not (chairs.is_dir() and sintel.is_dir()):
        pytest.skip(f"no FlyingChairs or Sintel at {shared_data}")
    (pair,) = open_pairs(f"flying_chairs:{chairs}", steps=(-1, 2))
    assert sorted(pair.images) == [0, 1]
    assert open_pairs(f"sintel:{sintel}")


# --- wrong input -----------------------------------------------------------------------------------------------------


def test_flow_that_is_no_number_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model, source = checkpoint(tmp_path, "Shift", poison=2), pictures(tmp_path / "in", 4)
    with pytest.raises(
        ValueError, match=r"the backward flow of .*frame_1\.png -> .*frame_2\.png is not finite at 4800"
    ):
        predict_flow(model, str(source), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["meta.json"]


def test_pair_of_two_sizes_is_named(model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    write_image(first, np.zeros((20, 30, 3), np.uint8))
    write_image(second, np.zeros((20, 31, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png has 30x20 pixels, .*b\.png has 31x20; flow needs images of one"):
        predict_flow(model, str(first), tmp_path / "out", second=second)


def test_single_image_has_no_flow(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frame_0\.png has no next one.*--second IMAGE"):
        predict_flow(model, str(pictures(tmp_path / "in", 1)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_second_image_of_a_folder_is_refused(model: Path, tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", 3)
    with pytest.raises(ValueError, match=r"pairs one image with one image, but .*in holds 3"):
        predict_flow(model, str(source), tmp_path / "out", second=source / "frame_0.png")


def test_model_without_flow_to_the_next_image_is_refused(tmp_path: Path) -> None:
    source = str(pictures(tmp_path / "in", 3))
    for model in (checkpoint(tmp_path, "Ramp"), checkpoint(tmp_path, "Shift", flow_offsets=(-1, 2))):
        with pytest.raises(MissingInput, match="predicts no flow from an image to the next"):
            predict_flow(model, source, tmp_path / "out")


def test_unknown_output_or_range_is_named(model: Path, tmp_path: Path) -> None:
    source = str(pictures(tmp_path / "in", 2))
    with pytest.raises(ValueError, match=r"cannot save tiff; choose from flo, png16"):
        predict_flow(model, source, tmp_path / "out", save=("tiff",))
    with pytest.raises(ValueError, match="max_px is 0; expected a length above 0"):
        predict_flow(model, source, tmp_path / "out", max_px=0)


# --- the command -----------------------------------------------------------------------------------------------------


def test_command_writes_what_it_is_asked_for(model: Path, tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", 2), tmp_path / "out"
    arguments = ["predict", "flow", str(model), str(source / "frame_0.png"), "--second", str(source / "frame_1.png")]
    options = ["-o", str(out), "--save", "npy,color", "--size", "96x32", "--max-px", "20", "--json"]
    result = CliRunner().invoke(app, arguments + options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["written"] == 1
    assert meta_of(out)["network_size"] == {"width": 96, "height": 32}
    assert meta_of(out)["max_px"] == 20
    flow = np.load(out / "npy" / "frame_0.npy")
    np.testing.assert_allclose(flow[0, 0], true_flow(0, 1, seen=(32, 96)), rtol=1e-5)
    assert CliRunner().invoke(app, [*arguments, "-o", str(out), "--size", "big"]).exit_code == 2
