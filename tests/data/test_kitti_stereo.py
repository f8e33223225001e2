from pathlib import Path

import numpy as np
import pytest
from data_trees import BASELINE_M, picture, projection, row, write

from geossl.config import Data, KittiStereo
from geossl.data.kitti_stereo import DAYS, calibration_by_size, samples
from geossl.data.samples import DataError
from geossl.formats.calibration import read_kitti_raw_calibration, read_odometry_calibration
from geossl.formats.kitti_png import read_flow_png

STEREO = Data(source_offsets=(), stereo=True)


@pytest.fixture
def year_2012(tmp_path: Path) -> Path:
    for scene, times in (("000000", [9, 10, 11]), ("000001", [10])):
        for camera in ("image_0", "image_1"):
            for time in times:
                write(tmp_path / "training" / camera / f"{scene}_{time:02d}.png", picture(time))
        calib = tmp_path / "training" / "calib" / f"{scene}.txt"
        calib.parent.mkdir(exist_ok=True)
        calib.write_text(f"P0: {row(projection(0))}\nP1: {row(projection(-BASELINE_M))}\n")
    write(tmp_path / "training" / "disp_occ" / "000000_10.png", picture(1))
    return tmp_path


def test_reference_images_and_their_labels(year_2012: Path) -> None:
    found = samples(KittiStereo(root=year_2012, year=2012), STEREO)
    assert [s.name for s in found] == ["training/image_0/000000_10", "training/image_0/000001_10"]
    first, second = found
    assert first.truth is not None and first.truth.baseline_m == pytest.approx(BASELINE_M)
    assert first.truth.kind == "disparity_png" and first.truth.visible_disparity is None and second.truth is None
    assert first.T_stereo_target is not None
    np.testing.assert_allclose(first.T_stereo_target[:3, 3], [-BASELINE_M, 0, 0], atol=1e-12)


def test_all_frames_and_both_cameras(year_2012: Path) -> None:
    source = KittiStereo(root=year_2012, year=2012, frames="all", cameras=("left", "right"))
    found = samples(source, STEREO)
    assert len(found) == 8
    right = [s for s in found if "image_1" in s.name]
    assert len(right) == 4 and all(s.truth is None for s in right)
    assert all(s.T_stereo_target is not None and s.T_stereo_target[0, 3] > 0.5 for s in right)
    labelled = [s.name for s in found if s.truth is not None]
    assert labelled == ["training/image_0/000000_10"]


def test_neighbours_are_asked_for(year_2012: Path) -> None:
    found = samples(KittiStereo(root=year_2012, year=2012), Data(source_offsets=(-1, 1)))
    assert [s.name for s in found] == ["training/image_0/000000_10"]
    assert [s.frame for s in found] == [10]
    with pytest.raises(DataError, match=r"holds 2 scenes, none with the views that source_offsets=\[5\]"):
        samples(KittiStereo(root=year_2012, year=2012), Data(source_offsets=(5,)))


def test_flow_belongs_to_the_left_reference_image(year_2012: Path) -> None:
    folder = year_2012 / "training"
    write(folder / "flow_noc" / "000000_10.png", picture(1))
    write(folder / "obj_map" / "000000_10.png", picture(1))
    source = KittiStereo(root=year_2012, year=2012, frames="all", cameras=("left", "right"))
    for data in (Data(source_offsets=()), Data(source_offsets=(1,)), Data(source_offsets=(-1, 1))):
        (labelled,) = [s for s in samples(source, data) if s.flow_truth is not None]
        truth = labelled.flow_truth
        assert labelled.name == "training/image_0/000000_10" and truth is not None
        assert truth.kind == "kitti_png" and truth.size == (132, 44) and truth.visible_only
        assert truth.visible_flow is not None and truth.object_map is not None
    write(folder / "flow_occ" / "000000_10.png", picture(1))
    truth = samples(source, Data(source_offsets=(1,)))[1].flow_truth
    assert truth is not None and "flow_occ" in truth.flow.path and not truth.visible_only
    assert truth.visible_flow is not None and "flow_noc" in truth.visible_flow.path


def test_scene_flow_needs_its_three_maps(tmp_path: Path) -> None:
    folder = tmp_path / "training"
    for name in ("image_2/000000_10", "image_3/000000_10", "disp_occ_0/000000_10", "disp_noc_0/000000_10"):
        write(folder / f"{name}.png", picture(1, 1242, 375))
    source = KittiStereo(root=tmp_path, cameras=("left", "right"), calibration="by_size")
    for missing in ("disp_occ_1", "flow_occ"):
        assert all(s.scene_flow_truth is None for s in samples(source, STEREO))
        write(folder / missing / "000000_10.png", picture(1))
    left, right = samples(source, STEREO)
    truth = left.scene_flow_truth
    assert right.scene_flow_truth is None and truth is not None and truth.kind == "kitti_png"
    assert truth.visible is None and truth.object_map is None and truth.size == (1242, 375)
    assert truth.K is not None and truth.K[0, 0] == 721.5377 and truth.baseline_m == pytest.approx(0.5327, abs=1e-4)
    for name in ("disp_noc_1", "flow_noc", "obj_map"):
        write(folder / name / "000000_10.png", picture(1))
    truth = samples(source, STEREO)[0].scene_flow_truth
    assert truth is not None and truth.visible is not None and truth.object_map is not None
    assert [ref.path.split("/")[-2] for ref in truth.visible] == ["disp_noc_0", "disp_noc_1", "flow_noc"]


