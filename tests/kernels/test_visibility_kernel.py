"""Range map and forward-backward check of every backend, against loops and the plain functions in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from geossl import kernels
from geossl.geometry.visibility import forward_backward_check, range_map, visible_pair

SIZES = [(1, 7, 40), (3, 33, 21), (3, 2, 2), (1, 1, 9), (2, 9, 1), (1, 1, 1), (1, 5, 600)]
NOWHERE = (math.nan, math.inf, -math.inf, 3e38, -3e38, 1e10, -1e10, 2.0**31, -(2.0**31))

every_backend = pytest.mark.parametrize("backend", ["plain", "cpu", "gpu"], indirect=True)


def flows(*size: int, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    """Two flows that nearly agree for half of the pixels."""
    g = torch.Generator("cpu").manual_seed(0)
    batch, h, w = size
    device = torch.get_default_device()
    steady = spread * torch.randn(batch, 2, 1, 1, generator=g, device="cpu").to(device).expand(batch, 2, h, w)
    noise = torch.randn(2, batch, 2, h, w, generator=g, device="cpu").to(device)
    return (steady + 0.6 * noise[0]).contiguous(), (0.6 * noise[1] - steady).contiguous()


def range_map_by_loops(backward: Tensor) -> Tensor:
    batch, _, h, w = backward.shape
    landed = np.zeros((batch, 1, h, w))
    for b, v, u in np.ndindex(batch, h, w):
        du, dv = backward[b, :, v, u].double().tolist()
        if not (math.isfinite(du) and math.isfinite(dv)):
            continue
        x, y = u + du, v + dv
        for column in (math.floor(x), math.floor(x) + 1):
            for row in (math.floor(y), math.floor(y) + 1):
                if 0 <= column < w and 0 <= row < h:
                    landed[b, 0, row, column] += (1 - abs(x - column)) * (1 - abs(y - row))
    return torch.from_numpy(landed).to(backward.device)


@every_backend
@pytest.mark.parametrize("size", SIZES)
def test_range_map_equals_loops(backend: str, size: tuple[int, int, int]) -> None:
    _, backward = flows(*size)
    with kernels.use(backend):
        landed = range_map(backward)
    assert landed.dtype == torch.float32 and landed.shape == (size[0], 1, *size[1:])
    # 600 + du has steps of 6e-5
    torch.testing.assert_close(landed, range_map_by_loops(backward).float(), atol=1e-4, rtol=0)


@every_backend
@pytest.mark.parametrize("size", SIZES)
def test_forward_backward_check_equals_float64_but_where_it_is_close(backend: str, size: tuple[int, int, int]) -> None:
    flow, backward = flows(*size)
    sure = [forward_backward_check(flow.double(), backward.double(), 0.01, 0.5 + by) for by in (-1e-3, 1e-3)]
    with kernels.use(backend):
        visible = forward_backward_check(flow, backward)
    assert visible.dtype == torch.bool and visible.shape == (size[0], 1, *size[1:])
    assert visible[sure[0]].all() and not visible[~sure[1]].any()


@every_backend
def test_forward_backward_check_has_both_outcomes(backend: str) -> None:
    with kernels.use(backend):
        share = forward_backward_check(*flows(3, 33, 21)).float().mean()
    assert 0.1 < share < 0.9


@every_backend
@pytest.mark.parametrize("component", [0, 1])
def test_flow_to_nowhere_touches_no_memory_and_is_not_visible(backend: str, component: int) -> None:
    flow, backward = torch.zeros(2, 1, 2, 6, 40)
    count = len(NOWHERE)
    flow[0, component, 3, 5 : 5 + count] = torch.tensor(NOWHERE)
    backward[0, component, 3, 5 : 5 + count] = torch.tensor(NOWHERE)
    with kernels.use(backend):
        landed, visible = range_map(backward), forward_backward_check(flow, torch.zeros_like(flow))
    expected = torch.ones(1, 1, 6, 40)
    expected[..., 3, 5 : 5 + count] = 0
    assert torch.equal(landed, expected)
    assert torch.equal(visible, expected.bool())


@every_backend
def test_forward_backward_check_of_a_nan_that_is_read_is_not_visible(backend: str) -> None:
    flow, backward = torch.zeros(2, 1, 2, 5, 30)
    flow[:, 0] = 0.25
    backward[0, 1, 2, 11] = torch.nan
    with kernels.use(backend):
        visible = forward_backward_check(flow, backward)
    # Of the four pixels around a place those with weight 0 are read as well.
    assert (~visible[0, 0, :, :29]).nonzero().tolist() == [[1, 10], [1, 11], [2, 10], [2, 11]]


@every_backend
def test_nothing_lands_and_nothing_returns_where_all_flow_leaves(backend: str) -> None:
    flow = torch.full((2, 2, 9, 14), 100.0)
    with kernels.use(backend):
        assert range_map(flow).count_nonzero() == 0
        assert not forward_backward_check(flow, -flow).any()


@every_backend
def test_visibility_of_views(backend: str) -> None:
    flow, backward = flows(3, 20, 44)
    views = flow[::2, :, 1:, ::2].transpose(-1, -2), backward[::2, :, 1:, 22:].transpose(-1, -2)
    with kernels.use(backend):
        assert torch.equal(range_map(views[0]), range_map(views[0].contiguous()))
        found = forward_backward_check(*views)
        assert torch.equal(found, forward_backward_check(*(view.contiguous() for view in views)))


@pytest.mark.parametrize("kind", ["forward_backward", "range_map", "soft_range_map"])
def test_visible_pair_is_the_same_of_both_backends(kind: str) -> None:
    if "cpu" not in kernels.available():
        pytest.skip("the CPU kernels were not built")
    given = flows(2, 18, 25)
    pairs = []
    for backend in ("plain", "cpu"):
        with kernels.use(backend):
            pairs.append(visible_pair(kind, *given))  # type: ignore[arg-type]
    for plain, cpu in zip(*pairs, strict=True):
        torch.testing.assert_close(cpu, plain, atol=1e-5, rtol=1e-5)


def test_visibility_of_several_threads_is_the_same(backend: str) -> None:
    flow, backward = flows(1, 70, 24)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            with kernels.use(backend):
                results.append((range_map(backward), forward_backward_check(flow, backward)))
    finally:
        torch.set_num_threads(threads)
    for one, several in zip(*results, strict=True):
        torch.testing.assert_close(several, one)


@every_backend
def test_visibility_of_a_flow_with_gradient_has_none(backend: str) -> None:
    flow, backward = (x.requires_grad_() for x in flows(1, 6, 9))
    with kernels.use(backend):
        assert not range_map(backward).requires_grad and not forward_backward_check(flow, backward).requires_grad


def test_flow_of_one_channel_is_none_of_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their second plane would be foreign memory."""
    monkeypatch.setattr("geossl.kernels.visibility.kernel", lambda *_: pytest.fail("a kernel ran"))
    flow = torch.zeros(1, 1, 4, 5)
    range_map(flow)
    forward_backward_check(flow, flow)
