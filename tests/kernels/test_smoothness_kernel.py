"""Edge weights of every backend, against the plain ones in float64."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from geossl import kernels
from geossl.losses.smoothness import edge_aware_second_order, edge_aware_smoothness, edge_weights


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("edge", [0.0, 1.0, 10.0, 150.0])
@pytest.mark.parametrize(("batch", "height", "width"), [(2, 4, 3), (1, 67, 18), (3, 17, 64)])
def test_edge_weights_equal_float64(
    backend: str, batch: int, height: int, width: int, edge: float, stride: int
) -> None:
    image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    with kernels.use(backend):
        found = edge_weights(image, edge, stride)
    expected = edge_weights(image.double(), edge, stride)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=3e-5, atol=1e-37)


def test_edge_weights_take_any_layout_and_small_images(backend: str) -> None:
    image = torch.rand(2, 3, 9, 7)
    with kernels.use(backend):
        for a, b in zip(
            edge_weights(image.to(memory_format=torch.channels_last), 5.0), edge_weights(image, 5.0), strict=True
        ):
            torch.testing.assert_close(a, b)
        thin = edge_weights(image[:, :, :1], 5.0)
    assert [w.shape for w in thin] == [(2, 1, 1, 6), (2, 1, 0, 7)]


def test_an_image_may_have_a_gradient(backend: str) -> None:
    image = torch.rand(1, 3, 6, 8, requires_grad=True)
    with kernels.use(backend):
        sum(w.sum() for w in edge_weights(image, 2.0)).backward()  # type: ignore[union-attr]
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("stride", [1, 2])
def test_smoothness_and_its_gradient_equal_float64(backend: str, stride: Literal[1, 2]) -> None:
    generator = torch.Generator().manual_seed(1)
    x, image = torch.rand(2, 2, 12, 15, generator=generator), torch.rand(2, 3, 12, 15, generator=generator)

    def terms(x: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        first = edge_aware_smoothness(x, image, 10.0)
        second = edge_aware_second_order(x, image, 10.0, stride)
        return torch.stack([m.mean() for m in (*first, *second)]).sum()

    exact, given = x.double().requires_grad_(), x.requires_grad_()
    (expected,) = torch.autograd.grad(terms(exact, image.double()), exact)
    with kernels.use(backend):
        (found,) = torch.autograd.grad(terms(given, image), given)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-7)
