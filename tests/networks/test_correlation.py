"""The cost volume against loops, at borders, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from geossl.networks.correlation import correlation, pyramid_costs, standardized_pair


def looped(a: Tensor, b: Tensor, d: int, stride: int) -> Tensor:
    """The sum over channels, one product at a time."""
    first, second = a.numpy(), b.numpy()
    batch, channels, h, w = first.shape
    steps = list(range(-d, d + 1, stride))
    out = np.zeros((batch, len(steps) ** 2, h, w))
    for n, v, u in np.ndindex(batch, h, w):
        for k, (dv, du) in enumerate((dv, du) for dv in steps for du in steps):
            if 0 <= v + dv < h and 0 <= u + du < w:
                for c in range(channels):
                    out[n, k, v, u] += first[n, c, v, u] * second[n, c, v + dv, u + du]
    return torch.from_numpy(out)


@pytest.mark.parametrize(
    ("shape", "d", "stride"),
    [
        ((3, 2, 4, 5), 2, 1),
        ((1, 3, 5, 4), 4, 2),
        ((1, 1, 1, 6), 2, 1),
        ((2, 2, 6, 1), 3, 3),
        ((1, 2, 1, 1), 4, 1),
        ((1, 4, 3, 4), 0, 1),
    ],
)
def test_correlation_equals_the_loop(shape: tuple[int, ...], d: int, stride: int) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, *shape, dtype=torch.float64)
    expected = looped(a, b, d, stride)
    torch.testing.assert_close(correlation(a, b, d, stride, "sum"), expected)
    torch.testing.assert_close(correlation(a, b, d, stride), expected / shape[1])


def test_correlation_of_a_shifted_map_peaks_at_the_shift() -> None:
    torch.manual_seed(0)
    a = torch.nn.functional.normalize(torch.randn(1, 8, 9, 11), dim=1)
    b = a.roll((-1, 2), (2, 3))  # what is at (u, v) in a is at (u + 2, v - 1) in b
    costs = correlation(a, b, 4, reduction="sum")
    best = costs[:, :, 4:-4, 4:-4].argmax(1)
    assert torch.all(best == (-1 + 4) * 9 + (2 + 4))
    assert costs.shape == (1, 81, 9, 11)


def test_correlation_of_mirrored_maps_is_mirrored() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 3, 5, 6)
    costs = correlation(a, b, 2).view(1, 5, 5, 5, 6)  # (B, dv, du, H, W)
    mirrored = correlation(a.flip(-1), b.flip(-1), 2).view(1, 5, 5, 5, 6)
    torch.testing.assert_close(mirrored, costs.flip(2, 4))


def test_flownet_c_has_441_channels() -> None:
    assert correlation(torch.rand(1, 1, 3, 4), torch.rand(1, 1, 3, 4), 20, 2).shape == (1, 441, 3, 4)


@pytest.mark.parametrize(("shape", "d", "stride"), [((2, 2, 3, 4), 2, 1), ((1, 2, 1, 5), 2, 2)])
def test_correlation_gradients(shape: tuple[int, ...], d: int, stride: int) -> None:
    a, b = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: correlation(a, b, d, stride), (a, b))


def test_correlation_is_float32_under_autocast() -> None:
    a, b = torch.rand(2, 1, 3, 5, 6)
    exact = correlation(a, b, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(correlation(a, b, 2), exact)
        assert correlation(a.bfloat16(), b.bfloat16(), 2).dtype == torch.float32


def test_correlation_refuses_what_it_cannot_do() -> None:
    a = torch.rand(1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"shapes \(1, 2, 3, 4\) and \(1, 2, 3, 5\); expected the same"):
        correlation(a, torch.rand(1, 2, 3, 5), 2)
    with pytest.raises(ValueError, match="max_displacement is 3; expected a multiple of the stride 2"):
        correlation(a, a, 3, 2)


def test_standardized_pair_has_mean_0_and_variance_1_in_every_channel() -> None:
    """Both maps alike: their two means, and their two variances, are averaged."""
    a, b = torch.rand(3, 4, 5, 7) * 0.01 + 2, torch.rand(3, 4, 5, 7) * 0.03 + 1
    a, b = (x * torch.arange(1.0, 13.0).view(3, 4, 1, 1) for x in (a, b))
    x, y = standardized_pair(a, b, eps=0.0)
    for i, k in np.ndindex(3, 4):
        assert abs(float(x[i, k].mean() + y[i, k].mean())) < 1e-3
        assert float(x[i, k].var(correction=0) + y[i, k].var(correction=0)) / 2 == pytest.approx(1, rel=1e-3)
        deviation = float((a[i, k].var(correction=0) + b[i, k].var(correction=0)) / 2) ** 0.5
        gap = float(a[i, k].mean() - b[i, k].mean()) / deviation
        assert float(x[i, k].mean() - y[i, k].mean()) == pytest.approx(gap, rel=1e-3)


def test_standardized_pair_of_flat_maps_is_zero_with_a_gradient() -> None:
    a = torch.ones(1, 2, 3, 4, requires_grad=True)
    x, y = standardized_pair(a, torch.ones(1, 2, 3, 4))
    assert torch.equal(x, torch.zeros_like(x)) and torch.equal(y, x)
    (x * torch.rand(1, 2, 3, 4)).sum().backward()
    assert a.grad is not None and a.grad.isfinite().all()


def test_pyramid_costs_are_the_papers_unless_normalized() -> None:
    a, b = torch.randn(2, 2, 3, 5, 6)
    assert torch.equal(pyramid_costs(a, b, 2, 0.1, False), torch.nn.functional.leaky_relu(correlation(a, b, 2), 0.1))


def test_normalized_pyramid_costs_have_mean_0_and_variance_1_over_the_displacements() -> None:
    a, b = torch.randn(2, 2, 8, 6, 7)
    costs = pyramid_costs(a, b, 2, 0.1, True)
    assert torch.allclose(costs.mean(1), torch.zeros(2, 6, 7), atol=1e-5)
    assert torch.allclose(costs.var(1, correction=0), torch.ones(2, 6, 7), atol=1e-2)
    # Neither features of another size and offset change them, nor what is the same for all displacements.
    assert torch.allclose(pyramid_costs(3 * a + 5, 3 * b + 5, 2, 0.1, True), costs, atol=1e-2)


def test_normalized_pyramid_costs_are_largest_at_the_displacement() -> None:
    a = torch.randn(1, 64, 9, 10)
    best = pyramid_costs(a, a.roll((1, -2), (2, 3)), 2, 0.1, True).argmax(1)[0, 2:-2, 2:-2]
    assert (best == 5 * (1 + 2) + (-2 + 2)).all()
