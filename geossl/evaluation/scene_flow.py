"""Scores of scene flow: KITTI 2015's outlier rates D1, D2, Fl and SF, and errors of the 3-D motion in metres.

D1 is the disparity of the first image, D2 that of the second at the first's pixels, Fl the flow between them; each is
an outlier where its error is over 3 px and over 5 % of the truth. SF is an outlier where any of the three is one, on
pixels whose truth is known in all three. Missing estimates are filled from the background first, as KITTI's devkit
does; figures of the region `estimated` are those of the pixels that needed no filling.

The 3-D figures follow from disparities, flow and the true calibration, on pixels whose truth is known in all three:
`epe3d` is the mean distance of the two motions, `acc3d_strict` the share of pixels within 5 cm or 5 % of the true
motion, `acc3d_relaxed` within 10 cm or 10 %, `outliers3d` over 30 cm or 10 %. By these definitions a point that hardly
moves relative to the camera can be both accurate (in cm) and an outlier (in %).

Sources: Menze and Geiger, CVPR 2015, and the KITTI 2015 scene flow development kit; for the 3-D figures Liu et al.
(FlowNet3D) and Gu et al. (HPLFlowNet), both CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geossl.evaluation.flow import fill_flow, flow_outliers
from geossl.evaluation.scene_flow_truth import PARTS, SceneFlowLabels, SceneFlowMaps
from geossl.evaluation.stereo import disparity_outliers, interpolate_background

OUTLIERS = (*PARTS, "sf")
MOTION = {"epe3d": "_m", "acc3d_strict": "_percent", "acc3d_relaxed": "_percent", "outliers3d": "_percent"}
UNITS: dict[str, str] = {**dict.fromkeys(OUTLIERS, "_percent"), **MOTION}


@dataclass(frozen=True)
class Share:
    """A sum over the pixels of a region; adding two adds each.

    Attributes:
        pixels: Number of pixels with truth.
        amount: Of outliers or accurate pixels, or the sum of their errors in metres.
    """

    pixels: int = 0
    amount: float = 0.0

    def __add__(self, other: Share) -> Share:
        return Share(self.pixels + other.pixels, self.amount + other.amount)

    @property
    def mean(self) -> float:
        """The amount for each pixel; NaN over none."""
        return self.amount / self.pixels if self.pixels else float("nan")


@dataclass(frozen=True)
class SceneFlowImageScore:
    """One image's sums.

    Attributes:
        name: The image.
        shares: By figure (`UNITS`) and region: all, bg and fg with an object map, noc, noc_bg and noc_fg with maps of
            the visible pixels, estimated (pixels that needed no filling).
    """

    name: str
    shares: Mapping[str, Mapping[str, Share]]

    @property
    def filled(self) -> bool:
        """Whether an estimate was missing where it is scored."""
        return any(self.shares[part]["estimated"].pixels < self.shares[part]["all"].pixels for part in PARTS)

    def named(self, name: str) -> SceneFlowImageScore:
        """The same of another name."""
        return replace(self, name=name)


@dataclass(frozen=True)
class SceneFlowScores:
    """Scores of a set of images.

    Attributes:
        protocol: Its name.
        images: Each image's sums.
        without_truth: Names of images that have no pixel with full truth.
        details: More fields of the row.
    """

    protocol: str
    images: tuple[SceneFlowImageScore, ...]
    without_truth: tuple[str, ...]
    details: Mapping[str, Any]

    def row(self) -> dict[str, Any]:
        """One line of a table: how it was scored, and the main figures; `to_json` has them all."""
        figures, filled = self.figures(), sum(image.filled for image in self.images)
        regions = ("all", "bg", "fg", *(("estimated",) if filled else ()))
        names = [f"{f}_{r}_pooled{UNITS[f]}" for f in UNITS for r in regions]
        names += [f"{f}_noc_pooled{UNITS[f]}" for f in OUTLIERS]
        names += [f"{f}_all_per_image{UNITS[f]}" for f in UNITS]
        without = f"{len(self.without_truth)} images have no pixel with full truth and are not scored"
        return {
            "protocol": self.protocol,
            "averages": "pooled (the benchmark's own), per_image",
            "outliers": "error > 3 px and > 5 % of the truth; sf: any of d1, d2, fl",
            "images": len(self.images),
            "pixels": sum(image.shares["sf"]["all"].pixels for image in self.images),
            "missing_estimates": f"filled from the background in {filled} images" if filled else "none",
            "density_percent": 100 * self._density(),
            **self.details,
            **{name: figures[name] for name in names if name in figures},
            "warnings": [without] if self.without_truth else [],
        }

    def figures(self) -> dict[str, float]:
        """Every figure, `<figure>_<region>_<average><unit>`; see `figures_of`."""
        return figures_of([image.shares for image in self.images])

    def to_json(self) -> dict[str, Any]:
        """The row, every figure, and every image's figures and sums."""
        images = []
        for image in self.images:
            own = {k.replace("_pooled", ""): v for k, v in figures_of([image.shares], "pooled").items()}
            sums = {
                figure: {region: {"pixels": s.pixels, "amount": s.amount} for region, s in by_region.items()}
                for figure, by_region in image.shares.items()
            }
            images.append({"name": image.name, **own, "sums": sums})
        return {
            "row": self.row(),
            "figures": self.figures(),
            "per_image": images,
            "without_truth": list(self.without_truth),
        }

    def _density(self) -> float:
        estimated, known = (
            sum((image.shares["sf"][region] for image in self.images), Share()) for region in ("estimated", "all")
        )
        return estimated.pixels / known.pixels


