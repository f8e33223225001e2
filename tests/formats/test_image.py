from pathlib import Path

import cv2
import numpy as np
import pytest

from geossl.formats.errors import FormatError
from geossl.formats.image import decode_grey, decode_image, encode, read_image, read_image_size, write_image


@pytest.fixture
def picture() -> np.ndarray:
    v, u = np.mgrid[:37, :53]
    return np.stack([u * 4, v * 6, (u + v) * 2], axis=-1).astype(np.uint8)


def test_read_image_gives_rgb(tmp_path: Path) -> None:
    red = np.zeros((2, 3, 3), np.uint8)
    red[..., 0] = 255
    write_image(tmp_path / "red.png", red)
    PIL = pytest.importorskip("PIL.Image")
    with PIL.open(tmp_path / "red.png") as opened:
        assert opened.getpixel((0, 0)) == (255, 0, 0)
    np.testing.assert_array_equal(read_image(tmp_path / "red.png"), red)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_image_round_trip(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    write_image(path, picture)
    assert np.abs(read_image(path).astype(int) - picture).mean() < (4 if suffix == ".jpg" else 1e-9)
    assert read_image_size(path) == (53, 37)


def test_read_image_replicates_grey_and_drops_alpha(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_image(tmp_path / "g.png", grey)
    np.testing.assert_array_equal(read_image(tmp_path / "g.png"), np.repeat(grey[..., None], 3, axis=2))
    cv2.imwrite(str(tmp_path / "a.png"), np.full((3, 4, 4), 7, np.uint8))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.full((3, 4, 3), 7))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_read_image_refuses_a_cut_file(tmp_path: Path, picture: np.ndarray, suffix: str, share: float) -> None:
    path = tmp_path / f"x{suffix}"
    write_image(path, picture)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(FormatError, match=rf"x\{suffix}: is cut off"):
        read_image(path)


def test_decode_image_refuses_what_is_no_image() -> None:
    with pytest.raises(FormatError, match=r"zip:a.png: is not a readable image"):
        decode_image(b"hello world, this is no picture", "zip:a.png")
    with pytest.raises(FormatError, match="is empty"):
        decode_image(b"", "a.png")


def test_write_image_refuses_wrong_arrays_and_suffixes(tmp_path: Path, picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="float64"):
        write_image(tmp_path / "x.png", picture / 255.0)
    with pytest.raises(ValueError, match=r"suffix '.xyz'"):
        write_image(tmp_path / "x.xyz", picture)
    assert not list(tmp_path.iterdir())


def test_read_image_size_equals_the_decoded_size_on_real_frames(shared_data: Path) -> None:
    paths = [*shared_data.rglob("image_02/data/*.jpg")][:3] + [*shared_data.rglob("image_2/*.png")][:3]
    assert paths
    for path in paths:
        height, width, _ = read_image(path).shape
        assert read_image_size(path) == (width, height)


def test_grey_decoding_keeps_grey_and_weighs_colours() -> None:
    """Rec. 601: a pure green of 200 is 0.587 * 200 = 117.4."""
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    np.testing.assert_array_equal(decode_grey(encode(Path("a.png"), grey), "a"), grey)
    green = np.zeros((5, 7, 3), np.uint8)
    green[..., 1] = 200
    assert abs(decode_grey(encode(Path("a.png"), green), "a").astype(float) - 117.4).max() < 1
    with pytest.raises(FormatError, match="a: is cut off"):
        decode_grey(encode(Path("a.png"), grey)[:-8], "a")
