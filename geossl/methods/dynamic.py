"""What moves by itself, found by a frozen flow model: pixels that depth and camera motion must not explain.

A car with its own motion is explained by a wrong depth: too far where it drives ahead, too near where it comes. Where
the flow of a model trained before contradicts depth and motion, the other times' images teach nothing; an image of
the same time (stereo) still does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geossl.geometry.rigidity import moves_by_itself, rigidity_residual
from geossl.methods.teacher import LazyTeacher
from geossl.types import Batch, MissingInput, PredictsFlow


class FlowConsistency:
    """Compares the rigid flow of what is being learned with a trained model's optical flow.

    It is no module: the weights of what is learned are complete without it, and are exported without it.
    """

    def __init__(self, path: str) -> None:
        """
        Args:
            path: Run folder or model folder of a flow model; read when it is first needed.
        """
        self.teacher = LazyTeacher(path)

    def model(self, batch: Batch) -> PredictsFlow:
        """The flow model, on the batch's device.

        Raises:
            FileNotFoundError, ValueError: If there is no trained model, or its weights do not fit.
            MissingInput: If it predicts no flow, or needs frames that the batch has not.
        """
        model, path = self.teacher.on(batch.target.image.device), self.teacher.path
        if not isinstance(model, PredictsFlow):
            raise MissingInput(
                f"flow_model '{path}' is a {type(model).__name__}, which predicts no optical flow; give the run "
                "folder of a flow model, such as arflow."
            )
        needed = set(model.flow_offsets)
        if len(needed) > 1 and needed != set(batch.source_offsets):
            raise MissingInput(
                f"flow_model '{path}' sees the frames at {sorted(needed)} at once, but data.source_offsets is "
                f"{list(batch.source_offsets)}; make them the same, or take a flow model of two frames."
            )
        return model

    @torch.no_grad()
    def flows(self, batch: Batch) -> list[Tensor]:
        """(B, 2, H, W) pixels from the target to each source of the batch; errors as `model`."""
        model, target, images = self.model(batch), batch.target.image, [source.image for source in batch.sources]
        if len(model.flow_offsets) == 1:  # it sees two frames, and to the one before, time played backwards
            flows = model.predict_flows(target.repeat(len(images), 1, 1, 1), [torch.cat(images)])[:, 0]
            return list(flows.float().chunk(len(images)))
        place = batch.source_offsets.index
        flows = model.predict_flows(target, [images[place(offset)] for offset in model.flow_offsets])
        return [flows[:, model.flow_offsets.index(offset)].float() for offset in batch.source_offsets]

    def moving(self, batch: Batch, depth: Tensor, motions: Sequence[Tensor]) -> Tensor:
        """What moves by itself between the target and each source.

        Args:
            batch: Its clean images are compared.
            depth: (B, 1, H, W) of the target. motions: (B, 4, 4) T_source_target of each source, in its unit.

        Returns:
            (B, sources, H, W) bool, without gradient.
        """
        found = []
        for flow, source, T in zip(self.flows(batch), batch.sources, motions, strict=True):
            residual = rigidity_residual(flow, depth.detach(), batch.target.K, T.detach(), source.K)
            found.append(moves_by_itself(residual, flow))
        return torch.cat(found, 1)
