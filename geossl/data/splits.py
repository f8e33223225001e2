"""Splits of KITTI by rule: Eigen's test images, the Eigen-Zhou training set, file lists; KITTI's recordings by name.

The lists that no rule gives (Eigen's 697 images, the frames in which the car stands, where KITTI 2012 and 2015 were
taken from) lie in `lists/` with their sources.

Differs: Zhou et al. draw 10 % of the training entries for validation with NumPy's generator over a directory listing,
which nobody can repeat. Here every tenth entry of the list sorted by (drive, camera, frame), beginning with the first,
is validation: of 44,234 entries that is 4,424, the published number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from geossl.data.samples import DataError

SPLITS = ("eigen_zhou_train", "eigen_zhou_val", "eigen_test")
VALIDATION_EVERY = 10

# Source: KITTI odometry development kit, readme: sequence -> (raw drive, first frame, last frame).
ODOMETRY_DRIVES = {
    "00": ("2011_10_03_drive_0027", 0, 4540),
    "01": ("2011_10_03_drive_0042", 0, 1100),
    "02": ("2011_10_03_drive_0034", 0, 4660),
    "03": ("2011_09_26_drive_0067", 0, 800),
    "04": ("2011_09_30_drive_0016", 0, 270),
    "05": ("2011_09_30_drive_0018", 0, 2760),
    "06": ("2011_09_30_drive_0020", 0, 1100),
    "07": ("2011_09_30_drive_0027", 0, 1100),
    "08": ("2011_09_30_drive_0028", 1100, 5170),
    "09": ("2011_09_30_drive_0033", 0, 1590),
    "10": ("2011_09_30_drive_0034", 0, 1200),
}


@dataclass(frozen=True, order=True, slots=True)
class RawFrame:
    """One image of KITTI raw.

    Attributes:
        drive: Without suffix, e.g. `2011_09_26_drive_0001`.
        camera: `image_00` to `image_03`.
        frame: Its number.
    """

    drive: str
    camera: str
    frame: int


@cache
def eigen_test() -> tuple[RawFrame, ...]:
    """Eigen's 697 test images, in the published order."""
    return tuple(
        RawFrame(drive, "image_02", int(frame)) for drive, *frames in _lines("eigen_test.txt") for frame in frames
    )


@cache
def eigen_test_drives() -> frozenset[str]:
    """The 28 drives from which the Eigen test images were taken; Eigen-Zhou training uses none of them."""
    return frozenset(item.drive for item in eigen_test())


@cache
def static_frames() -> frozenset[tuple[str, int]]:
    """(drive, frame) of the 8,044 frames in which the car stands still."""
    found: set[tuple[str, int]] = set()
    for drive, *ranges in _lines("static_frames.txt"):
        for text in ranges:
            first, _, last = text.partition("-")
            found.update((drive, frame) for frame in range(int(first), int(last or first) + 1))
    return frozenset(found)


@cache
def kitti_stereo_frames() -> Mapping[tuple[int, str, str], tuple[str, int]]:
    """(year, subset, image) -> (raw drive, frame of image _10), e.g. (2015, training, 000002); some are unknown."""
    return {
        (int(year), subset, image): (drive, int(frame))
        for year, subset, image, drive, frame in _lines("kitti_stereo_frames.txt")
    }


def eigen_zhou(frames: Mapping[tuple[str, str], Iterable[int]]) -> tuple[list[RawFrame], list[RawFrame]]:
    """The Eigen-Zhou training and validation entries.

    All frames of the colour cameras of drives without test images, in which the car moves, and whose neighbours in
    time exist (so without the first and last of each drive).

    Args:
        frames: (drive, camera) -> the frame numbers that exist. The sets depend on it: the published sizes, 39,810
            and 4,424, need the whole of KITTI raw.

    Returns:
        Training and validation entries, sorted.
    """
    entries = []
    for (drive, camera), numbers in sorted(frames.items()):
        if camera not in ("image_02", "image_03") or drive in eigen_test_drives():
            continue
        existing = set(numbers)
        for frame in sorted(existing):
            if {frame - 1, frame + 1} <= existing and (drive, frame) not in static_frames():
                entries.append(RawFrame(drive, camera, frame))
    train = [entry for position, entry in enumerate(entries) if position % VALIDATION_EVERY]
    return train, entries[::VALIDATION_EVERY]


def read_file_list(path: str | Path) -> list[RawFrame]:
    """Reads a list of KITTI raw images, in any of the three forms in use, one a line; `#` starts a comment.

    * `2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005.png` (Eigen),
    * `2011_09_26/2011_09_26_drive_0001_sync 5 l` (Monodepth2; without a side, the left),
    * `2011_09_26_drive_0001_sync_02 0000000005` (SfMLearner).

    Raises:
        DataError: If the file is missing, empty, or a line has another form.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"split '{path}' is neither a file list nor one of {', '.join(SPLITS)}.")
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        text = line.split("#", 1)[0].strip()
        if text:
            entry = _parse_line(text)
            if entry is None:
                raise DataError(
                    f"{path} line {number}: {text[:100]!r} should read like "
                    "2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005.png or "
                    "2011_09_26/2011_09_26_drive_0001_sync 5 l, without leaving the data root."
                )
            entries.append(entry)
    if not entries:
        raise DataError(f"{path} lists no images.")
    return entries


_DRIVE = r"(?P<drive>(?P<date>\d{4}_\d\d_\d\d)_drive_\d{4,})(?:_sync)?"
_FORMS = (
    re.compile(rf"(?:\d{{4}}_\d\d_\d\d/)?{_DRIVE}/image_0(?P<camera>[0-3])/data/(?P<frame>\d+)(?:\.\w+)?"),
    re.compile(rf"(?:\d{{4}}_\d\d_\d\d/)?{_DRIVE}\s+(?P<frame>\d+)(?:\s+(?P<side>[lr]))?"),
    re.compile(rf"{_DRIVE}_0(?P<camera>[0-3])\s+(?P<frame>\d+)"),
)


def _parse_line(text: str) -> RawFrame | None:
    for form in _FORMS:
        match = form.fullmatch(text)
        if match:
            fields = match.groupdict()
            camera = fields.get("camera") or ("3" if fields.get("side") == "r" else "2")
            return RawFrame(fields["drive"], f"image_0{camera}", int(fields["frame"]))
    return None


def _lines(name: str) -> list[list[str]]:
    text = files("geossl.data").joinpath("lists", name).read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]
