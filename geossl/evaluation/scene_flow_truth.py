"""From a reference to the ground truth of scene flow to its maps, all on the first image's pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from geossl.evaluation.truth import of_image_size
from geossl.formats.files import FileRef
from geossl.formats.image import decode_grey
from geossl.formats.kitti_png import decode_disparity_png, decode_flow_png
from geossl.formats.street import decode_labels
from geossl.formats.truth import SceneFlowTruth

PARTS = ("d1", "d2", "fl")


@dataclass(frozen=True, eq=False)
class SceneFlowMaps:
    """Scene flow as KITTI has it: three maps on the first image's pixels, known or estimated.

    Attributes:
        disparity_px: (H, W) of the first image (D1); not positive or not finite where there is none.
        disparity_next_px: (H, W) that each point has at the second time (D2), likewise.
        flow: (H, W, 2) (du, dv) pixels to the second image (Fl); not finite where there is none.
    """

    disparity_px: np.ndarray
    disparity_next_px: np.ndarray
    flow: np.ndarray

    def __post_init__(self) -> None:
        height, width = self.disparity_px.shape
        for name, expected in (("disparity_next_px", (height, width)), ("flow", (height, width, 2))):
            values = getattr(self, name)
            if values.shape != expected:
                raise ValueError(
                    f"{name} has shape {values.shape}; expected {expected}, as disparity_px is {(height, width)}."
                )

    def there(self) -> dict[str, np.ndarray]:
        """(H, W) bool by part (`PARTS`), True where it holds a value; `sf` where all three do."""
        d1, d2 = (np.isfinite(d) & (d > 0) for d in (self.disparity_px, self.disparity_next_px))
        fl = np.isfinite(self.flow).all(axis=2)
        return {"d1": d1, "d2": d2, "fl": fl, "sf": d1 & d2 & fl}

    def scene_flow(self, K: np.ndarray, baseline_m: float) -> np.ndarray:
        """(H, W, 3) float64 metres: where each point is at the second time minus where it was, in the camera's frame.

        Where a disparity is 0 the point is infinitely far.

        Convention: fx = 700 px, baseline 0.5 m, disparities 35 and 50 px and no flow at the principal point: a point
        comes from 10 to 7 m, (0, 0, -3).
        """
        v, u = np.mgrid[: self.disparity_px.shape[0], : self.disparity_px.shape[1]]
        with np.errstate(divide="ignore", invalid="ignore"):
            before = lift(u, v, K[0, 0] * baseline_m / self.disparity_px.astype(np.float64), K)
            after = K[0, 0] * baseline_m / self.disparity_next_px.astype(np.float64)
            return lift(u + self.flow[..., 0], v + self.flow[..., 1], after, K) - before


def lift(u: np.ndarray, v: np.ndarray, z: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(H, W, 3) the points of depth z at pixels (u, v)."""
    return np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=2)


@dataclass(frozen=True, eq=False)
class SceneFlowLabels:
    """The true scene flow of one image to the next.

    Attributes:
        maps: Values where known.
        K: (3, 3) pixels.
        baseline_m: Distance to the other camera.
        objects: (H, W) integers, > 0 on moving objects; None without an object map.
        visible: By part (`PARTS`) (H, W) bool, True where the other image that the part leads to sees the point too;
            None where nothing says so.
    """

    maps: SceneFlowMaps
    K: np.ndarray
    baseline_m: float
    objects: np.ndarray | None = None
    visible: Mapping[str, np.ndarray] | None = None


def load_scene_flow_truth(truth: SceneFlowTruth) -> SceneFlowLabels:
    """The maps of an image's ground truth, at the image's own size.

    A synthetic street says of D1 which points the right image sees, of D2 and Fl which the next one sees.

    Raises:
        FileNotFoundError, FormatError: If a file is missing or damaged, or has another size than the image.
    """
    if truth.kind == "street":
        labels = decode_labels(truth.disparity.read(), str(truth.disparity))
        flow = np.where(labels.valid, labels.flow, np.float32("nan")).transpose(1, 2, 0)  # (H, W, 2)
        maps = SceneFlowMaps(
            of_image_size(labels.disparity_px, truth.size, truth.disparity), labels.disparity_px_next, flow
        )
        visible = {"d1": labels.visible_right, "d2": labels.visible_next, "fl": labels.visible_next}
        return SceneFlowLabels(maps, labels.K, labels.baseline_m, np.where(labels.static, 0, labels.objects), visible)
    assert truth.disparity_next is not None and truth.flow is not None
    assert truth.K is not None and truth.baseline_m is not None
    maps = SceneFlowMaps(
        _disparity(truth.disparity, truth), _disparity(truth.disparity_next, truth), _flow(truth.flow, truth)
    )
    seen = None
    if truth.visible is not None:
        first, second, flow_ref = truth.visible
        seen = SceneFlowMaps(_disparity(first, truth), _disparity(second, truth), _flow(flow_ref, truth)).there()
    objects = None
    if truth.object_map is not None:
        objects = of_image_size(
            decode_grey(truth.object_map.read(), str(truth.object_map)), truth.size, truth.object_map
        )
    return SceneFlowLabels(maps, truth.K, truth.baseline_m, objects, seen)


def _disparity(ref: FileRef, truth: SceneFlowTruth) -> np.ndarray:
    return of_image_size(decode_disparity_png(ref.read(), str(ref)), truth.size, ref)


def _flow(ref: FileRef, truth: SceneFlowTruth) -> np.ndarray:
    flow, valid = decode_flow_png(ref.read(), str(ref))
    return of_image_size(np.where(valid[..., None], flow, np.float32("nan")), truth.size, ref)
