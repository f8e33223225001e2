"""What a decoder's convolution reads, on the CPU in one pass, forward and backward."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geossl.kernels import cpu_kernels_run
from geossl.kernels.library import INT, POINTER, in_parallel, kernel, pointer

WORTH_SHARING = 1 << 20  # elements; for fewer, waking another thread costs more than it takes over


class _Shape(ctypes.Structure):
    """The struct `Shape` of csrc/decoder.c."""

    _fields_ = tuple((name, ctypes.c_int) for name in ("height", "width", "channels", "joined", "factor", "half"))


def decoder_input_fits(x: Tensor, feature: Tensor | None) -> bool:
    """Whether the kernel computes `networks.depth_decoder.decoder_input` of these: see there, and `cpu_kernels_run`.

    It reads maps in channels_last, both float32 or both bfloat16.
    """
    maps = [x] if feature is None else [x, feature]
    alike = all(m.dtype == x.dtype and m.is_contiguous(memory_format=torch.channels_last) for m in maps)
    return alike and cpu_kernels_run(*maps, dtypes=(torch.float32, torch.bfloat16))


def padded_elu(x: Tensor, feature: Tensor | None, upsample: bool) -> Tensor:
    """`networks.depth_decoder.decoder_input`; the result, in channels_last, is all that is kept for the gradient.

    Args:
        x: (B, C, H, W). feature: (B, C', H, W), or twice as large with `upsample`; its size is not checked.
            Both as `decoder_input_fits` asks for.

    Returns:
        (B, C + C', H + 2, W + 2), or (B, C + C', 2 H + 2, 2 W + 2).

    Differs: a second derivative is refused. bfloat16 gradients are summed in float32, and ELU's slope is that of the
        rounded values, within 2^-9 of the exact one.
    """
    return _PaddedElu.apply(x, feature, 2 if upsample else 1)  # type: ignore[no-any-return]


class _PaddedElu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, feature: Tensor | None, factor: int) -> Tensor:
        b, c, h, w = x.shape
        joined = 0 if feature is None else feature.shape[1]
        size = (b, c + joined, factor * h + 2, factor * w + 2)
        out = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
        ctx.shape = _Shape(h, w, c, joined, factor, x.dtype == torch.bfloat16)
        ctx.save_for_backward(out)
        _over_rows("geossl_decoder_input", (x, feature, out), ctx.shape, b)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (out,) = ctx.saved_tensors
        s: _Shape = ctx.shape
        grad = grad.contiguous(memory_format=torch.channels_last)
        b = len(out)
        sizes = (b, s.channels, s.height, s.width), (b, s.joined, s.factor * s.height, s.factor * s.width)
        of_x, of_feature = (
            torch.empty(size, dtype=out.dtype, memory_format=torch.channels_last) if wanted else None
            for size, wanted in zip(sizes, ctx.needs_input_grad, strict=False)
        )
        _over_rows("geossl_decoder_input_backward", (grad, out, of_x, of_feature), s, b)
        return of_x, of_feature, None


def _over_rows(name: str, maps: tuple[Tensor | None, ...], shape: _Shape, batch: int) -> None:
    """Calls a function of csrc/decoder.c for the rows of all samples, shared between the threads."""
    run = kernel(name, *[POINTER] * (len(maps) + 1), INT, INT)
    pointers = *map(pointer, maps), ctypes.addressof(shape)
    rows = batch * shape.height
    size = shape.factor**2 * rows * shape.width * (shape.channels + shape.joined)
    parts = min(torch.get_num_threads(), rows) if size >= WORTH_SHARING else 1
    in_parallel(lambda i: run(*pointers, rows * i // parts, rows * (i + 1) // parts), parts)
