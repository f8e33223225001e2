"""What the benchmarks of optical flow test is left out where `exclude` says so, and told."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from data_trees import odometry_sequence, picture, raw_drive, write
from torch import Tensor

from geossl.commands.check import check_data
from geossl.config import Data, KittiOdometry, KittiRaw, KittiStereo, Sintel, Strict, Train, parse_experiment
from geossl.data.build import build_loader, build_samples, open_source
from geossl.data.exclude import without_benchmarks
from geossl.data.leaks import leaks
from geossl.data.samples import DataError
from geossl.methods.method import Method
from geossl.types import Batch, Objective

ALONE = Data(source_offsets=())


class FlowMethod(Method):
    """Sees no motion."""

    Options = Strict
    flow_offsets = (1,)

    def forward(self, batch: Batch) -> Objective:
        raise NotImplementedError

    def predict_flows(self, target: Tensor, sources: Sequence[Tensor]) -> Tensor:
        return target.new_zeros(len(target), 1, 2, *target.shape[-2:])


@pytest.fixture(scope="module")
def multi_view(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images 0 to 20 of two scenes of one drive (frames 344 to 364 and 354 to 374), and of one of no known drive."""
    root = tmp_path_factory.mktemp("multi_view")
    image = picture(0, 1242, 375)
    first = write(root / "training" / "image_2" / "000007_00.png", image)
    for scene in ("000007", "000008", "000000"):
        for time in range(21):
            path = first.with_name(f"{scene}_{time:02d}.png")
            if path != first:
                path.hardlink_to(first)
    return root


def stereo(root: Path, **more: object) -> KittiStereo:
    return KittiStereo.model_validate({"root": root, "frames": "all", "calibration": "by_size", **more})


@pytest.mark.parametrize(
    ("offsets", "targets"),
    [
        ((), [*range(9), *range(13, 21)]),
        ((1,), [*range(8), *range(13, 20)]),
        ((-1, 1), [*range(1, 8), *range(14, 20)]),
        ((-2, -1, 1, 2), [*range(2, 7), *range(15, 19)]),
    ],
)
def test_windows_that_touch_frames_9_to_12_are_left_out(
    multi_view: Path, offsets: tuple[int, ...], targets: list[int]
) -> None:
    data = Data(source_offsets=offsets)
    found, exclusion = open_source(stereo(multi_view, exclude="benchmarks"), data)
    assert [s.frame for s in found if "000000_" in s.name] == targets
    everything = build_samples(stereo(multi_view), data)
    assert exclusion is not None
    assert (exclusion.left_out, exclusion.total) == (len(everything) - len(found), len(everything))
    for sample in everything:
        times = {sample.frame, *(sample.frame + offset for offset in offsets)}
        assert (sample.name in {s.name for s in found}) == times.isdisjoint({9, 10, 11, 12})


def test_images_that_another_scene_tests_are_counted(multi_view: Path) -> None:
    """Scenes 7 and 8 lie ten frames apart: 7's frames 20 and 8's frames 0 and 1 are the other's 10, 10 and 11."""
    _, exclusion = open_source(stereo(multi_view, exclude="benchmarks"), ALONE)
    # Scene 8 has a neighbour on its other side too, scene 9, whose image 10 is its frame 20.
    assert exclusion is not None and exclusion.still_tested == 1 + 2 + 1
    assert str(exclusion) == (
        f"kitti_stereo:{multi_view}: left out 12 of 63 samples, which use frames 9 to 12 of a scene, which KITTI 2012 "
        "and 2015 test (exclude: none trains on them too). 4 of the others show an image that another scene tests."
    )


def test_nothing_left_names_both_ways_out(multi_view: Path) -> None:
    pairs = Data(source_offsets=(1,))
    source = stereo(multi_view, frames="reference", exclude="benchmarks")
    with pytest.raises(DataError, match=r"all 3 samples use frames 9 to 12.*Set frames: all .* or exclude: none"):
        build_samples(source, pairs)
    for exclude in ("none", None):
        found = build_samples(stereo(multi_view, frames="reference", exclude=exclude), pairs)
        assert [s.frame for s in found] == [10, 10, 10]


