"""KITTI raw recordings, unpacked or in the official zip files; the synthetic street has the same layout.

root/2011_09_26/calib_cam_to_cam.txt (calib_velo_to_cam.txt, calib_imu_to_velo.txt)
root/2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000000.png (or jpg), image_03, velodyne_points, oxts
or root/2011_09_26_calib.zip, root/2011_09_26_drive_0001_sync.zip, ...
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from geossl.config import Data, KittiRaw
from geossl.data.images import IMAGE_SUFFIXES, ImageRef
from geossl.data.samples import (
    Camera,
    Clip,
    DataError,
    Sample,
    Wanted,
    clip_samples,
    make_camera,
    nominal_K,
    require_samples,
)
from geossl.data.splits import RawFrame, eigen_test, eigen_zhou, read_file_list
from geossl.formats.calibration import Calibration, camera_number, parse_kitti_raw_calibration
from geossl.formats.files import FileRef, FileTree
from geossl.formats.truth import FlowTruth, SceneFlowTruth, Truth

PARTNER = {"image_00": "image_01", "image_01": "image_00", "image_02": "image_03", "image_03": "image_02"}
CALIBRATION_FILES = ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt", "calib_imu_to_velo.txt")
DEPTH_FOLDERS = ("", "train/", "val/")
LABELLED = "image_02"  # the camera to which a synthetic street's label files belong


@dataclass
class Recordings:
    """What lies under a root: its drives, and their images and calibration when asked for."""

    tree: FileTree
    _images: dict[str, dict[int, tuple[str, ImageRef]]] = field(default_factory=dict)
    _calibrations: dict[str, Calibration] = field(default_factory=dict)

    @cached_property
    def drives(self) -> dict[str, str]:
        """Drive (without `_sync`) -> its folder."""
        return {
            name.removesuffix("_sync"): f"{date}/{name}"
            for date in self.tree.names()
            if re.fullmatch(r"\d{4}_\d\d_\d\d", date)
            for name in self.tree.names(date)
            if re.fullmatch(rf"{date}_drive_\d{{4,}}_sync", name)
        }

    def folder(self, drive: str) -> str:
        """A drive's folder, whether it exists or not."""
        return self.drives.get(drive, f"{drive[:10]}/{drive}_sync")

    def images(self, drive: str, camera: str) -> dict[int, tuple[str, ImageRef]]:
        """Frame number -> (sample name, image)."""
        folder = f"{self.folder(drive)}/{camera}/data"
        if folder not in self._images:
            self._images[folder] = numbered_images(self.tree.files(folder), folder)
        return self._images[folder]

    def calibration(self, date: str) -> Calibration:
        """A date's calibration.

        Raises:
            FileNotFoundError: If calib_cam_to_cam.txt is missing.
        """
        if date not in self._calibrations:
            refs = {name: self.tree.find(f"{date}/{name}") for name in CALIBRATION_FILES}
            texts = {name: ref.read_text() for name, ref in refs.items() if ref is not None}
            self._calibrations[date] = parse_kitti_raw_calibration(texts, str(self.tree.root / date))
        return self._calibrations[date]


def samples(source: KittiRaw, data: Data | Wanted) -> list[Sample]:
    """The samples of a KITTI raw source.

    A drive without one of `cameras` gives those it has; an image that a list names but that does not exist stays in
    the samples, so that it is reported.

    Raises:
        FileNotFoundError: If the root or a date's calibration is missing.
        DataError: If there are no samples, a drive is unknown, or stereo is wanted where there is one camera.
    """
    recordings = Recordings(FileTree(source.root))
    wanted = Wanted.of(source, data)
    drives = chosen_drives(source, recordings)
    entries = _entries(source, recordings, drives)
    make_clips = _clip_maker(source, recordings)
    found: list[Sample] = []
    if source.split is None:
        for drive in sorted(drives):
            for camera in source.cameras:
                if recordings.images(drive, camera):
                    found += clip_samples(make_clips(drive, camera), wanted)
    elif source.split.startswith("eigen_zhou"):
        by_clip: dict[tuple[str, str], list[int]] = {}
        for entry in entries:
            by_clip.setdefault((entry.drive, entry.camera), []).append(entry.frame)
        for (drive, name), frames in by_clip.items():
            chosen = set(frames)
            found += [s for s in clip_samples(make_clips(drive, name), wanted) if s.frame in chosen]
    else:
        for entry in entries:
            found += clip_samples(make_clips(entry.drive, entry.camera), wanted, [entry.frame])
    return require_samples(found, source, _found_instead(source, recordings, wanted))


