"""What predict reads: folders, globs, videos, data specifications."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from predict_tiny import pictures

from geossl.formats.image import write_image
from geossl.inputs import open_source


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
