"""Depth's metrics, and the scores of an image and of a set of images; every value of every image is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geossl.evaluation.depth_protocols import DepthProtocol
from geossl.evaluation.stereo import D1Counts, average_d1
from geossl.kernels.evaluation import depth_sums, evaluation_kernels_run

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")
DELTA_THRESHOLDS = 1.25 ** np.arange(1.0, 4)  # of max(p / g, g / p), for delta1 to delta3
BY_OBJECT = ("abs_rel_bg", "abs_rel_fg")  # with an object map: where nothing moves by itself, and on what does


def depth_metrics(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The seven metrics of Eigen et al. over matching positive depths.

    Args:
        prediction: (N,) metres.
        truth: (N,) metres.

    Returns:
        `abs_rel` mean(|p - g| / g); `sq_rel` mean((p - g)^2 / g), in metres (by g, not g^2, as all published code
        has it); `rmse` metres; `rmse_log` of natural logarithms; `delta1` to `delta3` shares with
        max(p / g, g / p) < 1.25, 1.25^2, 1.25^3.

    Raises:
        ValueError: If the shapes differ or there are no values.

    Convention: p = (2, 3), g = (1, 4): abs_rel = (1/1 + 1/4) / 2 = 0.625, sq_rel = (1/1 + 1/4) / 2 = 0.625.
    Source: Eigen et al., NIPS 2014, section 4.2.
    """
    if prediction.shape != truth.shape or not truth.size:
        raise ValueError(
            f"prediction has shape {prediction.shape}, truth {truth.shape}; expected the same, not empty."
        )
    p, g = (values.astype(np.float64, copy=False) for values in (prediction, truth))
    if evaluation_kernels_run(p, g, dtype=np.float64):
        sums = depth_sums(p, g, DELTA_THRESHOLDS)
    else:
        error, log_ratio, ratio = np.abs(p - g), np.log(p / g), np.maximum(p / g, g / p)
        terms = error / g, error**2 / g, error**2, log_ratio**2, *(ratio < bound for bound in DELTA_THRESHOLDS)
        sums = np.array([term.sum() for term in terms])
    abs_rel, sq_rel, mse, mse_log, *deltas = (sums / len(g)).tolist()
    return dict(zip(METRICS, (abs_rel, sq_rel, math.sqrt(mse), math.sqrt(mse_log), *deltas), strict=True))


def abs_rel_by_object(depth: np.ndarray, truth: np.ndarray, moving: np.ndarray) -> dict[str, float]:
    """(N,) each -> `BY_OBJECT`, without those that have no pixel."""
    relative = np.abs(depth - truth) / truth
    regions = zip(BY_OBJECT, (~moving, moving), strict=True)
    return {name: float(np.mean(relative[where])) for name, where in regions if where.any()}


@dataclass(frozen=True)
class ImageScore:
    """One image's scores.

    Attributes:
        name: Of the image.
        pixels: How many were scored.
        ratio: median(truth) / median(prediction) over them, before any scaling.
        metrics: By the names of `METRICS`, and of `BY_OBJECT` where there is an object map with such pixels.
        d1: Counts of disparity outliers, where the protocol asks and the camera is known.
        resized_from: (height, width) of the prediction where it was resized, else None.
    """

    name: str
    pixels: int
    ratio: float
    metrics: Mapping[str, float]
    d1: D1Counts | None = None
    resized_from: tuple[int, int] | None = None


@dataclass(frozen=True)
class DepthScores:
    """The scores of a set of images under one protocol.

    Attributes:
        protocol: Under which they were scored.
        images: One entry an image that has truth.
        without_truth: Names of images that have no truth pixel left under the protocol; they are not scored.
        truth: Kind of truth that was used.
        details: More to say in the row, e.g. whether predictions were post-processed.
        warnings: What a reader must know, e.g. that metres were asked of a model that has none.
    """

    protocol: DepthProtocol
    images: tuple[ImageScore, ...]
    without_truth: tuple[str, ...] = ()
    truth: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def means(self) -> dict[str, float]:
        """Each metric's mean over the images that have it, and D1 in percent where it was counted."""
        means = {name: float(np.mean([image.metrics[name] for image in self.images])) for name in METRICS}
        for name in BY_OBJECT:
            values = [image.metrics[name] for image in self.images if name in image.metrics]
            means |= {name: float(np.mean(values))} if values else {}
        counts = [image.d1 for image in self.images if image.d1 is not None]
        if counts and self.protocol.d1 is not None:
            means.update(average_d1(counts, self.protocol.d1))
        return means

    def ratio_median(self) -> float:
        """Median over the images of median(truth) / median(prediction)."""
        return float(np.median([image.ratio for image in self.images]))

    def ratio_std(self) -> float:
        """Standard deviation of the ratios after division by their median."""
        return float(np.std(np.array([image.ratio for image in self.images]) / self.ratio_median()))

    def row(self) -> dict[str, Any]:
        """One flat table row: metrics first, then every choice that they depend on."""
        resized = sorted({image.resized_from for image in self.images if image.resized_from is not None})
        row: dict[str, Any] = {**self.means(), "images": len(self.images)}
        row["ratio_median"], row["ratio_std"] = self.ratio_median(), self.ratio_std()
        row.update(self.protocol.describe())
        row["truth"] = self.truth or self.protocol.truth
        row["resize"] += f"; from {', '.join(f'{w}x{h}' for h, w in resized)}" if resized else "; none needed"
        if self.protocol.d1 is not None and any(image.d1 for image in self.images):
            row["d1_pooling"] = self.protocol.d1
        row["without_truth"] = len(self.without_truth)
        row.update(self.details)
        row["warnings"] = list(self.warnings)
        return row

    def to_json(self) -> dict[str, Any]:
        """The row, and every image's values, None for NaN."""
        images = []
        for image in self.images:
            entry = {"name": image.name, "pixels": image.pixels, "ratio": image.ratio, **image.metrics}
            if image.d1 is not None:
                entry.update(image.d1.percent())
            images.append(_without_nan(entry))
        return {"row": _without_nan(self.row()), "per_image": images, "without_truth": list(self.without_truth)}


def collect_scores(
    scores: Sequence[tuple[str, ImageScore | None]],
    protocol: DepthProtocol,
    *,
    truth_kind: str = "",
    details: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> DepthScores:
    """Puts the scores of single images together; None marks an image without truth.

    Raises:
        ValueError: If no image has truth.
    """
    scored = tuple(score for _, score in scores if score is not None)
    without_truth = tuple(name for name, score in scores if score is None)
    if not scored:
        raise ValueError(f"none of {len(scores)} images has truth to score under protocol '{protocol.name}'.")
    notes = list(warnings)
    if protocol.d1 is not None and any(score.d1 is None for score in scored):
        notes.append("D1 is missing for images without focal length and baseline")
    if without_truth:
        notes.append(f"{len(without_truth)} images have no truth under this protocol and are not scored")
    return DepthScores(protocol, scored, without_truth, truth_kind, details or {}, tuple(notes))


def _without_nan(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in entry.items()}
