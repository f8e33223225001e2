"""SSIM and L1 of every backend, against the plain ones in float64, whose gradients are checked numerically."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geossl import kernels
from geossl.losses.photometric import photometric_map


def images(*size: int) -> tuple[Tensor, Tensor]:
    """Alike enough for SSIM to be neither 0 nor 1 everywhere."""
    torch.manual_seed(0)
    a = torch.rand(size[0], 3, *size[1:])
    return a, (a + 0.2 * torch.randn_like(a)).clamp(0, 1)


def exact(a: Tensor, b: Tensor, weights: tuple[float, float | None], upstream: Tensor) -> tuple[Tensor, ...]:
    """Error and gradients to both images in float64."""
    a, b = (x.detach().double().requires_grad_() for x in (a, b))
    error = photometric_map(a, b, *weights)
    return error.detach(), *torch.autograd.grad(error, (a, b), upstream.double())


def assert_close(found: Tensor | None, expected: Tensor) -> None:
    """Within 5e-5 of the largest."""
    assert found is not None and found.dtype == torch.float32
    assert (found - expected).abs().max() <= 5e-5 * expected.abs().max()


@pytest.mark.parametrize("weights", [(0.85, None), (0.85, 0.45), (1.0, 0.0)])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 2, 2), (2, 2, 9), (3, 37, 18), (1, 67, 5), (2, 5, 64)])
def test_photometric_map_equals_float64(
    backend: str, batch: int, height: int, width: int, weights: tuple[float, float | None]
) -> None:
    a, b = images(batch, height, width)
    upstream = torch.randn(batch, 1, height, width)
    expected = exact(a, b, weights, upstream)
    with kernels.use(backend):
        error = photometric_map(a.requires_grad_(), b.requires_grad_(), *weights)
        error.backward(upstream)
    for found, wanted in zip((error.detach(), a.grad, b.grad), expected, strict=True):
        assert_close(found, wanted)


@pytest.mark.parametrize("wanting", ["a", "b"])
def test_photometric_map_gives_a_gradient_only_where_one_is_wanted(backend: str, wanting: str) -> None:
    given = dict(zip("ab", images(2, 9, 20), strict=True))
    _, *expected = exact(given["a"], given["b"], (0.85, None), torch.ones(2, 1, 9, 20))
    given[wanting].requires_grad_()
    with kernels.use(backend):
        photometric_map(**given).sum().backward()
    assert_close(given[wanting].grad, expected["ab".index(wanting)])
    assert all(x.grad is None for name, x in given.items() if name != wanting)


def test_photometric_map_takes_any_memory_layout(backend: str) -> None:
    a, b = images(2, 12, 17)
    with kernels.use(backend):
        found = photometric_map(a.to(memory_format=torch.channels_last), b.mT.contiguous().mT)
        assert torch.equal(found, photometric_map(a, b))


def test_photometric_map_on_any_number_of_threads(backend: str) -> None:
    a, b = images(1, 70, 21)
    upstream, results, before = torch.randn(1, 1, 70, 21), [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            x = a.clone().requires_grad_()
            with kernels.use(backend):
                photometric_map(x, b).backward(upstream)
            assert x.grad is not None
            results.append(x.grad)
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(*results, atol=1e-6)


def test_photometric_map_of_one_channel(backend: str) -> None:
    with kernels.use(backend):
        grey = photometric_map(torch.full((1, 1, 4, 6), 0.2), torch.full((1, 1, 4, 6), 0.6), 0.0)
    assert torch.allclose(grey, torch.full((1, 1, 4, 6), 0.4))


def test_photometric_map_keeps_nan(backend: str) -> None:
    a, b = images(1, 8, 9)
    a[0, 0, 3, 4] = torch.nan
    with kernels.use(backend):
        error = photometric_map(a, b)
    assert error[0, 0, 2:5, 3:6].isnan().all() and error.isnan().sum() == 9
