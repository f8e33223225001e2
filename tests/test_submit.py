import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from geossl.cli import app
from geossl.commands import submit
from geossl.commands.submit import BENCHMARKS, SINTEL_SCENES, submit_flow
from geossl.formats.flo import decode_flo, write_flo
from geossl.formats.image import write_image
from geossl.formats.kitti_png import decode_flow_png, write_flow_png

HEIGHT, WIDTH = 5, 7
FLOW = np.random.default_rng(0).integers(-6400, 6400, (HEIGHT, WIDTH, 2)).astype(np.float32) / 64


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks of three KITTI images, and of Sintel's scenes with three frames each, of 7x5 pixels."""
    size = frozenset({(WIDTH, HEIGHT)})
    monkeypatch.setattr(submit, "KITTI_SIZES", size)
    monkeypatch.setattr(submit, "SINTEL_SIZES", size)
    monkeypatch.setattr(submit, "SINTEL_PAIRS", 2 * len(SINTEL_SCENES))
    few = {"kitti-flow": partial(submit._kitti, 3, "flow/"), "kitti-flow-2012": partial(submit._kitti, 3, "")}
    monkeypatch.setattr(submit, "BENCHMARKS", {**BENCHMARKS, **few})


def kitti_folder(root: Path, suffix: str = ".flo") -> Path:
    for number in range(3):
        path = root / f"{number:06d}_10{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        (write_flo if suffix == ".flo" else write_flow_png)(path, FLOW + number)
    return root


def sintel_folders(root: Path) -> tuple[Path, Path]:
    """Predictions as `geossl predict flow` writes them, and the test images."""
    for render in ("clean", "final"):
        for scene in SINTEL_SCENES:
            for frame in (1, 2, 3):
                image = root / "test" / render / scene / f"frame_{frame:04d}.png"
                image.parent.mkdir(parents=True, exist_ok=True)
                write_image(image, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
                if frame < 3:
                    write_flo(root / f"out/flo/test/{render}/{scene}/frame_{frame:04d}.flo", FLOW + frame)
    return root / "out", root / "test"


def refused(*arguments: object) -> str:
    """The message of a submission that fails; nothing may be left behind."""
    archive = Path(str(arguments[2]))
    with pytest.raises(ValueError) as caught:
        submit_flow(*arguments)  # type: ignore[arg-type]
    assert not archive.parent.exists() or not list(archive.parent.iterdir())
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".flo", ".png"])
@pytest.mark.parametrize(("benchmark", "folder"), [("kitti-flow", "flow/"), ("kitti-flow-2012", "")])
def test_kitti_archive_holds_what_the_server_asks_for(
    tmp_path: Path, benchmark: str, folder: str, suffix: str
) -> None:
    result = submit_flow(benchmark, kitti_folder(tmp_path / "in", suffix), tmp_path / "out" / "a.zip")
    assert (result.files, result.clipped_pixels) == (3, 0)
    with zipfile.ZipFile(tmp_path / "out" / "a.zip") as archive:
        assert archive.namelist() == [f"{folder}{number:06d}_10.png" for number in range(3)]
        for number, name in enumerate(archive.namelist()):
            flow, valid = decode_flow_png(archive.read(name), name)  # refuses anything but 16-bit RGB
            assert valid.all()
            np.testing.assert_array_equal(flow, FLOW + number)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.zip"]


def test_published_counts_and_names() -> None:
    """200 pairs in KITTI 2015, 195 in 2012."""
    flow_2015, flow_2012 = (BENCHMARKS[name](None).members for name in ("kitti-flow", "kitti-flow-2012"))
    assert len(flow_2015) == 200 and list(flow_2015.values())[-1] == "flow/000199_10.png"
    assert len(flow_2012) == 195 and list(flow_2012.values())[-1] == "000194_10.png"


def test_sintel_archive_is_what_its_bundler_reads(tmp_path: Path) -> None:
    predictions, images = sintel_folders(tmp_path)
    result = submit_flow("sintel", predictions, tmp_path / "zip" / "s.zip", images)
    assert result.files == 2 * 2 * 12 and "bundler clean final" in result.next_step
    with zipfile.ZipFile(tmp_path / "zip" / "s.zip") as archive:
        assert archive.namelist()[:2] == ["clean/ambush_1/frame0001.flo", "clean/ambush_1/frame0002.flo"]
        np.testing.assert_array_equal(decode_flo(archive.read("final/wall/frame0002.flo"), "x"), FLOW + 2)


def test_sintel_needs_the_whole_test_set(tmp_path: Path) -> None:
    predictions, images = sintel_folders(tmp_path)
    assert "needs --images" in refused("sintel", predictions, tmp_path / "zip" / "s.zip")
    (images / "final" / "wall" / "frame_0003.png").unlink()
    assert "holds 47 pairs" in refused("sintel", predictions, tmp_path / "zip" / "s.zip", images)


