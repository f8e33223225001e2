"""Colour jitter on the CPU: two passes over an image instead of some sixty."""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.kernels.library import FLOAT, INT, POINTER, in_parallel, kernel


def jittered(image: Tensor, factors: Tensor) -> Tensor:
    """`appearance.jitter`.

    Args:
        image: (B, 3, H, W) as `cpu_kernels_read` asks for.
        factors: (4, B) brightness, contrast, saturation, hue.
    """
    image, (b, _, h, w) = image.contiguous(), image.shape
    out = torch.empty_like(image)
    run = kernel("geossl_jitter", POINTER, POINTER, INT, FLOAT, FLOAT, FLOAT, FLOAT)
    columns = factors.float().T.tolist()
    in_parallel(lambda i: run(image[i].data_ptr(), out[i].data_ptr(), h * w, *columns[i]), b)
    return out
