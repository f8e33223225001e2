import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from geossl.cli import app
from geossl.commands import submit_scene_flow as module
from geossl.commands.submit_scene_flow import IMAGES, submit_scene_flow
from geossl.formats.image import write_image
from geossl.formats.kitti_png import decode_disparity_png, decode_flow_png, write_disparity_png, write_flow_png

HEIGHT, WIDTH = 5, 7
RNG = np.random.default_rng(0)
DISPARITY = RNG.integers(1, 60000, (2, HEIGHT, WIDTH)).astype(np.float32) / 256
FLOW = RNG.integers(-6400, 6400, (HEIGHT, WIDTH, 2)).astype(np.float32) / 64
submit = partial(submit_scene_flow, count=3)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KITTI_SIZES", frozenset({(WIDTH, HEIGHT), (WIDTH, HEIGHT - 1)}))


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Of three images, as `geossl predict sceneflow` writes them for the test set."""
    for number in range(3):
        name = f"testing/image_2/{number:06d}_10.png"
        for time in (0, 1):
            write_disparity_png(tmp_path / "in" / f"disp_{time}" / name, DISPARITY[time])
        write_flow_png(tmp_path / "in" / "flow" / name, FLOW)
    return tmp_path / "in"


def test_archive_holds_what_the_server_asks_for(predictions: Path, tmp_path: Path) -> None:
    result = submit(predictions, tmp_path / "out" / "a.zip")
    assert (result.files, result.clipped_pixels, result.unknown_pixels, IMAGES) == (9, 0, 0, 200)
    with zipfile.ZipFile(tmp_path / "out" / "a.zip") as archive:
        names = [f"{folder}/{number:06d}_10.png" for folder in ("disp_0", "disp_1", "flow") for number in range(3)]
        assert archive.namelist() == names
        for time in (0, 1):
            data = archive.read(f"disp_{time}/000002_10.png")
            np.testing.assert_array_equal(decode_disparity_png(data, "x"), DISPARITY[time])
        flow, valid = decode_flow_png(archive.read("flow/000001_10.png"), "x")
        assert valid.all()
        np.testing.assert_array_equal(flow, FLOW)


def test_unknown_and_clipped_pixels_are_counted(predictions: Path, tmp_path: Path) -> None:
    later, flow, first = DISPARITY[1].copy(), FLOW.copy(), DISPARITY[0].copy()
    later[0, :3], flow[1, 2], first[0, :2] = 0, np.nan, 300
    name = "testing/image_2/000000_10"
    write_disparity_png(predictions / "disp_1" / f"{name}.png", later)
    write_flow_png(predictions / "flow" / f"{name}.png", flow)
    (predictions / "disp_0" / f"{name}.png").unlink()
    np.save(predictions / "disp_0" / f"{name}.npy", first)
    result = submit(predictions, tmp_path / "a.zip")
    assert (result.unknown_pixels, result.clipped_pixels) == (4, 2)


def test_everything_that_is_wrong_is_in_one_message(predictions: Path, tmp_path: Path) -> None:
    place = "testing/image_2"
    write_disparity_png(predictions / "disp_0" / place / "000000_10.png", np.zeros((HEIGHT, WIDTH)))
    write_disparity_png(predictions / "disp_1" / place / "000001_10.png", DISPARITY[1][:3])
    (predictions / "flow" / place / "000002_10.png").rename(predictions / "flow" / place / "000003_10.png")
    write_image(predictions / "flow" / place / "000000_10.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(ValueError, match="nothing was written; 5 problems") as caught:
        submit(predictions, tmp_path / "out" / "a.zip")
    for text in (
        "disp_0/testing/image_2/000000_10.png: has no estimate at any pixel",
        "disp_1/testing/image_2/000001_10.png: is 7x3, its image 7x4 or 7x5",
        "000003_10.png: is none of the 3",
        "000002_10: is missing in",
        "flow/testing/image_2/000000_10.png: has 8 bits",
    ):
        assert text in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def test_sizes_are_those_of_the_images(predictions: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        shape = (HEIGHT - (number == 1), WIDTH, 3)
        write_image(tmp_path / "images" / f"{number:06d}_10.png", np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=r"3 problems:\n.*disp_0.*000001_10.png: is 7x5, its image 7x4"):
        submit(predictions, tmp_path / "a.zip", tmp_path / "images")
    write_flow_png(predictions / "flow" / "testing/image_2/000001_10.png", FLOW[:4])
    with pytest.raises(ValueError, match=r"000001_10\.png: has maps of different sizes"):
        submit(predictions, tmp_path / "a.zip")


def test_other_wrong_arguments_and_the_command(predictions: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"should end in \.zip"):
        submit(predictions, tmp_path / "a.tar")
    with pytest.raises(ValueError, match=r"there is no folder of predictions .*disp_0"):
        submit(tmp_path / "none", tmp_path / "a.zip")
    done = CliRunner().invoke(app, ["submit", "kitti-sceneflow", str(predictions), "-o", str(tmp_path / "a.zip")])
    assert done.exit_code == 1 and "591 problems" in done.stderr  # 197 of 200 images are missing, three times
