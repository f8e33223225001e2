"""Successive images: what optical flow is predicted from. Nothing is decoded before `read_pairs`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geossl.config import parse_source
from geossl.data.build import build_targets
from geossl.data.images import ImageReader
from geossl.data.samples import Sample, View, Wanted
from geossl.inputs import InputImage, is_specification, open_source
from geossl.predict.common import Progress, predict_batches

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """Two successive images of a clip and those around them.

    Attributes:
        images: By time step from the first image; 0 and 1 are always there.
    """

    images: Mapping[int, InputImage]

    @property
    def first(self) -> InputImage:
        return self.images[0]

    @property
    def second(self) -> InputImage:
        return self.images[1]

    @property
    def text(self) -> str:
        return f"{self.first.origin} -> {self.second.origin}"

    def nearest(self, step: int) -> int:
        """The step itself where there is such an image, else the nearest step that there is."""
        return min(self.images, key=lambda known: (abs(known - step), abs(known)))


def open_pairs(
    source: str | Sequence[InputImage],
    steps: Iterable[int] = (),
    second: str | Path | None = None,
    intrinsics: Sequence[float] | None = None,
) -> list[Pair]:
    """The pairs of successive images of a source, in order.

    Args:
        source: As `open_source` takes, or what it gave: each image is paired with the next number of its clip. Of a
            data specification every target is paired with the image after it, whether that is a target or not.
        steps: Time steps from the first image to have beside 0 and 1, where there is such an image.
        second: The second image, of a source that is one image.
        intrinsics: As `open_source` takes, of a source to open.

    Raises:
        ValueError: If there are no two successive images, or `second` is given for a source of several images.
        OSError, ConfigError, DataError: As `open_source`.
    """
    around = sorted(set(steps) - {0, 1})
    if second is not None:
        return [_explicit_pair(source, second, intrinsics)]
    if is_specification(source) and intrinsics is None:
        return _from_samples(source, around)
    images = open_source(source, intrinsics) if isinstance(source, str) else source
    numbered = {(image.clip, image.frame): image for image in images}
    pairs = []
    for image in images:
        near = {step: numbered.get((image.clip, image.frame + step)) for step in (0, 1, *around)}
        present = {step: other for step, other in near.items() if other is not None}
        if 1 in present:
            pairs.append(Pair(present))
    if not pairs:
        raise ValueError(
            f"flow needs two successive images of a clip, but {images[0].origin} has no next one, nor has any other "
            f"of the {len(images)} images given. Give a folder or video, or one image and --second IMAGE."
        )
    return pairs


def _explicit_pair(source: str | Sequence[InputImage], second: str | Path, intrinsics: Sequence[float] | None) -> Pair:
    images = open_source(source, intrinsics) if isinstance(source, str) else source
    others = open_source(str(second))
    for count, what in ((len(images), source), (len(others), second)):
        if count != 1:
            raise ValueError(f"--second pairs one image with one image, but {what} holds {count}; name the file.")
    return Pair({0: images[0], 1: others[0]})


def _from_samples(spec: str, around: Sequence[int]) -> list[Pair]:
    """The targets of a data specification, each with the frames around it that its recording has."""
    reader, pairs = ImageReader(), []
    for sample in build_targets(parse_source(spec), Wanted(offsets=(1,), near=tuple(around))):
        views = {0: sample.target, 1: sample.sources[0], **sample.near}
        pairs.append(Pair({step: _image(sample, step, view, reader) for step, view in views.items()}))
    return pairs


def _image(sample: Sample, step: int, view: View, reader: ImageReader) -> InputImage:
    """One view of a sample; the name is the pair's."""
    K = view.camera.K if view.camera.known else None
    read = partial(reader.read, view.image)
    return InputImage(sample.name, sample.clip, str(view.image), read, K, sample.frame + step)


def require_cameras(pairs: Sequence[Pair], what: str) -> None:
    """Raises ValueError, which names `what` needs them, if the intrinsics of a pair are not known."""
    unknown = next((pair for pair in pairs if pair.first.K is None), None)
    if unknown is not None:
        raise ValueError(
            f"{what} needs the camera, and {unknown.first.origin} has none; give --intrinsics fx,fy,cx,cy in "
            "pixels of the source."
        )


def read_pairs(
    readers: ThreadPoolExecutor, pairs: Sequence[Pair], steps: Sequence[int], ahead: int
) -> Iterator[tuple[Pair, dict[int, Picture]]]:
    """The pairs in order with their images of `steps`, decoded up to `ahead` pairs of the one in use.

    Where there is no image of a step, the nearest takes its place. An image that neighbouring pairs share is decoded
    once, and is the same array in both.

    Raises:
        ValueError: If the images of a pair differ in size.
    """
    queue: deque[tuple[Pair, dict[str, Future[Picture]]]] = deque()
    decoding: dict[str, Future[Picture]] = {}  # of the newest pair, by the image's origin
    for pair in pairs:
        needed = {pair.images[pair.nearest(step)].origin: pair.images[pair.nearest(step)] for step in steps}
        decoding = {key: decoding.get(key) or readers.submit(image.read) for key, image in needed.items()}
        queue.append((pair, decoding))
        if len(queue) > ahead:
            yield _decoded(*queue.popleft(), steps)
    while queue:
        yield _decoded(*queue.popleft(), steps)


def predict_pairs(
    todo: Sequence[Pair],
    steps: Sequence[int],
    predict: Callable[[list[tuple[Pair, dict[int, Picture]]]], Iterable[Callable[[], None]]],
    batch_size: int,
    total: int,
    progress: Progress | None,
) -> None:
    """`predict_batches` of pairs with their images of `steps`; of the `total` pairs, all but these are done before."""
    predict_batches(
        lambda readers: read_pairs(readers, todo, steps, 2 * batch_size),
        predict,
        batch_size,
        (total - len(todo), total),
        progress,
    )


def _decoded(
    pair: Pair, decoding: Mapping[str, Future[Picture]], steps: Sequence[int]
) -> tuple[Pair, dict[int, Picture]]:
    images = {step: decoding[pair.images[pair.nearest(step)].origin].result() for step in steps}
    height, width, _ = images[0].shape
    for step, image in images.items():
        if image.shape != images[0].shape:
            raise ValueError(
                f"{pair.first.origin} has {width}x{height} pixels, {pair.images[pair.nearest(step)].origin} has "
                f"{image.shape[1]}x{image.shape[0]}; flow needs images of one size. Crop or resize one of them."
            )
    return pair, images
