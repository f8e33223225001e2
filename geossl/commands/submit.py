"""`geossl submit`: makes the archive that a benchmark's server takes, and checks it before and after.

    kitti-flow       flow/000000_10.png .. 000199_10.png       KITTI 2015, 16-bit RGB PNG
    kitti-flow-2012  000000_10.png .. 000194_10.png            KITTI 2012, in the archive's root
    kitti-sceneflow  disp_0/, disp_1/, flow/ as kitti-flow     KITTI 2015; see submit_scene_flow
    sintel           clean/ambush_1/frame0001.flo .., final/   what Sintel's own bundler reads

Sintel's server takes no such archive: it takes the one file that the official `bundler` (a binary in Sintel's
download) writes, a fixed subset of the pixels compressed by LZMA. Unpack this archive and run
`bundler clean final out.lzma`.

Sources: the readme files of KITTI's 2012 and 2015 development kits and of Sintel's bundler.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from geossl.evaluation.flow_files import PLACES, read_flow
from geossl.formats.atomic import atomic_write
from geossl.formats.errors import FormatError
from geossl.formats.flo import decode_flo, encode_flo
from geossl.formats.image import read_image_size
from geossl.formats.kitti_png import decode_flow_png, encode_flow_png

# Sizes (width, height) of the recording days' images.
KITTI_SIZES = frozenset({(1242, 375), (1241, 376), (1238, 374), (1226, 370), (1224, 370)})
KITTI_STEP = "upload it at www.cvlibs.net/datasets/kitti, once for each method: the server allows few tries"
SINTEL_SIZES = frozenset({(1024, 436)})
SINTEL_SCENES = (
    "ambush_1", "ambush_3", "bamboo_3", "cave_3", "market_1", "PERTURBED_market_3", "market_4", "mountain_2",
    "PERTURBED_shaman_1", "temple_1", "tiger", "wall",
)  # fmt: skip
SINTEL_PAIRS = 552  # of each pass
FLOW_SUFFIXES = frozenset(suffix for _, suffix in PLACES)
LISTED = 10  # problems that a message names


@dataclass(frozen=True)
class Benchmark:
    """What a server wants.

    Attributes:
        members: Key of a prediction -> its name in the archive. A key is the end of the prediction's path.
        sizes: (width, height) that its images can have.
        next_step: What to do with the archive.
    """

    members: Mapping[str, str]
    sizes: frozenset[tuple[int, int]]
    next_step: str


@dataclass(frozen=True)
class Submission:
    """What was written.

    Attributes:
        archive: The file.
        files: Flow fields in it.
        megabytes: Its size.
        clipped_pixels: Pixels whose value the format cannot hold (KITTI's: motion over 512, disparity over 256 px).
        unknown_pixels: Pixels without an estimate, which the server fills (scene flow only).
        next_step: What to do with it.
    """

    archive: Path
    files: int
    megabytes: float
    clipped_pixels: int
    unknown_pixels: int
    next_step: str


def _kitti(count: int, folder: str, images: Path | None) -> Benchmark:
    names = [f"{number:06d}_10" for number in range(count)]
    return Benchmark({name: f"{folder}{name}.png" for name in names}, KITTI_SIZES, KITTI_STEP)


def _sintel(images: Path | None) -> Benchmark:
    """Every test image but a scene's last is the first of a pair.

    Raises:
        ValueError: If there is no complete set of test images.
    """
    if images is None:
        raise ValueError("sintel needs --images, the folder test of MPI-Sintel, which says which flow is asked for.")
    members: dict[str, str] = {}
    for render in ("clean", "final"):
        for scene in SINTEL_SCENES:
            frames = sorted(path.stem for path in (images / render / scene).glob("frame_*.png"))
            for name in frames[:-1]:
                members[f"{render}/{scene}/{name}"] = f"{render}/{scene}/{name.replace('_', '')}.flo"
    if len(members) != 2 * SINTEL_PAIRS:
        raise ValueError(
            f"{images} holds {len(members)} pairs of test images, Sintel has {2 * SINTEL_PAIRS}; point --images at "
            "the folder that contains clean/ and final/ of the whole test set."
        )
    return Benchmark(members, SINTEL_SIZES, "unpack it, run Sintel's bundler clean final out.lzma, upload out.lzma")


BENCHMARKS: Mapping[str, Callable[[Path | None], Benchmark]] = {
    "kitti-flow": partial(_kitti, 200, "flow/"),
    "kitti-flow-2012": partial(_kitti, 195, ""),
    "sintel": _sintel,
}


def submit_flow(
    benchmark: str, predictions: str | Path, archive: str | Path, images: str | Path | None = None
) -> Submission:
    """Writes a benchmark's archive from a folder of predictions, whole or not at all.

    Args:
        benchmark: One of `BENCHMARKS`.
        predictions: Folder of .flo, .npy or 16-bit .png flow; what `geossl predict flow` wrote, or another method.
        archive: The .zip to write.
        images: The test images, to compare every size with: KITTI's testing/image_2 (2012: image_0), without which a
            size must be one of KITTI's; Sintel's test, which also says which flow is asked for.

    Raises:
        ValueError: If predictions are missing, too many, of a wrong size, damaged or incomplete; lists all of it.
    """
    predictions, archive = Path(predictions), Path(archive)
    images = None if images is None else Path(images)
    if benchmark not in BENCHMARKS:
        raise ValueError(f"benchmark '{benchmark}' should be one of {', '.join(BENCHMARKS)}.")
    wanted = BENCHMARKS[benchmark](images)
    if archive.suffix != ".zip":
        raise ValueError(f"archive {archive} should end in .zip.")
    files, problems = find_files(predictions, wanted.members)
    clipped = 0
    with atomic_write(archive) as temporary:
        with zipfile.ZipFile(temporary, "w") as opened:
            for key, path in files.items():
                try:
                    flow = read_flow(path)
                except FormatError as error:
                    problems.append(str(error))
                    continue
                problems += [f"{path}: {problem}" for problem in problems_of(flow, key, wanted.sizes, images)]
                if not problems:
                    data, beyond = _encode(wanted.members[key], flow)
                    clipped += beyond
                    packing = zipfile.ZIP_STORED if wanted.members[key].endswith(".png") else zipfile.ZIP_DEFLATED
                    opened.writestr(wanted.members[key], data, packing)
        refuse(predictions, problems)
        check_archive(temporary, wanted)
    return Submission(archive, len(files), archive.stat().st_size / 1e6, clipped, 0, wanted.next_step)


def find_files(predictions: Path, members: Mapping[str, str]) -> tuple[dict[str, Path], list[str]]:
    """The file of each key, in order, and what is missing, twice there or too much.

    They are looked for in the first of flo/, npy/ and png16/ that there is, as `geossl predict flow` writes them, else
    in the whole folder.

    Raises:
        ValueError: If there is no such folder.
    """
    if not predictions.is_dir():
        raise ValueError(f"there is no folder of predictions {predictions}; make it with geossl predict.")
    root = next((predictions / place for place, _ in PLACES if place and (predictions / place).is_dir()), predictions)
    depth = len(PurePosixPath(next(iter(members))).parts)
    files: dict[str, Path] = {}
    problems = []
    for path in sorted(path for path in root.rglob("*") if path.suffix in FLOW_SUFFIXES and path.is_file()):
        key = "/".join(path.relative_to(root).with_suffix("").parts[-depth:])
        key = key.replace("/frame0", "/frame_0")  # both spellings are about
        if key not in members:
            problems.append(f"{path}: is none of the {len(members)} that are asked for")
        elif key in files:
            problems.append(f"{path}: is there twice, also as {files[key]}")
        else:
            files[key] = path
    problems += [f"{key}: is missing in {root}" for key in members if key not in files]
    return {key: files[key] for key in members if key in files}, problems


def problems_of(
    flow: np.ndarray, key: str, sizes: frozenset[tuple[int, int]], images: Path | None = None
) -> Iterator[str]:
    """What is wrong with one (H, W, 2) flow field: its size, or pixels without an estimate."""
    height, width = flow.shape[:2]
    allowed = sizes if images is None else {read_image_size(images / f"{key}.png")}
    if (width, height) not in allowed:
        expected = " or ".join(f"{w}x{h}" for w, h in sorted(allowed))
        yield f"is {width}x{height}, its image {expected}"
    lacking = int((~np.isfinite(flow).all(axis=2)).sum())
    if lacking:
        yield f"{lacking} of {width * height} pixels have no estimate (NaN, infinite, unknown or marked invalid)"


def check_archive(archive: Path, wanted: Benchmark) -> None:
    """Reads an archive as the server will: names, count, encoding and sizes.

    Raises:
        ValueError: If it is not what the server wants.
    """
    with zipfile.ZipFile(archive) as opened:
        problems = []
        if sorted(opened.namelist()) != sorted(wanted.members.values()):
            problems.append(f"holds {len(opened.namelist())} files, not the {len(wanted.members)} that are asked for")
        for name in opened.namelist():
            data = opened.read(name)
            if name.endswith(".png"):
                flow, valid = decode_flow_png(data, name)
            else:
                flow = decode_flo(data, name)
                valid = np.isfinite(flow).all(axis=2)
            if not valid.all() or (flow.shape[1], flow.shape[0]) not in wanted.sizes:
                problems.append(
                    f"{name}: is {flow.shape[1]}x{flow.shape[0]} with {int((~valid).sum())} invalid pixels"
                )
    refuse(archive, problems)


def _encode(name: str, flow: np.ndarray) -> tuple[bytes, int]:
    """The bytes of the member, and how many pixels its format had to clip."""
    if name.endswith(".flo"):
        return encode_flo(flow), 0
    beyond = (flow < -512) | (flow >= 512)
    return encode_flow_png(flow), int(beyond.any(axis=2).sum())


def refuse(where: Path, problems: list[str]) -> None:
    """Raises ValueError if there are problems; names the first."""
    if problems:
        more = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        listed = "".join(f"\n  {problem}" for problem in problems[:LISTED])
        raise ValueError(f"{where} cannot be submitted, nothing was written; {len(problems)} problems:{listed}{more}")
