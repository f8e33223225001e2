"""`geossl submit kitti-sceneflow`: disp_0, disp_1 and flow of KITTI 2015's test images in one archive, checked.

Source: the readme file of KITTI's 2015 scene flow development kit.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from geossl.commands.submit import KITTI_SIZES, KITTI_STEP, Submission, find_files, refuse
from geossl.evaluation.flow_files import read_flow
from geossl.evaluation.scene_flow_files import FOLDERS
from geossl.evaluation.score_files import read_prediction
from geossl.formats.atomic import atomic_write
from geossl.formats.errors import FormatError
from geossl.formats.image import read_image_size
from geossl.formats.kitti_png import (
    LARGEST,
    decode_disparity_png,
    decode_flow_png,
    encode_disparity_png,
    encode_flow_png,
)

SCENE_FLOW_BENCHMARK = "kitti-sceneflow"
IMAGES = 200


def submit_scene_flow(
    predictions: str | Path, archive: str | Path, images: str | Path | None = None, *, count: int = IMAGES
) -> Submission:
    """Writes the archive from a folder of predictions, whole or not at all.

    Pixels without an estimate are allowed, since the server fills them from the background; they are counted.

    Args:
        predictions: Folder with disp_0, disp_1 and flow: what `geossl predict sceneflow` wrote, or another method.
        archive: The .zip to write.
        images: KITTI's testing/image_2, to compare every size with; without it a size must be one of KITTI's.
        count: Number of test images.

    Raises:
        ValueError: If predictions are missing, too many, of a wrong size, damaged or empty; lists all of it.
    """
    predictions, archive = Path(predictions), Path(archive)
    images = None if images is None else Path(images)
    if archive.suffix != ".zip":
        raise ValueError(f"archive {archive} should end in .zip.")
    keys = [f"{number:06d}_10" for number in range(count)]
    problems: list[str] = []
    files: dict[str, Path] = {}
    for folder in FOLDERS:
        found, wrong = find_files(predictions / folder, {key: key for key in keys})
        files |= {f"{folder}/{key}.png": path for key, path in found.items()}
        problems += wrong
    clipped = unknown = 0
    with atomic_write(archive) as temporary:
        with zipfile.ZipFile(temporary, "w") as opened:
            for name, path in files.items():
                try:
                    values = _read(name, path)
                except (FormatError, ValueError) as error:
                    problems.append(str(error))
                    continue
                allowed = KITTI_SIZES if images is None else {read_image_size(images / Path(name).name)}
                problems += [f"{path}: {problem}" for problem in _problems_of(values, allowed)]
                if not problems:
                    known = _known(values)
                    clipped += _beyond(values, known)
                    unknown += int((~known).sum())
                    opened.writestr(name, _encode(values, known))
        refuse(predictions, problems)
        _check_archive(temporary, list(files))
    return Submission(archive, len(files), archive.stat().st_size / 1e6, clipped, unknown, KITTI_STEP)


def _read(name: str, path: Path) -> np.ndarray:
    return read_flow(path) if name.startswith("flow/") else read_prediction(path, "disparity_px")


def _known(values: np.ndarray) -> np.ndarray:
    """(H, W) bool of an (H, W) disparity or (H, W, 2) flow."""
    return np.isfinite(values).all(axis=2) if values.ndim == 3 else np.isfinite(values) & (values > 0)


def _problems_of(values: np.ndarray, allowed: frozenset[tuple[int, int]] | set[tuple[int, int]]) -> Iterator[str]:
    height, width = values.shape[:2]
    if (width, height) not in allowed:
        yield f"is {width}x{height}, its image {' or '.join(f'{w}x{h}' for w, h in sorted(allowed))}"
    if not _known(values).any():
        yield "has no estimate at any pixel"


def _beyond(values: np.ndarray, known: np.ndarray) -> int:
    """How many pixels the format has to clip."""
    beyond = ((values < -512) | (values >= 512)).any(axis=2) if values.ndim == 3 else values > LARGEST
    return int((beyond & known).sum())


def _encode(values: np.ndarray, known: np.ndarray) -> bytes:
    return encode_flow_png(values, known) if values.ndim == 3 else encode_disparity_png(values, known)


def _check_archive(archive: Path, names: list[str]) -> None:
    """Reads an archive as the server will: names, encoding, and one size for each image.

    Raises:
        ValueError: If it is not what the server wants.
    """
    problems = []
    sizes: dict[str, set[tuple[int, ...]]] = {}
    with zipfile.ZipFile(archive) as opened:
        if opened.namelist() != names:
            problems.append(f"holds {len(opened.namelist())} files, not the {len(names)} that were to be written")
        for name in opened.namelist():
            data = opened.read(name)
            if name.startswith("flow/"):
                shape = decode_flow_png(data, name)[1].shape
            else:
                shape = decode_disparity_png(data, name).shape
            sizes.setdefault(Path(name).name, set()).add(shape)
    problems += [f"{name}: has maps of different sizes" for name, found in sizes.items() if len(found) > 1]
    refuse(archive, problems)
