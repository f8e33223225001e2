"""Disparity outliers (D1) as KITTI's scene flow development kit counts them.

A pixel is an outlier if its error is over 3 px and over 5 % of the true disparity. The devkit sums outliers and
pixels over all images and divides at the end (`pooled`); some papers average each image's share (`per_image`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

THRESHOLD_PX = 3.0
THRESHOLD_SHARE = 0.05


@dataclass(frozen=True)
class D1Counts:
    """Numbers of pixels; adding two adds each.

    Attributes:
        outliers_bg, pixels_bg: Background: truth known, object map 0 (all, where there is no object map).
        outliers_fg, pixels_fg: Foreground: truth known, object map > 0.
        outliers_estimated, pixels_estimated: Pixels with truth that have an estimate before any interpolation.
        has_objects: Whether an object map split them.
    """

    outliers_bg: int
    pixels_bg: int
    outliers_fg: int
    pixels_fg: int
    outliers_estimated: int
    pixels_estimated: int
    has_objects: bool = True

    @property
    def outliers_all(self) -> int:
        return self.outliers_bg + self.outliers_fg

    @property
    def pixels_all(self) -> int:
        return self.pixels_bg + self.pixels_fg

    def __add__(self, other: D1Counts) -> D1Counts:
        return D1Counts(
            self.outliers_bg + other.outliers_bg,
            self.pixels_bg + other.pixels_bg,
            self.outliers_fg + other.outliers_fg,
            self.pixels_fg + other.pixels_fg,
            self.outliers_estimated + other.outliers_estimated,
            self.pixels_estimated + other.pixels_estimated,
            self.has_objects and other.has_objects,
        )

    def percent(self) -> dict[str, float]:
        """`d1_all_percent` and, with an object map, `d1_bg_percent` and `d1_fg_percent`; NaN over no pixels."""
        result = {"d1_all_percent": _percent(self.outliers_all, self.pixels_all)}
        if self.has_objects:
            result["d1_bg_percent"] = _percent(self.outliers_bg, self.pixels_bg)
            result["d1_fg_percent"] = _percent(self.outliers_fg, self.pixels_fg)
        return result

    @property
    def estimated_percent(self) -> float:
        """Outliers among the pixels that were estimated."""
        return _percent(self.outliers_estimated, self.pixels_estimated)

    @property
    def density_percent(self) -> float:
        """Share of the pixels with truth that were estimated."""
        return _percent(self.pixels_estimated, self.pixels_all)


def disparity_outliers(estimate_px: np.ndarray, truth_px: np.ndarray, *, strict: bool = True) -> np.ndarray:
    """bool, True where the error is over 3 px and over 5 % of the truth (`strict`), or at least that.

    Args:
        estimate_px: Disparity in pixels, any shape.
        truth_px: Same shape, positive.
    """
    truth = truth_px.astype(np.float64)
    error = np.abs(truth - estimate_px.astype(np.float64))
    if strict:
        return (error > THRESHOLD_PX) & (error > THRESHOLD_SHARE * truth)
    return (error >= THRESHOLD_PX) & (error >= THRESHOLD_SHARE * truth)


def count_d1(
    estimate_px: np.ndarray,
    truth_px: np.ndarray,
    objects: np.ndarray | None = None,
    *,
    interpolate: bool = True,
    strict: bool = True,
) -> D1Counts:
    """Counts one image's disparity outliers.

    Args:
        estimate_px: (H, W) disparity in pixels; not positive or not finite where there is none.
        truth_px: (H, W) disparity in pixels, 0 where unknown.
        objects: (H, W) object map, > 0 on foreground objects; None counts all as background.
        interpolate: Fill missing estimates from the background first, as the devkit does. Otherwise a missing estimate
            is an outlier.
        strict: See `disparity_outliers`.

    Raises:
        ValueError: If the shapes differ.
    """
    if estimate_px.shape != truth_px.shape or estimate_px.ndim != 2:
        raise ValueError(f"estimate_px is {estimate_px.shape}, truth_px {truth_px.shape}; expected one (H, W).")
    if objects is not None and objects.shape != truth_px.shape:
        raise ValueError(f"objects is {objects.shape}, truth_px {truth_px.shape}; expected one (H, W).")
    known = truth_px > 0
    estimated = np.isfinite(estimate_px) & (estimate_px > 0)
    safe_truth = np.where(known, truth_px, 1)
    outlier = disparity_outliers(np.where(estimated, estimate_px, 0), safe_truth, strict=strict) & estimated
    filled = outlier | ~estimated
    if interpolate and not estimated.all():
        filled_px = interpolate_background(estimate_px)
        filled = disparity_outliers(filled_px, safe_truth, strict=strict) | (filled_px <= 0)
    foreground = np.zeros(known.shape, bool) if objects is None else objects > 0
    return D1Counts(
        outliers_bg=int((filled & known & ~foreground).sum()),
        pixels_bg=int((known & ~foreground).sum()),
        outliers_fg=int((filled & known & foreground).sum()),
        pixels_fg=int((known & foreground).sum()),
        outliers_estimated=int((outlier & known).sum()),
        pixels_estimated=int((estimated & known).sum()),
        has_objects=objects is not None,
    )


def average_d1(counts: Sequence[D1Counts], pooling: Literal["pooled", "per_image"]) -> dict[str, float]:
    """D1 in percent by region (see `D1Counts.percent`) over images.

    "pooled" divides the sums; "per_image" takes the mean of the images' shares, leaving out images without a pixel of
    the region.
    """
    percent = sum(counts[1:], counts[0]).percent()
    if pooling == "pooled":
        return percent
    each = [count.percent() for count in counts]
    for region in percent:
        shares = [e[region] for e in each if not math.isnan(e[region])]
        percent[region] = sum(shares) / len(shares) if shares else float("nan")
    return percent


def interpolate_background(disparity_px: np.ndarray) -> np.ndarray:
    """Fills missing disparities as KITTI's devkit does before it scores.

    A gap inside a row takes the smaller (farther) of the values at its two ends; gaps at a row's ends take the nearest
    value of the row; rows without any value above the first or below the last row that has some take that row's.
    Rows without any value between others stay missing: the devkit leaves them.

    Args:
        disparity_px: (H, W); not positive or not finite where missing.

    Returns:
        (H, W) float32, 0 where still missing.

    Source: KITTI 2015 scene flow development kit, DisparityImage::interpolateBackground.
    """
    return fill_from_background(disparity_px, np.isfinite(disparity_px) & (disparity_px > 0))


def fill_from_background(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The filling of `interpolate_background` for any (H, W) values, given where they are `known`; 0 elsewhere."""
    values = np.where(known, values, 0).astype(np.float32)
    rows_known = known.any(axis=1)
    if not rows_known.any():
        return values
    width = values.shape[1]
    column = np.arange(width)
    left = np.maximum.accumulate(np.where(known, column, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, column, width)[:, ::-1], axis=1)[:, ::-1]
    from_left = np.take_along_axis(values, np.clip(left, 0, None), axis=1)
    from_right = np.take_along_axis(values, np.clip(right, None, width - 1), axis=1)
    filled = np.where(left < 0, from_right, np.where(right == width, from_left, np.minimum(from_left, from_right)))
    filled[~rows_known] = 0
    first, last = np.flatnonzero(rows_known)[[0, -1]]
    filled[:first], filled[last + 1 :] = filled[first], filled[last]
    return filled


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else float("nan")
