"""Upsampling of every backend, with its gradient, against torch's in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from geossl import kernels
from geossl.geometry.transforms import upsample


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 1, 7, 9), (28, 36)),
        ((1, 3, 5, 8), (13, 11)),  # by no whole factor
        ((2, 1, 9, 12), (4, 5)),  # rows that nothing reads
        ((1, 2, 1, 1), (3, 4)),
        ((1, 1, 1, 6), (5, 6)),
        ((3, 2, 4, 6), (4, 12)),
    ],
)
def test_upsampling_equals_float64(backend: str, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x, upstream = torch.randn(shape), torch.randn(*shape[:2], *size)
    exact = x.double().requires_grad_()
    expected = F.interpolate(exact, size, mode="bilinear", align_corners=False)
    (of_exact,) = torch.autograd.grad(expected, exact, upstream.double())
    x.requires_grad_()
    with kernels.use(backend):
        found = upsample(x, size)
        (gradient,) = torch.autograd.grad(found, x, upstream)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), of_exact, rtol=1e-5, atol=1e-5)


def test_upsampling_takes_any_gradient_and_layout(backend: str) -> None:
    x = torch.randn(2, 3, 6, 5).to(memory_format=torch.channels_last).requires_grad_()
    y = torch.randn(2, 3, 6, 5, requires_grad=True)
    with kernels.use(backend):
        for given in (x, y):
            (gradient,) = torch.autograd.grad(upsample(given, (12, 10)).sum(), given)  # expanded from one number
            torch.testing.assert_close(gradient, torch.full_like(gradient, 4))
