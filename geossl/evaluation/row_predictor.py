"""The trivial baseline: one depth for each image row, whatever the image shows.

Roads make it strong: on driving data most of the variance of depth is explained by the row. A network that does not
beat it has learned nothing of the picture.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from geossl.evaluation.depth_protocols import CROPS, DepthProtocol, crop_bounds, scored_pixels


def fit_row_predictor(truths: Iterable[np.ndarray], height: int = 128, crop: str = "none") -> np.ndarray:
    """The depth of each row that minimises the mean AbsRel over the images.

    For one row the depth d minimises sum_i w_i |d - g_i| / g_i, with w_i = 1 / (scored pixels of pixel i's image), as
    AbsRel is the mean over images of each image's mean. That is the median of the row's depths g weighted by w / g.
    It lies below their plain median: over-estimating a near point costs more than under-estimating a far one.

    Args:
        truths: (H, W) depth maps in metres, 0 unknown; heights may differ.
        height: Number of normalised rows; row r of an image of H rows falls into floor((r + 0.5) / H * height).
        crop: Crop of the protocol under which it will be scored, so that only scored pixels count.

    Returns:
        (height,) float64 metres. Rows without truth (the sky) take the nearest row's that has some.

    Raises:
        ValueError: If no image has truth.
    """
    if crop not in CROPS:
        raise ValueError(f"crop '{crop}' should be one of {', '.join(CROPS)}.")
    depths, weights, bins = [], [], []
    for truth in truths:
        rows, columns = crop_bounds(crop, *truth.shape)
        row, column = np.nonzero(np.isfinite(truth[rows, columns]) & (truth[rows, columns] > 0))
        depth = truth[rows, columns][row, column].astype(np.float64)
        if len(depth):
            depths.append(depth)
            weights.append(1 / (depth * len(depth)))
            bins.append(_bin(row + rows.start, len(truth), height))
    if not depths:
        raise ValueError("no depth map has a known pixel; a row predictor cannot be fitted.")
    depth, weight, row_bin = np.concatenate(depths), np.concatenate(weights), np.concatenate(bins)
    order = np.lexsort((depth, row_bin))
    depth, weight, row_bin = depth[order], weight[order], row_bin[order]
    starts = np.searchsorted(row_bin, np.arange(height + 1))
    fitted = np.full(height, np.nan)
    for r in range(height):
        part = slice(starts[r], starts[r + 1])
        if starts[r] < starts[r + 1]:
            cumulative = np.cumsum(weight[part])
            fitted[r] = depth[part][np.searchsorted(cumulative, cumulative[-1] / 2)]
    known = np.flatnonzero(~np.isnan(fitted))
    nearest = known[np.abs(np.arange(height)[:, None] - known[None, :]).argmin(axis=1)]
    return fitted[nearest]


def predict_rows(row_depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) float32 depth map of a row predictor (rows,) from `fit_row_predictor`."""
    column = row_depth[_bin(np.arange(height), height, len(row_depth))]
    return np.repeat(column[:, None], width, axis=1).astype(np.float32)


def protocol_truth(truth: np.ndarray, protocol: DepthProtocol) -> np.ndarray:
    """The truth with 0 wherever the protocol does not score, to fit on exactly what will be scored."""
    return np.where(scored_pixels(truth, protocol), truth, 0)


def _bin(row: np.ndarray, image_height: int, height: int) -> np.ndarray:
    return np.floor((row + 0.5) / image_height * height).astype(np.int64)
