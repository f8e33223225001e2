import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_trees import BASELINE_M, odometry_sequence

from geossl.config import Data, KittiOdometry
from geossl.data.kitti_odometry import samples
from geossl.data.poses import clip_poses
from geossl.data.samples import DataError

STEREO = Data(source_offsets=(-1, 1), stereo=True)


def test_each_sequence_gives_the_cameras_it_has(tmp_path: Path) -> None:
    odometry_sequence(tmp_path, "06")
    odometry_sequence(tmp_path, "02", cameras=["image_0", "image_1", "image_2", "image_3"])
    found = samples(KittiOdometry(root=tmp_path, sequences=("06", "02")), STEREO)
    assert [s.clip for s in found[::2]] == [
        "sequences/06/image_0",
        "sequences/06/image_1",
        "sequences/02/image_2",
        "sequences/02/image_3",
    ]
    assert found[0].name == "sequences/06/image_0/000001"
    for sample in found:
        assert sample.T_stereo_target is not None
        sign = -1 if sample.clip[-1] in "02" else 1
        np.testing.assert_allclose(sample.T_stereo_target[:3, 3], [sign * BASELINE_M, 0, 0], atol=1e-9)


def test_recordings_are_traced_to_their_raw_drives(tmp_path: Path) -> None:
    odometry_sequence(tmp_path, "08")
    found = samples(KittiOdometry(root=tmp_path, sequences=("08",)), Data(source_offsets=()))
    assert (found[2].target.recording, found[2].target.frame) == ("2011_09_30_drive_0028", 1102)
    assert found[2].frame == 2


def test_archives_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    odometry_sequence(folder, "06")
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "data_odometry_gray.zip", "w") as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(file, f"dataset/{file.relative_to(folder).as_posix()}")
    source = KittiOdometry(root=tmp_path / "zipped", sequences=("06",))
    assert [s.name for s in samples(source, STEREO)] == [
        s.name for s in samples(KittiOdometry(root=folder, sequences=("06",)), STEREO)
    ]
    assert len(clip_poses(source)) == 2


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = odometry_sequence(tmp_path, "06", cameras=["image_0"])
    with pytest.raises(DataError, match=r"no images of sequence 00; it has 06\. Set the source's sequences"):
        samples(KittiOdometry(root=tmp_path), STEREO)
    with pytest.raises(DataError, match="sequences/06 has no image_2; it has image_0"):
        samples(KittiOdometry(root=tmp_path, sequences=("06",), cameras=("image_2",)), STEREO)
    with pytest.raises(DataError, match=r"sequences/06/image_0 has no other camera.*Unpack image_1"):
        samples(KittiOdometry(root=tmp_path, sequences=("06",)), STEREO)
    (folder / "calib.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"calib\.txt is missing; unpack data_odometry_calib\.zip"):
        samples(KittiOdometry(root=tmp_path, sequences=("06",)), STEREO)


def test_real_sequences(shared_data: Path) -> None:
    source = KittiOdometry(root=shared_data / "kitti_odometry", sequences=("06", "02"))
    found = samples(source, STEREO)
    assert [sum(s.clip == c for s in found) for c in ("sequences/06/image_0", "sequences/02/image_3")] == [49, 18]
    assert found[0].target.camera.size == (1226, 370)
    assert found[0].T_stereo_target is not None
    assert found[0].T_stereo_target[0, 3] == pytest.approx(-379.8145 / 707.0912)
