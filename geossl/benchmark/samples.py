"""A sample from disk: images of a synthetic street, png and jpg, cached and not, against the published loader."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from geossl.benchmark.contest import OURS, PLAIN, Contest
from geossl.benchmark.plain import PlainModules
from geossl.config import Data, KittiRaw
from geossl.data.build import build_samples
from geossl.data.dataset import SampleDataset
from geossl.data.synthetic import StreetOptions
from geossl.data.synthetic.write import write_street
from geossl.formats.image import read_image, write_image
from geossl.types import Batch

KITTI_SIZE = 375, 1242
FRAMES = 6
GOALS = {("png", True): 50.0, ("jpg", True): 40.0, ("png", False): 2.5, ("jpg", False): 2.5}


def sample_contests(
    plain: PlainModules | None,
    folder: Path,
    size: tuple[int, int] = (192, 640),
    file_size: tuple[int, int] = KITTI_SIZE,
) -> list[Contest]:
    """A contest for png and jpg, not cached and cached: target and two sources of every sample.

    The plain loader makes jittered copies of every second sample, as published; geossl jitters in the training step,
    on the device. The results compared are the images without jitter, with the same filter on both sides (published:
    Lanczos, geossl: bilinear with antialiasing).

    Args:
        plain: The plain implementation.
        folder: Empty, for the street; it must stay while the contests are held.
        size: (height, width) of the samples.
        file_size: (height, width) of the files.
    """
    height, width = size
    street(folder / "png", FRAMES, file_size)
    as_jpg(folder / "png", folder / "jpg")
    contests = []
    for cached in (False, True):
        for suffix in ("png", "jpg"):
            dataset = street_samples(folder / suffix, height, width, cached)
            sides: dict[str, Callable[[], Any]] = {OURS: partial(load_all, dataset)}
            checks: dict[str, Callable[[], Any]] | None = None
            if plain is not None:
                sides = {PLAIN: published(plain, dataset), **sides}
                checks = {PLAIN: without_jitter(plain, dataset), OURS: partial(unit_images, dataset)}
            part = f"sample, {suffix}, {'cached' if cached else 'not cached'}, {width}x{height}"
            goal = GOALS[suffix, cached]
            contests.append(Contest(part, sides, goal, tolerance=1e-2, checks=checks, count=len(dataset)))
    return contests


def street(folder: Path, frames: int, size: tuple[int, int]) -> None:
    """Writes one drive of a street whose images are `size` = (height, width)."""
    write_street(folder, StreetOptions(sequences=1, frames=frames, height=size[0], width=size[1], standing=0), 1)


def as_jpg(folder: Path, out: Path) -> None:
    """A copy of a street with jpg instead of png images."""
    shutil.copytree(folder, out)
    for path in sorted(out.rglob("*.png")):
        write_image(path.with_suffix(".jpg"), read_image(path))
        path.unlink()


def street_samples(folder: Path, height: int, width: int, cached: bool) -> SampleDataset:
    """The samples of the left camera, each a target with two sources."""
    data = Data.model_construct(source_offsets=(-1, 1), stereo=False, stereo_sources=False)
    samples = build_samples(KittiRaw(root=folder, cameras=("image_02",)), data)
    return SampleDataset(samples, height, width, cache="memory" if cached else "none")


def load_all(dataset: SampleDataset) -> list[Batch]:
    """Every sample, as a loader's process has it."""
    return [dataset[index] for index in range(len(dataset))]


def published(plain: PlainModules, dataset: SampleDataset) -> Callable[[], Any]:
    """Loads every sample as published; every second one is jittered and mirrored."""
    size, files = (dataset.height, dataset.width), sample_files(dataset)

    def load() -> Any:
        return [
            plain.samples.load_sample(paths, K, *size, jitter=i % 2 == 1, flip=i % 2 == 1)
            for i, (paths, K) in enumerate(files)
        ]

    return load


def without_jitter(plain: PlainModules, dataset: SampleDataset) -> Callable[[], Any]:
    """The full-size images of every sample, by the plain loader with geossl's filter."""
    size, files = (dataset.height, dataset.width), sample_files(dataset)

    def load() -> Any:
        loaded = [plain.samples.load_sample(p, K, *size, False, False, Image.Resampling.BILINEAR) for p, K in files]
        return [pyramid[0] for sample in loaded for pyramid in sample["color"]]

    return load


def sample_files(dataset: SampleDataset) -> list[tuple[list[str], Any]]:
    """The image files of every sample, the target first, and its K at the training size."""
    files = []
    for index, sample in enumerate(dataset.samples):
        K = dataset[index].target.K[0].numpy()
        files.append(([view.image.file.path for view in sample.views], K))
    return files


def unit_images(dataset: SampleDataset) -> list[torch.Tensor]:
    """The images of every sample in [0, 1]."""
    return [frame.image[0] / 255 for i in range(len(dataset)) for frame in dataset[i].frames]