def test_windows_of_five_frames(year_2012: Path) -> None:
    for time in (7, 8, 12):
        write(year_2012 / "training" / "image_0" / f"000000_{time:02d}.png", picture(time))
    source = KittiStereo(root=year_2012, year=2012, frames="all")
    found = samples(source, Data(source_offsets=(-2, -1, 1, 2)))
    assert [(s.frame, [int(v.image.file.path[-6:-4]) for v in s.sources]) for s in found] == [
        (9, [7, 8, 10, 11]),
        (10, [8, 9, 11, 12]),
    ]


def test_recordings_are_traced_to_their_raw_drives(year_2012: Path) -> None:
    found = samples(KittiStereo(root=year_2012, year=2012, frames="all"), Data(source_offsets=()))
    assert [(s.target.recording, s.target.frame) for s in found] == [
        ("2011_09_30_drive_0034", 809),
        ("2011_09_30_drive_0034", 810),
        ("2011_09_30_drive_0034", 811),
        ("kitti_2012_training_000001", 10),  # of an unpublished drive
    ]


def test_a_scene_without_its_other_image_is_left_out(year_2012: Path) -> None:
    (year_2012 / "training" / "image_1" / "000001_10.png").unlink()
    assert [s.name[-9:] for s in samples(KittiStereo(root=year_2012, year=2012), STEREO)] == ["000000_10"]


def test_what_is_missing_is_named(year_2012: Path) -> None:
    with pytest.raises(DataError, match="check year: 2015"):
        samples(KittiStereo(root=year_2012), STEREO)
    (year_2012 / "training" / "calib" / "000000.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"calib/000000\.txt is missing; .* calibration: by_size"):
        samples(KittiStereo(root=year_2012, year=2012), STEREO)
    with pytest.raises(DataError, match="no KITTI recording day has images of 132x44; they have 1242x375"):
        samples(KittiStereo(root=year_2012, year=2012, calibration="by_size"), STEREO)


def test_calibration_by_size_of_grey_images_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "training" / "image_0" / "000000_10.png", picture(1, 1226, 370))
    source = KittiStereo(root=tmp_path, year=2012, calibration="by_size")
    with pytest.raises(DataError, match=r"these are the grey ones\. Unpack colored_0 and colored_1, or calib/ and"):
        samples(source, Data(source_offsets=()))


def test_calibration_by_size_equals_the_days_files(shared_data: Path) -> None:
    files = {
        (1242, 375): read_kitti_raw_calibration(shared_data / "kitti_raw" / "2011_09_26"),
        (1226, 370): read_odometry_calibration(shared_data / "kitti_odometry" / "sequences" / "06" / "calib.txt"),
        (1241, 376): read_odometry_calibration(shared_data / "kitti_odometry" / "sequences" / "02" / "calib.txt"),
    }
    for size, expected in files.items():
        found = calibration_by_size(size, "here")
        for camera in (2, 3):
            np.testing.assert_allclose(found.camera(camera).P, expected.camera(camera).P, rtol=1e-6)


def test_calibration_by_size_has_the_published_ratios() -> None:
    """fx/W, fy/H, cx/W, cy/H and (P2_x - P3_x) / fx of every day, to the four digits of an independent table."""
    ratios = {
        (1242, 375): (0.5809, 1.9241, 0.4908, 0.4609, 0.5327),
        (1224, 370): (0.5777, 1.9109, 0.4935, 0.4879, 0.5373),
        (1238, 374): (0.5802, 1.9207, 0.4850, 0.4853, 0.5301),
        (1226, 370): (0.5767, 1.9111, 0.4909, 0.4949, 0.5379),
        (1241, 376): (0.5793, 1.9119, 0.4893, 0.4926, 0.5323),
    }
    assert ratios.keys() == DAYS.keys()
    for (w, h), expected in ratios.items():
        calibration = calibration_by_size((w, h), "here")
        K, P2, P3 = calibration.K(2), calibration.camera(2).P, calibration.camera(3).P
        found = (K[0, 0] / w, K[1, 1] / h, K[0, 2] / w, K[1, 2] / h, (P2 - P3)[0, 3] / K[0, 0])
        np.testing.assert_allclose(found, expected, atol=6e-5)


def test_real_pairs(shared_data: Path) -> None:
    root = shared_data / "kitti_2015"
    with pytest.raises(FileNotFoundError, match="calibration: by_size"):
        samples(KittiStereo(root=root), STEREO)
    found = samples(KittiStereo(root=root, calibration="by_size"), STEREO)
    assert len(found) == 14 and all(s.truth is not None and s.truth.object_map is not None for s in found)
    old = samples(KittiStereo(root=shared_data / "kitti_2012", year=2012), STEREO)
    assert [s.name for s in old] == [f"training/image_0/{n}_10" for n in ("000027", "000074", "000138")]


def test_real_flow(shared_data: Path) -> None:
    pairs = Data(source_offsets=(1,))
    old = samples(KittiStereo(root=shared_data / "kitti_2012", year=2012), pairs)
    new = samples(KittiStereo(root=shared_data / "kitti_2015", calibration="by_size"), pairs)
    assert [s.name[-9:] for s in old] == ["000027_10", "000074_10", "000138_10"]
    assert [s.name[-9:] for s in new] == ["000000_10"]
    assert [s.flow_truth.visible_only for s in (*old, *new) if s.flow_truth is not None] == [False] * 3 + [True]
    for sample in (*old, *new):
        truth = sample.flow_truth
        assert truth is not None and truth.visible_flow is not None
        flow, valid = read_flow_png(truth.flow.path)
        _, visible = read_flow_png(truth.visible_flow.path)
        assert flow.shape[1::-1] == truth.size and (valid | ~visible).all()  # what is visible is known
