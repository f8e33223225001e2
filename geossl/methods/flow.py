"""What the methods of optical flow share: prediction of pairs, both directions in one call, figures for the log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from geossl.geometry.pixels import size_of
from geossl.geometry.transforms import resize_flow
from geossl.losses.reduction import share_of
from geossl.methods.method import Method
from geossl.types import Batch


class PairFlow(Method, ABC):
    """A method whose network maps a pair of images to the flow between them."""

    flow_offsets: tuple[int, ...] = (1,)

    @abstractmethod
    def flows(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """(B, 3, H, W) twice -> (B, 2, h, w) flows in pixels of their own maps, the finest first."""

    def predict_flows(self, target: Tensor, sources: Sequence[Tensor]) -> Tensor:
        """(B, 3, H, W) in [0, 1] of any size and one source -> (B, 1, 2, H, W) pixels."""
        (source,) = sources
        return resize_flow(self.flows(target, source)[0], size_of(target))[:, None]

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The clean images of the target and its first source.

        Raises:
            MissingInput: If there is no source.
        """
        self.require(batch, sources=True)
        return batch.target.image, batch.sources[0].image


def both_ways(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) twice -> first-then-second and second-then-first along the batch: (2B, C, H, W) each."""
    return torch.cat([first, second]), torch.cat([second, first])


def swapped(x: Tensor) -> Tensor:
    """The other direction's half of what `both_ways` stacked: (2B, ...) with its halves exchanged."""
    return x.roll(x.shape[0] // 2, 0)


@torch.no_grad()
def flow_health(flow: Tensor, visible: Tensor) -> dict[str, Tensor]:
    """Figures that tell whether flow collapsed, for the log: its mean length and what of the image takes part.

    Args:
        flow: (B, 2, H, W) pixels. visible: (B, 1, H, W) bool or in [0, 1].
    """
    length = torch.hypot(*flow.detach().float().unbind(1)).mean()
    return {"visible": share_of(visible), "flow_px": length, "flow_of_width": length / flow.shape[-1]}
