"""From samples to batches of one: each view is decoded and resized once, and kept as uint8 where a cache is set."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geossl.data.check import Problem, UnreadableError, find_missing, problems_text, reason_of
from geossl.data.images import ImageReader, ImageRef, resize_to, resized_K
from geossl.data.samples import DataError, Sample, View
from geossl.formats.atomic import write_bytes_atomic
from geossl.formats.errors import FormatError
from geossl.types import Batch, Frame, collate

RESIZE_VERSION = "bilinear-antialias-1"  # part of the disk cache's keys: change it with what `resize_to` computes
THREADS = 8


class SampleDataset(Dataset[Batch]):
    """Samples, decoded, resized and uint8; a map from index to a batch of one.

    Missing files are found here, unreadable ones while they are read (with `cache: memory`: here too). With
    `on_error="raise"` either is an error that names file and reason. With "skip", samples that use a missing file are
    left out (`skipped` lists them, a warning counts them), and one found unreadable later comes as a batch of no
    images that `collate_readable` drops, with a warning (`unreadable` lists them, whichever process met them).

    Args:
        samples: What to load; `samples` then holds those that are used.
        height, width: Size of the batches' images.
        cache: "memory" decodes every view now, into one tensor that forked loader workers share; "disk" keeps each
            decoded view as a file, found again by later runs.
        cache_dir: Folder of the disk cache; None takes ~/.cache/geossl.
        on_error: What to do about an unreadable file.
        weights: Relative number of batches from each `Sample.group`; all 1 where not given.
        notes: What a training prints about the choice of the samples.

    Raises:
        UnreadableError: If files are missing (or unreadable, with `cache="memory"`) and `on_error` is "raise".
        DataError: If no sample is left, or the memory cache would not fit.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        height: int,
        width: int,
        *,
        cache: Literal["none", "memory", "disk"] = "none",
        cache_dir: str | Path | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        weights: Sequence[float] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.height, self.width = height, width
        self.on_error, self.notes = on_error, tuple(notes)
        self.samples = list(samples)
        self.skipped: list[Problem] = []
        self.weights = list(weights or [1.0] * (1 + max((s.group for s in self.samples), default=0)))
        self._reader = ImageReader()
        self._disk = _disk_folder(cache_dir) / f"{width}x{height}" if cache == "disk" else None
        self._memory: Tensor | None = None  # (views, 3, height, width) uint8
        self._place: dict[ImageRef, int] = {}
        self._drop(find_missing(self.samples))
        if cache == "memory":
            self._fill_memory()
        self._unreadable = torch.zeros(len(self.samples), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def groups(self) -> list[int]:
        """Each sample's group."""
        return [sample.group for sample in self.samples]

    @property
    def unreadable(self) -> list[str]:
        """Names of the samples that were skipped while loading, in all processes, so far."""
        return [self.samples[index].name for index in self._unreadable.nonzero().flatten().tolist()]

    def __getitem__(self, index: int) -> Batch:
        """A batch of one sample, or, with `on_error="skip"`, a batch of none for a sample that cannot be read.

        Raises:
            UnreadableError: If an image cannot be read and `on_error` is "raise"; names it and the reason.
        """
        sample = self.samples[index]
        try:
            return self._load(sample, index)
        except (OSError, FormatError) as error:
            if self.on_error == "raise":
                raise UnreadableError(f"sample {sample.name} cannot be read: {error}") from None
            self._unreadable[index] = True
            warnings.warn(f"skipped sample {sample.name}: {error}", stacklevel=2)
            return _nothing(sample, index, self.height, self.width)

    def image(self, view: View) -> Tensor:
        """(3, height, width) uint8 of a view.

        Raises:
            OSError, FormatError: If it cannot be read, or has not its camera's size.
        """
        if self._memory is not None:
            return self._memory[self._place[view.image]]
        if self._disk is None:
            return self._decode(view)
        path = self._disk / _cache_name(view.image)
        count = 3 * self.height * self.width
        try:
            stored = np.fromfile(path, np.uint8)
        except FileNotFoundError:
            stored = np.empty(0, np.uint8)
        if stored.size == count:
            return torch.from_numpy(stored).view(3, self.height, self.width)
        image = self._decode(view)
        try:
            write_bytes_atomic(path, image.numpy().tobytes())
        except OSError as error:  # a full disk is no reason to stop, nor is the image unreadable
            warnings.warn(
                f"data.cache: disk is given up: {self._disk} cannot be written ({error}). Images not stored so far "
                "are decoded each time; make room, or set data.cache_dir.",
                stacklevel=2,
            )
            self._disk = None
        return image

    def _decode(self, view: View) -> Tensor:
        return decode_view(self._reader, view, self.height, self.width)

    def _load(self, sample: Sample, index: int) -> Batch:
        # In the order of a recording, so that a video is read onwards.
        images = {view.image: self.image(view) for view in sorted(sample.views, key=lambda view: view.frame)}

        def frame(view: View) -> Frame:
            image = images[view.image][None]
            K = resized_K(view.camera.K, view.camera.size, self.height, self.width)
            return Frame(image, image, torch.from_numpy(K).float()[None])

        T = sample.T_stereo_target
        return Batch(
            target=frame(sample.target),
            sources=tuple(frame(view) for view in sample.sources),
            source_offsets=sample.source_offsets,
            stereo=None if sample.stereo is None else frame(sample.stereo),
            T_stereo_target=None if T is None else torch.from_numpy(T).float()[None],
            stereo_sources=tuple(frame(view) for view in sample.stereo_sources),
            index=torch.tensor([index]),
            names=(sample.name,),
        )

    def _fill_memory(self) -> None:
        """Decodes every distinct view once, in threads (decoders release the interpreter lock)."""
        views = {view.image: view for sample in self.samples for view in sample.views}
        ordered = sorted(views.values(), key=lambda v: (v.image.file.path, v.image.file.offset, v.image.frame or 0))
        needed = len(ordered) * 3 * self.height * self.width
        _check_fits(needed, len(ordered))
        memory = torch.empty((len(ordered), 3, self.height, self.width), dtype=torch.uint8)

        def fill(place: int) -> Problem | None:
            view = ordered[place]
            try:
                memory[place] = self._decode(view)
            except (OSError, FormatError) as error:
                return Problem(view.image, reason_of(error))
            return None

        with ThreadPoolExecutor(THREADS) as pool:
            problems = [problem for problem in pool.map(fill, range(len(ordered))) if problem is not None]
        self._memory = memory
        self._place = {view.image: place for place, view in enumerate(ordered)}
        self._drop(problems)

    def _drop(self, problems: list[Problem]) -> None:
        """Leaves out the samples that use unreadable files, or raises."""
        bad = {problem.image for problem in problems}
        kept = [sample for sample in self.samples if not bad & {view.image for view in sample.views}]
        if problems:
            text = problems_text(problems, len(self.samples) - len(kept), len(self.samples))
            if self.on_error == "raise":
                raise UnreadableError(
                    f"{text}\nRepair or unpack these files, or set data.on_error: skip to go without."
                )
            warnings.warn(f"skipped: {text}", stacklevel=3)
        if not kept:
            raise DataError("no readable sample is left.")
        self.samples, self.skipped = kept, self.skipped + problems


def decode_view(reader: ImageReader, view: View, height: int, width: int) -> Tensor:
    """(3, height, width) uint8 of a view, from its file.

    Raises:
        OSError, FormatError: If it cannot be read, or has not its camera's size.
    """
    image = reader.read(view.image)
    found = (image.shape[1], image.shape[0])
    if found != view.camera.size:
        raise FormatError(
            str(view.image),
            f"is {found[0]}x{found[1]}, but its camera's calibration is for {view.camera.size[0]}x"
            f"{view.camera.size[1]}. Restore the original image, or give intrinsics for its size.",
        )
    return resize_to(image, height, width)


def collate_readable(samples: Sequence[Batch]) -> Batch:
    """`collate`, without the samples that could not be read.

    Raises:
        UnreadableError: If none of them could.
    """
    readable = [sample for sample in samples if len(sample)]
    if not readable:
        names = ", ".join(name for sample in samples for name in sample.names)
        raise UnreadableError(f"no sample of the batch can be read: {names}. Run `geossl check` on the data.")
    return collate(readable)


def _nothing(sample: Sample, index: int, height: int, width: int) -> Batch:
    """A batch of no images that carries the name of the sample it stands for."""
    image = torch.empty((0, 3, height, width), dtype=torch.uint8)
    return Batch(Frame(image, image, torch.empty((0, 3, 3))), index=torch.tensor([index]), names=(sample.name,))


def _disk_folder(given: str | Path | None) -> Path:
    if given is not None:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geossl"


def _cache_name(image: ImageRef) -> str:
    """A name that changes with the file's path, time, length, the frame and the way of resizing."""
    file = image.file
    parts = (os.path.abspath(file.path), file.member, file.crc, *file.stamp(), image.frame, RESIZE_VERSION)
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    return f"{digest[:2]}/{digest[2:40]}.rgb"


def _check_fits(needed: int, views: int) -> None:
    try:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return
    if needed > 0.9 * max(available, 0.8 * total):
        raise DataError(
            f"cache: memory would take {needed / 1e9:.1f} GB for {views} images, and this machine has "
            f"{total / 1e9:.1f} GB. Set data.cache: disk or none, or a smaller height and width."
        )
