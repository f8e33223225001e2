import json
from pathlib import Path

import numpy as np
import pytest
from data_trees import CX, CY, FX, HEIGHT, WIDTH, picture, write

from geossl.config import Data, Folder
from geossl.data.folder import GUESSED_FIELD_OF_VIEW_DEG, guessed_camera, natural_images, read_intrinsics, samples
from geossl.data.samples import DataError

MONO = Data(source_offsets=(-1, 1))
INTRINSICS = (FX, FX, CX, CY)


def images(folder: Path, count: int = 4, suffix: str = "jpg") -> Path:
    for i in range(count):
        write(folder / f"frame{i + 8}.{suffix}", picture(i))
    return folder


def test_images_are_in_natural_order(tmp_path: Path) -> None:
    images(tmp_path)
    write(tmp_path / "Frame12.PNG", picture(9))
    (tmp_path / "notes.txt").write_text("not an image")
    assert [p.name for p in natural_images(tmp_path)] == [
        "frame8.jpg",
        "frame9.jpg",
        "frame10.jpg",
        "frame11.jpg",
        "Frame12.PNG",
    ]


def test_every_subfolder_is_a_clip(tmp_path: Path) -> None:
    images(tmp_path / "monday")
    images(tmp_path / "tuesday" / "noon", 3)
    found = samples(Folder(root=tmp_path, intrinsics=INTRINSICS), MONO)
    assert [s.name for s in found] == ["monday/frame9", "monday/frame10", "tuesday/noon/frame9"]
    assert [s.clip for s in found] == ["monday", "monday", "tuesday/noon"]
    assert len({s.target.recording for s in found}) == 2


def test_a_folder_itself_is_a_clip(tmp_path: Path) -> None:
    found = samples(Folder(root=images(tmp_path / "drive"), intrinsics=INTRINSICS), MONO)
    assert [(s.name, s.clip, s.frame) for s in found] == [("frame9", "drive", 1), ("frame10", "drive", 2)]


@pytest.mark.parametrize("right", ["right", "elsewhere"])
def test_right_folder_and_baseline_give_stereo(tmp_path: Path, right: str) -> None:
    root = tmp_path / "root"
    images(root / "left" if right == "right" else root)
    other = images(root / "right" / "left", 3) if right == "right" else images(tmp_path / "elsewhere", 3)
    given = Path("right") if right == "right" else other
    source = Folder(root=root, right=given, baseline_m=0.2, intrinsics=INTRINSICS)
    found = samples(source, Data(source_offsets=(), stereo=True))
    assert [s.frame for s in found] == [0, 1, 2]  # the fourth has no right image
    assert found[0].stereo is not None and found[0].T_stereo_target is not None
    assert Path(found[0].stereo.image.file.path) == other / "frame8.jpg"
    assert found[0].T_stereo_target[:3, 3].tolist() == [-0.2, 0, 0]


@pytest.mark.parametrize("right", ["right", "root/right", "../root/right", "absolute"])
@pytest.mark.parametrize("stereo", [False, True])
def test_right_folder_inside_is_no_clip_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: str, stereo: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "root")
    other = images(tmp_path / "root" / "right")
    given = other if right == "absolute" else Path(right)
    source = Folder(root=Path("root"), right=given, baseline_m=0.2, intrinsics=INTRINSICS)
    assert {s.clip for s in samples(source, Data(source_offsets=(), stereo=stereo))} == {"root"}


def test_stereo_needs_right_and_baseline(tmp_path: Path) -> None:
    images(tmp_path)
    stereo = Data(stereo=True)
    with pytest.raises(DataError, match="Give right: and baseline_m:"):
        samples(Folder(root=tmp_path, intrinsics=INTRINSICS), stereo)
    with pytest.raises(DataError, match="but no baseline_m"):
        samples(Folder(root=tmp_path, intrinsics=INTRINSICS, right=Path("r")), stereo)
    with pytest.raises(FileNotFoundError, match="right folder r exists neither in"):
        samples(Folder(root=tmp_path, intrinsics=INTRINSICS, right=Path("r"), baseline_m=0.1), stereo)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("intrinsics.txt", f"{FX} {FX} {CX} {CY}\n"),
        ("intrinsics.txt", f"{FX},0,{CX}\n0,{FX},{CY}\n0,0,1\n"),
        ("intrinsics.json", json.dumps({"fx": FX, "fy": FX, "cx": CX, "cy": CY})),
        ("intrinsics.json", json.dumps({"K": [[FX, 0, CX], [0, FX, CY], [0, 0, 1]]})),
    ],
)
def test_read_intrinsics_reads_both_forms(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    np.testing.assert_array_equal(read_intrinsics(tmp_path), [[FX, 0, CX], [0, FX, CY], [0, 0, 1]])


@pytest.mark.parametrize("content", ["1 2 3", "a b c d", ""])
def test_read_intrinsics_names_a_bad_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "intrinsics.txt").write_text(content)
    with pytest.raises(DataError, match=r"intrinsics\.txt cannot be read .* expected fx fy cx cy"):
        read_intrinsics(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no intrinsics\.txt or intrinsics\.json; write one"):
        samples(Folder(root=tmp_path), MONO)
    with pytest.raises(DataError, match="it holds no images"):
        samples(Folder(root=tmp_path, intrinsics=INTRINSICS), MONO)
    images(tmp_path, 2)
    with pytest.raises(DataError, match=r"it holds 2 images in 1 clips, none with the views"):
        samples(Folder(root=tmp_path, intrinsics=INTRINSICS), MONO)
    with pytest.raises(DataError, match=f"does not fit images of {WIDTH}x{HEIGHT}: its principal point lies outside"):
        samples(Folder(root=tmp_path, intrinsics=(721.5, 721.5, 609.6, 172.9)), MONO)
    with pytest.raises(FileNotFoundError, match="does not exist or is no folder"):
        samples(Folder(root=tmp_path / "nowhere", intrinsics=INTRINSICS), MONO)


def test_guessed_camera_has_the_field_of_view_and_says_that_it_is_a_guess() -> None:
    camera = guessed_camera((90, 60))
    assert np.degrees(2 * np.arctan(45 / camera.K[0, 0])) == pytest.approx(GUESSED_FIELD_OF_VIEW_DEG)
    assert camera.K[:2, 2].tolist() == [44.5, 29.5] and not camera.known
