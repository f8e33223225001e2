"""RAFT's lookup of every backend, against the plain one in float64 and loops over places."""

from __future__ import annotations

import gc
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geossl import kernels
from geossl.networks.raft import RAFT, lookup_in


def pyramid_of(batch: int, height: int, width: int, levels: int = 2) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    volume = torch.randn(batch * height * width, 1, height, width, generator=g)
    return [F.avg_pool2d(volume, 2**i) if i else volume for i in range(levels)]


def places_in(batch: int, height: int, width: int, seed: int = 1) -> Tensor:
    """Inside, at the border and well outside."""
    g = torch.Generator().manual_seed(seed)
    size = torch.tensor([width, height]).view(1, 2, 1, 1)
    return (2 * torch.rand(batch, 2, height, width, generator=g) - 0.5) * size


def solve(pyramid: list[Tensor], places: list[Tensor], radius: int, upstream: list[Tensor]) -> list[Tensor]:
    """What is found at each of some places, and the gradients to the levels."""
    levels = [level.detach().clone().requires_grad_() for level in pyramid]
    look_up = lookup_in(levels, radius)
    found = [look_up(p) for p in places]
    loss = torch.stack([(f * g).sum() for f, g in zip(found, upstream, strict=True)]).sum()
    return [*(f.detach() for f in found), *torch.autograd.grad(loss, levels)]


def doubled(tensors: list[Tensor]) -> list[Tensor]:
    return [x.double() for x in tensors]


@pytest.mark.parametrize("radius", [1, 3, 4, 7, 8])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 11), (3, 7, 5), (2, 4, 4)])
def test_lookup_equals_float64(backend: str, batch: int, height: int, width: int, radius: int) -> None:
    pyramid = pyramid_of(batch, height, width)
    places = [places_in(batch, height, width, seed) for seed in (1, 2)]
    upstream = [torch.randn(batch, 2 * (2 * radius + 1) ** 2, height, width) for _ in places]
    expected = solve(doubled(pyramid), doubled(places), radius, doubled(upstream))
    with kernels.use(backend):
        results = solve(pyramid, places, radius, upstream)
    for found, wanted in zip(results, expected, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted.float(), atol=3e-5, rtol=1e-5)


def test_lookup_orders_levels_then_columns_then_rows(backend: str) -> None:
    """At whole pixels a lookup reads single correlations; half of an even pixel is whole at the second level."""
    pyramid, radius = pyramid_of(1, 8, 8), 2
    places = torch.tensor([4.0, 2.0]).view(1, 2, 1, 1).repeat(1, 1, 8, 8)
    with kernels.use(backend):
        found = lookup_in(pyramid, radius)(places)
    for level, (u, v) in enumerate([(4, 2), (2, 1)]):
        for du in range(-radius, radius + 1):
            for dv in range(-radius, radius + 1):
                channel = level * 25 + (du + radius) * 5 + dv + radius
                maps = F.pad(pyramid[level][:, 0], (8,) * 4)
                torch.testing.assert_close(found[0, channel].flatten(), maps[:, 8 + v + dv, 8 + u + du])


@pytest.mark.parametrize("far", [math.inf, -math.inf, 3e38, 1e10, -1e10, 2.0**31])
@pytest.mark.parametrize("component", [0, 1])
def test_lookup_far_outside_finds_nothing_and_touches_no_memory(far: float, component: int) -> None:
    if "cpu" not in kernels.available():
        pytest.skip("the CPU kernels were not built")
    places = torch.ones(1, 2, 4, 5)
    places[0, component, 2, 3] = far
    with kernels.use("cpu"):
        found, *gradients = solve(pyramid_of(1, 4, 5), [places], 4, [torch.ones(1, 162, 4, 5)])
    assert found[..., 2, 3].count_nonzero() == 0 and found.isfinite().all()
    for gradient in gradients:
        assert gradient[13].count_nonzero() == 0 and gradient[12].count_nonzero() > 0


