"""The census distance of every backend, against the plain one in float64, whose gradients are checked numerically."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geossl import kernels
from geossl.losses.census import census_map

every_backend = pytest.mark.parametrize("backend", ["plain", "cpu", "gpu"], indirect=True)


def images(*size: int, scale: float = 0.02) -> tuple[Tensor, Tensor]:
    """Differences of a few grey levels, where the soft sign bends."""
    torch.manual_seed(0)
    a, b = torch.rand(2, size[0], 3, *size[1:]) * scale
    return a, b


def exact(a: Tensor, b: Tensor, radius: int, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distance and gradients to both images in float64."""
    a, b = (x.detach().double().requires_grad_() for x in (a, b))
    distance, _ = census_map(a, b, radius)
    return distance.detach(), *torch.autograd.grad(distance, (a, b), upstream.double())


def assert_close(found: Tensor | None, expected: Tensor) -> None:
    """Within 2e-5 of the largest."""
    assert found is not None and found.dtype == torch.float32
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


@every_backend
@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 7, 40), (3, 17, 21), (3, 8, 7), (1, 67, 9)])
def test_census_map_equals_float64(backend: str, batch: int, height: int, width: int, radius: int) -> None:
    a, b = images(batch, height, width)
    upstream = torch.rand(batch, 1, height, width)
    expected = exact(a, b, radius, upstream)
    with kernels.use(backend):
        distance, _ = census_map(a.requires_grad_(), b.requires_grad_(), radius)
        distance.backward(upstream)
    for found, wanted in zip((distance.detach(), a.grad, b.grad), expected, strict=True):
        assert_close(found, wanted)


@every_backend
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (6, 20), (4, 4), (9, 2), (20, 6)])
def test_census_map_smaller_than_the_patch_is_zero(backend: str, height: int, width: int) -> None:
    a, b = (x.requires_grad_() for x in images(1, height, width))
    with kernels.use(backend):
        distance, _ = census_map(a, b, 3)
        distance.sum().backward()
    for found in (distance, a.grad, b.grad):
        assert found is not None and torch.equal(found, torch.zeros_like(found))


@every_backend
@pytest.mark.parametrize("wanting", ["a", "b"])
def test_census_map_gives_a_gradient_only_where_one_is_wanted(backend: str, wanting: str) -> None:
    given = dict(zip("ab", images(1, 9, 20), strict=True))
    _, *expected = exact(given["a"], given["b"], 3, torch.ones(1, 1, 9, 20))
    given[wanting].requires_grad_()
    with kernels.use(backend):
        census_map(given["a"], given["b"])[0].sum().backward()
    for name, wanted in zip("ab", expected, strict=True):
        assert_close(given[name].grad, wanted) if name == wanting else None
        assert name == wanting or given[name].grad is None


@every_backend
def test_census_map_of_views_and_channels_last(backend: str) -> None:
    a, b = images(2, 12, 26)
    crop, last = a[..., 1:, ::2].requires_grad_(), b[..., 1:, 13:].to(memory_format=torch.channels_last)
    upstream = torch.rand(2, 1, 13, 11).transpose(-1, -2)
    distance, of_crop, of_last = exact(crop, last, 1, upstream)
    last.requires_grad_()
    with kernels.use(backend):
        found, _ = census_map(crop, last, 1)
        gradients = torch.autograd.grad(found, (crop, last), upstream)
    assert_close(found.detach(), distance)
    assert_close(gradients[0], of_crop)
    assert_close(gradients[1], of_last)


@every_backend
def test_census_map_mean_is_the_sum_over_the_patch(backend: str) -> None:
    a, b = images(1, 9, 11)
    with kernels.use(backend):
        torch.testing.assert_close(census_map(a, b, 3, "mean")[0] * 49, census_map(a, b, 3)[0])


@every_backend
def test_census_map_of_large_differences_and_equal_images(backend: str) -> None:
    a, b = images(1, 15, 18, scale=1.0)
    upstream = torch.rand(1, 1, 15, 18)
    distance, of_a, _ = exact(a, b, 3, upstream)
    with kernels.use(backend):
        found, _ = census_map(a.requires_grad_(), b)
        assert_close(found.detach(), distance)
        assert_close(torch.autograd.grad(found, a, upstream)[0], of_a)
        same, _ = census_map(a, a.detach())
        assert same.abs().max() == 0 and torch.autograd.grad(same.sum(), a)[0].abs().max() == 0


def test_census_map_of_several_threads_is_the_same(backend: str) -> None:
    a, b = images(1, 70, 24)
    a.requires_grad_()
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            with kernels.use(backend):
                distance, _ = census_map(a, b)
                results.append((distance.detach(), torch.autograd.grad(distance.sum(), a)[0]))
    finally:
        torch.set_num_threads(threads)
    for one, several in zip(*results, strict=True):
        assert_close(several, one)


@pytest.mark.parametrize("backend", ["gpu"], indirect=True)
def test_census_map_of_tiles_is_the_whole(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from geossl.kernels.gpu import launch

    a, b = images(1, 6, 11)
    expected = exact(a, b, 1, torch.ones(1, 1, 6, 11))
    for name, size in (("TILE_Y", 4), ("TILE_X", 8)):
        monkeypatch.setitem(launch.TILE, name, size)
    with kernels.use(backend):
        distance, _ = census_map(a.requires_grad_(), b.requires_grad_(), 1)
        distance.sum().backward()
    for found, wanted in zip((distance.detach(), a.grad, b.grad), expected, strict=True):
        assert_close(found, wanted)


@pytest.mark.parametrize("backend", ["cpu", "gpu"], indirect=True)
def test_census_map_spreads_a_nan_to_its_patch_only(backend: str) -> None:
    a, b = images(1, 12, 40)
    a[0, 1, 6, 20] = torch.nan
    with kernels.use(backend):
        wrong = census_map(a, b, 1)[0][0, 0].isnan()
    assert wrong[5:8, 19:22].all() and wrong.sum() == 9
