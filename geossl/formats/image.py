"""Colour images: RGB uint8, upright, never partly decoded."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from geossl.formats.atomic import write_bytes_atomic
from geossl.formats.errors import FormatError

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image file.

    Returns:
        (H, W, 3) uint8 RGB. Grey is replicated, alpha dropped, 16 bits reduced to 8, EXIF orientation applied.

    Raises:
        FormatError: If the file is no image, or is cut off.
        OSError: If it cannot be opened.
    """
    return decode_image(Path(path).read_bytes(), str(path))


def decode_image(data: bytes, where: str) -> np.ndarray:
    """As `read_image`, from the bytes of a file; `where` names it in messages."""
    check_complete(data, where)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise FormatError(where, "is not a readable image; copy or unpack it again.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_grey(data: bytes, where: str) -> np.ndarray:
    """(H, W) uint8 grey of an image file's bytes, as OpenCV's decoder makes it; errors as `read_image`.

    It differs by a level here and there from the grey of the decoded colours.
    """
    check_complete(data, where)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise FormatError(where, "is not a readable image; copy or unpack it again.")
    return image


def write_image(path: str | Path, image: np.ndarray, *, jpeg_quality: int = 95) -> None:
    """Writes (H, W, 3) uint8 RGB or (H, W) uint8 grey as the format that the suffix names.

    Raises:
        ValueError: If the array is no such image, or the suffix names no image format.
    """
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"image has shape {image.shape} and type {image.dtype}; expected (H, W, 3) or (H, W) uint8.")
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    write_bytes_atomic(path, encode(path, pixels, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if jpeg else None))


def encode(path: Path, pixels: np.ndarray, options: list[int] | None = None) -> bytes:
    """Encodes an array in OpenCV's channel order as the format of the path's suffix."""
    try:
        done, data = cv2.imencode(path.suffix, np.ascontiguousarray(pixels), options or [])
    except cv2.error:
        done = False
    if not done:
        raise ValueError(
            f"{path} cannot be written: no image format has the suffix '{path.suffix}'. Use .png or .jpg."
        )
    return data.tobytes()


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of an image file, from its header where possible.

    Raises:
        FormatError: If the file is no image.
    """
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    size = None
    if head.startswith(PNG_MAGIC) and len(head) >= 24:
        size = struct.unpack(">II", head[16:24])
    elif head.startswith(b"\xff\xd8"):
        jpeg_size, exif, _ = _jpeg_header(head)
        size = None if exif else jpeg_size  # EXIF may turn the image: decode
    if size is not None:
        return size[0], size[1]
    height, width, _ = read_image(path).shape
    return width, height


def check_complete(data: bytes, where: str) -> None:
    """Refuses a PNG or JPEG that is cut off; OpenCV would fill the rest with grey without a word."""
    if not data:
        raise FormatError(where, "is empty; copy or unpack it again.")
    cut = False
    if data.startswith(PNG_MAGIC):
        cut = data.rfind(_PNG_END) < 0
    elif data.startswith(b"\xff\xd8"):
        _, _, scan = _jpeg_header(data)
        cut = scan is None or data.find(b"\xff\xd9", scan) < 0  # 0xFF in image data is always followed by 0
    if cut:
        raise FormatError(where, f"is cut off after {len(data)} bytes; copy or unpack it again.")


def _jpeg_header(data: bytes) -> tuple[tuple[int, int] | None, bool, int | None]:
    """Size, whether EXIF is there, and where the first scan starts; None for what is not in `data`."""
    size, exif, position = None, False, 2
    while position + 9 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF:
            break
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _JPEG_SIZE_MARKERS:
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            size = (width, height)
        exif |= marker == 0xE1 and data[position + 4 : position + 8] == b"Exif"
        if marker == 0xDA:
            return size, exif, position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return size, exif, None
