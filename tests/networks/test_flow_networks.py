"""What every network of optical flow promises: any size, finite gradients, float32, one message for bad pairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.geometry.transforms import resize_flow
from geossl.networks.flownet import FlowNet
from geossl.networks.pwc import PWC, ThreeFramePWC
from geossl.networks.pwclite import PWCLite, ThreeFramePWCLite
from geossl.networks.raft import RAFT

WIDTH = 1 / 8
LEVELS_2_TO_6 = (4, 8, 16, 32, 64)
TWO_FRAMES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "flownet_s": (lambda: FlowNet("S", WIDTH), LEVELS_2_TO_6),
    "flownet_c": (lambda: FlowNet("C", WIDTH), LEVELS_2_TO_6),
    "flownet_cs": (lambda: FlowNet("CS", WIDTH), LEVELS_2_TO_6),
    "pwc": (lambda: PWC(WIDTH), (1, 8, 16, 32, 64)),
    "pwclite": (lambda: PWCLite(WIDTH), (1, 2, 4, 8, 16)),
    "raft": (lambda: RAFT("tiny", 2), (1, 1)),
}
THREE_FRAMES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "pwc": (lambda: ThreeFramePWC(WIDTH), (1, 8, 16, 32, 64)),
    "pwclite": (lambda: ThreeFramePWCLite(WIDTH), (1, 2, 4, 8, 16)),
}


def sizes(height: int, width: int, strides: tuple[int, ...], batch: int) -> list[tuple[int, ...]]:
    return [(batch, 2, math.ceil(height / s), math.ceil(width / s)) for s in strides]


@pytest.mark.parametrize("name", TWO_FRAMES)
@pytest.mark.parametrize(("height", "width", "batch"), [(64, 128, 3), (51, 77, 1), (1, 3, 1)])
def test_two_frames_of_any_size_give_finite_flows(name: str, height: int, width: int, batch: int) -> None:
    torch.manual_seed(0)
    build, strides = TWO_FRAMES[name]
    flows = build()(*torch.rand(2, batch, 3, height, width))
    assert [tuple(flow.shape) for flow in flows] == sizes(height, width, strides, batch)
    assert all(flow.isfinite().all() for flow in flows)


@pytest.mark.parametrize("name", THREE_FRAMES)
@pytest.mark.parametrize(("height", "width", "batch"), [(64, 128, 3), (51, 77, 1), (1, 3, 1)])
def test_three_frames_of_any_size_give_finite_flows(name: str, height: int, width: int, batch: int) -> None:
    torch.manual_seed(0)
    build, strides = THREE_FRAMES[name]
    for flows in build()(*torch.rand(3, batch, 3, height, width)):
        assert [tuple(flow.shape) for flow in flows] == sizes(height, width, strides, batch)
        assert all(flow.isfinite().all() for flow in flows)


@pytest.mark.parametrize("name", THREE_FRAMES)
def test_three_frames_in_mirrored_roles_exchange_their_flows(name: str) -> None:
    torch.manual_seed(0)
    network = THREE_FRAMES[name][0]()
    target, previous, following = torch.rand(3, 2, 3, 64, 64)
    with torch.no_grad():
        back, forth = network(target, previous, following)
        forth_exchanged, back_exchanged = network(target, following, previous)
    for a, b in zip([*back, *forth], [*back_exchanged, *forth_exchanged], strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(back[0], forth[0])


@pytest.mark.parametrize("name", TWO_FRAMES)
def test_black_images_give_finite_gradients_to_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    network = TWO_FRAMES[name][0]()
    black = torch.zeros(1, 3, 65, 64)
    torch.stack([flow.square().mean() + flow.mean() for flow in network(black, black)]).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() < 1e6, parameter_name


@pytest.mark.parametrize("name", TWO_FRAMES)
def test_flows_are_float32_and_close_under_bfloat16(name: str) -> None:
    torch.manual_seed(0)
    network = TWO_FRAMES[name][0]()
    first, second = torch.rand(2, 1, 3, 64, 64)
    with torch.no_grad():
        exact = network(first, second)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = network(first, second)
    for a, b in zip(exact, mixed, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).abs().max() < 0.1 * a.abs().max()


@pytest.mark.parametrize("name", TWO_FRAMES)
def test_a_network_can_be_copied_after_a_step(name: str) -> None:
    network = TWO_FRAMES[name][0]()
    first, second = torch.rand(2, 1, 3, 64, 64)
    flows = network(first, second)
    teacher = copy.deepcopy(network)
    assert torch.equal(teacher(first, second)[0], flows[0])


@pytest.mark.parametrize("name", TWO_FRAMES)
def test_images_of_different_size_are_refused(name: str) -> None:
    network = TWO_FRAMES[name][0]()
    with pytest.raises(ValueError, match=r"shapes \(1, 3, 64, 64\), \(1, 3, 64, 65\); expected one \(B, 3, H, W\)"):
        network(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 65))
    with pytest.raises(ValueError, match=r"shapes \(1, 1, 64, 64\)"):
        network(*torch.rand(2, 1, 1, 64, 64))


def shifted_pair(du: int, dv: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two windows of one smooth texture; the first one's (u, v) is at (u + du, v + dv) in the second."""
    h, w = size
    margin = 8
    texture = F.interpolate(torch.rand(2, 3, (h + 16) // 4, (w + 16) // 4), (h + 16, w + 16), mode="bicubic")
    first = texture[..., margin : margin + h, margin : margin + w]
    second = texture[..., margin - dv : margin - dv + h, margin - du : margin - du + w]
    return first.clamp(0, 1), second.clamp(0, 1)


@pytest.mark.parametrize("name", ["flownet_c", "pwc", "pwclite"])
def test_a_constant_shift_is_learned_in_a_few_steps(name: str) -> None:
    torch.manual_seed(0)
    network = TWO_FRAMES[name][0]()
    first, second = shifted_pair(3, -2, (64, 64))
    truth = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(2, 2, 64, 64)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(30):
        flows = [resize_flow(flow, (64, 64)) for flow in network(first, second)]
        loss = torch.stack([(flow - truth).square().sum(1).add(1e-4).sqrt().mean() for flow in flows]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = (resize_flow(network(first, second)[0], (64, 64)) - truth).norm(dim=1).mean()
    assert error < 13**0.5 / 2  # half of what zero flow is off by
