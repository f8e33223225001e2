"""FlowNet: sizes of the published networks, the forward pass written out, units, stacks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.geometry.transforms import resize_flow
from geossl.geometry.warping import warp_by_flow
from geossl.networks.flownet import UNFLOW_MEAN, FlowNet


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_flownets_have_the_published_numbers_of_parameters() -> None:
    """38.7 (S), 39.2 (C) and 116.6 (CSS) million."""
    with torch.device("meta"):
        c, s = FlowNet("C"), FlowNet("S")
        assert round(millions(s), 1) == 38.7
        assert round(millions(c), 1) == 39.2
        # A further net's 14 instead of 6 channels cost 8 * 64 * 7 * 7 weights more.
        assert (
            round(millions(FlowNet("CSS")), 1)
            == round(millions(c) + 2 * (millions(s) + 8 * 64 * 49 / 1e6), 1)
            == 116.6
        )
        assert FlowNet("S", 3 / 8).nets[0].trunk.conv6_1[0].out_channels == 384


def flownet_s_written_out(w: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Outputs (not pixels) at levels 2 to 6, line by line."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        k = w[f"{name}.weight"]
        return F.conv2d(x, k, w[f"{name}.bias"], stride, k.shape[-1] // 2)

    def leaky(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return F.leaky_relu(conv(f"{name}.0", x, stride), 0.1)

    def up(name: str, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, w[f"{name}.weight"], w[f"{name}.bias"], 2, 1)

    def deconv(name: str, x: Tensor) -> Tensor:
        return F.leaky_relu(up(f"{name}.0", x), 0.1)

    c2 = leaky("conv2", leaky("conv1", x, 2), 2)
    c3 = leaky("trunk.conv3_1", leaky("conv3", c2, 2))
    c4 = leaky("trunk.conv4_1", leaky("trunk.conv4", c3, 2))
    c5 = leaky("trunk.conv5_1", leaky("trunk.conv5", c4, 2))
    c6 = leaky("trunk.conv6_1", leaky("trunk.conv6", c5, 2))
    f6 = conv("trunk.flow6", c6)
    d5 = torch.cat([c5, deconv("trunk.deconv5", c6), up("trunk.flow6_up5", f6)], 1)
    f5 = conv("trunk.flow5", d5)
    d4 = torch.cat([c4, deconv("trunk.deconv4", d5), up("trunk.flow5_up4", f5)], 1)
    f4 = conv("trunk.flow4", d4)
    d3 = torch.cat([c3, deconv("trunk.deconv3", d4), up("trunk.flow4_up3", f4)], 1)
    f3 = conv("trunk.flow3", d3)
    d2 = torch.cat([c2, deconv("trunk.deconv2", d3), up("trunk.flow3_up2", f3)], 1)
    return [conv("trunk.flow2", d2), f3, f4, f5, f6]


def test_flownet_s_equals_the_forward_pass_written_out() -> None:
    torch.manual_seed(0)
    network, images = FlowNet("S", 1 / 16, UNFLOW_MEAN, 1.0), torch.rand(2, 2, 3, 64, 128)
    mean = torch.tensor([104.92, 110.18, 114.79]).view(1, 3, 1, 1) / 255
    with torch.no_grad():
        outputs = flownet_s_written_out(network.nets[0].state_dict(), torch.cat([i - mean for i in images], 1))
        flows = network(*images)
    for output, flow, ratio in zip(outputs, flows, (4, 8, 16, 32, 64), strict=True):
        torch.testing.assert_close(flow, output * 20 / ratio)


def test_an_output_of_one_is_twenty_pixels_of_the_full_image_at_every_level() -> None:
    network = FlowNet("S", 1 / 16)
    for name, parameter in network.named_parameters():
        is_last = name.rsplit(".", 2)[-2] in {f"flow{level}" for level in range(2, 7)}
        nn.init.constant_(parameter, 1.0 if is_last and name.endswith("bias") else 0.0)
    for flow in network(*torch.rand(2, 1, 3, 64, 128)):
        torch.testing.assert_close(resize_flow(flow, (64, 128)), torch.full((1, 2, 64, 128), 20.0))


def test_flownet_c_correlates_equal_images_most_at_no_displacement() -> None:
    """Both images pass the same three convolutions."""
    torch.manual_seed(0)
    network, image = FlowNet("C", 1 / 8), torch.rand(1, 3, 64, 64)
    seen: list[Tensor] = []
    network.nets[0].trunk.conv3_1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(image, image)
    costs = seen[0][:, 4:]  # after conv_redir's 32 / 8 channels
    assert costs.shape == (1, 441, 8, 8)
    centre = costs[:, 220]  # 10 * 21 + 10
    assert (centre >= 0).all()
    assert torch.all(costs.mean((2, 3)).argmax(1) == 220)


def test_flownet_c_may_compare_standardised_features() -> None:
    torch.manual_seed(0)
    network, images = FlowNet("C", 1 / 8, normalize_costs=True), torch.rand(2, 1, 3, 64, 64)
    features: list[Tensor] = []
    seen: list[Tensor] = []
    network.nets[0].conv3.register_forward_hook(lambda *call: features.append(call[2]))
    network.nets[0].trunk.conv3_1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(*images)
    a, b = features[0].double().chunk(2)
    of_channel = {"dim": (2, 3), "keepdim": True}
    variance = (a.var(correction=0, **of_channel) + b.var(correction=0, **of_channel)) / 2
    shifted = [(x - (a.mean(**of_channel) + b.mean(**of_channel)) / 2) / variance.sqrt() for x in (a, b)]
    expected = F.leaky_relu((shifted[0] * shifted[1]).mean(1), 0.1)
    torch.testing.assert_close(seen[0][:, 4 + 220].double(), expected, rtol=1e-4, atol=1e-5)


def test_a_further_net_sees_images_flow_warped_image_and_difference() -> None:
    torch.manual_seed(0)
    network, images = FlowNet("CS", 1 / 16), torch.rand(2, 1, 3, 64, 128)
    seen: list[tuple[Tensor, ...]] = []
    network.nets[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    with torch.no_grad():
        first_net, second_net = network.every_net(*images)
        a, b = ((image - 0.45) / 0.225 for image in images)
        flow = resize_flow(first_net[0], (64, 128))
        warped, _ = warp_by_flow(b, flow)
        for given, expected in zip(seen[0], (a, b, flow, warped, (warped - a).abs()), strict=True):
            torch.testing.assert_close(given, expected)
        assert sum(x.shape[1] for x in seen[0]) == 14
        for a, b in zip(network(*images), second_net, strict=True):
            assert torch.equal(a, b)


def test_a_frozen_net_gets_no_gradient_and_the_next_one_does() -> None:
    network = FlowNet("CS", 1 / 16)
    network.nets[0].requires_grad_(False)
    network(*torch.rand(2, 1, 3, 64, 64))[0].sum().backward()
    assert all(p.grad is None for p in network.nets[0].parameters())
    assert network.nets[1].conv1[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("stack", ["", "c", "SC", "CSX"])
def test_flownet_refuses_an_unknown_stack(stack: str) -> None:
    with pytest.raises(ValueError, match=f"stack is '{stack}'; expected 'C' or 'S'"):
        FlowNet(stack, 1 / 16)
