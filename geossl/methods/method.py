"""The contract of a method: networks and an objective.

A method is a module. Called on a batch, it returns an `Objective`. Equal weights, batch and progress give an equal
objective, so that training resumes exactly; a method that draws (crops, noise) draws from torch's global generator
only, which the training seeds for every step and process. What it can predict it says by having `predict_depth`,
`predict_motions`, `predict_flows` or `predict_scene_flow` (see `geossl.types`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from geossl.config import Strict
from geossl.geometry.motion import rotation_angle
from geossl.types import Batch, MissingInput, Objective


class Method(nn.Module, ABC):
    """A system that learns from unlabelled batches."""

    Options: ClassVar[type[Strict]]
    is_metric: bool = False
    """Whether depths and translations are in metres."""
    uses_all_parameters: bool = True
    """Whether every parameter takes part in every batch (else DDP must search for the unused ones)."""
    progress: float = 0.0
    """Share of the training that is done, set before every step: what schedules of losses are functions of."""

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def forward(self, batch: Batch) -> Objective: ...

    def after_step(self) -> None:
        """Called after every optimiser step: moving averages of weights, queues and banks move here."""

    def require(self, batch: Batch, *, sources: bool = False, stereo: bool = False) -> None:
        """Raises `MissingInput` if the batch lacks an input, naming the method and the remedy."""
        name = type(self).__name__
        if sources and not batch.sources:
            raise MissingInput(
                f"{name} needs batch.sources, but {batch.names[0]} has none; set data.source_offsets, e.g. [-1, 1], "
                "and use a source with video."
            )
        if stereo and (batch.stereo is None or batch.T_stereo_target is None):
            raise MissingInput(
                f"{name} needs batch.stereo, but {batch.names[0]} has none; build the data with stereo=true from a "
                "source with two cameras and a known baseline."
            )


def motion_health(T: Tensor, metres_per_unit: float = 1.0) -> dict[str, Tensor]:
    """Mean length and angle of (B, 4, 4) motions, for the log."""
    T = T.detach()
    return {
        "translation": T[:, :3, 3].norm(dim=1).mean() * metres_per_unit,
        "rotation_deg": rotation_angle(T).mean().rad2deg(),
    }


def depth_health(depth: Tensor, metres_per_unit: float = 1.0) -> dict[str, Tensor]:
    """Median depth and relative spread of inverse depth of (B, 1, H, W), for the log."""
    depth = depth.detach().float()
    inverse = 1 / depth
    spread = inverse.std((1, 2, 3)) / inverse.mean((1, 2, 3))
    return {"median_depth": depth.median() * metres_per_unit, "disparity_spread": spread.mean()}
