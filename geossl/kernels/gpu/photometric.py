"""Warp, photometric error, least error over views and auto-mask on the GPU, with the gradient of the mean error.

Four kernels, over tiles of pixels: warp every view; its error, and the error's derivatives to the moments of its
window; whose error counts, and the sums; then each pixel gathers from the nine windows that see it. Between them stand
every view's warped image, error, share and (with a gradient) nine derivatives, until the call returns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.kernels.gpu.launch import TILE, tiles
from geossl.kernels.gpu.photometric_kernels import (
    SUMS,
    SUMS_OF_VIEW,
    decide_kernel,
    error_kernel,
    gradient_kernel,
    warp_kernel,
)


def unwarped_errors(target: Tensor, sources: Tensor, ssim_weight: float) -> Tensor:
    """(B, 3, H, W) and (V, B, 3, H, W) -> (B, V, H, W), as `geossl.kernels.photometric.unwarped_errors`."""
    return errors_of(sources, target, ssim_weight, None, None).transpose(0, 1)


def reproject(
    target: Tensor,
    sources: Tensor,
    depth: Tensor,
    projections: Tensor,
    still: Tensor | None,
    *,
    min_z: float,
    ssim_weight: float,
    minimum: bool,
    ignore_outside: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor, Tensor]:
    """What `geossl.kernels.photometric.reproject` needs of contiguous float32 tensors.

    Args:
        target, sources: (B, 3, H, W) and (V, B, 3, H, W), H and W at least 2.
        depth, still: (B, 1, H, W).
        projections: (V, B, 12), a homography and an epipole each.

    Returns:
        sums: (3,) float64, of the error, of its least over views where any has one, and of such pixels.
        of_depth: (B, 1, H, W) gradient of the mean error, None without gradient.
        of_projections: (V, B, 12) float64, its gradient, None without gradient.
        error, moving, warped: As the maps of `Reprojected`.
    """
    views, batch, _, h, w = sources.shape
    of_views, of_batch = tiles(h, w, views * batch), tiles(h, w, batch)
    count = of_batch[0] * of_batch[1]  # of a map's programs
    geometry = depth, projections, min_z
    with torch.cuda.device_of(depth):
        warped = torch.empty_like(sources)
        warp_kernel[of_views](sources, *geometry, warped, batch, h, w, **TILE)
        slopes = depth.new_empty(views, batch, 9, h, w) if with_gradient else None
        errors = errors_of(warped, target, ssim_weight, slopes, geometry if ignore_outside else None)

        share = torch.empty_like(errors) if with_gradient else None
        error, moving = torch.empty_like(depth), torch.empty_like(depth, dtype=torch.uint8)
        sums = depth.new_empty(batch * count, SUMS.value)
        rule = {"VIEWS": views, "MINIMUM": minimum, **TILE}
        decide_kernel[of_batch](errors, still, share, error, moving, sums, batch, h, w, **rule)
        totals = sums.sum(0, dtype=torch.float64)
        maps = error, moving.view(torch.bool), warped[0]
        if slopes is None:
            return totals, None, None, *maps

        of_depth = torch.empty_like(depth)
        parts = depth.new_empty(batch, count, views, SUMS_OF_VIEW.value)
        inputs = sources, target, warped, share, slopes, *geometry
        scales = (1 - ssim_weight) / 3, 1 / depth.numel()
        gradient_kernel[of_batch](*inputs, of_depth, parts, *scales, batch, h, w, views, **TILE)
    return totals, of_depth, parts.sum(1, dtype=torch.float64).transpose(0, 1), *maps


def errors_of(
    images: Tensor,
    target: Tensor,
    ssim_weight: float,
    slopes: Tensor | None,
    seen_by: tuple[Tensor, Tensor, float] | None,
) -> Tensor:
    """(V, B, 3, H, W) and (B, 3, H, W) -> (V, B, H, W) photometric errors.

    Args:
        slopes: (V, B, 9, H, W) to be filled with an error's derivatives, None where nobody asks.
        seen_by: Depth, projections and least z; where a view does not see the point its error is infinite. None: it
            sees all.
    """
    views, batch, _, h, w = images.shape
    errors = images.new_empty(views, batch, h, w)
    geometry = seen_by or (None, None, 0.0)
    sizes = batch, h, w
    with torch.cuda.device_of(images):
        error_kernel[tiles(h, w, views * batch)](
            images, target, *geometry, errors, slopes, ssim_weight, *sizes, IGNORE=seen_by is not None, **TILE
        )
    return errors
