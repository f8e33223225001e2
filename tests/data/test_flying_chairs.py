from pathlib import Path

import numpy as np
import pytest
from data_trees import HEIGHT, WIDTH, picture, write

from geossl.config import Data, FlyingChairs
from geossl.data.dataset import SampleDataset
from geossl.data.flying_chairs import samples
from geossl.data.samples import DataError
from geossl.formats.flo import read_flo, write_flo

PAIRS = Data(source_offsets=(1,))


@pytest.fixture
def chairs(tmp_path: Path) -> Path:
    """Five pairs in the official layout; the fifth has no labels."""
    for pair in range(1, 6):
        for i in (1, 2):
            write(tmp_path / "data" / f"{pair:05d}_img{i}.ppm", picture(10 * pair + i))
        if pair < 5:
            write_flo(tmp_path / "data" / f"{pair:05d}_flow.flo", np.full((HEIGHT, WIDTH, 2), pair, np.float32))
    return tmp_path


@pytest.mark.parametrize("inside", ["", "data"])
def test_pairs_and_their_flow(chairs: Path, inside: str) -> None:
    found = samples(FlyingChairs(root=chairs / inside), PAIRS)
    prefix = "" if inside else "data/"
    assert [s.name for s in found] == [f"{prefix}{pair:05d}_img1" for pair in range(1, 6)]
    assert [s.sources[0].image.file.path[-14:] for s in found[:2]] == ["00001_img2.ppm", "00002_img2.ppm"]
    for pair, sample in enumerate(found[:4], start=1):
        truth = sample.flow_truth
        assert truth is not None and truth.kind == "flo" and truth.size == (WIDTH, HEIGHT)
        assert read_flo(truth.flow.path)[0, 0, 0] == pair
    assert found[4].flow_truth is None


def test_images_are_read(chairs: Path) -> None:
    found = samples(FlyingChairs(root=chairs), PAIRS)
    batch = SampleDataset(found, HEIGHT, WIDTH)[1]
    for frame, seed in zip((batch.target, *batch.sources), (21, 22), strict=True):
        np.testing.assert_array_equal(frame.image[0].permute(1, 2, 0).numpy(), picture(seed))


def test_backward_pairs_have_no_flow(chairs: Path) -> None:
    """Labels lead from the first image to the second only."""
    found = samples(FlyingChairs(root=chairs), Data(source_offsets=(-1,)))
    assert [s.name[-4:] for s in found] == ["img2"] * 5 and all(s.flow_truth is None for s in found)


def test_split_by_the_official_list(chairs: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"FlyingChairs_train_val\.txt is missing, which split: val needs"):
        samples(FlyingChairs(root=chairs, split="val"), PAIRS)
    listed = chairs / "FlyingChairs_train_val.txt"
    listed.write_text("1\n2\n1\n1\n2\n")
    names = {
        split: [s.name[5:10] for s in samples(FlyingChairs(root=chairs, split=split), PAIRS)]
        for split in ("train", "val")
    }
    assert names == {"train": ["00001", "00003", "00004"], "val": ["00002", "00005"]}
    listed.write_text("1\n2\n")
    with pytest.raises(DataError, match=r"a line for each of the 5 pairs .* it has 2"):
        samples(FlyingChairs(root=chairs, split="train"), PAIRS)


def test_what_is_missing_is_named(chairs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(DataError, match="there are no pairs"):
        samples(FlyingChairs(root=tmp_path_factory.mktemp("empty")), PAIRS)
    with pytest.raises(DataError, match=r"holds 5 pairs, 5 of the split, none with the views .*\[-1, 1\]"):
        samples(FlyingChairs(root=chairs), Data(source_offsets=(-1, 1)))
    (chairs / "data" / "00002_img2.ppm").unlink()
    assert len(samples(FlyingChairs(root=chairs), PAIRS)) == 4


def test_real_pair(shared_data: Path) -> None:
    (found,) = samples(FlyingChairs(root=shared_data / "flying_chairs"), PAIRS)
    assert found.name == "0000000-img0" and found.flow_truth is not None
    width, height = found.flow_truth.size
    assert read_flo(found.flow_truth.flow.path).shape == (height, width, 2)
