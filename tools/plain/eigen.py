"""Depth scored on Eigen's test images, and LiDAR scans as depth maps, image by image as commonly done.

Sources: Eigen et al., NIPS 2014, section 4.2; Garg et al., ECCV 2016 (crop); Geiger et al., IJRR 2013 (calibration).
"""

from collections import Counter

import cv2
import numpy as np

NEAREST, FARTHEST = 1e-3, 80.0


def score(disparities, truths):
    """Means over the images of abs_rel, sq_rel, rmse, rmse_log and three shares.

    Args:
        disparities: (h, w) inverse depths, up to scale. truths: (H, W) metres, 0 where unknown.
    """
    errors = []
    for disparity, truth in zip(disparities, truths, strict=True):
        height, width = truth.shape
        prediction = 1 / cv2.resize(disparity, (width, height))
        known = np.logical_and(truth > NEAREST, truth < FARTHEST)
        fractions = np.array([0.40810811 * height, 0.99189189 * height, 0.03594771 * width, 0.96405229 * width])
        top, bottom, left, right = fractions.astype(np.int32)
        crop = np.zeros(known.shape)
        crop[top:bottom, left:right] = 1
        known = np.logical_and(known, crop)
        p, g = prediction[known].astype(np.float64), truth[known].astype(np.float64)
        p = p * median(g) / median(p)
        p[p < NEAREST] = NEAREST
        p[p > FARTHEST] = FARTHEST
        errors.append(metrics(p, g))
    return np.array(errors).mean(0)


def median(values):
    ordered = np.sort(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def metrics(p, g):
    ratio = np.maximum(g / p, p / g)
    shares = [(ratio < 1.25**power).mean() for power in (1, 2, 3)]
    rmse = np.sqrt(((g - p) ** 2).mean())
    rmse_log = np.sqrt(((np.log(g) - np.log(p)) ** 2).mean())
    return [np.mean(np.abs(g - p) / g), np.mean((g - p) ** 2 / g), rmse, rmse_log, *shares]


def depth_map(points, P_velo, width, height):
    """(H, W) float32 map of a scan's forward coordinates; of several points in a pixel the least counts.

    Args:
        points: (N, 4), of which the last is replaced. P_velo: (3, 4), from LiDAR points to pixels.
    """
    points = np.array(points)
    points[:, 3] = 1.0
    points = points[points[:, 0] >= 0, :]
    projected = np.dot(P_velo, points.T).T
    projected[:, :2] = projected[:, :2] / projected[:, 2][..., np.newaxis]
    projected[:, 2] = points[:, 0]
    projected[:, 0] = np.round(projected[:, 0]) - 1  # counted from 1
    projected[:, 1] = np.round(projected[:, 1]) - 1
    inside = (projected[:, 0] >= 0) & (projected[:, 1] >= 0)
    inside = inside & (projected[:, 0] < width) & (projected[:, 1] < height)
    projected = projected[inside, :]

    depth = np.zeros((height, width))
    depth[projected[:, 1].astype(int), projected[:, 0].astype(int)] = projected[:, 2]
    # This index gives the last pixel of a row and the first of the next the same number, as the common code does.
    index = projected[:, 1] * (width - 1) + projected[:, 0] - 1
    for repeated in [number for number, count in Counter(index).items() if count > 1]:
        same = np.where(index == repeated)[0]
        column, row = int(projected[same[0], 0]), int(projected[same[0], 1])
        depth[row, column] = projected[same, 2].min()
    depth[depth < 0] = 0
    return depth.astype(np.float32)
