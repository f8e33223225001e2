"""Loops of KITTI's development kit, as an independent statement of the truth."""

import numpy as np


def slow_interpolation(disparity: np.ndarray) -> np.ndarray:
    """The devkit's loops: rows first, then the columns' ends; -1 where missing."""
    D = np.where(np.isfinite(disparity) & (disparity > 0), disparity, -1).astype(np.float64)
    height, width = D.shape
    for v in range(height):
        count = 0
        for u in range(width):
            if D[v, u] >= 0:
                if count >= 1:
                    u1, u2 = u - count, u - 1
                    if u1 > 0 and u2 < width - 1:
                        D[v, u1 : u2 + 1] = min(D[v, u1 - 1], D[v, u2 + 1])
                count = 0
            else:
                count += 1
        known = [u for u in range(width) if D[v, u] >= 0]
        if known:
            D[v, : known[0]] = D[v, known[0]]
            D[v, known[-1] + 1 :] = D[v, known[-1]]
    for u in range(width):
        known = [v for v in range(height) if D[v, u] >= 0]
        if known:
            D[: known[0], u] = D[known[0], u]
            D[known[-1] + 1 :, u] = D[known[-1], u]
    return np.where(D < 0, 0, D)
