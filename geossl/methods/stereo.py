"""Rectified stereo cameras by their geometry: which frame is the left one, and how far apart they stand."""

from __future__ import annotations

from abc import ABC
from typing import Any

import torch
from torch import Tensor

from geossl.methods.method import Method
from geossl.types import Frame

FOLLOWING = 0.01  # a batch's share in the baseline that is kept: the mean of some hundred batches, one sets no scale


class MetricByBaseline(Method, ABC):
    """A method that predicts disparity as a share of the width, which the training's cameras give a length.

    What such a share means in metres is a property of the cameras it was learned from. Their baseline is kept with the
    weights; where it differs within the training data, a moving average of it is.
    """

    is_metric = True
    baseline_m: Tensor

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.register_buffer("baseline_m", torch.tensor(torch.nan))

    @torch.no_grad()
    def follow_baseline(self, baseline: Tensor) -> None:
        """Takes the (B,) metres of a training batch into account; the first batch's mean is where it starts."""
        mean = baseline.mean()
        self.baseline_m.copy_(torch.where(self.baseline_m.isnan(), mean, self.baseline_m.lerp(mean, FOLLOWING)))

    def known_baseline(self) -> Tensor:
        """() metres.

        Raises:
            ValueError: If no batch has been learned from.
        """
        # A network that is being exported has no values to look at.
        if not torch.compiler.is_exporting() and self.baseline_m.isnan():
            raise ValueError(
                f"{type(self).__name__} has not learned from a stereo pair yet, so that the baseline that makes its "
                "disparity metres is unknown; train it before it predicts."
            )
        return self.baseline_m


def left_right(target: Frame, stereo: Frame, T_stereo_target: Tensor) -> tuple[Frame, Frame]:
    """The geometric left and right view of every sample, whichever of them is the target.

    A mirrored sample's left camera stands to the right of the other, and is its right view.

    Args:
        target, stereo: Frames of one time. T_stereo_target: (B, 4, 4), any unit.
    """
    target_is_left = T_stereo_target[:, 0, 3] < 0

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(target_is_left.view(-1, *[1] * (a.dim() - 1)), a, b)

    def chosen(a: Frame, b: Frame) -> Frame:
        image = choose(a.image, b.image)
        shared = a.jittered is a.image and b.jittered is b.image
        return Frame(image, image if shared else choose(a.jittered, b.jittered), choose(a.K, b.K))

    return chosen(target, stereo), chosen(stereo, target)


def baseline_of(T_stereo_target: Tensor) -> Tensor:
    """(B, 4, 4) metres -> (B,) distance of the cameras along x, >= 0."""
    return T_stereo_target[:, 0, 3].abs()
