"""Rectified stereo cameras by their geometry: which frame is the left one, and how far apart they stand."""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.types import Frame


def left_right(target: Frame, stereo: Frame, T_stereo_target: Tensor) -> tuple[Frame, Frame]:
    """The geometric left and right view of every sample, whichever of them is the target.

    A mirrored sample's left camera stands to the right of the other, and is its right view.

    Args:
        target, stereo: Frames of one time. T_stereo_target: (B, 4, 4), any unit.
    """
    target_is_left = T_stereo_target[:, 0, 3] < 0

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(target_is_left.view(-1, *[1] * (a.dim() - 1)), a, b)

    left, right = (
        Frame(choose(a.image, b.image), choose(a.jittered, b.jittered), choose(a.K, b.K))
        for a, b in ((target, stereo), (stereo, target))
    )
    return left, right


def baseline_of(T_stereo_target: Tensor) -> Tensor:
    """(B, 4, 4) metres -> (B,) distance of the cameras along x, >= 0."""
    return T_stereo_target[:, 0, 3].abs()
