"""What predict reads: an image, a folder, a glob, a video or a data specification, as a list of named images.

Nothing is decoded until `InputImage.read` is called, which threads may do side by side.
"""

from __future__ import annotations

import glob as globbing
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from geossl.config import SOURCE_KINDS, ConfigError, Video, parse_source
from geossl.data.build import build_targets
from geossl.data.folder import IMAGES, natural_order, read_intrinsics
from geossl.data.images import ImageReader
from geossl.data.samples import Sample
from geossl.data.video import video_samples
from geossl.formats.image import read_image

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg"})
GAPS_NAMED = 3  # clips with gaps that a warning names
Item = TypeVar("Item")


@dataclass(frozen=True)
class InputImage:
    """One image to predict from.

    Attributes:
        name: Posix path without suffix; where its predictions go below OUT.
        clip: Name of the recording it belongs to; images of one clip are in temporal order.
        origin: Where it comes from, in words.
        read: Decodes it: (H, W, 3) uint8 RGB.
        K: (3, 3) intrinsics in its own pixels, None where unknown.
        frame: Its number in the clip.
    """

    name: str
    clip: str
    origin: str
    read: Callable[[], NDArray[np.uint8]]
    K: NDArray[np.float64] | None = None
    frame: int = 0


def open_source(source: str, intrinsics: Sequence[float] | None = None) -> list[InputImage]:
    """The images of a source, in order.

    Args:
        source: An image, a folder (its subfolders are clips), a glob, a video, or `kind:root[,key=value...]`.
        intrinsics: fx, fy, cx, cy in the source's pixels; else a folder's intrinsics.txt or intrinsics.json counts.

    Raises:
        ConfigError: If a data specification is wrong.
        ValueError: If there is no image, two images have the same name, or intrinsics are not four numbers.
        OSError: If the path does not exist.
    """
    K = None if intrinsics is None else intrinsics_matrix(intrinsics)
    path = Path(source)
    if is_specification(source):
        if K is not None:
            raise ConfigError(f"{source} knows its camera; intrinsics are for images, folders, globs and videos.")
        images = _from_samples(source)
    elif path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        images = _from_video(path, K)
    elif path.is_dir():
        images = _from_folder(path, K)
    elif path.is_file():
        images = _from_files([path], path.parent, K)
    elif globbing.has_magic(source):
        images = _from_glob(source, K)
    else:
        kinds = ", ".join(SOURCE_KINDS)
        raise FileNotFoundError(
            f"{source} does not exist, and is no data specification kind:root with kind of {kinds}."
        )
    if not images:
        raise ValueError(f"{source} holds no images ({', '.join(IMAGES)}).")
    seen: dict[str, str] = {}
    for image in images:
        if image.name in seen:
            raise ValueError(
                f"{seen[image.name]} and {image.origin} would both be written as '{image.name}'; rename one."
            )
        seen[image.name] = image.origin
    return images


def is_specification(source: str | Sequence[InputImage]) -> TypeGuard[str]:
    """Whether a source reads `kind:root[,key=value]` (and is no path of such a name)."""
    return isinstance(source, str) and source.partition(":")[0] in SOURCE_KINDS and not Path(source).exists()


def intrinsics_matrix(intrinsics: Sequence[float]) -> NDArray[np.float64]:
    """fx, fy, cx, cy -> (3, 3)."""
    if len(intrinsics) != 4 or not all(np.isfinite(intrinsics)) or min(intrinsics[:2]) <= 0:
        raise ValueError(f"intrinsics {tuple(intrinsics)} should be fx, fy, cx, cy in pixels, fx and fy positive.")
    fx, fy, cx, cy = intrinsics
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def _from_folder(root: Path, K: NDArray[np.float64] | None) -> list[InputImage]:
    if K is None and any((root / f"intrinsics.{kind}").is_file() for kind in ("txt", "json")):
        K = read_intrinsics(root)
    return _from_files(root.rglob("*"), root, K)


def _from_glob(pattern: str, K: NDArray[np.float64] | None) -> list[InputImage]:
    """Names are relative to the part of the pattern before its first wildcard."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if globbing.has_magic(part))
    found = (Path(path) for path in globbing.glob(pattern, recursive=True))
    return _from_files(found, Path(*parts[:fixed]), K)


def _from_files(paths: Iterable[Path], root: Path, K: NDArray[np.float64] | None) -> list[InputImage]:
    """The images among the files below a root; each folder of images is a clip."""
    files = [path for path in paths if is_image(path.relative_to(root)) and path.is_file()]
    count: dict[str, int] = {}
    images = []
    for file in sorted(files, key=lambda path: natural_order(path.as_posix())):
        relative = file.relative_to(root)
        clip = relative.parent.as_posix() if relative.parent.parts else root.resolve().name or "clip"
        count[clip] = count.get(clip, -1) + 1
        name, origin = relative.with_suffix("").as_posix(), str(file.resolve())
        images.append(InputImage(name, clip, origin, partial(read_image, file), K, count[clip]))
    return images


def is_image(path: Path) -> bool:
    """By its suffix; hidden files and what lies in hidden folders do not count."""
    return path.suffix.lower() in IMAGES and not any(part.startswith(".") for part in path.parts)


def _from_samples(spec: str) -> list[InputImage]:
    """The target images of a data specification, with their cameras."""
    return _from_views(build_targets(parse_source(spec)))


def _from_video(path: Path, K: NDArray[np.float64] | None) -> list[InputImage]:
    intrinsics = None if K is None else (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    return _from_views(video_samples(Video(root=path, intrinsics=intrinsics)))


def _from_views(samples: Sequence[Sample]) -> list[InputImage]:
    reader = ImageReader()
    images = []
    for sample in samples:
        view = sample.target
        K = view.camera.K if view.camera.known else None
        read = partial(reader.read, view.image)
        images.append(InputImage(sample.name, sample.clip, str(view.image), read, K, sample.frame))
    return images


def gaps_of(frames: Sequence[InputImage]) -> list[tuple[int, int]]:
    """The numbers (this, next) of a clip's successive frames that are not neighbours."""
    numbers = [image.frame for image in frames]
    return [(this, after) for this, after in pairwise(numbers) if after != this + 1]


def warn_of_gaps(gaps: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    """One warning for all clips, naming the first ones' widest gap."""
    if not gaps:
        return
    named = []
    for clip, jumps in list(gaps.items())[:GAPS_NAMED]:
        this, after = max(jumps, key=lambda jump: abs(jump[1] - jump[0]))
        most = f", the widest of {len(jumps)} gaps" if len(jumps) > 1 else ""
        named.append(f"{clip} (frame {this} to {after}{most})")
    more = f" and {len(gaps) - GAPS_NAMED} more clips" if len(gaps) > GAPS_NAMED else ""
    warnings.warn(
        f"frame numbers jump in {', '.join(named)}{more}; these frames are chained as neighbours, so the path across "
        "a gap is likely too short. Give all frames of a clip for a trajectory that can be trusted.",
        stacklevel=3,
    )


def read_ahead(
    readers: ThreadPoolExecutor, images: Sequence[InputImage], ahead: int
) -> Iterator[tuple[InputImage, NDArray[np.uint8]]]:
    """The images in order, decoded by the pool up to `ahead` of the one in use."""
    queue: deque[tuple[InputImage, Future[NDArray[np.uint8]]]] = deque()
    for image in images:
        queue.append((image, readers.submit(image.read)))
        if len(queue) > ahead:
            first, future = queue.popleft()
            yield first, future.result()
    for image, future in queue:
        yield image, future.result()


def grouped(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    group: list[Item] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
