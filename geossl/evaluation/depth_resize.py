"""Depth maps at the truth's size, as a protocol resizes them."""

from __future__ import annotations

import cv2
import numpy as np

from geossl.evaluation.depth_protocols import DepthProtocol, ScoredTruth
from geossl.kernels.evaluation import evaluation_kernels_run, resized_at


def resize_depth(depth: np.ndarray, height: int, width: int, protocol: DepthProtocol) -> np.ndarray:
    """Brings an (h, w) depth map to the truth's size as the protocol says; the same array if it has it already."""
    if depth.shape == (height, width):
        return depth
    with np.errstate(divide="ignore"):
        resized = _resized(depth, height, width, protocol)
        return 1 / resized if protocol.resize == "inverse_depth" else resized


def depth_at(depth: np.ndarray, scored: ScoredTruth, protocol: DepthProtocol) -> np.ndarray:
    """(N,) values of an (h, w) depth map, brought to the truth's size, in the scored pixels."""
    if depth.shape == scored.size:
        return depth.reshape(-1)[scored.pixels]
    inverse = protocol.resize == "inverse_depth"
    if not protocol.corners_aligned and evaluation_kernels_run(depth):
        return resized_at(depth, scored.size, scored.pixels, inverse)
    values = _resized(depth, *scored.size, protocol).reshape(-1)[scored.pixels]
    with np.errstate(divide="ignore"):
        return 1 / values if inverse else values


def _resized(depth: np.ndarray, height: int, width: int, protocol: DepthProtocol) -> np.ndarray:
    """(height, width) float32 of what the protocol resizes, inverse depth or depth."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = 1 / depth if protocol.resize == "inverse_depth" else depth
        values = np.ascontiguousarray(values, np.float32)
        if protocol.corners_aligned:
            u = np.linspace(0, depth.shape[1] - 1, width, dtype=np.float32)
            v = np.linspace(0, depth.shape[0] - 1, height, dtype=np.float32)
            return _sample(values, u, v)
        return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)


def _sample(values: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear values at columns `u` and rows `v`."""
    rows = _blend(values, v)
    return _blend(rows.T, u).T


def _blend(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    low = np.clip(np.floor(positions).astype(np.int64), 0, max(len(values) - 2, 0))
    high = np.minimum(low + 1, len(values) - 1)
    weight = (positions - low)[:, None]
    return values[low] * (1 - weight) + values[high] * weight
