"""How papers score depth, as data: what is masked, scaled, resized and clipped, and in which order.

Every step is a field, every field is printed with every result, and none is chosen silently.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from geossl.evaluation.protocol_names import check_protocol_name
from geossl.kernels.evaluation import evaluation_kernels_run, middle_values

Scaling = Literal["none", "median", "factor"]
TruthKind = Literal["given", "lidar_z", "eigen_velo_forward", "eigen_z", "improved", "disparity"]

# Fractions of height and width: top, bottom, left, right.
CROPS: dict[str, tuple[float, float, float, float] | None] = {
    "none": None,
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),  # Garg et al. 2016
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),  # Eigen et al. 2014, as Monodepth computes it
}
TRUTH_KINDS: dict[str, str] = {
    "given": "whatever depth the data carries",
    "lidar_z": "LiDAR points as z-depth at the nearest pixel (evaluation.lidar.velodyne_to_depth)",
    "eigen_velo_forward": "LiDAR points by the published steps, depth = the LiDAR's forward coordinate",
    "eigen_z": "LiDAR points by the published steps, depth = the camera's z",
    "improved": "KITTI's improved depth maps (Uhrig et al. 2017)",
    "disparity": "KITTI 2015 disparity maps turned into depth",
}


@dataclass(frozen=True)
class DepthProtocol:
    """One way to score depth.

    Attributes:
        name: Under which it is asked for and reported.
        truth: Kind of ground truth it is defined on; see `TRUTH_KINDS`.
        crop: Which part of the image counts; see `CROPS`.
        truth_range: (above, below) in metres: truth outside is not scored. None scores all known truth.
        clip: (least, largest) in metres to which predictions are clipped. None leaves them.
        clip_before_scaling: Clip before the scaling instead of after it.
        scaling: "median" multiplies each prediction by median(truth) / median(prediction) over the scored pixels,
            "factor" every prediction by `factor`, "none" by nothing.
        factor: For scaling "factor", e.g. 5.4 for Monodepth2's stereo models.
        median: "numpy" takes the mid-point of the two middle values, "lower" the lower one, as torch.median does.
        resize: What is resized to the truth's size where the prediction has another: inverse depth or depth.
        corners_aligned: Resize so that the corner pixels' centres coincide (torch's align_corners=True) instead of
            the images' edges.
        d1: "pooled" over all pixels or "per_image" mean of the disparity outliers; None leaves D1 out.
        d1_strict: Outliers are > 3 px and > 5 % (KITTI's devkit) instead of >= (Monodepth's script).
    """

    name: str
    truth: TruthKind = "given"
    crop: str = "none"
    truth_range: tuple[float, float] | None = (1e-3, 80.0)
    clip: tuple[float, float] | None = (1e-3, 80.0)
    clip_before_scaling: bool = False
    scaling: Scaling = "none"
    factor: float = 1.0
    median: Literal["numpy", "lower"] = "numpy"
    resize: Literal["inverse_depth", "depth"] = "inverse_depth"
    corners_aligned: bool = False
    d1: Literal["pooled", "per_image"] | None = None
    d1_strict: bool = True

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise ValueError(f"crop '{self.crop}' should be one of {', '.join(CROPS)}.")
        if self.truth not in TRUTH_KINDS:
            raise ValueError(f"truth '{self.truth}' should be one of {', '.join(TRUTH_KINDS)}.")
        if self.scaling not in ("none", "median", "factor"):
            raise ValueError(f"scaling '{self.scaling}' should be none, median or factor.")
        if not self.factor > 0:
            raise ValueError(f"factor {self.factor} should be positive.")

    def describe(self) -> dict[str, str]:
        """Every choice in words, for a table row."""
        low, high = self.truth_range or (0.0, float("inf"))
        order = "before scaling" if self.clip_before_scaling else "after scaling"
        scaling = {"median": f"{self.median} median", "factor": f"factor {self.factor:g}"}.get(self.scaling, "none")
        return {
            "protocol": self.name,
            "truth": self.truth,
            "crop": self.crop,
            "cap": "none" if self.truth_range is None else f"{low:g} m < truth < {high:g} m",
            "clip": "none" if self.clip is None else f"{self.clip[0]:g} to {self.clip[1]:g} m {order}",
            "scaling": scaling,
            "resize": f"{self.resize}, bilinear, {'corners' if self.corners_aligned else 'edges'} aligned",
        }


PROTOCOLS: dict[str, DepthProtocol] = {
    protocol.name: protocol
    for protocol in (
        DepthProtocol("native", "lidar_z"),
        # Eigen's 697 images as Monodepth2 scores them; scaling "factor" 5.4 for its stereo models.
        DepthProtocol("eigen", "eigen_velo_forward", crop="garg", scaling="median"),
        # The 652 of them that have improved truth.
        DepthProtocol("eigen_benchmark", "improved", truth_range=None, scaling="median"),
        DepthProtocol("kitti2015", "disparity", truth_range=None, d1="pooled"),
        # Monodepth's script: metric, clipped first; its other crop; its KITTI 2015 figures.
        DepthProtocol("monodepth_garg", "eigen_velo_forward", crop="garg", clip_before_scaling=True),
        DepthProtocol("monodepth_eigen", "eigen_velo_forward", crop="eigen", clip_before_scaling=True),
        DepthProtocol(
            "monodepth_kitti2015",
            "disparity",
            truth_range=None,
            clip_before_scaling=True,
            d1="per_image",
            d1_strict=False,
        ),
        # SfMLearner resizes depth.
        DepthProtocol("sfmlearner", "eigen_velo_forward", crop="garg", scaling="median", resize="depth"),
        # PackNet: z, depth resized with aligned corners, torch's median, no least depth.
        DepthProtocol(
            "packnet",
            "eigen_z",
            crop="garg",
            truth_range=(0.0, 80.0),
            clip=(0.0, 80.0),
            scaling="median",
            median="lower",
            resize="depth",
            corners_aligned=True,
        ),
        # SC-Depth: from 0.1 m. Its truth maps are distributed as files; here they are made by the published steps.
        DepthProtocol(
            "sc_depth",
            "eigen_velo_forward",
            crop="garg",
            truth_range=(0.1, 80.0),
            clip=(0.1, 80.0),
            scaling="median",
            median="lower",
            resize="depth",
        ),
    )
}


def get_protocol(name: str, *, scaling: str | float | None = None) -> DepthProtocol:
    """The protocol of that name, with another scaling where one is given.

    Args:
        name: One of `PROTOCOLS`.
        scaling: "none", "median", or a factor such as 5.4 (a number or its text).

    Raises:
        ValueError: If a name is unknown; names the closest.
    """
    check_protocol_name(name, PROTOCOLS)
    protocol = PROTOCOLS[name]
    if scaling is None:
        return protocol
    if scaling == "none":
        return replace(protocol, scaling="none")
    if scaling == "median":
        return replace(protocol, scaling="median")
    try:
        return replace(protocol, scaling="factor", factor=float(scaling))
    except ValueError:
        raise ValueError(f"scaling '{scaling}' should be none, median or a positive factor such as 5.4.") from None


def crop_bounds(crop: str, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that count; for Garg's crop of 375 x 1242 they are 153:371 and 44:1197."""
    fractions = CROPS[crop]
    if fractions is None:
        return slice(0, height), slice(0, width)
    top, bottom, left, right = fractions
    return slice(int(top * height), int(bottom * height)), slice(int(left * width), int(right * width))


