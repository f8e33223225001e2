"""Errors of optical flow on samples with labels, during the training.

Images have the training's size; the flow from the target to the next image is brought to the truth's size and scored
there. Published tables come from `geossl evaluate`; these are means over images of the images' own figures.
"""

from __future__ import annotations

from collections.abc import Sequence

from geossl.config import Data
from geossl.data.samples import Sample
from geossl.engine.distributed import World
from geossl.engine.labelled import labelled_samples, score_samples
from geossl.evaluation.flow import FlowImageScore, figures_of, score_flow_image
from geossl.evaluation.flow_protocols import FlowProtocol
from geossl.evaluation.flow_truth import FlowLabels, load_flow_truth
from geossl.methods.method import Method
from geossl.types import Batch, PredictsFlow

FIGURES = FlowProtocol("validation", ("per_image",), epe=("all", "noc", "occ"), fl=("all", "noc"))


def flow_samples(data: Data, offsets: tuple[int, ...]) -> Sequence[tuple[Batch, FlowLabels]]:
    """The samples of `data.validation` with flow labels and sources at `offsets`; raises as `labelled_samples`."""

    def load(sample: Sample) -> FlowLabels:
        assert sample.flow_truth is not None
        return load_flow_truth(sample.flow_truth)

    return labelled_samples(data, offsets, lambda sample: sample.flow_truth is not None, load)


def validate_flow(
    method: Method, samples: Sequence[tuple[Batch, FlowLabels]], world: World, precision: str = "fp32"
) -> dict[str, float]:
    """Scores a method's flow to the next image; the processes share the samples and all return the same.

    Args:
        method: In whatever mode; left in training mode.
        samples: Random access to labelled samples whose sources are at the method's `flow_offsets`.

    Returns:
        `flow/epe_<region>` in pixels and `flow/fl_<region>_percent` for the regions all, noc and occ, as far as the
        labels of every sample define them, and `flow/images`.

    Raises:
        ValueError: If the method predicts no flow to the next image, an estimate is not finite, no sample has labels,
            or none of all and noc is defined by every sample's labels.
    """
    if not isinstance(method, PredictsFlow) or 1 not in method.flow_offsets:
        raise ValueError(f"{type(method).__name__} predicts no flow to the next image; leave data.validation empty.")
    predict, to_next = method.predict_flows, method.flow_offsets.index(1)

    def score(batch: Batch, truth: FlowLabels) -> FlowImageScore | None:
        target, *sources = (frame.image.float() / 255 for frame in (batch.target, *batch.sources))
        flow = predict(target, sources)[0, to_next].float().permute(1, 2, 0)  # (h, w, 2)
        return score_flow_image(flow.cpu().numpy(), truth, batch.names[0])

    rows = score_samples(method, samples, world, precision, score)
    if not rows:
        raise ValueError("no validation sample has a pixel of known flow; check data.validation's labels.")
    found = figures_of([row.regions for row in rows], FIGURES)
    figures = {f"flow/{name.replace('_per_image', '')}": value for name, value in found.items()}
    if not {"flow/epe_all", "flow/epe_noc"} & figures.keys():
        raise ValueError(
            "some labels of data.validation know hidden pixels only together with the visible ones, others only the "
            "visible ones, so no figure is of all samples; validate on one of them."
        )
    return figures | {"flow/images": float(len(rows))}
