"""Ground-truth poses of the clips of KITTI odometry and KITTI raw (and of the synthetic street)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geossl.config import AnySource, KittiOdometry, KittiRaw
from geossl.data.kitti_odometry import PARTNER, read_sequence_calibration
from geossl.data.kitti_raw import Recordings, chosen_drives, numbered_images
from geossl.data.samples import DataError
from geossl.formats.files import FileTree
from geossl.formats.oxts import camera_poses, oxts_poses, parse_oxts
from geossl.formats.trajectory import parse_kitti_trajectory


@dataclass(frozen=True, eq=False)
class ClipPoses:
    """The camera's path along a clip.

    Attributes:
        frames: (N,) int64 increasing frame numbers, `Sample.frame`.
        T_first_camera: (N, 4, 4) float64, maps points of each frame's camera to that of the first, metres.
    """

    frames: np.ndarray
    T_first_camera: np.ndarray


def clip_poses(source: AnySource) -> dict[str, ClipPoses]:
    """The ground-truth poses of a source's clips, by `Sample.clip`; clips without poses are absent.

    KITTI gives poses of camera 0 (odometry) or of the IMU (raw); here they are those of the clip's own camera. Of
    image_0 they equal the file's numbers.

    Raises:
        DataError: If the kind of data has no poses, or poses and images do not fit each other.
        FileNotFoundError: If a calibration is missing.
        FormatError: If a file of poses cannot be read.
    """
    if isinstance(source, KittiOdometry):
        return _odometry_poses(source)
    if isinstance(source, KittiRaw):
        return _raw_poses(source)
    raise DataError(f"{source.kind} data come without poses; kitti_odometry and kitti_raw have them.")


def _odometry_poses(source: KittiOdometry) -> dict[str, ClipPoses]:
    tree = FileTree(source.root)
    found = {}
    for sequence in source.sequences:
        T_first0_cam0 = sequence_poses(tree, sequence)
        if T_first0_cam0 is None:
            continue
        calibration = read_sequence_calibration(tree, sequence)
        for camera in PARTNER:
            clip = f"sequences/{sequence}/{camera}"
            images = numbered_images(tree.files(clip), clip)
            if images:
                last = max(images)
                if last >= len(T_first0_cam0):
                    where = tree.expect(_poses_file(sequence))
                    raise DataError(f"{where} has {len(T_first0_cam0)} poses, but {clip} has frame {last}.")
                T_camera_cam0 = calibration.T_a_b(camera, 0)
                poses = T_camera_cam0 @ T_first0_cam0 @ np.linalg.inv(T_camera_cam0)
                found[clip] = ClipPoses(np.arange(len(poses)), poses)
    return found


def sequence_poses(tree: FileTree, sequence: str) -> np.ndarray | None:
    """(N, 4, 4) T_first_camera of camera 0, the numbers of a KITTI odometry sequence's file; None if it is not there.

    Raises:
        FormatError: If the file cannot be read.
    """
    ref = tree.find(_poses_file(sequence))
    return None if ref is None else parse_kitti_trajectory(ref.read_text(), str(ref))


def _poses_file(sequence: str) -> str:
    return f"poses/{sequence}.txt"


def _raw_poses(source: KittiRaw) -> dict[str, ClipPoses]:
    recordings = Recordings(FileTree(source.root))
    chosen = chosen_drives(source, recordings)
    found = {}
    for drive, folder in recordings.drives.items():
        records = recordings.tree.files(f"{folder}/oxts/data")
        refs = {int(name[:-4]): ref for name, ref in records.items() if name[:-4].isdigit() and name.endswith(".txt")}
        if not refs or drive not in chosen:
            continue
        T_world_imu = oxts_poses([parse_oxts(ref.read_text(), str(ref)) for ref in refs.values()])
        calibration = recordings.calibration(drive[:10])
        for camera in source.cameras:
            if recordings.images(drive, camera) and calibration.T_velo_imu is not None:
                poses = camera_poses(T_world_imu, calibration.T_camera_imu(camera))
                found[f"{folder}/{camera}"] = ClipPoses(np.array(list(refs)), poses)
    return found