@dataclass(frozen=True, eq=False)
class ScoredTruth:
    """What a protocol scores of a truth: few pixels, of a LiDAR's depth map.

    Attributes:
        size: (height, width) of the truth.
        pixels: (N,) row * width + column, in ascending order.
        depth: (N,) metres.
        crop, truth_range: Of the protocol.
    """

    size: tuple[int, int]
    pixels: np.ndarray
    depth: np.ndarray
    crop: str
    truth_range: tuple[float, float] | None

    @cached_property
    def medians(self) -> dict[str, float]:
        """Of the depth, by the names of `DepthProtocol.median`."""
        return medians(self.depth)


def medians(values: np.ndarray) -> dict[str, float]:
    """(N,) positive values -> by the names of `DepthProtocol.median`."""
    if evaluation_kernels_run(values):
        lower, upper = middle_values(values)
    else:
        middle = (len(values) - 1) // 2
        parted = np.partition(values, middle)
        lower = float(parted[middle])
        upper = lower if len(values) % 2 else float(parted[middle + 1 :].min())
    return {"lower": lower, "numpy": (lower + upper) / 2}


def scored_truth(truth: np.ndarray | ScoredTruth, protocol: DepthProtocol) -> ScoredTruth:
    """The pixels and values that the protocol scores of a (H, W) truth (metres, 0 unknown).

    A truth that several predictions are scored on is better turned into this once.

    Raises:
        ValueError: If the truth is no map, or was chosen by a protocol that scores other pixels.
    """
    if isinstance(truth, ScoredTruth):
        if (truth.crop, truth.truth_range) != (protocol.crop, protocol.truth_range):
            raise ValueError(
                f"truth was chosen for crop {truth.crop} and range {truth.truth_range}, but '{protocol.name}' has "
                f"{protocol.crop} and {protocol.truth_range}; choose it with scored_truth under this protocol."
            )
        return truth
    if truth.ndim != 2:
        raise ValueError(f"truth has shape {truth.shape}; expected (H, W) metres.")
    height, width = truth.shape
    low, high = protocol.truth_range or (0.0, np.inf)
    rows, columns = crop_bounds(protocol.crop, height, width)
    inner = truth[rows, columns]
    found = np.flatnonzero((inner > max(low, 0.0)) & (inner < high))  # neither NaN nor infinity is
    row = found // max(inner.shape[1], 1)
    pixels = found + row * (width - inner.shape[1]) + (rows.start * width + columns.start)
    return ScoredTruth((height, width), pixels, truth.reshape(-1)[pixels], protocol.crop, protocol.truth_range)


def scored_pixels(truth: np.ndarray, protocol: DepthProtocol) -> np.ndarray:
    """(H, W) bool, True where the protocol scores this (H, W) truth (metres, 0 unknown)."""
    scored = np.zeros(truth.shape, bool)
    scored.reshape(-1)[scored_truth(truth, protocol).pixels] = True
    return scored
