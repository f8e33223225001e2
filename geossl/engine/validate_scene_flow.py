"""Errors of scene flow on samples with labels, during the training.

Images have the training's size; inverse depth and motion are brought to the truth's size and scored there, with the
truth's own camera, as KITTI 2015's disparities and flow. Published tables come from `geossl evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geossl.config import Data
from geossl.data.samples import Sample
from geossl.engine.distributed import World
from geossl.engine.labelled import labelled_samples, score_samples
from geossl.evaluation.scene_flow import UNITS, SceneFlowImageScore, figures_of, score_scene_flow_image
from geossl.evaluation.scene_flow_truth import SceneFlowLabels, SceneFlowMaps, load_scene_flow_truth
from geossl.geometry.conversion import scene_flow_to_flow
from geossl.geometry.transforms import upsample
from geossl.methods.method import Method
from geossl.types import Batch, PredictsSceneFlow

OFFSETS = (1,)


def scene_flow_samples(data: Data) -> Sequence[tuple[Batch, SceneFlowLabels]]:
    """The samples of `data.validation` with scene flow labels and the next image; raises as `labelled_samples`."""

    def load(sample: Sample) -> SceneFlowLabels:
        assert sample.scene_flow_truth is not None
        return load_scene_flow_truth(sample.scene_flow_truth)

    return labelled_samples(data, OFFSETS, lambda sample: sample.scene_flow_truth is not None, load)


def validate_scene_flow(
    method: Method, samples: Sequence[tuple[Batch, SceneFlowLabels]], world: World, precision: str = "fp32"
) -> dict[str, float]:
    """Scores a method's scene flow to the next image; the processes share the samples and all return the same.

    Args:
        method: In whatever mode; left in training mode.
        samples: Random access to labelled samples whose only source is the next image.

    Returns:
        `scene_flow/<figure>_all<unit>` over the pixels of all images together: d1, d2, fl and sf in percent, epe3d in
        metres, the other 3-D figures in percent; and `scene_flow/images`.

    Raises:
        ValueError: If the method predicts no scene flow in metres, an estimate is not finite, or no sample has labels.
    """
    if not isinstance(method, PredictsSceneFlow) or not method.is_metric:
        raise ValueError(f"{type(method).__name__} predicts no scene flow in metres; leave data.validation empty.")
    predict = method.predict_scene_flow

    def score(batch: Batch, truth: SceneFlowLabels) -> SceneFlowImageScore | None:
        target, source = (frame.image.float() / 255 for frame in (batch.target, batch.sources[0]))
        depth, scene_flow = (x.float().cpu() for x in predict(target, source, batch.target.K, batch.sources[0].K))
        return score_scene_flow_image(maps_of(depth, scene_flow, truth, batch.names[0]), truth, batch.names[0])

    rows = score_samples(method, samples, world, precision, score)
    if not rows:
        raise ValueError("no validation sample has a pixel of known scene flow; check data.validation's labels.")
    found = figures_of([row.shares for row in rows], "pooled")
    figures = {f"scene_flow/{name}_all{unit}": found[f"{name}_all_pooled{unit}"] for name, unit in UNITS.items()}
    return figures | {"scene_flow/images": float(len(rows))}


def maps_of(depth: Tensor, scene_flow: Tensor, truth: SceneFlowLabels, name: str = "") -> SceneFlowMaps:
    """Disparities and flow of a prediction at the truth's size, with its camera.

    Args:
        depth: (1, 1, h, w) metres.
        scene_flow: (1, 3, h, w) metres.
        truth: Of the image, H x W.
        name: For messages.

    Returns:
        Maps of (H, W); a point that comes to lie behind the camera has no disparity at the second time and no flow.

    Raises:
        ValueError: If a value is not finite.
    """
    if not (torch.isfinite(depth).all() and torch.isfinite(scene_flow).all()):
        raise ValueError(f"{name}: the predicted depth or scene flow is not finite; the training has diverged.")
    size = truth.maps.disparity_px.shape
    K = torch.from_numpy(truth.K).float()[None]
    depth, scene_flow = 1 / upsample(1 / depth, size), upsample(scene_flow, size)
    flow, in_front = scene_flow_to_flow(depth, scene_flow, K)
    fx_baseline = float(truth.K[0, 0]) * truth.baseline_m
    next_depth = depth + scene_flow[:, 2:]
    disparity_next_px = torch.where(in_front, fx_baseline / next_depth, 0.0)
    return SceneFlowMaps(
        (fx_baseline / depth)[0, 0].numpy(),
        disparity_next_px[0, 0].numpy(),
        torch.where(in_front, flow, torch.nan)[0].permute(1, 2, 0).numpy(),  # (H, W, 2)
    )
