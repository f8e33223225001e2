"""Writing videos: MPEG-4 in an .mp4 file, which OpenCV writes without other programs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from geossl.formats.atomic import atomic_write


def write_video(path: str | Path, frames: Iterable[np.ndarray], rate_hz: float) -> None:
    """Writes (H, W, 3) uint8 RGB frames of one size as an .mp4 file; lossy, for the eye only.

    MPEG-4 as OpenCV writes it has even sizes: an odd height's last row, an odd width's last column is repeated.

    Raises:
        ValueError: If there is no frame, frames differ in size, or this OpenCV cannot write MPEG-4.
    """
    writer, size = None, (0, 0)
    with atomic_write(path) as temporary:
        try:
            for frame in frames:
                even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
                if writer is None:
                    size = (even.shape[1], even.shape[0])
                    writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), rate_hz, size)
                    if not writer.isOpened():
                        raise ValueError(f"{path} cannot be written: this OpenCV has no MPEG-4 encoder.")
                if size != (even.shape[1], even.shape[0]):  # OpenCV would leave the frame out without a word
                    raise ValueError(
                        f"{path}: frames of {size[0]}x{size[1]} and {even.shape[1]}x{even.shape[0]} cannot share a "
                        "video; save pictures instead."
                    )
                writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
        finally:
            if writer is not None:
                writer.release()
        if writer is None:
            raise ValueError(f"{path} would hold no frame; give at least one.")
