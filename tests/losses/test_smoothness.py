"""Second-order smoothness and its edge weights; the first-order forms are in test_losses.py."""

import math

import numpy as np
import pytest
import torch

from geossl.losses.robust import charbonnier
from geossl.losses.smoothness import (
    edge_aware_second_order,
    edge_aware_smoothness,
    four_line_smoothness,
    mean_of,
)


def plane(height: int = 6, width: int = 9) -> torch.Tensor:
    u, v = torch.arange(float(width)), torch.arange(float(height))[:, None]
    return (0.5 * u - 0.25 * v + 2).expand(3, 2, height, width)


def test_planes_are_free_of_second_order_smoothness() -> None:
    image = torch.rand(3, 3, 6, 9)
    assert mean_of(edge_aware_second_order(plane(), image, 10.0)).item() == 0
    assert mean_of(four_line_smoothness(plane())).item() == 0
    assert mean_of(edge_aware_smoothness(plane(), image)).item() > 0


def second_order_by_loops(x: np.ndarray, image: np.ndarray, edge: float, stride: int) -> np.ndarray:
    """Along rows, of (C, H, W) and (3, H, W)."""
    c, h, w = x.shape
    out = np.zeros((c, h, w - 2))
    for row in range(h):
        for u in range(w - 2):
            start = u + 2 - stride
            weight = math.exp(-edge * np.abs(image[:, row, u + 2] - image[:, row, start]).mean())
            out[:, row, u] = np.abs(x[:, row, u] - 2 * x[:, row, u + 1] + x[:, row, u + 2]) * weight
    return out


@pytest.mark.parametrize("stride", [1, 2])
def test_edge_aware_second_order_equals_loops(stride: int) -> None:
    x, image = torch.randn(1, 2, 5, 8, dtype=torch.float64), torch.rand(1, 3, 5, 8, dtype=torch.float64)
    along_x, along_y = edge_aware_second_order(x, image, 10.0, stride)  # type: ignore[arg-type]
    assert np.allclose(along_x[0].numpy(), second_order_by_loops(x[0].numpy(), image[0].numpy(), 10.0, stride))
    turned_x, turned_image = (t[0].transpose(1, 2).numpy() for t in (x, image))
    expected = second_order_by_loops(turned_x, turned_image, 10.0, stride).transpose(0, 2, 1)
    assert np.allclose(along_y[0].numpy(), expected)


def test_edge_constant_of_150_lets_flow_bend_at_a_faint_edge() -> None:
    kink = torch.tensor([0.0, 0, 0, 1, 2, 3]).view(1, 1, 1, 6).expand(1, 1, 3, 6)
    image = torch.zeros(1, 3, 3, 6)
    image[..., 3:] = 0.02  # 5 grey levels
    along_x, _ = edge_aware_second_order(kink, image, 150.0)
    assert along_x[0, 0, 0].tolist() == pytest.approx([0, math.exp(-3), 0, 0])  # the bend at column 2


def test_edge_aware_smoothness_takes_a_robust_penalty() -> None:
    flat = torch.zeros(1, 3, 6, 9)
    along_x, along_y = edge_aware_smoothness(plane()[:1], flat, 150.0, charbonnier)
    assert torch.allclose(along_x, torch.full_like(along_x, math.sqrt(0.25 + 1e-6)))
    assert torch.allclose(along_y, torch.full_like(along_y, math.sqrt(0.0625 + 1e-6)))


def test_four_line_smoothness_equals_loops() -> None:
    x = torch.randn(2, 2, 5, 7, dtype=torch.float64)
    maps = four_line_smoothness(x, lambda d: charbonnier(d, 0.45))
    for got, (dy, dx) in zip(maps, ((0, 1), (1, 0), (1, 1), (-1, 1)), strict=True):
        expected = torch.zeros_like(x)
        for row in range(abs(dy), 5 - abs(dy)):
            for u in range(dx, 7 - dx):
                d = x[..., row - dy, u - dx] - 2 * x[..., row, u] + x[..., row + dy, u + dx]
                expected[..., row, u] = (d**2 + 1e-6) ** 0.45
        assert torch.allclose(got, expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (2, 2), (3, 1)])
def test_four_line_smoothness_of_tiny_maps_is_zero_where_no_line_fits(height: int, width: int) -> None:
    maps = four_line_smoothness(torch.rand(1, 2, height, width))
    assert all(m.shape == (1, 2, height, width) for m in maps)
    assert maps[2].abs().max() == 0


def test_mean_of_empty_maps_is_zero() -> None:
    row = torch.tensor([[[[0.0, 2.0, 6.0]]]])
    assert mean_of(edge_aware_smoothness(row, torch.zeros(1, 3, 1, 3))).item() == 3  # no difference along columns
    assert mean_of(edge_aware_second_order(row, torch.zeros(1, 3, 1, 3), 10.0)).item() == 2


def test_second_order_smoothness_gradcheck() -> None:
    x, image = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True), torch.rand(1, 3, 4, 5).double()
    assert torch.autograd.gradcheck(lambda x: edge_aware_second_order(x, image, 10.0, robust=charbonnier), x)
    assert torch.autograd.gradcheck(lambda x: four_line_smoothness(x, charbonnier), x)
