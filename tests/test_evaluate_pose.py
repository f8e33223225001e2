"""`geossl evaluate pose` of files."""

from pathlib import Path

import numpy as np
import pytest

from geossl.commands.evaluate import evaluate_pose
from geossl.data.synthetic import StreetOptions, write_street
from geossl.formats.trajectory import write_kitti_trajectory

DRIVE = "2000_01_01/2000_01_01_drive_0001_sync"


def standing(count: int) -> np.ndarray:
    return np.tile(np.eye(4), (count, 1, 1))


def test_one_trajectory_is_scored_for_one_clip(tmp_path: Path) -> None:
    write_street(
        tmp_path / "street", StreetOptions(sequences=1, frames=3, width=96, height=64, standing=0), processes=1
    )
    mine, spec = tmp_path / "mine.txt", f"kitti_raw:{tmp_path / 'street'}"
    write_kitti_trajectory(mine, standing(3))
    (row,) = evaluate_pose(f"{spec},cameras=[image_02]", predictions=mine, alignments=["none"]).rows
    assert row["sequence"] == f"{DRIVE}/image_02"
    both = rf"mine.txt is one trajectory, but .* has 2 clips with poses \({DRIVE}/image_02, {DRIVE}/image_03\)"
    with pytest.raises(ValueError, match=both):
        evaluate_pose(spec, predictions=mine, alignments=["none"])
    for camera in ("image_02", "image_03"):
        write_kitti_trajectory(tmp_path / "all" / DRIVE / f"{camera}.txt", standing(3))
    assert len(evaluate_pose(spec, predictions=tmp_path / "all", alignments=["none"]).rows) == 2
