"""KITTI's 16-bit PNG files: depth, disparity and flow.

Convention: a disparity of 12.5 px is stored as 3200, a depth of 80 m as 20480, a flow of (1, -1) px as R = 32832,
G = 32704, B = 1. Zero means unknown.
Source: the KITTI stereo/flow and depth development kits, www.cvlibs.net/datasets/kitti.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from geossl.formats.atomic import write_bytes_atomic
from geossl.formats.errors import FormatError
from geossl.formats.image import PNG_MAGIC, check_complete, encode

LARGEST = 65535 / 256  # metres or pixels: what 16 bits hold


def read_depth_png(path: str | Path) -> np.ndarray:
    """Reads a depth map: (H, W) float32 z-depth in metres, 0 where unknown.

    Raises:
        FormatError: If the file is no 16-bit grey PNG.
        OSError: If it cannot be opened.
    """
    return decode_depth_png(Path(path).read_bytes(), str(path))


def decode_depth_png(data: bytes, where: str) -> np.ndarray:
    """As `read_depth_png`, from the bytes of a file; `where` names it in messages."""
    return _decode_16_bit(data, where, channels=1).astype(np.float32) / 256


def write_depth_png(path: str | Path, depth: np.ndarray) -> None:
    """Writes (H, W) z-depth in metres, rounded to 1/256 m.

    Values that are not finite or not positive become unknown; known ones are kept within 1/256 and 255.996 m.
    """
    write_bytes_atomic(path, encode(Path(path), _to_16_bit(depth, "depth")))


def read_disparity_png(path: str | Path) -> np.ndarray:
    """Reads a disparity map: (H, W) float32 in pixels, 0 where unknown. Raises as `read_depth_png`."""
    return decode_disparity_png(Path(path).read_bytes(), str(path))


def decode_disparity_png(data: bytes, where: str) -> np.ndarray:
    """As `read_disparity_png`, from the bytes of a file; `where` names it in messages."""
    return _decode_16_bit(data, where, channels=1).astype(np.float32) / 256


def write_disparity_png(path: str | Path, disparity_px: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Writes (H, W) disparity in pixels, rounded to 1/256 px.

    Unknown is what `valid` says, or, without it, what is not finite or not positive. Known values are kept within
    1/256 and 255.996 px: zero would read as unknown.
    """
    write_bytes_atomic(path, encode_disparity_png(disparity_px, valid))


def encode_disparity_png(disparity_px: np.ndarray, valid: np.ndarray | None = None) -> bytes:
    """As `write_disparity_png`: the bytes of the file."""
    return encode(Path("disparity.png"), _to_16_bit(disparity_px, "disparity_px", valid))


def read_flow_png(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a flow map.

    Returns:
        flow: (H, W, 2) float32 (du, dv) in pixels, 0 where unknown.
        valid: (H, W) bool, True where known.

    Raises:
        FormatError: If the file is no 16-bit RGB PNG.
        OSError: If it cannot be opened.
    """
    return decode_flow_png(Path(path).read_bytes(), str(path))


def decode_flow_png(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """As `read_flow_png`, from the bytes of a file; `where` names it in messages."""
    stored = _decode_16_bit(data, where, channels=3)  # OpenCV's order: B = valid, G = v, R = u
    valid = stored[..., 0] > 0
    flow = (stored[..., [2, 1]].astype(np.float32) - 2**15) / 64
    return np.where(valid[..., None], flow, np.float32(0)), valid


def write_flow_png(path: str | Path, flow: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Writes (H, W, 2) flow in pixels, rounded to 1/64 px and kept within -512 and 511.98 px.

    Unknown is where `valid` is False or the flow is not finite; all channels are 0 there.
    """
    write_bytes_atomic(path, encode_flow_png(flow, valid))


def encode_flow_png(flow: np.ndarray, valid: np.ndarray | None = None) -> bytes:
    """As `write_flow_png`: the bytes of the file."""
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"flow has shape {flow.shape}; expected (H, W, 2).")
    known = np.isfinite(flow).all(axis=2)
    if valid is not None:
        known &= _same_shape(valid, known.shape, "valid")
    scaled = np.where(known[..., None], flow, 0).astype(np.float64) * 64 + 2**15
    stored = np.zeros((*known.shape, 3), np.uint16)
    stored[..., [2, 1]] = np.clip(np.floor(scaled + 0.5), 0, 65535)
    stored[..., 0] = 1
    stored[~known] = 0
    return encode(Path("flow.png"), stored)


def _decode_16_bit(data: bytes, where: str, channels: int) -> np.ndarray:
    """The stored numbers: (H, W) or (H, W, 3) in OpenCV's channel order, uint16."""
    expected = f"a 16-bit PNG with {channels} channel{'s' if channels > 1 else ''}"
    if not data.startswith(PNG_MAGIC) or len(data) < 26:
        raise FormatError(where, f"is not a PNG file; expected {expected}.")
    bits, colour = struct.unpack(">BB", data[24:26])
    found = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour, 0)
    if bits != 16 or found != channels:
        raise FormatError(where, f"has {bits} bits and {found} channel(s); expected {expected}.")
    check_complete(data, where)
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise FormatError(where, "is damaged; copy or unpack it again.")
    return stored


def _to_16_bit(values: np.ndarray, name: str, valid: np.ndarray | None = None) -> np.ndarray:
    if values.ndim != 2:
        raise ValueError(f"{name} has shape {values.shape}; expected (H, W).")
    known = np.isfinite(values)
    known &= values > 0 if valid is None else _same_shape(valid, values.shape, "valid")
    scaled = np.floor(np.where(known, values, 0).astype(np.float64) * 256 + 0.5)
    return np.where(known, np.clip(scaled, 1, 65535), 0).astype(np.uint16)


def _same_shape(valid: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if valid.shape != shape:
        raise ValueError(f"{name} has shape {valid.shape}; expected {shape}.")
    return valid.astype(bool)