def test_lookup_at_no_number_is_no_number_and_gives_no_gradient() -> None:
    if "cpu" not in kernels.available():
        pytest.skip("the CPU kernels were not built")
    places = torch.ones(1, 2, 4, 5)
    places[0, 1, 2, 3] = torch.nan
    with kernels.use("cpu"):
        found, *gradients = solve(pyramid_of(1, 4, 5), [places], 3, [torch.ones(1, 98, 4, 5)])
    assert found[..., 2, 3].isnan().all() and found.isnan().sum() == 98
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_lookup_twice_differentiated_starts_anew(backend: str) -> None:
    levels = [level.requires_grad_() for level in pyramid_of(1, 4, 5)]
    with kernels.use(backend):
        look_up = lookup_in(levels, 3)
        loss = look_up(places_in(1, 4, 5)).square().sum() + look_up(places_in(1, 4, 5, 2)).square().sum()
        once = torch.autograd.grad(loss, levels, retain_graph=True)
        again = torch.autograd.grad(loss, levels)
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a, b)


def test_lookup_gives_places_no_gradient_and_keeps_none_of_a_pass_that_asked_for_it(backend: str) -> None:
    levels = [level.requires_grad_() for level in pyramid_of(1, 4, 5)]
    places = places_in(1, 4, 5).requires_grad_()
    with kernels.use(backend):
        look_up = lookup_in(levels, 3)
        loss = look_up(places).square().sum() + places.sum()
        (of_places,) = torch.autograd.grad(loss, places, retain_graph=True)
        found = torch.autograd.grad(loss, levels)
        expected = torch.autograd.grad(lookup_in(levels, 3)(places).square().sum(), levels)
    assert torch.equal(of_places, torch.ones_like(places))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_levels_are_not_kept_for_the_gradient() -> None:
    if "cpu" not in kernels.available():
        pytest.skip("the CPU kernels were not built")
    leaf = pyramid_of(1, 4, 5)[0].requires_grad_()
    level = 2 * leaf
    loss = lookup_in([level], 3)(places_in(1, 4, 5)).sum()
    place = level.data_ptr()
    del level
    held = [x for x in gc.get_objects() if type(x) is Tensor and x.data_ptr() == place]
    assert not held
    loss.backward()
    assert leaf.grad is not None and leaf.grad.any()


def test_lookup_of_another_number_of_places_is_refused() -> None:
    if "cpu" not in kernels.available():
        pytest.skip("the CPU kernels were not built")
    look_up = lookup_in(pyramid_of(1, 4, 5), 3)
    for size in ((1, 2, 4, 6), (2, 2, 4, 5), (1, 1, 4, 5)):
        with pytest.raises(ValueError, match=r"expected \(B, 2, h, w\) with B h w = 20"):
            look_up(torch.zeros(size))


def test_lookup_without_gradient_and_of_views(backend: str) -> None:
    pyramid, places = pyramid_of(2, 5, 6), places_in(2, 5, 6)
    views = [torch.stack([level, level], -1)[..., 0] for level in pyramid]
    moved = places.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    with kernels.use(backend), torch.no_grad():
        found, of_views = lookup_in(pyramid, 4)(places), lookup_in(views, 4)(moved)
    assert torch.equal(found, of_views) and not found.requires_grad


def test_lookup_of_several_threads_is_the_same(backend: str) -> None:
    pyramid, places = pyramid_of(1, 8, 9), places_in(1, 8, 9)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            with kernels.use(backend):
                results.append(solve(pyramid, [places], 4, [torch.ones(1, 162, 8, 9)]))
    finally:
        torch.set_num_threads(threads)
    for one, several in zip(*results, strict=True):
        torch.testing.assert_close(several, one)


def test_training_step_of_raft_is_the_same() -> None:
    if "cpu" not in kernels.available():
        pytest.skip("the CPU kernels were not built")
    torch.manual_seed(0)
    network, (first, second) = RAFT("tiny", iterations=3), torch.rand(2, 2, 3, 40, 56)
    results = []
    for backend in ("plain", "cpu"):
        with kernels.use(backend):
            flows = network(first, second)
            loss = torch.stack([flow.abs().mean() for flow in flows]).sum()
            results.append([*flows, *torch.autograd.grad(loss, list(network.parameters()))])
    for plain, cpu in zip(*results, strict=True):
        torch.testing.assert_close(cpu, plain, atol=1e-4, rtol=1e-3)