def numbered_images(files: dict[str, FileRef], folder: str) -> dict[int, tuple[str, ImageRef]]:
    """Images named by number: number -> (`folder`/stem, image). Where a png and a jpg share a name, the png."""
    found: dict[int, tuple[str, ImageRef]] = {}
    for suffix in IMAGE_SUFFIXES:
        for name, ref in files.items():
            stem, dot, _ = name.rpartition(".")
            if dot and ref.suffix == suffix and stem.isdigit():
                found.setdefault(int(stem), (f"{folder}/{stem}", ImageRef(ref)))
    return dict(sorted(found.items()))


def _found_instead(source: KittiRaw, recordings: Recordings, wanted: Wanted) -> str:
    """What to say where there are no samples."""
    named = sorted(recordings.drives)
    if not named:
        return (
            "it holds no YYYY_MM_DD/YYYY_MM_DD_drive_NNNN_sync folders and no such zip files. Point root at the "
            "folder that contains the dates, and use the synced and rectified recordings."
        )
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    return (
        f"its drives are {', '.join(named[:5])}{more}; asked for were split={source.split}, cameras="
        f"{','.join(source.cameras)}, source_offsets={list(wanted.offsets)}. Frames "
        "without their neighbours are left out."
    )


def chosen_drives(source: KittiRaw, recordings: Recordings) -> set[str]:
    """The drives (without `_sync`) that a source takes.

    Raises:
        DataError: If one is not there; names the closest.
    """
    if source.drives is None:
        return set(recordings.drives)
    chosen = [name.rpartition("/")[2].removesuffix("_sync") for name in source.drives]
    for given, name in zip(source.drives, chosen, strict=True):
        if name not in recordings.drives:
            close = difflib.get_close_matches(name, recordings.drives, n=1)
            hint = f" Did you mean {close[0]}_sync?" if close else ""
            raise DataError(f"drive {given} is not under {source.root}.{hint}")
    return set(chosen)


def _entries(source: KittiRaw, recordings: Recordings, drives: set[str]) -> list[RawFrame]:
    """What the split names, of the source's cameras and drives."""
    if source.split is None:
        return []
    if source.split == "eigen_test":
        entries: Iterable[RawFrame] = eigen_test()
    elif source.split.startswith("eigen_zhou"):
        if source.split not in ("eigen_zhou_train", "eigen_zhou_val"):
            raise DataError(f"split '{source.split}' should be eigen_zhou_train or eigen_zhou_val.")
        cameras = ("image_02", "image_03")
        existing = {(d, c): list(recordings.images(d, c)) for d in recordings.drives for c in cameras}
        entries = eigen_zhou(existing)[source.split == "eigen_zhou_val"]
    else:
        entries = read_file_list(source.split)
    chosen = [e for e in entries if e.camera in source.cameras]
    return chosen if source.drives is None else [e for e in chosen if e.drive in drives]


