"""Scores depth maps against ground truth under a protocol.

Truth is never resized; predictions are brought to its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from geossl.evaluation.depth_protocols import (
    PROTOCOLS,
    DepthProtocol,
    ScoredTruth,
    get_protocol,
    medians,
    scored_pixels,
    scored_truth,
)
from geossl.evaluation.depth_resize import depth_at, resize_depth
from geossl.evaluation.depth_scores import (
    METRICS,
    DepthScores,
    ImageScore,
    abs_rel_by_object,
    collect_scores,
    depth_metrics,
)
from geossl.evaluation.row_predictor import fit_row_predictor, predict_rows, protocol_truth
from geossl.evaluation.stereo import D1Counts, count_d1

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

    p = depth_at(prediction, scored, protocol)
    if not (p.min() > 0 and p.max() < np.inf):  # of a NaN, neither
        bad = ~(np.isfinite(p) & (p > 0))
        raise ValueError(
            f"{name}: {int(bad.sum())} of {len(p)} scored pixels are not positive and finite (such as {p[bad][0]:g}); "
            "a depth map needs a depth in every pixel. Fill them, or score fewer images."
        )
    ratio = scored.medians[protocol.median] / medians(p)[protocol.median]
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
        metrics |= abs_rel_by_object(p, scored.depth, objects.reshape(-1)[scored.pixels] > 0)
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


def _count_d1(
    depth: np.ndarray, scored: ScoredTruth, fx_baseline: float, objects: np.ndarray | None, protocol: DepthProtocol
) -> D1Counts:
    truth_px = np.zeros(scored.size)
    truth_px.reshape(-1)[scored.pixels] = fx_baseline / scored.depth.astype(np.float64)
    with np.errstate(divide="ignore"):  # pixels that are not scored may hold anything
        return count_d1(fx_baseline / depth, truth_px, objects, strict=protocol.d1_strict)
