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
from geossl.evaluation.flow_truth import FlowLabels
from geossl.methods.method import Method
from geossl.types import Batch, PredictsDepth, PredictsFlow


@dataclass(frozen=True)
class Validation:
    """Labelled samples of each task; none where the task is not validated."""

    depth: Sequence[tuple[Batch, DepthTruth]] = ()
    flow: Sequence[tuple[Batch, FlowLabels]] = ()

    def __bool__(self) -> bool:
        return bool(self.depth or self.flow)


def configured_validation(data: Data, method: Method) -> Validation:
    """The samples of `data.validation` with labels of what the method predicts.

    Raises:
        DataError: If there are sources but no such labels; or as `labelled_samples`.
    """
    if not data.validation:
        return Validation()
    depth = depth_samples(data) if isinstance(method, PredictsDepth) else ()
    flow = flow_samples(data, method.flow_offsets) if isinstance(method, PredictsFlow) else ()
    if not depth and not flow:
        tasks = [n for n, kind in (("depth", PredictsDepth), ("flow", PredictsFlow)) if isinstance(method, kind)]
        raise DataError(
            f"data.validation has no {' or '.join(tasks) or 'depth or flow'} labels, which {type(method).__name__} "
            "would be validated by; leave it empty."
        )
    return Validation(depth, flow)


def validate(method: Method, samples: Validation, world: World, precision: str = "fp32") -> dict[str, float]:
    """Scores a method in each task that has samples; see `validate_depth` and `validate_flow`."""
    figures = validate_depth(method, samples.depth, world, precision) if samples.depth else {}
    return figures | (validate_flow(method, samples.flow, world, precision) if samples.flow else {})


def headline(figures: Mapping[str, float], is_metric: bool) -> float:
    """The score that decides which checkpoint is best; the lower the better.

    Of depth abs_rel, without scaling if the method is metric; else of flow the end-point error over all pixels, or
    over the visible ones where the labels know no others.
    """
    names = ("none/abs_rel" if is_metric else "median/abs_rel", "flow/epe_all", "flow/epe_noc")
    score = next(figures[name] for name in names if name in figures)
    return score if math.isfinite(score) else math.inf
