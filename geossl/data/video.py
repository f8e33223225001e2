"""A video file, frame by frame; `stride` or `rate_hz` thins it out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from geossl.config import Data
from geossl.config import Video as VideoSource
from geossl.data.folder import guessed_camera, matrix
from geossl.data.images import ImageRef, Video
from geossl.data.samples import Camera, Clip, DataError, Sample, Wanted, clip_samples, make_camera, require_samples
from geossl.formats.errors import FormatError
from geossl.formats.files import FileRef


def samples(source: VideoSource, data: Data | Wanted) -> list[Sample]:
    """The samples of a video; `source_offsets` count the frames that are taken.

    Raises:
        FileNotFoundError: If there is no such file.
        FormatError: If it cannot be decoded.
        DataError: If intrinsics are missing or do not fit, stereo is wanted, or there are no samples.
    """
    if source.intrinsics is None:
        raise DataError(f"video source {source.root} needs intrinsics: [fx, fy, cx, cy] in pixels of its frames.")
    clip = video_clip(source, make=lambda size: make_camera(matrix(source.intrinsics or ()), size, str(source.root)))
    wanted = Wanted.of(source, data)
    found = clip_samples(clip, wanted)
    return require_samples(found, source, f"{len(clip.images)} frames are taken, too few for {list(wanted.offsets)}.")


def video_samples(source: VideoSource) -> list[Sample]:
    """Samples of the frames alone, to predict from; without intrinsics the camera is guessed."""
    intrinsics = source.intrinsics

    def camera(size: tuple[int, int]) -> Camera:
        return guessed_camera(size) if intrinsics is None else make_camera(matrix(intrinsics), size, str(source.root))

    return clip_samples(video_clip(source, camera), Wanted())


def video_clip(source: VideoSource, make: Callable[[tuple[int, int]], Camera]) -> Clip:
    """The clip of the frames that are taken.

    Raises:
        FileNotFoundError, FormatError: If the video is missing or holds no frames that can be decoded.
    """
    path = Path(source.root)
    video = Video(str(path))
    height, width, _ = video.read(0).shape
    taken = taken_frames(decodable_frames(video), video.rate_hz, source)
    ref = FileRef(str(path))
    images = {i: (f"{path.stem}/{frame:06d}", ImageRef(ref, int(frame))) for i, frame in enumerate(taken)}
    clip = Clip(path.stem, images, make((width, height)), str(path.absolute()))
    clip.remedy = "A video has one camera: set stereo: false for this source."
    return clip


def taken_frames(count: int, rate_hz: float, source: VideoSource) -> np.ndarray:
    """The frame numbers that a source takes of `count` frames at `rate_hz`.

    Raises:
        DataError: If a target rate is asked of a video that does not say its own, or that is slower.
    """
    if source.rate_hz is None:
        return np.arange(0, count, source.stride)
    if not rate_hz > 0:
        raise DataError(f"{source.root} does not say its frame rate; use stride instead of rate_hz.")
    if source.rate_hz > rate_hz * 1.01:
        raise DataError(f"{source.root} has {rate_hz:.4g} frames a second; rate_hz: {source.rate_hz:g} is more.")
    step = max(rate_hz / source.rate_hz, 1.0)
    return np.floor(np.arange(0, count / step) * step + 0.5).astype(int).clip(max=count - 1)


def decodable_frames(video: Video) -> int:
    """How many frames can be decoded: as many as the header says if the last of them can, else as counted."""
    if video.count > 0:
        try:
            video.read(video.count - 1)
            return video.count
        except FormatError:
            pass
    count = 0
    while True:
        try:
            video.read(count)
        except FormatError:
            return count
        count += 1
