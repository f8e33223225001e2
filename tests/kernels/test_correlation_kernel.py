"""The cost volume of every backend, against the plain one in float64, whose gradients are checked numerically."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geossl import kernels
from geossl.networks.correlation import correlation

every_backend = pytest.mark.parametrize("backend", ["plain", "cpu", "gpu"], indirect=True)


def exact(a: Tensor, b: Tensor, d: int, stride: int, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Costs and gradients to both maps in float64."""
    a, b = (x.detach().double().requires_grad_() for x in (a, b))
    costs = correlation(a, b, d, stride)
    return costs.detach(), *torch.autograd.grad(costs, (a, b), upstream.double())


def upstream_like(a: Tensor, d: int, stride: int) -> Tensor:
    return torch.randn(a.shape[0], (2 * d // stride + 1) ** 2, *a.shape[2:])


@every_backend
@pytest.mark.parametrize(
    ("shape", "d", "stride"),
    [
        ((3, 17, 3, 37), 4, 1),
        ((1, 16, 20, 16), 4, 1),
        ((1, 8, 13, 33), 4, 2),
        ((3, 3, 2, 50), 3, 1),
        ((1, 9, 25, 4), 20, 2),
        ((2, 1, 1, 1), 4, 1),
        ((1, 5, 6, 17), 0, 1),
        ((1, 4, 11, 5), 6, 3),
    ],
)
def test_correlation_equals_float64(backend: str, shape: tuple[int, ...], d: int, stride: int) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, *shape)
    upstream = upstream_like(a, d, stride)
    expected = exact(a, b, d, stride, upstream)
    a.requires_grad_()
    b.requires_grad_()
    with kernels.use(backend):
        costs = correlation(a, b, d, stride)
        gradients = torch.autograd.grad(costs, (a, b), upstream)
    for found, wanted in zip((costs.detach(), *gradients), expected, strict=True):
        torch.testing.assert_close(found, wanted.float(), atol=1e-5, rtol=1e-5)


@every_backend
def test_correlation_sum_is_the_mean_times_the_channels(backend: str) -> None:
    a, b = torch.randn(2, 1, 6, 5, 9)
    with kernels.use(backend):
        torch.testing.assert_close(correlation(a, b, 2, reduction="sum"), 6 * correlation(a, b, 2))


@every_backend
@pytest.mark.parametrize("wanting", ["a", "b"])
def test_correlation_gives_a_gradient_only_where_one_is_wanted(backend: str, wanting: str) -> None:
    torch.manual_seed(0)
    given = dict(zip("ab", torch.randn(2, 1, 4, 9, 20), strict=True))
    upstream = upstream_like(given["a"], 2, 1)
    _, *expected = exact(given["a"], given["b"], 2, 1, upstream)
    given[wanting].requires_grad_()
    with kernels.use(backend):
        correlation(given["a"], given["b"], 2).backward(upstream)
    found = [given[name].grad for name in "ab"]
    chosen = "ab".index(wanting)
    torch.testing.assert_close(found[chosen], expected[chosen].float(), atol=1e-5, rtol=1e-5)
    assert found[1 - chosen] is None


@every_backend
def test_correlation_of_views_and_channels_last(backend: str) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 2, 6, 12, 26)
    crop, last = a[:, ::2, 1:, ::2].requires_grad_(), b[:, :3, 1:, 13:].to(memory_format=torch.channels_last)
    upstream = upstream_like(crop, 3, 1).transpose(-1, -2).contiguous().transpose(-1, -2)
    expected = exact(crop, last, 3, 1, upstream)
    last.requires_grad_()
    with kernels.use(backend):
        costs = correlation(crop, last, 3)
        gradients = torch.autograd.grad(costs, (crop, last), upstream)
    for found, wanted in zip((costs.detach(), *gradients), expected, strict=True):
        torch.testing.assert_close(found, wanted.float(), atol=1e-5, rtol=1e-5)


def test_correlation_of_several_threads_is_the_same(backend: str) -> None:
    a, b = torch.randn(2, 1, 5, 8, 50)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            with kernels.use(backend):
                results.append(correlation(a, b, 4))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*results)


@every_backend
def test_correlation_spreads_nothing_from_beyond_the_border(backend: str) -> None:
    """Rows are neighbours in memory: an infinite feature at a row's end must not reach the next row's start."""
    a, b = torch.ones(2, 1, 2, 5, 20)
    b[..., 1, 19] = torch.inf
    with kernels.use(backend):
        costs = correlation(a, b, 2)
    reached = costs[0].isinf().any(0)
    assert reached[:4, 17:].all() and reached.sum() == 12 and not costs.isnan().any()
