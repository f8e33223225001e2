"""RAFT against torchvision's, and what it does that torchvision's does not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geossl.networks.raft import RAFT, convex_upsample


@pytest.mark.parametrize("size", ["large", "tiny"])
def test_raft_equals_torchvision_where_that_one_runs(size: str) -> None:
    torch.manual_seed(0)
    network, (first, second) = RAFT(size, iterations=2), torch.rand(2, 1, 3, 128, 136)
    with torch.no_grad():
        expected = network.net(2 * first - 1, 2 * second - 1, num_flow_updates=2)[::-1]
        for a, b in zip(network(first, second), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_raft_small_differs_from_torchvision_by_the_upsampling() -> None:
    torch.manual_seed(0)
    network, (first, second) = RAFT("small", iterations=1), torch.rand(2, 1, 3, 128, 136)
    with torch.no_grad():
        theirs = network.net(2 * first - 1, 2 * second - 1, num_flow_updates=1)[0]
        ours = network(first, second)[0]
    # Both keep a coarse corner's value: align_corners at the corner itself, ours in the 3.5 pixels around it.
    torch.testing.assert_close(ours[..., 0, 0], theirs[..., 0, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours[..., -1, -1], theirs[..., -1, -1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        # The published 5257536, less the weights and biases of the context encoder's 15 batch norms: 64, 4 * 64,
        # 4 * 96 + 96 and 4 * 128 + 128 channels, 1440 in all.
        ("large", 5_257_536 - 2 * 1440),
        ("small", 990_162),
    ],
)
def test_raft_has_the_published_number_of_parameters(size: str, parameters: int) -> None:
    with torch.device("meta"):
        network = RAFT(size)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("size", ["large", "small", "tiny"])
def test_raft_normalises_instances_in_both_encoders(size: str) -> None:
    with torch.device("meta"):
        network = RAFT(size)
    for encoder in (network.net.feature_encoder, network.net.context_encoder):
        assert any(isinstance(layer, nn.InstanceNorm2d) for layer in encoder.modules())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    assert not [name for name, _ in network.named_buffers() if not name.startswith("standardize")]


def test_raft_gives_a_flow_an_iteration_last_first() -> None:
    torch.manual_seed(0)
    network, (first, second) = RAFT("tiny", iterations=3), torch.rand(2, 2, 3, 100, 131)
    with torch.no_grad():
        three = network(first, second)
        network.iterations = 2
        two = network(first, second)
    assert [tuple(flow.shape) for flow in three] == [(2, 2, 100, 131)] * 3
    for a, b in zip(three[1:], two, strict=True):
        assert torch.equal(a, b)


def test_convex_upsample_of_one_neighbour_is_nearest() -> None:
    """All weight on neighbour 4, the centre: every pixel repeats, times eight."""
    flow = torch.randn(3, 2, 4, 5)
    logits = torch.full((3, 9, 64, 4, 5), -1e4)
    logits[:, 4] = 0
    expected = 8 * F.interpolate(flow, scale_factor=8, mode="nearest")
    torch.testing.assert_close(convex_upsample(flow, logits.flatten(1, 2)), expected)


def test_convex_upsample_places_rows_and_columns() -> None:
    """Weight on neighbour 5, the one to the right, for the pixel in row 2, column 7 of each eight by eight only."""
    flow = torch.arange(6.0).view(1, 1, 2, 3).repeat(1, 2, 1, 1)
    logits = torch.full((1, 9, 8, 8, 2, 3), -1e4)
    logits[:, 4] = 0
    logits[:, 5, 2, 7] = 1e4
    fine = convex_upsample(flow, logits.flatten(1, 3))
    assert fine[0, 0, 2, 7] == 8 * 1  # of coarse (0, 0): its right neighbour
    assert fine[0, 0, 10, 15] == 8 * 5
    assert fine[0, 0, 2, 23] == 0  # outside
    assert fine[0, 0, 2, 6] == 0
    assert fine[0, 0, 3, 15] == 8 * 1


def test_raft_refuses_unknown_arguments() -> None:
    with pytest.raises(ValueError, match="unknown RAFT size 'medium'; expected one of large, small, tiny"):
        RAFT("medium")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="iterations is 0; expected at least 1"):
        RAFT("tiny", 0)
