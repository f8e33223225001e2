"""Scores depth maps against ground truth under a protocol; every value of every image is kept.

Truth is never resized; predictions are brought to its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import cv2
import numpy as np

from geossl.evaluation.depth_protocols import (
    PROTOCOLS,
    DepthProtocol,
    ScoredTruth,
    get_protocol,
    scored_pixels,
    scored_truth,
)
from geossl.evaluation.row_predictor import fit_row_predictor, predict_rows, protocol_truth
from geossl.evaluation.stereo import D1Counts, average_d1, count_d1
from geossl.kernels.evaluation import evaluation_kernels_run, resized_at

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "DepthProtocol",
    "DepthScores",
    "ImageScore",
    "ScoredTruth",
    "collect_scores",
    "depth_metrics",
    "fit_row_predictor",
    "get_protocol",
    "predict_rows",
    "protocol_truth",
    "resize_depth",
    "score_depth",
    "score_image",
    "scored_pixels",
    "scored_truth",
]

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")
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
    p, g = prediction.astype(np.float64), truth.astype(np.float64)
    error, quotient = np.abs(p - g), p / g
    relative, log_ratio = error / g, np.log(quotient)
    ratio = np.maximum(quotient, g / p)
    n = len(g)
    return {
        "abs_rel": float(np.mean(relative)),
        "sq_rel": float(np.mean(relative * error)),
        "rmse": float(np.sqrt(error @ error / n)),
        "rmse_log": float(np.sqrt(log_ratio @ log_ratio / n)),
        **{f"delta{i}": np.count_nonzero(ratio < 1.25**i) / n for i in (1, 2, 3)},
    }


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


def resize_depth(depth: np.ndarray, height: int, width: int, protocol: DepthProtocol) -> np.ndarray:
    """Brings an (h, w) depth map to the truth's size as the protocol says; the same array if it has it already."""
    if depth.shape == (height, width):
        return depth
    with np.errstate(divide="ignore"):
        resized = _resized(depth, height, width, protocol)
        return 1 / resized if protocol.resize == "inverse_depth" else resized


def score_image(
    prediction: np.ndarray,
    truth: np.ndarray | ScoredTruth,
    protocol: DepthProtocol,
    name: str = "",
    *,
    fx_baseline: float | None = None,
    objects: np.ndarray | None = None,
) -> ImageScore | None:
    """Scores one depth map.

    Args:
        prediction: (h, w) positive z-depth, metres or up to scale.
        truth: (H, W) z-depth in metres, 0 where unknown; or what `scored_truth` made of it.
        protocol: How to score.
        name: For messages.
        fx_baseline: Focal length times baseline at the truth's size, in pixel metres; needed for D1.
        objects: (H, W) object map, > 0 on moving objects, to split AbsRel and D1 into background and foreground.

    Returns:
        The scores, or None where the protocol leaves no truth to score.

    Raises:
        ValueError: If the prediction is no depth map, is transposed, or is not positive and finite where it is scored;
            or if the truth was chosen by another protocol.
    """
    if prediction.ndim != 2 or 0 in prediction.shape:
        raise ValueError(f"{name}: the prediction has shape {prediction.shape}; expected one depth map (H, W).")
    scored = scored_truth(truth, protocol)
    height, width = scored.size
    if prediction.shape == (width, height) and height != width:
        raise ValueError(f"{name}: the prediction is {prediction.shape}, the truth {scored.size}; transpose it.")
    if not len(scored.pixels):
        return None

    p = _depth_at(prediction, scored, protocol)
    if not (p.min() > 0 and p.max() < np.inf):  # of a NaN, neither
        bad = ~(np.isfinite(p) & (p > 0))
        raise ValueError(
            f"{name}: {int(bad.sum())} of {len(p)} scored pixels are not positive and finite (such as {p[bad][0]:g}); "
            "a depth map needs a depth in every pixel. Fill them, or score fewer images."
        )
    ratio = _median(scored.depth, protocol) / _median(p, protocol)
    scale = {"median": ratio, "factor": protocol.factor}.get(protocol.scaling, 1.0)
    d1 = None
    if protocol.d1 is not None and fx_baseline is not None:
        d1 = _count_d1(
            resize_depth(prediction, height, width, protocol) * scale, scored, fx_baseline, objects, protocol
        )
    least, largest = protocol.clip or (0.0, np.inf)
    p = p.astype(np.float64)
    p = np.clip(p, least, largest) * scale if protocol.clip_before_scaling else np.clip(p * scale, least, largest)
    resized_from = None if prediction.shape == scored.size else (prediction.shape[0], prediction.shape[1])
    metrics = depth_metrics(p, scored.depth)
    if objects is not None:
        if objects.shape != scored.size:
            raise ValueError(f"{name}: the object map is {objects.shape}, the truth {scored.size}; give it that size.")
        metrics |= _abs_rel_by_object(p, scored.depth, objects.reshape(-1)[scored.pixels] > 0)
    return ImageScore(name, len(p), ratio, metrics, d1, resized_from)