def test_sintel_passes_are_told_apart(tmp_path: Path) -> None:
    predictions, images = sintel_folders(tmp_path)
    (predictions / "flo" / "test" / "clean").rename(predictions / "flo" / "test" / "Clean")
    message = refused("sintel", predictions, tmp_path / "zip" / "s.zip", images)
    assert "48 problems" in message and "is none of the 48" in message and "and 38 more" in message


def test_everything_that_is_wrong_is_in_one_message(tmp_path: Path) -> None:
    folder = kitti_folder(tmp_path / "in")
    hole = FLOW.copy()
    hole[1, 1:3] = np.nan
    write_flo(folder / "000000_10.flo", hole)
    write_flo(folder / "000001_10.flo", FLOW[:-1])
    (folder / "000002_10.flo").rename(folder / "000003_10.flo")
    message = refused("kitti-flow", folder, tmp_path / "out" / "a.zip")
    assert "4 problems" in message and "nothing was written" in message
    assert "000000_10.flo: 2 of 35 pixels have no estimate" in message
    assert "000001_10.flo: is 7x4, its image 7x5" in message
    assert "000003_10.flo: is none of the 3" in message
    assert "000002_10: is missing in" in message


def test_damaged_and_doubled_files_are_named(tmp_path: Path) -> None:
    folder = kitti_folder(tmp_path / "in")
    write_image(folder / "000000_10.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (folder / "000001_10.flo").write_bytes(b"PIEH")
    message = refused("kitti-flow", folder, tmp_path / "out" / "a.zip")
    assert "is there twice" in message and "starts with b'PIEH'" in message
    (folder / "000000_10.flo").unlink()
    assert "000000_10.png: has 8 bits" in refused("kitti-flow", folder, tmp_path / "out" / "a.zip")


def test_sizes_are_compared_with_the_images(tmp_path: Path) -> None:
    folder = kitti_folder(tmp_path / "in")
    for number in range(3):
        shape = (HEIGHT, WIDTH + (number == 1), 3)
        (tmp_path / "images").mkdir(exist_ok=True)
        write_image(tmp_path / "images" / f"{number:06d}_10.png", np.zeros(shape, np.uint8))
    message = refused("kitti-flow", folder, tmp_path / "out" / "a.zip", tmp_path / "images")
    assert "1 problems" in message and "000001_10.flo: is 7x5, its image 8x5" in message


def test_an_earlier_archive_survives_a_refusal(tmp_path: Path) -> None:
    folder, archive = kitti_folder(tmp_path / "in"), tmp_path / "a.zip"
    submit_flow("kitti-flow", folder, archive)
    before = archive.read_bytes()
    (folder / "000000_10.flo").unlink()
    with pytest.raises(ValueError, match="1 problems"):
        submit_flow("kitti-flow", folder, archive)
    assert archive.read_bytes() == before


def test_what_sixteen_bits_cannot_hold_is_counted(tmp_path: Path) -> None:
    folder = kitti_folder(tmp_path / "in")
    far = FLOW.copy()
    far[0, 0, 0], far[0, 1, 1], far[0, 2, 0] = 600, -513, -512
    write_flo(folder / "000002_10.flo", far)
    assert submit_flow("kitti-flow", folder, tmp_path / "a.zip").clipped_pixels == 2


def test_other_wrong_arguments(tmp_path: Path) -> None:
    folder = kitti_folder(tmp_path / "in")
    assert "should end in .zip" in refused("kitti-flow", folder, tmp_path / "out" / "a.tar")
    assert "no folder of predictions" in refused("kitti-flow", tmp_path / "none", tmp_path / "out" / "a.zip")
    assert "should be one of kitti-flow" in refused("middlebury", folder, tmp_path / "out" / "a.zip")


def test_the_command_prints_what_it_wrote(tmp_path: Path) -> None:
    folder, archive = kitti_folder(tmp_path / "in"), tmp_path / "a.zip"
    done = CliRunner().invoke(app, ["submit", "kitti-flow", str(folder), "-o", str(archive)])
    assert done.exit_code == 0 and "files: 3" in done.stdout and archive.is_file()
    assert CliRunner().invoke(app, ["submit", "middlebury", str(folder), "-o", str(archive)]).exit_code == 2
    (folder / "000000_10.flo").unlink()
    failed = CliRunner().invoke(app, ["submit", "kitti-flow", str(folder), "-o", str(archive)])
    assert failed.exit_code == 1 and "000000_10: is missing" in failed.stderr
