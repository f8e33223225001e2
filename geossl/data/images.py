"""Decoding an image file or a video frame, and resizing it once to the training size with its intrinsics.

Resizing is bilinear with antialiasing (a triangle filter as wide as the reduction), pixel areas aligned, the same as
`geometry.transforms.resize_image` does for prediction. Of area averaging, antialiased bilinear and antialiased
bicubic, reducing 1242 to 640 columns: two views of one random texture (band limits 0.3 and 0.5 cycles a pixel), each
reduced and one warped onto the other, differ by 12.3, 10.8 and 10.8 % of the mean gradient, and edges move by at most
0.014, 0.028 and 0.002 pixels of the original. Bilinear is a third of area averaging's time.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.formats.errors import FormatError
from geossl.formats.files import FileRef
from geossl.formats.image import decode_image, read_image_size

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_FAR = 64  # frames ahead up to which decoding on is quicker than seeking


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image file, or one frame of a video file."""

    file: FileRef
    frame: int | None = None

    def __str__(self) -> str:
        return str(self.file) if self.frame is None else f"{self.file} frame {self.frame}"


class InTurn:
    """A lock that threads get in the order in which they ask."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._turns: deque[threading.Lock] = deque()  # the first holds it; each is released when its turn comes

    def __enter__(self) -> None:
        turn = threading.Lock()
        turn.acquire()
        with self._mutex:
            self._turns.append(turn)
            waits = len(self._turns) > 1
        if waits:
            turn.acquire()

    def __exit__(self, *error: object) -> None:
        with self._mutex:
            self._turns.popleft()
            if self._turns:
                self._turns[0].release()


class ImageReader:
    """Decodes images; keeps the videos it reads open, each process its own.

    Threads get a video in turn: a plain lock would let one overtake the other, and each time send the video back.
    """

    def __init__(self) -> None:
        self._videos: dict[tuple[int, str], tuple[Video, InTurn]] = {}
        self._lock = threading.Lock()

    def read(self, image: ImageRef) -> np.ndarray:
        """(H, W, 3) uint8 RGB.

        Raises:
            FileNotFoundError: If the file is missing.
            FormatError: If it is cut off or no image.
        """
        if image.frame is None:
            return decode_image(image.file.read(), str(image.file))
        key = (os.getpid(), image.file.path)
        with self._lock:
            if key not in self._videos:
                self._videos[key] = Video(image.file.path), InTurn()
            video, turn = self._videos[key]
        with turn:
            return video.read(image.frame)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


class Video:
    """One open video file, read frame by frame or by seeking.

    Raises:
        FileNotFoundError: If there is no such file.
        FormatError: If OpenCV cannot decode it.
    """

    def __init__(self, path: str) -> None:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"video {path} does not exist")
        self.path = path
        self._capture = cv2.VideoCapture(path)
        self._next = 0
        self.rate_hz = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if not self._capture.isOpened():
            raise FormatError(path, "is no video that OpenCV can decode; convert it, e.g. with ffmpeg to H.264.")

    def read(self, frame: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a frame, counted from 0.

        Raises:
            FormatError: If the video has no such frame.
        """
        if not self._next <= frame < self._next + _FAR:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, frame)
            self._next = frame
        while self._next < frame and self._capture.grab():
            self._next += 1
        done, image = self._capture.read()
        if not done or self._next != frame:
            self._next = -_FAR
            raise FormatError(self.path, f"frame {frame} cannot be decoded; the header says {self.count} frames.")
        self._next += 1
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def image_size(image: ImageRef) -> tuple[int, int]:
    """(width, height) of an image, from the header of a file on disk, else by decoding it.

    Raises:
        FileNotFoundError, FormatError: If it cannot be read.
    """
    if image.frame is None and image.file.member is None:
        return read_image_size(image.file.path)
    height, width, _ = ImageReader().read(image).shape
    return width, height


def resize_to(image: np.ndarray, height: int, width: int) -> Tensor:
    """(H, W, 3) uint8 -> (3, height, width) uint8, bilinear with antialiasing."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]  # (1, 3, H, W), channels last
    if tuple(image.shape[:2]) != (height, width):
        pixels = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return pixels[0].contiguous()


def resized_K(K: np.ndarray, from_size: tuple[int, int], height: int, width: int) -> np.ndarray:
    """(3, 3) of an image of `from_size` (width, height) after resizing: f' = f s, c' = (c + 0.5) s - 0.5."""
    sx, sy = width / from_size[0], height / from_size[1]
    return np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]]) @ K