def test_raw_frames_around_a_pair_are_left_out(tmp_path: Path) -> None:
    """Image 000005 of KITTI 2012 is frame 410 of drive 2011_09_30_drive_0018, the pair's second frame 411."""
    raw_drive(tmp_path, "2011_09_30_drive_0018", frames=range(390, 432), cameras=["image_02"])
    source = KittiRaw(root=tmp_path, cameras=("image_02",), exclude="benchmarks")
    found, exclusion = open_source(source, ALONE)
    assert {s.frame for s in found} == {*range(390, 400), *range(422, 432)}
    assert exclusion is not None and (exclusion.left_out, exclusion.total) == (22, 42)
    assert "frames within 10 of a pair that KITTI 2012 or 2015 tests (exclude: none" in str(exclusion)
    windows, _ = open_source(source, Data(source_offsets=(-2, 1)))
    assert {s.frame for s in windows} == {*range(392, 399), *range(424, 431)}


def test_odometry_is_traced_to_its_drive(tmp_path: Path) -> None:
    """Image 000142 of KITTI 2012 is frame 100 of drive 2011_09_30_drive_0018, which is sequence 05."""
    odometry_sequence(tmp_path, "05", count=115, cameras=["image_0"])
    found = build_samples(KittiOdometry(root=tmp_path, sequences=("05",), exclude="benchmarks"), ALONE)
    assert [s.frame for s in found] == [*range(90), 112, 113, 114]


def test_other_recordings_lose_nothing(tmp_path: Path) -> None:
    raw_drive(tmp_path)
    found, exclusion = open_source(KittiRaw(root=tmp_path, exclude="benchmarks"), ALONE)
    assert len(found) == 10 and exclusion is None


def test_sources_without_the_option_are_left_alone(multi_view: Path) -> None:
    found = build_samples(stereo(multi_view), ALONE)
    assert without_benchmarks(Sintel(root=multi_view), found) == (found, None)


def test_leaks_see_pairs_in_the_raw_drives(tmp_path: Path, multi_view: Path) -> None:
    raw_drive(tmp_path, "2011_09_26_drive_0009", frames=range(340, 356), cameras=["image_02"])
    raw = build_samples(KittiRaw(root=tmp_path, cameras=("image_02",)), Data(source_offsets=(1,)))
    pairs = build_samples(stereo(multi_view, frames="reference"), Data(source_offsets=(1,)))
    found = leaks(raw, pairs)
    assert found.frames == (("2011_09_26_drive_0009", 354),)  # of scene 7; scene 8's is 364
    assert found.near == (("2011_09_26_drive_0009", 354), ("2011_09_26_drive_0009", 364))


# --- the default -----------------------------------------------------------------------------------------------------


def experiment(method: str, *sources: dict[str, object]) -> tuple[object, ...]:
    values = {"method": method, "data": {"train": sources, "validation": sources, "height": 64, "width": 96}}
    data = parse_experiment(values).data
    return tuple(getattr(source, "exclude", "no such option") for source in (*data.train, *data.validation))


def test_training_flow_leaves_out_benchmarks_unless_told(tmp_path: Path) -> None:
    raw = {"kind": "kitti_raw", "root": str(tmp_path)}
    odometry, pairs = raw | {"kind": "kitti_odometry"}, raw | {"kind": "kitti_stereo"}
    known, folder = pairs | {"exclude": "none"}, raw | {"kind": "folder"}
    flow = experiment("test_exclude:FlowMethod", raw, odometry, pairs, known, folder)
    assert flow[:5] == ("benchmarks", "benchmarks", "benchmarks", "none", "no such option")
    assert flow[5:] == (None, None, None, "none", "no such option")  # validation is on what is tested
    assert experiment("monodepth2", raw, odometry, pairs)[:3] == (None, None, None)


def test_a_training_is_told_what_was_left_out(multi_view: Path) -> None:
    data = Data(train=(stereo(multi_view, exclude="benchmarks"),), source_offsets=(1,), height=64, width=96)
    (note,) = build_loader(data, Train(batch_size=2)).dataset.notes
    assert "left out 15 of 60 samples" in note


def test_check_prints_what_was_left_out(multi_view: Path, tmp_path: Path) -> None:
    source = {"kind": "kitti_stereo", "root": str(multi_view), "frames": "all", "calibration": "by_size"}
    data = {"train": [source], "validation": [source], "source_offsets": [1], "height": 64, "width": 96}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"method": "test_exclude:FlowMethod", "data": data}))  # JSON is YAML
    training, validation = check_data(str(config), limit=1)
    assert training["excluded"].startswith(f"kitti_stereo:{multi_view}: left out 15 of 60 samples")
    assert (training["samples"], validation["samples"]) == (45, 63)
    assert validation["excluded"] == "none"
    # Of scenes 7 and 8 (31 distinct frames) all but 353, 365 and 366, as each shows some of what the other leaves out;
    # of the third scene 17 of 21.
    assert validation["leaks"].startswith("training uses 45 of 52 test frames")
