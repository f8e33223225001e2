"""Scores of optical flow: end-point error, outliers and error thresholds, by region and by speed.

Each image gives sums and counts for each region; from those follow the pooled figures and the means over images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np

from geossl.evaluation.flow_protocols import SPEEDS, FlowProtocol
from geossl.evaluation.flow_truth import FlowLabels
from geossl.evaluation.stereo import fill_from_background

Missing = Literal["error", "background"]

OUTLIER_PX = 3.0
OUTLIER_SHARE = 0.05
OVER_PX = (2, 3, 4, 5)


@dataclass(frozen=True)
class RegionCounts:
    """What one region of one image, or of several, adds up to; adding two adds each.

    Attributes:
        pixels: Number of pixels with truth.
        error_sum_px: Sum of their end-point errors.
        outliers: Pixels with an error > 3 px and > 5 % of the true motion.
        over: Pixels with an error over each of `OVER_PX`.
    """

    pixels: int = 0
    error_sum_px: float = 0.0
    outliers: int = 0
    over: tuple[int, ...] = (0,) * len(OVER_PX)

    def __add__(self, other: RegionCounts) -> RegionCounts:
        over = tuple(a + b for a, b in zip(self.over, other.over, strict=True))
        return RegionCounts(
            self.pixels + other.pixels, self.error_sum_px + other.error_sum_px, self.outliers + other.outliers, over
        )

    def share_of(self, amount: float) -> float:
        """An amount for each pixel; NaN over none."""
        return amount / self.pixels if self.pixels else float("nan")


@dataclass(frozen=True)
class FlowImageScore:
    """One image's counts.

    Attributes:
        name: The image.
        regions: By name; only those that its truth defines.
        estimated: Of the pixels with truth, those that had an estimate before any was filled in.
        resized_from: (height, width) of the prediction where it was not the truth's.
    """

    name: str
    regions: Mapping[str, RegionCounts]
    estimated: int
    resized_from: tuple[int, int] | None = None

    @property
    def pixels(self) -> int:
        """All pixels with truth."""
        return next(self.regions[name].pixels for name in ("all", "noc") if name in self.regions)

    def named(self, name: str) -> FlowImageScore:
        """The same of another name."""
        return replace(self, name=name)


@dataclass(frozen=True)
class FlowScores:
    """Scores of a set of images.

    Attributes:
        protocol: How they were made.
        images: Each image's counts.
        without_truth: Names of images that have no pixel with truth.
        details: More fields of the row.
        warnings: What a reader must know.
    """

    protocol: FlowProtocol
    images: tuple[FlowImageScore, ...]
    without_truth: tuple[str, ...]
    details: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def figures(self) -> dict[str, float]:
        """`epe_<region>_<average>` in pixels, `fl_..._percent` and `over_3px_..._percent`; see `figures_of`.

        Only regions that every image's truth defines: a mixture could not be compared.
        """
        return figures_of([image.regions for image in self.images], self.protocol)

    def row(self) -> dict[str, Any]:
        """One line of a table: every choice that was made, and the figures."""
        filled = [image for image in self.images if image.estimated < image.pixels]
        pixels, estimated = (sum(getattr(i, name) for i in self.images) for name in ("pixels", "estimated"))
        return {
            **self.protocol.describe(),
            "images": len(self.images),
            "pixels": pixels,
            "missing_estimates": f"filled from the background in {len(filled)} images" if filled else "none",
            "density_percent": 100 * estimated / pixels,
            "resized": sum(image.resized_from is not None for image in self.images),
            **self.details,
            **self.figures(),
            "warnings": list(self.warnings),
        }

    def to_json(self) -> dict[str, Any]:
        """The row, and every image's figures and counts."""
        images = []
        for image in self.images:
            counts = {
                region: {"pixels": c.pixels, "outliers": c.outliers, **{f"over_{t}px": n for t, n in _over(c)}}
                for region, c in image.regions.items()
            }
            own = {
                k.replace("_pooled", ""): v for k, v in figures_of([image.regions], self.protocol, "pooled").items()
            }
            images.append({"name": image.name, "estimated": image.estimated, **own, "counts": counts})
        return {"row": self.row(), "per_image": images, "without_truth": list(self.without_truth)}


