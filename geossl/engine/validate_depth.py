"""Depth metrics on samples with labels, during the training.

Published tables come from `geossl evaluate`; this is the whole image up to 80 m (protocol `native`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geossl.config import Data
from geossl.data.samples import Sample
from geossl.engine.distributed import World
from geossl.engine.labelled import labelled_samples, score_samples
from geossl.evaluation.depth import METRICS, get_protocol, score_image
from geossl.evaluation.truth import load_depth_truth
from geossl.methods.method import Method
from geossl.types import Batch, PredictsDepth

DepthTruth = NDArray[np.float32]
"""(H, W) metres at native size, 0 where unknown."""


def depth_samples(data: Data) -> Sequence[tuple[Batch, DepthTruth]]:
    """The samples of `data.validation` with depth labels; raises as `labelled_samples`."""

    def load(sample: Sample) -> DepthTruth:
        assert sample.truth is not None
        return load_depth_truth(sample.truth)

    return labelled_samples(data, (), lambda sample: sample.truth is not None, load)


def validate_depth(
    method: Method, samples: Sequence[tuple[Batch, DepthTruth]], world: World, precision: str = "fp32"
) -> dict[str, float]:
    """Scores a method's depth; the processes share the samples and all return the same.

    Args:
        method: In whatever mode; left in training mode.
        samples: Random access to labelled samples; unlabelled ones (nothing known within 80 m) are left out.

    Returns:
        `median/<metric>` after median scaling, `none/<metric>` without where the method is metric, `ratio_std` (spread
        of the scaling ratios about their median, relative) and `images`.

    Raises:
        ValueError: If the method predicts no depth, or no sample has labels.
    """
    if not isinstance(method, PredictsDepth):
        raise ValueError(f"{type(method).__name__} has no predict_depth; leave data.validation empty.")
    predict = method.predict_depth
    scalings = ("none", "median") if method.is_metric else ("median",)

    def score(batch: Batch, truth: DepthTruth) -> dict[str, float] | None:
        depth = predict(batch.target.image.float() / 255, batch.target.K)[0, 0].float().cpu().numpy()
        row: dict[str, float] = {}
        for scaling in scalings:
            found = score_image(depth, truth, get_protocol("native", scaling=scaling), batch.names[0])
            if found is not None:
                row |= {"ratio": found.ratio} | {f"{scaling}/{name}": found.metrics[name] for name in METRICS}
        return row or None

    rows = score_samples(method, samples, world, precision, score)
    if not rows:
        raise ValueError("no validation sample has a known depth within 80 m; check data.validation's labels.")
    ratios = np.array([row.pop("ratio") for row in rows])
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return means | {"ratio_std": float(np.std(ratios / np.median(ratios))), "images": float(len(rows))}
