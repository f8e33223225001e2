"""A folder of images of one camera, optionally with the right camera's folder.

root/000001.jpg, ...            one clip, in natural name order (2 before 10), or
root/monday/000001.jpg, ...     every subfolder with images is a clip of its own
root/intrinsics.txt             fx fy cx cy (or the nine numbers of K), or
root/intrinsics.json            {"fx": ..., "fy": ..., "cx": ..., "cy": ...} or {"K": [[...], ...]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geossl.config import Data, Folder
from geossl.data.images import IMAGE_SUFFIXES, ImageRef, image_size
from geossl.data.samples import (
    Camera,
    Clip,
    DataError,
    Sample,
    Wanted,
    clip_samples,
    make_camera,
    require_samples,
)
from geossl.formats.files import FileRef

IMAGES = (*IMAGE_SUFFIXES, ".bmp", ".ppm", ".webp", ".tif", ".tiff")
GUESSED_FIELD_OF_VIEW_DEG = 60.0


def samples(source: Folder, data: Data | Wanted) -> list[Sample]:
    """The samples of a folder of images.

    Raises:
        FileNotFoundError: If the root, the right folder or the intrinsics are missing.
        DataError: If there are no samples, K does not fit the images, or stereo is wanted without a right camera.
    """
    root, wanted = Path(source.root), Wanted.of(source, data)
    if not root.is_dir():
        raise FileNotFoundError(f"data root {root} does not exist or is no folder; set the source's root.")
    K = read_intrinsics(root, source.intrinsics)
    right = _right_folder(source, root)
    found: list[Sample] = []
    clips = _clips(root, exclude=right)
    for folder, paths in clips.items():
        clip = _clip(root, folder, paths, K)
        clip.remedy = "Give right: and baseline_m:, or set stereo: false for this source."
        if right is not None:
            names = {path.name: i for i, path in enumerate(paths)}
            others = natural_images(right / folder)
            images = {names[p.name]: (p.stem, ImageRef(FileRef(str(p)))) for p in others if p.name in names}
            clip.remedy = f"{right / folder} holds no images of the names in {root / folder}."
            if images:
                clip.partner = Clip(f"{right.name}/{folder}", images, clip.camera, clip.recording)
                clip.T_partner_this = np.eye(4)
                clip.T_partner_this[0, 3] = -float(source.baseline_m or 0)
        found += clip_samples(clip, wanted)
    count = sum(len(paths) for paths in clips.values())
    return require_samples(
        found,
        source,
        f"it holds {count} images in {len(clips)} clips, none with the views that source_offsets="
        f"{list(wanted.offsets)} and stereo={str(wanted.stereo).lower()} ask for."
        if count
        else f"it holds no images ({', '.join(IMAGES)}), nor do its subfolders.",
    )


def guessed_camera(size: tuple[int, int]) -> Camera:
    """A camera of 60 degrees horizontal field of view; `known` is False."""
    width, height = size
    focal = width / (2 * np.tan(np.radians(GUESSED_FIELD_OF_VIEW_DEG) / 2))
    return make_camera(matrix((focal, focal, (width - 1) / 2, (height - 1) / 2)), size, "guess", known=False)


def read_intrinsics(root: Path, given: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """(3, 3) pixels: as given, or from intrinsics.txt or intrinsics.json in `root`.

    Raises:
        FileNotFoundError: If there are none.
        DataError: If the file holds something else.
    """
    if given is not None:
        return matrix(given)
    text, js = root / "intrinsics.txt", root / "intrinsics.json"
    expected = "fx fy cx cy, or the nine numbers of K, in pixels of the image files"
    try:
        if text.is_file():
            values = [float(word) for word in text.read_text(encoding="utf-8").replace(",", " ").split()]
            return matrix(values)
        if js.is_file():
            read = json.loads(js.read_text(encoding="utf-8"))
            K = (
                np.array(read["K"], np.float64).reshape(-1)
                if "K" in read
                else [read[k] for k in ("fx", "fy", "cx", "cy")]
            )
            return matrix([float(v) for v in K])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{text if text.is_file() else js} cannot be read ({error}); expected {expected}.") from None
    raise FileNotFoundError(
        f"{root} has no intrinsics.txt or intrinsics.json; write one ({expected}), or set the source's intrinsics."
    )


def matrix(values: Sequence[float]) -> np.ndarray:
    """(3, 3) of fx, fy, cx, cy, or of the nine numbers of K row by row.

    Raises:
        DataError: If there are as many numbers as neither.
    """
    if len(values) == 4:
        fx, fy, cx, cy = values
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
    if len(values) == 9:
        return np.array(values, np.float64).reshape(3, 3)
    raise DataError(f"{len(values)} numbers")


def natural_images(folder: Path) -> list[Path]:
    """The images of a folder in natural name order: frame_2 before frame_10.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"image folder {folder} does not exist.")
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGES and not path.name.startswith(".")]
    return sorted(found, key=lambda path: natural_order(path.name))


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts frame_2 before frame_10."""
    pieces = re.split(r"(\d+)", name)
    return [(1, int(p), p) if p.isdigit() else (0, 0, p.lower()) for p in pieces]


def _clips(root: Path, exclude: Path | None) -> dict[str, list[Path]]:
    """Relative folder -> its images, for every folder below the root that has some."""
    folders = [root, *sorted(path for path in root.rglob("*") if path.is_dir())]
    if exclude is not None:
        out = exclude.resolve()
        folders = [path for path in folders if not path.resolve().is_relative_to(out)]
    found = {path.relative_to(root).as_posix(): natural_images(path) for path in folders}
    return {name: paths for name, paths in found.items() if paths}


def _clip(root: Path, folder: str, paths: list[Path], K: np.ndarray) -> Clip:
    images = {
        i: (path.relative_to(root).with_suffix("").as_posix(), ImageRef(FileRef(str(path))))
        for i, path in enumerate(paths)
    }
    size = image_size(images[0][1])
    name = root.absolute().name if folder == "." else folder
    return Clip(name, images, make_camera(K, size, f"intrinsics of {root}"), str((root / folder).absolute()))


def _right_folder(source: Folder, root: Path) -> Path | None:
    if source.right is None:
        return None
    if source.baseline_m is None:
        raise DataError(f"folder source {root} gives right: {source.right} but no baseline_m (metres); give both.")
    for candidate in (root / source.right, Path(source.right)):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"right folder {source.right} exists neither in {root} nor here.")