def figures_of(
    images: Sequence[Mapping[str, RegionCounts]], protocol: FlowProtocol, *averages: str
) -> dict[str, float]:
    """The protocol's figures over images, of the regions that all of them have.

    `pooled` divides sums; `per_image` is the mean of the images' figures, leaving out images without a pixel of the
    region. NaN where there is no pixel at all.
    """
    result: dict[str, float] = {}
    for average in averages or protocol.averages:
        for name, region, unit, amount in _asked(protocol):
            if not all(region in regions for regions in images):
                continue
            counts = [regions[region] for regions in images]
            groups = [sum(counts, RegionCounts())] if average == "pooled" else [c for c in counts if c.pixels]
            values = [c.share_of(amount(c)) for c in groups]
            mean = sum(values) / len(values) if values else float("nan")
            result[f"{name}_{region}_{average}{unit}"] = 100 * mean if unit else mean
    return result


def _asked(protocol: FlowProtocol) -> list[tuple[str, str, str, Any]]:
    """(name, region, unit, what of the counts it divides by the pixels) of each figure."""
    asked: list[tuple[str, str, str, Any]] = []
    asked += [("epe", region, "", lambda c: c.error_sum_px) for region in protocol.epe]
    asked += [("fl", region, "_percent", lambda c: c.outliers) for region in protocol.fl]
    for i, threshold in enumerate(OVER_PX):
        asked += [(f"over_{threshold}px", r, "_percent", lambda c, i=i: c.over[i]) for r in protocol.over]
    return asked


def _over(counts: RegionCounts) -> Iterable[tuple[int, int]]:
    return zip(OVER_PX, counts.over, strict=True)


def flow_outliers(error_px: np.ndarray, motion_px: np.ndarray) -> np.ndarray:
    """bool, True where the end-point error is over 3 px and over 5 % of the true motion, both strictly.

    Source: KITTI 2015 scene flow development kit.
    """
    return (error_px > OUTLIER_PX) & (error_px > OUTLIER_SHARE * motion_px)


def regions_of(labels: FlowLabels) -> dict[str, np.ndarray]:
    """The (H, W) bool region of each name that the labels define; see `flow_protocols.REGIONS`."""
    valid = labels.valid
    regions: dict[str, np.ndarray] = {}
    if labels.visible is not None:
        regions["noc"] = valid & labels.visible
    if labels.objects is not None:
        for name, part in (("bg", labels.objects == 0), ("fg", labels.objects > 0)):
            regions[name] = valid & part
            if labels.visible is not None:
                regions[f"noc_{name}"] = valid & labels.visible & part
    if labels.visible_only:
        return {name: region for name, region in regions.items() if name.startswith("noc")}
    if labels.visible is not None:
        regions["occ"] = valid & ~labels.visible
    motion = np.linalg.norm(np.where(valid[..., None], labels.flow, 0).astype(np.float64), axis=2)
    slow, fast = motion < 10, motion > 40
    speeds = zip(SPEEDS, (valid & slow, valid & ~slow & ~fast, valid & fast), strict=True)
    return {"all": valid, **regions, **dict(speeds)}


