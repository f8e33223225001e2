"""Flow that needs no training, to compare with on the same frames: none at all, and OpenCV's two dense methods.

Their figures hang on details: on KITTI 2015's pair 000000, greys that differ by a level of rounding move DIS from 23.7
to 38.5 px. The greys here are those of OpenCV's own decoder (`formats.image.decode_grey`), as in most scripts.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def zero_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H, W, 2) zeros for (H, W) images: the error of an estimate that is worth nothing."""
    return np.zeros((*first.shape, 2), np.float32)


def farneback_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H, W, 2) flow of two (H, W) uint8 images by cv2.calcOpticalFlowFarneback: the values of OpenCV's own sample.

    Pyramid of 3 levels by 0.5, window 15, 3 iterations, neighbourhood 5, sigma 1.2.
    """
    return cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]


def dis_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H, W, 2) flow of two (H, W) uint8 images by cv2.DISOpticalFlow with its preset "medium".

    Source: Kroeger et al., ECCV 2016. https://arxiv.org/abs/1603.03590
    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(first, second, None)  # type: ignore[call-overload]


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "zero": zero_flow,
    "farneback": farneback_flow,
    "dis": dis_flow,
}


def baseline_flow(name: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32 flow from the first (H, W) uint8 grey image to the second.

    Args:
        name: One of `BASELINES`.

    Raises:
        ValueError: If the images differ in size.
    """
    if first.shape != second.shape:
        raise ValueError(f"the pair's images are {first.shape} and {second.shape}; flow needs images of equal size.")
    first, second = np.ascontiguousarray(first), np.ascontiguousarray(second)  # DIS takes nothing else
    return np.asarray(BASELINES[name](first, second), np.float32)
