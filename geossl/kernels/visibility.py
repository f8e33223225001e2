"""Range map and forward-backward check in one pass over the flow, without gradient; here on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.kernels import gpu_kernels_run
from geossl.kernels.library import FLOAT, INT, POINTER, bands, in_parallel, kernel, pointer


def landed(flow: Tensor) -> Tensor:
    """The sums of `geometry.visibility.range_map`.

    Args:
        flow: (B, 2, H, W) pixels, such that `kernels_run`. A pixel whose flow is not finite lands nowhere.

    Returns:
        (B, 1, H, W).
    """
    if gpu_kernels_run(flow):
        from geossl.kernels.gpu.visibility import landed as on_gpu

        return on_gpu(flow)
    flow = flow.contiguous()
    batch, _, h, w = flow.shape
    parts = bands(batch, h)
    maps = flow.new_zeros(batch, len(parts) // max(batch, 1), h, w)  # each part lands anywhere: a map of its own
    run = kernel("geossl_range_map", POINTER, POINTER, INT, INT, INT, INT)
    own = maps.flatten(0, 1)

    def work(part: int) -> None:
        sample, first, end = parts[part]
        run(pointer(flow[sample]), pointer(own[part]), h, w, first, end)

    in_parallel(work, len(parts))
    return maps if maps.shape[1] == 1 else maps.sum(1, keepdim=True)


def returns(flow: Tensor, backward_flow: Tensor, relative: float, absolute: float) -> Tensor:
    """The test of `geometry.visibility.forward_backward_check`.

    Args:
        flow, backward_flow: (B, 2, H, W) pixels, such that `kernels_run`, W at least 2.

    Returns:
        (B, 1, H, W) bool, False where a flow that takes part is not finite.
    """
    if gpu_kernels_run(flow, backward_flow):
        from geossl.kernels.gpu.visibility import returns as on_gpu

        return on_gpu(flow, backward_flow, relative, absolute)
    flow, backward_flow = flow.contiguous(), backward_flow.contiguous()
    batch, _, h, w = flow.shape
    visible = torch.empty(batch, 1, h, w, dtype=torch.bool)
    run = kernel("geossl_forward_backward", *[POINTER] * 3, INT, INT, FLOAT, FLOAT, INT, INT)
    parts = bands(batch, h)

    def work(part: int) -> None:
        sample, first, end = parts[part]
        maps = pointer(flow[sample]), pointer(backward_flow[sample]), pointer(visible[sample])
        run(*maps, h, w, relative, absolute, first, end)

    in_parallel(work, len(parts))
    return visible