def figures_of(images: Sequence[Mapping[str, Mapping[str, Share]]], *averages: str) -> dict[str, float]:
    """Figures over images, of the regions that all of them have.

    `pooled` divides sums; `per_image` is the mean of the images' figures, leaving out images without a pixel of the
    region. NaN where there is no pixel at all.
    """
    result: dict[str, float] = {}
    for average in averages or ("pooled", "per_image"):
        for figure, unit in UNITS.items():
            for region in images[0][figure]:
                if not all(region in image[figure] for image in images):
                    continue
                shares = [image[figure][region] for image in images]
                groups = [sum(shares, Share())] if average == "pooled" else [s for s in shares if s.pixels]
                mean = sum(s.mean for s in groups) / len(groups) if groups else float("nan")
                result[f"{figure}_{region}_{average}{unit}"] = 100 * mean if unit == "_percent" else mean
    return result


def score_scene_flow_image(
    estimate: SceneFlowMaps, labels: SceneFlowLabels, name: str = ""
) -> SceneFlowImageScore | None:
    """Scores one image's scene flow.

    Args:
        estimate: At the truth's size. What is missing is filled from the background (see `stereo.
            interpolate_background` and `flow.fill_flow`); a disparity that is then still missing is an outlier, its
            motion infinitely wrong.
        labels: The truth.
        name: For messages.

    Returns:
        The sums, or None where no pixel has full truth.

    Raises:
        ValueError: If the sizes differ, or a map of the estimate is empty.
    """
    if estimate.disparity_px.shape != labels.maps.disparity_px.shape:
        raise ValueError(
            f"{name}: the prediction is {estimate.disparity_px.shape}, the truth {labels.maps.disparity_px.shape}; "
            "predict scene flow at the image's own size."
        )
    known, estimated = labels.maps.there(), estimate.there()
    if not known["sf"].any():
        return None
    empty = [part for part in PARTS if not estimated[part].any()]
    if empty:
        raise ValueError(f"{name}: the prediction has no estimate of {', '.join(empty)} at all.")
    filled = SceneFlowMaps(
        interpolate_background(estimate.disparity_px),
        interpolate_background(estimate.disparity_next_px),
        fill_flow(estimate.flow),
    )
    shares = {
        figure: {
            region: _share(wrong, where)
            for region, where in _regions(figure, known[figure], estimated[figure], labels).items()
        }
        for figure, wrong in outliers(filled, labels.maps).items()
    }
    regions = {r: w for r, w in _regions("sf", known["sf"], estimated["sf"], labels).items() if "noc" not in r}
    for figure, amount in _motion(filled, labels).items():
        shares[figure] = {region: _share(amount, where) for region, where in regions.items()}
    return SceneFlowImageScore(name, shares)


def outliers(estimate: SceneFlowMaps, truth: SceneFlowMaps) -> dict[str, np.ndarray]:
    """(H, W) bool by figure (`OUTLIERS`), True on outliers; meaningless where the truth is not known."""
    wrong = {}
    for part, one, other in (
        ("d1", estimate.disparity_px, truth.disparity_px),
        ("d2", estimate.disparity_next_px, truth.disparity_next_px),
    ):
        wrong[part] = disparity_outliers(one, np.where(other > 0, other, 1)) | (one <= 0)
    true_flow = np.where(np.isfinite(truth.flow), truth.flow, 0).astype(np.float64)
    error_px = np.linalg.norm(estimate.flow - true_flow, axis=2)
    wrong["fl"] = flow_outliers(error_px, np.linalg.norm(true_flow, axis=2))
    return {**wrong, "sf": wrong["d1"] | wrong["d2"] | wrong["fl"]}


def _motion(estimate: SceneFlowMaps, labels: SceneFlowLabels) -> dict[str, np.ndarray]:
    """(H, W) error in metres and what is accurate or an outlier, by figure (`MOTION`)."""
    truth = labels.maps.scene_flow(labels.K, labels.baseline_m)
    with np.errstate(invalid="ignore"):
        error_m = np.linalg.norm(estimate.scene_flow(labels.K, labels.baseline_m) - truth, axis=2)
        size_m = np.linalg.norm(truth, axis=2)
    error_m = np.where(np.isfinite(error_m), error_m, np.inf)
    return {
        "epe3d": error_m,
        "acc3d_strict": (error_m < 0.05) | (error_m < 0.05 * size_m),
        "acc3d_relaxed": (error_m < 0.1) | (error_m < 0.1 * size_m),
        "outliers3d": (error_m > 0.3) | (error_m > 0.1 * size_m),
    }


def _regions(figure: str, known: np.ndarray, estimated: np.ndarray, labels: SceneFlowLabels) -> dict[str, np.ndarray]:
    regions = {"all": known, "estimated": known & estimated}
    visible = labels.visible
    if visible is not None:
        seen = np.logical_and.reduce([visible[part] for part in (PARTS if figure == "sf" else (figure,))])
        regions["noc"] = known & seen
    if labels.objects is not None:
        for name, part in (("bg", labels.objects == 0), ("fg", labels.objects > 0)):
            regions[name] = known & part
            if visible is not None:
                regions[f"noc_{name}"] = regions["noc"] & part
    return regions


def _share(amount: np.ndarray, where: np.ndarray) -> Share:
    return Share(int(where.sum()), float(amount[where].sum(dtype=np.float64)))