def _clip_maker(source: KittiRaw, recordings: Recordings) -> Callable[[str, str], Clip]:
    """(drive, camera) -> its clip, with the other camera beside it; each is made once."""
    clips: dict[tuple[str, str], Clip] = {}
    cameras: dict[tuple[str, str], Camera] = {}
    street = _street_name(recordings.tree)
    depth_tree = None if source.depth_root is None else FileTree(source.depth_root)

    def camera_of(drive: str, camera: str) -> Camera:
        date = drive[:10]
        if (date, camera) not in cameras:
            calibration = recordings.calibration(date)
            size = calibration.size(camera)
            assert size is not None  # KITTI raw's parser insists on S_rect
            K = calibration.K(camera) if source.intrinsics == "calibrated" else nominal_K(size)
            cameras[date, camera] = make_camera(K, size, f"{calibration.where} {camera}")
        return cameras[date, camera]

    def alone(drive: str, camera: str) -> Clip:
        folder = recordings.folder(drive)
        images = recordings.images(drive, camera)
        suffix = next((image.file.suffix for _, image in images.values()), ".png")

        def expect(frame: int) -> tuple[str, ImageRef]:
            name = f"{folder}/{camera}/data/{frame:010d}"
            return name, ImageRef(recordings.tree.expect(name + suffix))

        known = camera_of(drive, camera)
        clip = Clip(f"{folder}/{camera}", images, known, f"{drive}{street}", expect=expect)
        clip.truth = _truths(recordings, depth_tree, drive, camera)
        if street and camera == LABELLED:
            clip.flow_truth, clip.scene_flow_truth = _street_truths(recordings, drive)
        return clip

    def make(drive: str, camera: str) -> Clip:
        if (drive, camera) not in clips:
            clip = clips[drive, camera] = alone(drive, camera)
            other = PARTNER[camera]
            clip.remedy = f"Unpack the drive's {other}, leave the drive out, or set stereo: false for this source."
            if recordings.images(drive, other):
                clip.partner = make(drive, other)
                clip.T_partner_this = recordings.calibration(drive[:10]).T_a_b(other, camera)
        return clips[drive, camera]

    return make


def _street_name(tree: FileTree) -> str:
    """What a synthetic street's recordings add to the drive's name: all streets have the same drives.

    Streets of one seed count as one, whatever their other options.
    """
    ref = tree.find("street.json")
    if ref is None:
        return ""
    try:
        return f" of street {int(json.loads(ref.read_text())['seed'])}"
    except (ValueError, TypeError, KeyError):
        return f" of {tree.root.absolute()}"


def _truths(
    recordings: Recordings, depth_tree: FileTree | None, drive: str, camera: str
) -> Callable[[int], Truth | None]:
    """Frame number -> improved depth where `depth_root` is given, else the LiDAR scan where there is one."""
    calibration, number = recordings.calibration(drive[:10]), camera_number(camera)
    size, K = calibration.size(camera), calibration.K(camera)
    assert size is not None
    if depth_tree is not None:
        inside = f"{drive}_sync/proj_depth/groundtruth/{camera}"
        maps = [depth_tree.files(f"{folder}{inside}") for folder in DEPTH_FOLDERS]
        depths = {int(name[:-4]): ref for files in maps for name, ref in files.items() if name.endswith(".png")}
        return lambda frame: (
            Truth("depth_png", depths[frame], size, K, calibration, number) if frame in depths else None
        )
    if calibration.T_cam0rect_velo is None:
        return lambda frame: None
    scans = recordings.tree.files(f"{recordings.folder(drive)}/velodyne_points/data")

    def scan(frame: int) -> Truth | None:
        ref = scans.get(f"{frame:010d}.bin")
        return None if ref is None else Truth("velodyne", ref, size, K, calibration, number)

    return scan


def _street_truths(
    recordings: Recordings, drive: str
) -> tuple[Callable[[int], FlowTruth | None], Callable[[int], SceneFlowTruth | None]]:
    """Frame number -> a synthetic street's labels, where the next frame is there too: flow's and scene flow's."""
    labels = recordings.tree.files(f"{recordings.folder(drive)}/labels")
    images = recordings.images(drive, LABELLED)
    size = recordings.calibration(drive[:10]).size(LABELLED)
    assert size is not None

    refs = {frame: labels[name] for frame in images if (name := f"{frame:010d}.npz") in labels and frame + 1 in images}
    flow = {frame: FlowTruth("street", ref, size) for frame, ref in refs.items()}
    scene_flow = {frame: SceneFlowTruth("street", ref, size) for frame, ref in refs.items()}
    return flow.get, scene_flow.get
