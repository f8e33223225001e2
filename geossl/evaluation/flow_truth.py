"""From a reference to the ground truth of optical flow to its maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geossl.evaluation.truth import of_image_size
from geossl.formats.files import FileRef
from geossl.formats.flo import decode_flo
from geossl.formats.image import decode_grey
from geossl.formats.kitti_png import decode_flow_png
from geossl.formats.street import decode_labels
from geossl.formats.truth import FlowTruth


@dataclass(frozen=True, eq=False)
class FlowLabels:
    """The true flow of one image to the next.

    Attributes:
        flow: (H, W, 2) float32 (du, dv) pixels; anything where not valid.
        valid: (H, W) bool, True where the flow is known and scored.
        visible: (H, W) bool, True where the point is also seen in the next image; None where nothing says so.
        objects: (H, W) integers, > 0 on moving objects; None without an object map.
        visible_flow: (H, W, 2) flow by which the visible pixels alone are scored, where a file of its own holds it:
            KITTI 2012's flow_noc differs from flow_occ in a fortieth of its pixels, by up to 1.7 px.
        visible_only: Whether the flow of hidden points is not known, so that there are no figures of all pixels.
    """

    flow: np.ndarray
    valid: np.ndarray
    visible: np.ndarray | None = None
    objects: np.ndarray | None = None
    visible_flow: np.ndarray | None = None
    visible_only: bool = False

    def __post_init__(self) -> None:
        height, width = self.valid.shape
        for name in ("flow", "visible", "objects", "visible_flow"):
            values = getattr(self, name)
            expected = (height, width, 2) if name.endswith("flow") else (height, width)
            if values is not None and values.shape != expected:
                raise ValueError(f"{name} has shape {values.shape}; expected {expected}, as valid is {height, width}.")


def load_flow_truth(truth: FlowTruth) -> FlowLabels:
    """The maps of an image's ground truth, at the image's own size.

    Raises:
        FileNotFoundError, FormatError: If a file is missing or damaged, or has another size than the image.
    """
    where = str(truth.flow)
    if truth.kind == "street":
        labels = decode_labels(truth.flow.read(), where)
        flow = np.ascontiguousarray(labels.flow.transpose(1, 2, 0))  # (H, W, 2)
        return FlowLabels(
            of_image_size(flow, truth.size, truth.flow),
            labels.flow_valid_occ,
            labels.visible_next,
            np.where(labels.static, 0, labels.objects),
        )
    if truth.kind == "kitti_png":
        flow, valid = decode_flow_png(truth.flow.read(), where)
    else:
        flow = decode_flo(truth.flow.read(), where)
        valid = np.asarray(np.isfinite(flow).all(axis=2))
    flow = of_image_size(flow, truth.size, truth.flow)
    visible: np.ndarray | None = None
    visible_flow = None
    if truth.visible_only:
        visible = valid
    elif truth.visible_flow is not None:
        visible_flow, visible = decode_flow_png(truth.visible_flow.read(), str(truth.visible_flow))
        of_image_size(visible, truth.size, truth.visible_flow)
    elif truth.occlusions is not None:
        visible = np.equal(_grey(truth.occlusions, truth), 0)
    if truth.invalid is not None:
        valid = valid & (_grey(truth.invalid, truth) == 0)
    objects = None if truth.object_map is None else _grey(truth.object_map, truth)
    return FlowLabels(flow, valid, visible, objects, visible_flow, truth.visible_only)


def _grey(ref: FileRef, truth: FlowTruth) -> np.ndarray:
    return of_image_size(decode_grey(ref.read(), str(ref)), truth.size, ref)
