"""Warp, photometric error, least error over views and auto-mask in one pass over the rows of every sample.

Between the depth and the mean error of Monodepth2 the plain functions write some sixty maps and read them again in the
backward pass. Here, on the CPU, a row is warped, compared with its neighbours and differentiated while it is in the
cache, and all that is kept is the gradient of the mean error, computed along with it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geossl.kernels import cpu_kernels_run, gpu_kernels_run
from geossl.kernels.library import FLOAT, INT, LONG, POINTER, bands, in_parallel, kernel, pointer

MAX_VIEWS = 8  # of csrc/reprojection.c
SUMS, SUMS_OF_VIEW = 3, 12


class _Arguments(ctypes.Structure):
    """The struct `Reprojection` of csrc/reprojection.c."""

    _fields_ = (
        *((name, POINTER) for name in ("depth", "target", "sources", "homography", "epipole", "still")),
        *((name, POINTER) for name in ("grad_depth", "error", "moving", "warped")),
        *((name, ctypes.c_int32) for name in ("batch", "height", "width", "views", "minimum", "ignore")),
        *((name, ctypes.c_float) for name in ("ssim_weight", "min_z", "grad_scale")),
    )


@dataclass(frozen=True)
class Views:
    """A target and the images that may explain it, as the kernel reads them: made once, used for every depth map.

    Attributes:
        target: (B, 3, H, W), contiguous.
        sources: On the CPU (V, B, H, W, 4), the colours of a pixel side by side; on the GPU (V, B, 3, H, W).
        on_gpu: Whether they are made for the GPU kernels.
    """

    target: Tensor
    sources: Tensor
    on_gpu: bool = False


@dataclass(frozen=True)
class Reprojected:
    """How well views explain a target through a depth map.

    Attributes:
        loss: () mean over all pixels of what training minimises.
        best: () mean of the least error over views, where any has one; detached.
        explained: () share of the pixels for which any view has an error; detached.
        maps: Detached, empty unless asked for: `error` (B, 1, H, W), what training minimises; `moving` (B, 1, H, W)
            bool, True where it is the error of a warp (the others have no gradient); `warped` (B, 3, H, W), the target
            as the first view explains it.
    """

    loss: Tensor
    best: Tensor
    explained: Tensor
    maps: Mapping[str, Tensor]


def prepare(target: Tensor, sources: Sequence[Tensor]) -> Views | None:
    """Images as the kernel reads them, None where the plain functions have to run (see `kernels_run`).

    Args:
        target: (B, 3, H, W). sources: As many views of the same size, without gradient.
    """
    shape = target.shape
    learned = any(image.requires_grad for image in (target, *sources))
    fits = shape[1] == 3 and min(shape[2:]) >= 2 and 1 <= len(sources) <= MAX_VIEWS
    if learned or not fits or any(s.shape != shape for s in sources):
        return None
    if gpu_kernels_run(target, *sources):
        return Views(target.contiguous(), torch.stack([source.contiguous() for source in sources]), on_gpu=True)
    if not cpu_kernels_run(target, *sources):
        return None
    b, _, h, w = shape
    packed = target.new_empty(len(sources), b, h, w, 4)
    pack = kernel("geossl_pack", POINTER, LONG, LONG, LONG, POINTER, INT, INT)

    def work(index: int) -> None:
        image = sources[index // b][index % b]
        pack(pointer(image), *image.stride(), pointer(packed[index // b, index % b]), h, w)

    in_parallel(work, len(sources) * b)
    return Views(target.contiguous(), packed)


def unwarped_errors(views: Views, ssim_weight: float = 0.85) -> Tensor:
    """(B, V, H, W) photometric errors of the unwarped sources, as of `geossl.losses.photometric.photometric_map`."""
    if views.on_gpu:
        from geossl.kernels.gpu.photometric import unwarped_errors as on_gpu

        return on_gpu(views.target, views.sources, ssim_weight)
    count, b, h, w, _ = views.sources.shape
    out = views.target.new_empty(b, count, h, w)
    run = kernel("geossl_unwarped_error", POINTER, POINTER, POINTER, INT, INT, FLOAT, INT, INT)
    parts = bands(b, h)

    def work(index: int) -> None:
        sample, first, last = parts[index % len(parts)]
        view = index // len(parts)
        images = (views.sources[view, sample], views.target[sample], out[sample, view])
        run(*map(pointer, images), h, w, ssim_weight, first, last)

    in_parallel(work, count * len(parts))
    return out


def reproject(
    views: Views,
    depth: Tensor,
    homographies: Tensor,
    epipoles: Tensor,
    still: Tensor | None = None,
    *,
    min_z: float,
    ssim_weight: float = 0.85,
    minimum: bool = True,
    ignore_outside: bool = False,
    maps: bool = False,
) -> Reprojected:
    """The error of a depth map under the views' motions; differentiable in depth, homographies and epipoles.

    Args:
        views: From `prepare`.
        depth: (B, 1, H, W) float32.
        homographies, epipoles: (V, B, 3, 3) and (V, B, 3), from `geossl.geometry.camera.projection` for every view.
        still: (B, 1, H, W) error of standing still; a pixel that moves has less. None: every pixel moves.
        min_z: A point with no greater z has no projection.
        ssim_weight: As in `photometric_map`.
        minimum: Take the least error over views; else their mean.
        ignore_outside: Whether a view has no error where it does not see the point; else its border is repeated.
        maps: Whether to return maps, not only their means.

    Differs: a second derivative is refused.
    """
    rule = Rule(min_z, ssim_weight, minimum, ignore_outside, maps)
    loss, best, explained, *shown = _Reproject.apply(depth, homographies, epipoles, views, still, rule)
    named = dict(zip(("error", "moving", "warped"), shown, strict=True)) if maps else {}
    return Reprojected(loss, best, explained, named)


class Rule(NamedTuple):
    """How `reproject` is asked."""

    min_z: float
    ssim_weight: float
    minimum: bool
    ignore_outside: bool
    maps: bool


class Sums(NamedTuple):
    """What a kernel gives: sums over all pixels, the gradients of the mean error, and maps, None unless asked for.

    Attributes:
        totals: (3,) float64, of the error, of its least over views where any has one, and of such pixels.
        of_depth: (B, 1, H, W). of_projections: (V, B, 12), to homographies and epipoles.
    """

    totals: Tensor
    of_depth: Tensor | None
    of_projections: Tensor | None
    error: Tensor | None
    moving: Tensor | None
    warped: Tensor | None


class _Reproject(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        depth: Tensor,
        homographies: Tensor,
        epipoles: Tensor,
        views: Views,
        still: Tensor | None,
        rule: Rule,
    ) -> tuple[Tensor | None, ...]:
        depth, still = depth.contiguous(), None if still is None else still.contiguous()
        matrices, vectors = homographies.contiguous(), epipoles.contiguous()
        if views.on_gpu:
            found = _on_gpu(depth, matrices, vectors, views, still, rule, any(ctx.needs_input_grad))
        else:
            found = _on_cpu(depth, matrices, vectors, views, still, rule)
        if found.of_projections is not None:
            of_views = found.of_projections.float()
            ctx.save_for_backward(found.of_depth, of_views[..., :9].unflatten(-1, (3, 3)), of_views[..., 9:])
        loss, least, count = found.totals
        means = ((loss / depth.numel()).float(), (least / count).float(), (count / depth.numel()).float())
        outputs = (*means, found.error, found.moving, found.warped)
        ctx.mark_non_differentiable(*(x for x in outputs[1:] if x is not None))
        return outputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True, of which the saved gradients would be constants
            raise RuntimeError("the fused reprojection has no second derivative; use kernels.use('plain').")
        return (*(saved * grad for saved in ctx.saved_tensors), None, None, None)


def _on_cpu(depth: Tensor, matrices: Tensor, vectors: Tensor, views: Views, still: Tensor | None, rule: Rule) -> Sums:
    b, _, h, w = depth.shape
    of_depth = torch.empty_like(depth)
    error = torch.empty_like(depth) if rule.maps else None
    moving = torch.empty_like(depth, dtype=torch.bool) if rule.maps else None
    warped = torch.empty_like(views.target) if rule.maps else None
    parts = bands(b, h)
    sums = torch.empty(len(parts), SUMS + SUMS_OF_VIEW * len(matrices), dtype=torch.float64)
    tensors = (depth, views.target, views.sources, matrices, vectors, still, of_depth, error, moving, warped)
    sizes = (b, h, w, len(matrices), rule.minimum, rule.ignore_outside)
    arguments = _Arguments(*map(pointer, tensors), *sizes, rule.ssim_weight, rule.min_z, 1 / depth.numel())
    run = kernel("geossl_reprojection", POINTER, INT, INT, INT, POINTER)
    in_parallel(lambda i: run(ctypes.addressof(arguments), *parts[i], pointer(sums[i])), len(parts))
    of_sample = sums.unflatten(0, (b, -1)).sum(1)  # (B, 3 + 12 V)
    of_view = of_sample[:, SUMS:].unflatten(1, (-1, SUMS_OF_VIEW)).movedim(0, 1)  # (V, B, 12)
    return Sums(of_sample[:, :SUMS].sum(0), of_depth, of_view, error, moving, warped)


def _on_gpu(
    depth: Tensor,
    matrices: Tensor,
    vectors: Tensor,
    views: Views,
    still: Tensor | None,
    rule: Rule,
    with_gradient: bool,
) -> Sums:
    from geossl.kernels.gpu.photometric import reproject as on_gpu

    min_z, ssim_weight, minimum, ignore_outside, maps = rule
    found = on_gpu(
        views.target,
        views.sources,
        depth,
        torch.cat([matrices.flatten(2), vectors], -1),
        still,
        min_z=min_z,
        ssim_weight=ssim_weight,
        minimum=minimum,
        ignore_outside=ignore_outside,
        with_gradient=with_gradient,
    )
    return Sums(*found) if maps else Sums(*found[:3], None, None, None)
