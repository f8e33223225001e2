import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_trees import picture, write

from geossl.data.images import ImageReader, ImageRef, InTurn, Video, image_size, resize_to, resized_K
from geossl.formats.errors import FormatError
from geossl.formats.files import FileRef
from geossl.geometry.transforms import resize_image, resize_K


def test_resize_to_same_size_is_exact() -> None:
    image = picture(0)
    assert np.array_equal(resize_to(image, *image.shape[:2]).permute(1, 2, 0).numpy(), image)


def test_resize_to_equals_the_resizing_for_prediction() -> None:
    image = picture(1, 133, 45)
    expected = resize_image(torch.from_numpy(image).permute(2, 0, 1)[None].float(), (32, 96))[0]
    assert (resize_to(image, 32, 96).float() - expected).abs().max() <= 1.01  # two passes, each rounded to 8 bits


def test_resize_to_and_resized_K_move_a_point_alike() -> None:
    """The centroid of a bright blob in the small image lies where the small K projects the same ray."""
    h, w, size = 375, 1242, (192, 640)
    u, v = 801.3, 144.8
    rows, columns = np.mgrid[:h, :w]
    blob = np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 12.0**2))
    small = resize_to(np.repeat((255 * blob)[..., None], 3, axis=2).round().astype(np.uint8), *size)[0].double()
    found_u = float((small * torch.arange(size[1])).sum() / small.sum())
    found_v = float((small * torch.arange(size[0])[:, None]).sum() / small.sum())
    K = np.array([[721.5, 0, 609.6], [0, 721.5, 172.9], [0, 0, 1]])
    ray = np.linalg.solve(K, [u, v, 1])
    expected_u, expected_v, _ = resized_K(K, (w, h), *size) @ ray
    assert found_u == pytest.approx(expected_u, abs=0.02)
    assert found_v == pytest.approx(expected_v, abs=0.02)


def test_resized_K_equals_geometry() -> None:
    K = np.array([[721.5, 0, 609.6], [0, 720.5, 172.9], [0, 0, 1]])
    expected = resize_K(torch.from_numpy(K), (375, 1242), (192, 640)).numpy()
    np.testing.assert_allclose(resized_K(K, (1242, 375), 192, 640), expected, rtol=1e-12)


def make_video(path: Path, count: int = 100) -> Path:
    """Each frame one shade of grey: frame i has 2 i."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    for i in range(count):
        writer.write(np.full((48, 64, 3), 2 * i, np.uint8))
    writer.release()
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "drive.avi")


def shade(image: np.ndarray) -> float:
    return float(image.mean()) / 2


def test_video_frames_are_exact_in_any_order(video: Path) -> None:
    opened = Video(str(video))
    assert opened.rate_hz == pytest.approx(20) and opened.count == 100
    for frame in (0, 1, 2, 5, 4, 99, 0, 70, 71, 30):
        assert shade(opened.read(frame)) == pytest.approx(frame, abs=1)


def test_video_names_a_frame_that_is_not_there(video: Path) -> None:
    opened = Video(str(video))
    with pytest.raises(FormatError, match=r"drive\.avi: frame 100 cannot be decoded; the header says 100 frames"):
        opened.read(100)
    assert shade(opened.read(50)) == pytest.approx(50, abs=1)


def test_video_refuses_what_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Video(str(tmp_path / "none.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(FormatError, match="no video that OpenCV can decode"):
        Video(str(tmp_path / "text.mp4"))


def test_reader_survives_pickling(video: Path) -> None:
    reader = ImageReader()
    image = ImageRef(FileRef(str(video)), 7)
    first = reader.read(image)
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).read(image), first)


def test_threads_take_turns_in_the_order_of_asking() -> None:
    turn, taken = InTurn(), list[int]()

    def take(number: int) -> None:
        with turn:
            taken.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    with turn:
        for asking, thread in enumerate(threads, start=2):
            thread.start()
            while len(turn._turns) < asking:
                time.sleep(1e-3)
    for thread in threads:
        thread.join()
    assert taken == list(range(6))


def test_threads_do_not_send_a_video_back_and_forth(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def read(opened: Video, frame: int) -> int:
        asked.append(frame)
        time.sleep(1e-3)  # the others ask meanwhile
        return frame

    monkeypatch.setattr(Video, "read", read)
    reader, file = ImageReader(), FileRef(str(video))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda frame: reader.read(ImageRef(file, frame)), range(100))) == list(range(100))
    assert sum(after < before for before, after in pairwise(asked)) <= 4  # where two begin at once


def test_image_size_of_files_and_frames(tmp_path: Path, video: Path) -> None:
    for suffix in ("png", "jpg"):
        path = write(tmp_path / f"a.{suffix}", picture(0, 61, 33))
        assert image_size(ImageRef(FileRef(str(path)))) == (61, 33)
    assert image_size(ImageRef(FileRef(str(video)), 3)) == (64, 48)
