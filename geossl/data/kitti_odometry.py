"""KITTI odometry sequences, unpacked or in the official zip files.

root/sequences/06/calib.txt, image_0/000000.png (or jpg), image_1, image_2, image_3, velodyne; root/poses/06.txt
"""

from __future__ import annotations

from collections.abc import Callable

from geossl.config import Data, KittiOdometry
from geossl.data.images import image_size
from geossl.data.kitti_raw import numbered_images
from geossl.data.samples import Clip, DataError, Sample, Wanted, clip_samples, make_camera, require_samples
from geossl.data.splits import ODOMETRY_DRIVES
from geossl.formats.calibration import Calibration, camera_number, parse_odometry_calibration
from geossl.formats.files import FileTree
from geossl.formats.truth import Truth

PARTNER = {"image_0": "image_1", "image_1": "image_0", "image_2": "image_3", "image_3": "image_2"}


def samples(source: KittiOdometry, data: Data | Wanted) -> list[Sample]:
    """The samples of a KITTI odometry source; without `cameras` each sequence gives its colour pair, else its grey.

    Raises:
        FileNotFoundError: If the root or a calibration is missing.
        DataError: If a sequence or camera is missing, or stereo is wanted where there is one camera.
    """
    tree, wanted = FileTree(source.root), Wanted.of(source, data)
    found: list[Sample] = []
    for sequence in source.sequences:
        clips = sequence_clips(tree, sequence)
        cameras = list[str](source.cameras or ()) or [c for c in ("image_2", "image_3") if c in clips] or list(clips)
        for camera in cameras:
            if camera not in clips:
                raise DataError(
                    f"{tree.root}/sequences/{sequence} has no {camera}; it has {', '.join(clips)}. Unpack it, or set "
                    "cameras to what is there."
                )
            found += clip_samples(clips[camera], wanted)
    return require_samples(
        found, source, f"no frame has the neighbours source_offsets={list(wanted.offsets)} asks for."
    )


def sequence_clips(tree: FileTree, sequence: str) -> dict[str, Clip]:
    """The clips of a sequence by camera, those that have images.

    Raises:
        DataError: If the sequence is not there.
        FileNotFoundError: If its calibration is missing.
    """
    folder = f"sequences/{sequence}"
    images = {camera: numbered_images(tree.files(f"{folder}/{camera}"), f"{folder}/{camera}") for camera in PARTNER}
    images = {camera: found for camera, found in images.items() if found}
    if not images:
        there = ", ".join(name for name in tree.names("sequences") if tree.names(f"sequences/{name}"))
        raise DataError(
            f"{tree.root} holds no images of sequence {sequence}; it has {there or 'no sequences/ folder'}. "
            "Set the source's sequences, or root to the folder that contains sequences/."
        )
    calibration = read_sequence_calibration(tree, sequence)
    recording, first, _ = ODOMETRY_DRIVES.get(sequence, (f"kitti_odometry_{sequence}", 0, 0))
    clips: dict[str, Clip] = {}
    for camera, found in images.items():
        size = image_size(next(iter(found.values()))[1])
        known = make_camera(calibration.K(camera), size, f"{calibration.where} {camera}")
        truth = _truths(tree, sequence, calibration, camera, size)
        clips[camera] = Clip(f"{folder}/{camera}", found, known, recording, first, truth=truth)
    for camera, clip in clips.items():
        other = PARTNER[camera]
        clip.remedy = f"Unpack {other}, leave the sequence out, or set stereo: false for this source."
        if other in clips:
            clip.partner, clip.T_partner_this = clips[other], calibration.T_a_b(other, camera)
    return clips


def read_sequence_calibration(tree: FileTree, sequence: str) -> Calibration:
    """A sequence's calibration.

    Raises:
        FileNotFoundError: If calib.txt is missing.
    """
    where = tree.expect(f"sequences/{sequence}/calib.txt")
    if not where.exists():
        raise FileNotFoundError(f"{where} is missing; unpack data_odometry_calib.zip there.")
    return parse_odometry_calibration(where.read_text(), str(where))


def _truths(
    tree: FileTree, sequence: str, calibration: Calibration, camera: str, size: tuple[int, int]
) -> Callable[[int], Truth | None]:
    scans = tree.files(f"sequences/{sequence}/velodyne") if calibration.T_cam0rect_velo is not None else {}
    K, number = calibration.K(camera), camera_number(camera)

    def truth(frame: int) -> Truth | None:
        ref = scans.get(f"{frame:06d}.bin")
        return None if ref is None else Truth("velodyne", ref, size, K, calibration, number)

    return truth
