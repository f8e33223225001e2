"""Metrics on samples with labels, during the training: does it go well, and which checkpoint is best?

The labels are used here only: a batch cannot carry them, so the training never sees them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geossl.config import Data
from geossl.data.samples import DataError
from geossl.engine.distributed import World
from geossl.engine.validate_depth import DepthTruth, depth_samples, validate_depth
from geossl.engine.validate_flow import flow_samples, validate_flow
from geossl.engine.validate_scene_flow import scene_flow_samples, validate_scene_flow
from geossl.evaluation.flow_truth import FlowLabels
from geossl.evaluation.scene_flow_truth import SceneFlowLabels
from geossl.methods.method import Method
from geossl.types import Batch, PredictsDepth, PredictsFlow, PredictsSceneFlow

TASKS = ("depth", "flow", "scene flow")


@dataclass(frozen=True)
class Validation:
    """Labelled samples of each task; none where the task is not validated."""

    depth: Sequence[tuple[Batch, DepthTruth]] = ()
    flow: Sequence[tuple[Batch, FlowLabels]] = ()
    scene_flow: Sequence[tuple[Batch, SceneFlowLabels]] = ()

    def __bool__(self) -> bool:
        return bool(self.depth or self.flow or self.scene_flow)


def configured_validation(data: Data, method: Method) -> Validation:
    """The samples of `data.validation` with labels of what the method predicts.

    Raises:
        DataError: If there are sources but no such labels; or as `labelled_samples`.
    """
    if not data.validation:
        return Validation()
    tasks = tasks_of(method)
    depth = depth_samples(data) if "depth" in tasks else ()
    flow = flow_samples(data, method.flow_offsets) if isinstance(method, PredictsFlow) else ()
    scene_flow = scene_flow_samples(data) if "scene flow" in tasks else ()
    found = Validation(depth, flow, scene_flow)
    if not found:
        raise DataError(
            f"data.validation has no {' or '.join(tasks or TASKS)} labels, which {type(method).__name__} "
            "would be validated by; leave it empty."
        )
    return found


def tasks_of(method: Method) -> list[str]:
    """The `TASKS` that a method is validated in. Scene flow is scored as disparities, which take metres."""
    motion = isinstance(method, PredictsSceneFlow) and method.is_metric
    predicts = (isinstance(method, PredictsDepth), isinstance(method, PredictsFlow), motion)
    return [task for task, predicted in zip(TASKS, predicts, strict=True) if predicted]


def validate(method: Method, samples: Validation, world: World, precision: str = "fp32") -> dict[str, float]:
    """Scores a method in each task that has samples; see `validate_depth`, `_flow` and `_scene_flow`."""
    figures = validate_depth(method, samples.depth, world, precision) if samples.depth else {}
    if samples.flow:
        figures |= validate_flow(method, samples.flow, world, precision)
    if samples.scene_flow:
        figures |= validate_scene_flow(method, samples.scene_flow, world, precision)
    return figures


def headline(figures: Mapping[str, float], is_metric: bool) -> float:
    """The score that decides which checkpoint is best; the lower the better.

    Of scene flow its outliers; else of depth abs_rel, without scaling if the method is metric; else of flow the
    end-point error over all pixels, or over the visible ones where the labels know no others.
    """
    depth = "none/abs_rel" if is_metric else "median/abs_rel"
    names = ("scene_flow/sf_all_percent", depth, "flow/epe_all", "flow/epe_noc")
    score = next(figures[name] for name in names if name in figures)
    return score if math.isfinite(score) else math.inf
