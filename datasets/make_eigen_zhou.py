"""Writes the Eigen-Zhou training and validation lists of the KITTI raw data under a folder, by rule.

geossl needs no such lists (`split: eigen_zhou_train` makes them in memory); they are for other programs.

    python datasets/make_eigen_zhou.py datasets/kitti_raw -o eigen_zhou
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from geossl.data.kitti_raw import Recordings
from geossl.data.splits import RawFrame, eigen_zhou
from geossl.formats.atomic import write_text_atomic
from geossl.formats.files import FileTree

PUBLISHED = {"train": 39_810, "val": 4_424}


def line(entry: RawFrame) -> str:
    """`2011_09_26/2011_09_26_drive_0001_sync 5 l`, the form that `split:` reads back."""
    side = "l" if entry.camera == "image_02" else "r"
    return f"{entry.drive[:10]}/{entry.drive}_sync {entry.frame} {side}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder with the dates of KITTI raw, or with its zip files")
    parser.add_argument("-o", "--out", type=Path, default=Path("eigen_zhou"), help="folder of the lists")
    options = parser.parse_args()
    recordings = Recordings(FileTree(options.root))
    cameras = ("image_02", "image_03")
    frames = {(d, c): list(recordings.images(d, c)) for d in recordings.drives for c in cameras}
    complete = True
    for name, entries in zip(PUBLISHED, eigen_zhou(frames), strict=True):
        path = options.out / f"{name}_files.txt"
        write_text_atomic(path, "".join(line(entry) + "\n" for entry in entries))
        complete &= len(entries) == PUBLISHED[name]
        print(f"{path}: {len(entries)} entries, published {PUBLISHED[name]}")
    if not complete:
        print(f"{len(recordings.drives)} drives are here; the published sizes need all of KITTI raw.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