def score_depth(
    predictions: Iterable[np.ndarray],
    truths: Iterable[np.ndarray | ScoredTruth],
    protocol: DepthProtocol,
    *,
    names: Sequence[str] | None = None,
    fx_baselines: Iterable[float | None] | None = None,
    objects: Iterable[np.ndarray | None] | None = None,
    truth_kind: str = "",
) -> DepthScores:
    """Scores depth maps against truths, pair by pair; both may be generators.

    Args:
        predictions: (h, w) depth maps.
        truths: (H, W) depth maps in metres, 0 unknown; or what `scored_truth` made of them.
        protocol: How to score, e.g. `get_protocol("eigen", scaling="none")`.
        names: Of the images, for messages and per-image values; numbers where not given.
        fx_baselines: Focal length times baseline of each image in pixel metres, for D1.
        objects: Object maps, to split D1 into background and foreground.
        truth_kind: What the truth is, where it is not what the protocol is defined on.

    Raises:
        ValueError: If there are not as many predictions as truths, an image cannot be scored, or none has truth.
    """
    streams: dict[str, Iterable[Any]] = {"predictions": predictions, "truths": truths}
    streams |= {} if fx_baselines is None else {"fx_baselines": fx_baselines}
    streams |= {} if objects is None else {"objects": objects}
    ended = object()
    scores = []
    for i, values in enumerate(zip_longest(*streams.values(), fillvalue=ended)):
        image = dict(zip(streams, values, strict=True))
        short = [stream for stream, value in image.items() if value is ended]
        if short:
            raise ValueError(
                f"{' and '.join(short)} end after {i} images, the others do not; give one for each image."
            )
        name = names[i] if names is not None else str(i)
        score = score_image(
            image["predictions"],
            image["truths"],
            protocol,
            name,
            fx_baseline=image.get("fx_baselines"),
            objects=image.get("objects"),
        )
        scores.append((name, score))
    return collect_scores(scores, protocol, truth_kind=truth_kind)


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


def _abs_rel_by_object(depth: np.ndarray, truth: np.ndarray, moving: np.ndarray) -> dict[str, float]:
    """(N,) each -> `BY_OBJECT`, without those that have no pixel."""
    relative = np.abs(depth - truth) / truth
    regions = zip(BY_OBJECT, (~moving, moving), strict=True)
    return {name: float(np.mean(relative[where])) for name, where in regions if where.any()}


def _median(values: np.ndarray, protocol: DepthProtocol) -> float:
    middle = (len(values) - 1) // 2
    parted = np.partition(values, middle)
    lower = float(parted[middle])
    if protocol.median == "lower" or len(values) % 2:
        return lower
    return (lower + float(parted[middle + 1 :].min())) / 2


def _depth_at(depth: np.ndarray, scored: ScoredTruth, protocol: DepthProtocol) -> np.ndarray:
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


def _count_d1(
    depth: np.ndarray, scored: ScoredTruth, fx_baseline: float, objects: np.ndarray | None, protocol: DepthProtocol
) -> D1Counts:
    truth_px = np.zeros(scored.size)
    truth_px.reshape(-1)[scored.pixels] = fx_baseline / scored.depth.astype(np.float64)
    with np.errstate(divide="ignore"):  # pixels that are not scored may hold anything
        return count_d1(fx_baseline / depth, truth_px, objects, strict=protocol.d1_strict)


def _without_nan(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in entry.items()}


def _sample(values: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear values at columns `u` and rows `v`."""
    rows = _blend(values, v)
    return _blend(rows.T, u).T


def _blend(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    low = np.clip(np.floor(positions).astype(np.int64), 0, max(len(values) - 2, 0))
    high = np.minimum(low + 1, len(values) - 1)
    weight = (positions - low)[:, None]
    return values[low] * (1 - weight) + values[high] * weight
