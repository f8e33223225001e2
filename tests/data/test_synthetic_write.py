"""The written drives: KITTI raw's layout, complete, resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geossl.data.synthetic import StreetOptions, make_street, read_labels, write_street
from geossl.data.synthetic import write as module
from geossl.data.synthetic.rig import LEFT, RIGHT
from geossl.data.synthetic.write import DATE, drive_name, label_path, sensor_image
from geossl.formats.calibration import read_kitti_raw_calibration
from geossl.formats.errors import FormatError
from geossl.formats.image import read_image
from geossl.formats.oxts import camera_poses, oxts_poses, read_oxts_folder
from geossl.formats.street import decode_labels
from geossl.formats.trajectory import read_kitti_trajectory
from geossl.formats.velodyne import read_velodyne

OPTIONS = StreetOptions(sequences=1, frames=3, width=128, height=64, seed=2, standing=0)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street") / "out"
    write_street(folder, OPTIONS, processes=1)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_layout_is_that_of_kitti_raw(written: Path) -> None:
    drive = written / DATE / drive_name(0)
    assert drive.name == "2000_01_01_drive_0001_sync"
    for sensor, suffix in (("image_02", "png"), ("image_03", "png"), ("velodyne_points", "bin"), ("oxts", "txt")):
        files = sorted(path.name for path in (drive / sensor / "data").iterdir())
        assert files == [f"{i:010d}.{suffix}" for i in range(3)]
        times = (drive / sensor / "timestamps.txt").read_text().splitlines()
        assert times[1] == "2000-01-01 12:00:00.100000000" and len(times) == 3
    image = read_image(drive / "image_02" / "data" / "0000000001.png")
    assert image.shape == (64, 128, 3)


def test_calibration_says_where_the_sensors_are(written: Path) -> None:
    calibration = read_kitti_raw_calibration(written / DATE)
    street = make_street(OPTIONS, 0)
    assert calibration.size(2) == (128, 64)
    assert calibration.baseline_m(2, 3) == pytest.approx(0.532, abs=1e-4)
    np.testing.assert_array_equal(calibration.K(2), street.camera.K)
    T_right_left = np.linalg.inv(street.T_world_camera(1, RIGHT)) @ street.T_world_camera(1, LEFT)
    np.testing.assert_allclose(T_right_left, calibration.T_a_b(3, 2), atol=1e-9)
    assert street.T_world_camera(0)[2, 3] == pytest.approx(1.65, abs=0.06)  # camera height


def test_oxts_reproduce_the_poses(written: Path) -> None:
    drive = written / DATE / drive_name(0)
    calibration = read_kitti_raw_calibration(written / DATE)
    poses = camera_poses(oxts_poses(read_oxts_folder(drive / "oxts" / "data")), calibration.T_camera_imu(2))
    expected = read_kitti_trajectory(drive / "labels" / "poses.txt")
    np.testing.assert_allclose(poses, expected, atol=2e-6)
    for frame in range(3):
        labels = read_labels(label_path(written, 0, frame))
        np.testing.assert_allclose(labels.T_world_camera, expected[frame], atol=1e-6)
    step = np.linalg.norm(np.diff(expected[:, :3, 3], axis=0), axis=1)
    assert (step > 0.35).all() and (step < 1.2).all()


def test_scan_lies_on_the_labelled_depth(written: Path) -> None:
    drive = written / DATE / drive_name(0)
    calibration = read_kitti_raw_calibration(written / DATE)
    points = read_velodyne(drive / "velodyne_points" / "data" / "0000000001.bin")
    labels = read_labels(label_path(written, 0, 1))
    T = calibration.T_camera_velo(2)
    camera = points[:, :3] @ T[:3, :3].T + T[:3, 3]
    pixels = camera @ calibration.K(2).T
    u, v = np.rint(pixels[:, :2] / pixels[:, 2:]).astype(int).T
    inside = (camera[:, 2] > 0) & (u >= 0) & (u < 128) & (v >= 0) & (v < 64)
    depth = labels.depth[v[inside], u[inside]]
    assert (points[:, 3] >= 0).all() and (points[:, 3] <= 1).all()
    assert np.median(np.abs(depth / camera[inside, 2] - 1)) < 0.01


def test_damaged_labels_are_named(written: Path) -> None:
    whole, rng, named = label_path(written, 0, 0).read_bytes(), np.random.default_rng(0), 0
    for _ in range(60):
        damaged = bytearray(whole)
        place = int(rng.integers(len(whole)))
        damaged[place : place + 4] = rng.bytes(4)
        try:
            decode_labels(bytes(damaged), "0.npz")
        except FormatError as error:
            assert str(error).startswith("0.npz: is not a label file of the synthetic street")
            named += 1
    assert named > 40  # a few places hold nothing that is read


def test_finished_frames_are_not_rendered_again(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(written)
    monkeypatch.setattr(module, "write_frame", lambda *_: pytest.fail("rendered again"))
    calls: list[tuple[int, int]] = []
    write_street(written, OPTIONS, processes=1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(3, 3)]
    assert contents(written) == before


def test_interrupted_writing_goes_on_to_the_same_files(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "again"
    original = module.write_frame

    def stop_at_the_second(*arguments: object) -> None:
        if arguments[-1] == 1:
            raise KeyboardInterrupt
        original(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_frame", stop_at_the_second)
        write_street(out, OPTIONS, processes=1)
    assert label_path(out, 0, 0).is_file() and not label_path(out, 0, 1).exists()
    write_street(out, OPTIONS, processes=1)
    assert contents(out) == contents(written)


def test_processes_write_the_same_files(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "parallel"
    write_street(out, OPTIONS, processes=2)
    assert contents(out) == contents(written)


def test_other_options_are_refused(written: Path, tmp_path: Path) -> None:
    before = contents(written)
    with pytest.raises(ValueError, match=r"other options: seed 2 there, 3 asked"):
        write_street(written, replace(OPTIONS, seed=3), processes=1)
    assert contents(written) == before
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"not empty"):
        write_street(tmp_path, OPTIONS, processes=1)


def test_noise_and_exposure_are_those_asked_for() -> None:
    grey = np.full((64, 128, 3), 0.5, np.float32)
    noisy = sensor_image(grey, replace(OPTIONS, noise=3.0), 0, 0, LEFT).astype(float)
    assert noisy.std() == pytest.approx(3.0, rel=0.05) and noisy.mean() == pytest.approx(127.5, abs=0.1)
    bright = replace(OPTIONS, noise=0.0, exposure=0.2)
    left, right = (sensor_image(grey, bright, 0, 4, camera) for camera in (LEFT, RIGHT))
    np.testing.assert_array_equal(left, right)
    gains = [sensor_image(grey, bright, 0, frame, LEFT).mean() / 127.5 for frame in range(200)]
    assert np.std(np.log(gains)) == pytest.approx(0.2, rel=0.15)