def resize_flow(flow: np.ndarray, height: int, width: int) -> np.ndarray:
    """Brings (h, w, 2) flow to another size, bilinear with edges aligned; u and v are scaled by their own ratios.

    A missing (NaN) pixel makes those that would be interpolated from it missing.
    """
    h, w = flow.shape[:2]
    if (h, w) == (height, width):
        return flow
    resized = cv2.resize(np.ascontiguousarray(flow, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return resized * np.array([width / w, height / h], np.float32)


def fill_flow(flow: np.ndarray) -> np.ndarray:
    """Fills missing (not finite) estimates of (H, W, 2) flow as KITTI's devkits do before they score.

    As `stereo.interpolate_background`, for u and v apart: a gap in a row takes the smaller of the two values at its
    ends. A row without any estimate, between others, keeps zero flow.

    Source: KITTI development kits, FlowImage::interpolateBackground.
    """
    known = np.isfinite(flow).all(axis=2)
    return np.stack([fill_from_background(flow[..., i], known) for i in (0, 1)], axis=2)


def score_flow_image(
    prediction: np.ndarray, labels: FlowLabels, name: str = "", *, missing: Missing = "error"
) -> FlowImageScore | None:
    """Scores one flow map.

    Args:
        prediction: (h, w, 2) (du, dv) pixels of its own size; not finite where there is no estimate.
        labels: The truth; it is never resized.
        name: For messages.
        missing: What to do where a scored pixel has no estimate: "error", or "background" (see `fill_flow`).

    Returns:
        The counts, or None where no pixel has truth.

    Raises:
        ValueError: If the prediction is no flow map, is transposed, or lacks estimates that are scored.
    """
    if prediction.ndim != 3 or prediction.shape[2] != 2 or 0 in prediction.shape:
        raise ValueError(f"{name}: the prediction has shape {prediction.shape}; expected one flow map (H, W, 2).")
    height, width = labels.valid.shape
    if prediction.shape[:2] == (width, height) and height != width:
        raise ValueError(f"{name}: the prediction is {prediction.shape}, the truth ({height}, {width}); transpose it.")
    if not labels.valid.any():
        return None

    flow = resize_flow(prediction, height, width)
    estimated = np.isfinite(flow).all(axis=2) & labels.valid
    lacking = int(labels.valid.sum()) - int(estimated.sum())
    if lacking and missing == "error":
        raise ValueError(
            f"{name}: {lacking} of {int(labels.valid.sum())} scored pixels have no estimate (NaN, infinite, unknown "
            "or marked invalid). Estimate them, or fill them from the background (--fill-missing), as KITTI does."
        )
    if lacking:
        flow = resize_flow(fill_flow(prediction), height, width)
    seen = labels.flow if labels.visible_flow is None else labels.visible_flow
    counts = {
        region: _count(flow[where], (seen if region.startswith("noc") else labels.flow)[where])
        for region, where in regions_of(labels).items()
    }
    resized_from = None if prediction.shape[:2] == (height, width) else (prediction.shape[0], prediction.shape[1])
    return FlowImageScore(name, counts, int(estimated.sum()), resized_from)


def _count(estimate: np.ndarray, truth: np.ndarray) -> RegionCounts:
    """The counts of (N, 2) estimates."""
    truth = truth.astype(np.float64)
    error_px = np.linalg.norm(estimate - truth, axis=1)
    over = tuple(int((error_px > threshold).sum()) for threshold in OVER_PX)
    outliers = int(flow_outliers(error_px, np.linalg.norm(truth, axis=1)).sum())
    return RegionCounts(len(error_px), float(error_px.sum()), outliers, over)


def collect_flow_scores(
    scores: Sequence[tuple[str, FlowImageScore | None]],
    protocol: FlowProtocol,
    *,
    details: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> FlowScores:
    """Puts the scores of single images together; None marks an image without truth.

    Raises:
        ValueError: If no image has truth.
    """
    images = tuple(score for _, score in scores if score is not None)
    without_truth = tuple(name for name, score in scores if score is None)
    if not images:
        raise ValueError(f"none of {len(scores)} images has flow truth to score under protocol '{protocol.name}'.")
    notes = list(warnings)
    lacking = sorted({r for r in (*protocol.epe, *protocol.fl, *protocol.over) for i in images if r not in i.regions})
    if lacking:
        short = sum(any(region not in image.regions for region in lacking) for image in images)
        notes.append(
            f"the truth of {short} of {len(images)} images does not define {', '.join(lacking)} (no maps of visible "
            "or hidden pixels or of objects), so these figures are left out"
        )
    if without_truth:
        notes.append(f"{len(without_truth)} images have no pixel with truth and are not scored")
    return FlowScores(protocol, images, without_truth, details or {}, tuple(notes))
