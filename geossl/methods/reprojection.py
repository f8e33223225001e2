"""How well other views explain a target through its depth: warp, photometric error, least over views, auto-mask.

The plain functions below are the definition (Monodepth2's eq. 4 and 5). Where kernels fit, `Reprojection` runs
`geossl.kernels.photometric` instead, which computes the same in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.geometry.camera import MIN_Z, projection
from geossl.geometry.precision import float32_island
from geossl.geometry.warping import synthesize_target
from geossl.kernels import kernels_run
from geossl.kernels import photometric as fused
from geossl.kernels.photometric import Reprojected
from geossl.losses.photometric import photometric_map
from geossl.types import Frame

View = tuple[Frame, Tensor]  # a source and its (B, 4, 4) T_source_target


@dataclass(frozen=True)
class Criterion:
    """What counts as an error.

    Attributes:
        ssim_weight: Of SSIM against L1.
        minimum: Per-pixel least error over views; else their mean.
        outside: Targets that project outside a source: compare with its repeated border, or ignore.
    """

    ssim_weight: float = 0.85
    minimum: bool = True
    outside: Literal["border", "ignore"] = "border"


class Reprojection:
    """A target and its views, to be asked for the error of any number of depth maps of the target's size."""

    def __init__(
        self,
        target: Frame,
        views: Sequence[View],
        criterion: Criterion | None = None,
        may_stand_still: int = 0,
        left_out: Tensor | None = None,
    ) -> None:
        """
        Args:
            target: What is explained.
            views: What explains it, each with its motion.
            criterion: How errors are measured and combined.
            may_stand_still: So many of the views, from the first, take part in auto-masking: a pixel that their
                unwarped images explain better keeps that constant error.
            left_out: (B, n, H, W) bool of the first n views, True where a view says nothing of a pixel, warped or
                unwarped; None: nowhere. A pixel of which no view says anything has no error.
        """
        self.target, self.views = target, views
        rest = 0 if left_out is None else len(views) - left_out.shape[1]
        self.left_out = None if left_out is None else F.pad(left_out, (0, 0, 0, 0, 0, rest))
        self.criterion, self.may_stand_still = criterion or Criterion(), may_stand_still
        self.prepared = fused.prepare(target.image, [source.image for source, _ in views])

    def __call__(self, depth: Tensor, weight: Tensor | None = None, maps: bool = False) -> Reprojected:
        """
        Args:
            depth: (B, 1, H, W), in the unit of the motions.
            weight: (B, views, H, W) factors of the views' errors, None for 1.
            maps: Whether maps are asked for, not only their means.
        """
        depth = depth.float() if depth.dtype in (torch.float16, torch.bfloat16) else depth
        plain = weight is not None or self.left_out is not None
        if self.prepared is not None and not plain and kernels_run(depth):
            return self.in_one_pass(depth, maps)
        first, errors = reprojection_errors(self.target, depth, self.views, self.criterion)
        errors = errors if weight is None else weighted(errors, weight)
        errors = without(errors, self.left_out)
        error, moving = combine(errors, self.still, self.criterion.minimum)
        best = errors.detach().amin(1)
        explained = best.isfinite()
        best = best.where(explained, best.new_zeros(())).sum() / explained.sum()
        shown = {"error": error.detach(), "moving": moving, "warped": first.detach()} if maps else {}
        return Reprojected(error.mean(), best, explained.float().mean(), shown)

    def in_one_pass(self, depth: Tensor, maps: bool) -> Reprojected:
        assert self.prepared is not None
        return fused.reproject(
            self.prepared,
            depth,
            *self.projections,
            self.still,
            min_z=MIN_Z,
            ssim_weight=self.criterion.ssim_weight,
            minimum=self.criterion.minimum,
            ignore_outside=self.criterion.outside == "ignore",
            maps=maps,
        )

    @cached_property
    def identity(self) -> Tensor:
        """(B, views, H, W) errors of the unwarped sources."""
        image, weight = self.target.image, self.criterion.ssim_weight
        if self.prepared is not None:
            return fused.unwarped_errors(self.prepared, weight)
        with torch.no_grad():
            return torch.cat([photometric_map(source.image, image, weight) for source, _ in self.views], 1)

    @cached_property
    def still(self) -> Tensor | None:
        """(B, 1, H, W) error of standing still, None where nothing may."""
        if self.may_stand_still == 0:
            return None
        count = self.may_stand_still
        identity = without(self.identity[:, :count], None if self.left_out is None else self.left_out[:, :count])
        return identity.amin(1, keepdim=True) if self.criterion.minimum else mean_of_finite(identity)

    @cached_property
    def projections(self) -> tuple[Tensor, Tensor]:
        """(V, B, 3, 3) and (V, B, 3) float32: what the motions do to pixels."""
        with torch.autocast(self.target.K.device.type, enabled=False):
            both = [projection(self.target.K, T.float(), source.K) for source, T in self.views]
            homographies, epipoles = (torch.stack(matrices).float() for matrices in zip(*both, strict=True))
        return homographies, epipoles


@float32_island
def reprojection_errors(
    target: Frame, depth: Tensor, views: Sequence[View], criterion: Criterion
) -> tuple[Tensor, Tensor]:
    """The first view's warp (B, 3, H, W) and (B, views, H, W) photometric errors; infinite where ignored."""
    errors, first = [], None
    for source, T_source_target in views:
        warped, visible = synthesize_target(source, depth, target.K, T_source_target)
        error = photometric_map(warped, target.image, criterion.ssim_weight)
        if criterion.outside == "ignore":
            error = error.where(visible, error.new_full((), torch.inf))
        errors.append(error)
        first = warped if first is None else first
    assert first is not None
    return first, torch.cat(errors, 1)


def weighted(errors: Tensor, weight: Tensor) -> Tensor:
    """(B, views, H, W) errors times their weights; infinite ones stay infinite, and give their weight no gradient."""
    ignored = errors.isinf()  # times a gradient of 0 it would be no number
    return (errors.masked_fill(ignored, 0) * weight).masked_fill(ignored, torch.inf)


def without(errors: Tensor, left_out: Tensor | None) -> Tensor:
    """(B, views, H, W) errors, infinite where a view is left out."""
    return errors if left_out is None else errors.masked_fill(left_out, torch.inf)


def mean_of_finite(errors: Tensor) -> Tensor:
    """(B, views, H, W) -> (B, 1, H, W) mean over the views that have an error; infinite where none has."""
    finite = errors.isfinite()
    count = finite.sum(1, keepdim=True)
    mean = errors.where(finite, errors.new_zeros(())).sum(1, keepdim=True) / count.clamp_min(1)
    return mean.where(count > 0, mean.new_full((), torch.inf))


def combine(errors: Tensor, still: Tensor | None, minimum: bool) -> tuple[Tensor, Tensor]:
    """What training minimises (B, 1, H, W), and where it is the warp's.

    Args:
        errors: (B, views, H, W), infinite where ignored.
        still: (B, 1, H, W) error of standing still, infinite where unknown; None: every pixel with an error moves.
        minimum: Least error over views; else their mean.

    Source: Godard et al., ICCV 2019, eq. 4 and 5.
    """
    error = errors.amin(1, keepdim=True) if minimum else mean_of_finite(errors)  # eq. 4
    moving = error.isfinite()
    if still is None:
        return error.where(moving, error.new_zeros(())), moving
    moving = moving & (error < still)  # eq. 5
    # Static pixels keep their constant error: the mean is over all pixels, as published.
    constant = still.where(still.isfinite(), still.new_zeros(()))
    return torch.where(moving, error, constant), moving
