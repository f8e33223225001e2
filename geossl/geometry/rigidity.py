"""What moves by itself: where optical flow contradicts the flow that the camera's motion alone induces.

The rule is KITTI's for a wrong flow, made as tolerant as the models are wrong. A pixel moves by itself where its flow
is off the rigid flow by more than 3 px of an image 1242 px wide (`LEAST_OF_WIDTH` of the width at any size), by more
than 5 % of its own length, and by more than 3 times the image's median. The first two are errors with which the
benchmark still calls a flow right, and so no sign of motion. The third is because most of a street stands still: the
median is the error of depth, motion and flow themselves. With it, models that are still learning never condemn more
than half of an image, so that what is left out for being wrong cannot keep them wrong. It was chosen over a learned
threshold because it needs no training, means the same at every image size, and can be checked against labels.

What it cannot see: a car that keeps its distance to the camera has no flow, which a depth without bound explains too;
only a depth that is known otherwise (from stereo) gives it away. Nor traffic that fills most of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.geometry.conversion import rigid_flow
from geossl.geometry.precision import float32_island

LEAST_OF_WIDTH = 3 / 1242  # KITTI's 3 px at KITTI's width
LEAST_OF_LENGTH = 0.05
LEAST_OF_MEDIAN = 3.0


@torch.no_grad()
@float32_island
def rigidity_residual(flow: Tensor, depth: Tensor, K: Tensor, T_b_a: Tensor, K_b: Tensor | None = None) -> Tensor:
    """How far optical flow is from the rigid flow of depth and camera motion.

    Args:
        flow: (B, 2, H, W) pixels, of view a to view b.
        depth: (B, 1, H, W) z-depth of view a, in the unit of `T_b_a`.
        K: (B, 3, 3) of view a. K_b: of view b, if different.
        T_b_a: (B, 4, 4).

    Returns:
        (B, 1, H, W) pixels, without gradient; infinite where the point would come to lie behind camera b.

    Raises:
        ValueError: If flow and depth differ in size.

    Convention: fx = 700 px, depth 10 m, the camera moves 1 m forward: 90 px beside the principal point the rigid flow
        is (10, 0); a flow of (4, 8) leaves a residual of 10.
    """
    if flow.shape[-2:] != depth.shape[-2:] or flow.shape[1] != 2:
        raise ValueError(
            f"flow has shape {tuple(flow.shape)}, depth {tuple(depth.shape)}; expected (B, 2, H, W) and (B, 1, H, W)."
        )
    return distance_from_rigid(flow, *rigid_flow(depth, K, T_b_a, K_b))


@torch.no_grad()
@float32_island
def distance_from_rigid(flow: Tensor, rigid: Tensor, in_front: Tensor) -> Tensor:
    """`rigidity_residual` of a rigid flow that is there already.

    Args:
        flow, rigid: (B, 2, H, W) pixels.
        in_front: (B, 1, H, W) bool, as `rigid_flow` gives it.
    """
    residual = torch.hypot(*(flow - rigid).split(1, dim=1))  # `norm` takes hundreds of times as long on CPUs
    return residual.where(in_front, residual.new_full((), torch.inf))


@torch.no_grad()
@float32_island
def moves_by_itself(
    residual: Tensor,
    flow: Tensor,
    of_width: float = LEAST_OF_WIDTH,
    of_length: float = LEAST_OF_LENGTH,
    of_median: float = LEAST_OF_MEDIAN,
) -> Tensor:
    """Whether a residual is too long for a point that stands still.

    It is over max(of_width W, of_length |flow|, of_median median(residual)), or not finite.

    The flow's length counts and not the rigid flow's, so that a camera motion that runs off cannot excuse itself.

    Args:
        residual: (B, 1, H, W) pixels, of `rigidity_residual`.
        flow: (B, 2, H, W) pixels.
        of_width: Least residual as a share of the image's width.
        of_length: Least residual as a share of the flow's length.
        of_median: Least residual as a multiple of the median over the image.

    Returns:
        (B, 1, H, W) bool.

    Convention: at W = 1242 and a median of 1 px: of a flow of 100 px, 5 px is still rigid and 5.1 px is not; of 20 px,
        3 and 3.1. At a median of 2 px it is 6 and 6.1 for both.
    """
    length = torch.hypot(*flow.split(1, dim=1))
    median = residual.flatten(1).nanmedian(dim=1).values[:, None, None, None]
    limit = torch.maximum(of_length * length, of_median * median).clamp_min(of_width * flow.shape[-1])
    return (residual > limit) | ~residual.isfinite()


@torch.no_grad()
def moving_and_static(residual: Tensor, flow: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """What moves by itself and what stands still, as far as the flow can be believed.

    Args:
        residual: (B, 1, H, W) pixels, of `rigidity_residual`. flow: (B, 2, H, W) pixels.
        visible: (B, 1, H, W) bool, True where the second view shows the point: elsewhere its flow is a guess.

    Returns:
        moving, static: (B, 1, H, W) bool each; of a hidden point neither is True.
    """
    moves = moves_by_itself(residual, flow)
    return moves & visible, ~moves & visible
