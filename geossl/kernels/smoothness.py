"""Edge weights of an image on the CPU, without maps of its differences."""

from __future__ import annotations

from torch import Tensor

from geossl.kernels import cpu_kernels_read
from geossl.kernels.library import FLOAT, INT, POINTER, bands, in_parallel, kernel, pointer


def edge_weights_fit(image: Tensor, edge: float, stride: int) -> bool:
    """Whether the kernel computes `losses.smoothness.edge_weights` of this image: float32 RGB, without a gradient."""
    return min(image.shape[2:]) > stride and edge >= 0 and cpu_kernels_read(image)


def edge_weights(image: Tensor, edge: float, stride: int) -> tuple[Tensor, Tensor]:
    """`losses.smoothness.edge_weights` of what `edge_weights_fit`."""
    image, (b, _, h, w) = image.contiguous(), image.shape
    along_x, along_y = image.new_empty(b, 1, h, w - stride), image.new_empty(b, 1, h - stride, w)
    run = kernel("geossl_edge_weights", *[POINTER] * 3, *[INT] * 3, FLOAT, INT, INT)
    parts = bands(b, h)

    def work(part: int) -> None:
        sample, first, end = parts[part]
        run(*(pointer(x[sample]) for x in (image, along_x, along_y)), h, w, stride, edge, first, end)

    in_parallel(work, len(parts))
    return along_x, along_y
