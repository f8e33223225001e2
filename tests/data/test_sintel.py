import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_trees import HEIGHT, WIDTH, picture, write

from geossl.config import Data, Sintel
from geossl.data.leaks import leaks
from geossl.data.samples import DataError
from geossl.data.sintel import samples
from geossl.formats.flo import read_flo, write_flo

PAIRS = Data(source_offsets=(1,))


@pytest.fixture
def sintel(tmp_path: Path) -> Path:
    """Two scenes of four frames in both passes, one of them without the maps of hidden and invalid pixels."""
    for scene in ("alley_1", "bamboo_2"):
        for frame in range(1, 5):
            for name in ("clean", "final"):
                write(tmp_path / "training" / name / scene / f"frame_{frame:04d}.png", picture(frame))
        for frame in range(1, 4):
            (tmp_path / "training" / "flow" / scene).mkdir(parents=True, exist_ok=True)
            flow = np.full((HEIGHT, WIDTH, 2), frame, np.float32)
            write_flo(tmp_path / "training" / "flow" / scene / f"frame_{frame:04d}.flo", flow)
            if scene == "alley_1":
                for kind in ("occlusions", "invalid"):
                    path = tmp_path / "training" / kind / scene / f"frame_{frame:04d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    assert cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH), np.uint8))
    return tmp_path


def test_pairs_and_their_flow(sintel: Path) -> None:
    found = samples(Sintel(root=sintel), PAIRS)
    names = [f"training/clean/{scene}/frame_000{i}" for scene in ("alley_1", "bamboo_2") for i in (1, 2, 3)]
    assert [s.name for s in found] == names
    assert [Path(s.sources[0].image.file.path).name for s in found[:2]] == ["frame_0002.png", "frame_0003.png"]
    for sample in found:
        truth = sample.flow_truth
        assert truth is not None and truth.kind == "flo" and truth.size == (WIDTH, HEIGHT)
        assert read_flo(truth.flow.path)[0, 0, 0] == sample.frame
        assert (truth.occlusions is None) == (truth.invalid is None) == ("bamboo" in sample.name)
    assert not found[0].target.camera.known


def test_the_last_frame_has_no_flow(sintel: Path) -> None:
    found = samples(Sintel(root=sintel, scenes=("bamboo_2",)), Data(source_offsets=()))
    assert [s.flow_truth is not None for s in found] == [True, True, True, False]


def test_windows_of_three_and_both_passes(sintel: Path) -> None:
    found = samples(Sintel(root=sintel, passes=("clean", "final"), scenes=("alley_1",)), Data(source_offsets=(-1, 1)))
    assert [s.name for s in found] == [
        f"training/{p}/alley_1/frame_{i}" for p in ("clean", "final") for i in ("0002", "0003")
    ]


def test_both_passes_show_the_same_frames(sintel: Path) -> None:
    clean, final = (samples(Sintel(root=sintel, passes=(p,)), PAIRS) for p in ("clean", "final"))
    assert len(leaks(clean, final).frames) == 6


def test_the_zip_file_is_read_alike(sintel: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("packed")
    with zipfile.ZipFile(root / "MPI-Sintel-complete.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path for path in sintel.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(sintel).as_posix())
    packed, plain = (samples(Sintel(root=r), PAIRS) for r in (root, sintel))
    assert [s.name for s in packed] == [s.name for s in plain]
    assert packed[0].flow_truth is not None and plain[0].flow_truth is not None
    assert packed[0].flow_truth.flow.read() == plain[0].flow_truth.flow.read()


def test_what_is_missing_is_named(sintel: Path) -> None:
    with pytest.raises(DataError, match="has no scene ambush_2; it has alley_1, bamboo_2"):
        samples(Sintel(root=sintel, scenes=("ambush_2",)), PAIRS)
    with pytest.raises(DataError, match=r"test/clean holds no scenes .* contains test/"):
        samples(Sintel(root=sintel, subset="test"), PAIRS)
    with pytest.raises(DataError, match=r"no frame has the neighbours source_offsets=\[7\]"):
        samples(Sintel(root=sintel), Data(source_offsets=(7,)))
    with pytest.raises(DataError, match="has no other camera"):
        samples(Sintel(root=sintel), Data(source_offsets=(1,), stereo=True))


def test_real_pair(shared_data: Path) -> None:
    (found,) = samples(Sintel(root=shared_data / "sintel"), PAIRS)
    assert found.flow_truth is not None
    width, height = found.flow_truth.size
    assert (width, height) == (1024, 436) and read_flo(found.flow_truth.flow.path).shape == (height, width, 2)
