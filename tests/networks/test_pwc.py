"""PWC and PWC-Lite: published names and sizes, and their forward passes written out with other means."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.networks.pwc import PWC, ThreeFramePWC, _centred, _cost_volume
from geossl.networks.pwclite import PWCLite, ThreeFramePWCLite

CHANNELS = (3, 16, 32, 64, 96, 128, 192)


def conv(w: dict[str, Tensor], name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    k = w[f"{name}.weight"]
    return F.conv2d(x, k, w[f"{name}.bias"], stride, dilation * (k.shape[-1] // 2), dilation)


def shift(x: Tensor, flow: Tensor, padding: str) -> Tensor:
    """x at (u + du, v + dv), by grid_sample on a grid from linspace."""
    h, w = x.shape[-2:]
    v, u = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    grid = torch.stack([u + 2 * flow[:, 0] / (w - 1), v + 2 * flow[:, 1] / (h - 1)], -1)
    return F.grid_sample(x, grid, padding_mode=padding, align_corners=True)


def costs(a: Tensor, b: Tensor) -> Tensor:
    """Sums of products by unfolding."""
    n, c, h, w = b.shape
    around = F.unfold(b, 9, padding=4).view(n, c, 81, h, w)
    return torch.einsum("nchw,nckhw->nkhw", a, around)


def twice(flow: Tensor, factor: int = 2) -> Tensor:
    return factor * F.interpolate(flow, scale_factor=factor, mode="bilinear", align_corners=False)


def context(w: dict[str, Tensor], prefix: str, x: Tensor, leak: float) -> Tensor:
    for i, dilation in enumerate((1, 2, 4, 8, 16, 1)):
        x = F.leaky_relu(conv(w, f"{prefix}.{i}.0", x, dilation=dilation), leak)
    return conv(w, f"{prefix}.6.0", x)


def pyramid(w: dict[str, Tensor], prefix: str, x: Tensor, leak: float) -> list[Tensor]:
    levels = []
    for i in range(6):
        x = F.leaky_relu(conv(w, f"{prefix}.{i}.0.0", x, stride=2), leak)
        x = F.leaky_relu(conv(w, f"{prefix}.{i}.1.0", x), leak)
        levels.append(x)
    return levels


def pwclite_written_out(w: dict[str, Tensor], first: Tensor, second: Tensor) -> list[Tensor]:
    a, b = (pyramid(w, "feature_pyramid_extractor.convs", image, 0.1)[::-1] for image in (first, second))
    flow = torch.zeros_like(a[0][:, :2])
    flows = []
    for i in range(5):
        if i > 0:
            flow = twice(flow)
        volume = F.leaky_relu(costs(a[i], shift(b[i], flow, "border")) / a[i].shape[1], 0.1)
        x0 = torch.cat([volume, F.leaky_relu(conv(w, f"conv_1x1.{i}.0", a[i]), 0.1), flow], 1)
        net = "flow_estimators"
        x1 = F.leaky_relu(conv(w, f"{net}.conv1.0", x0), 0.1)
        x2 = F.leaky_relu(conv(w, f"{net}.conv2.0", x1), 0.1)
        x3 = F.leaky_relu(conv(w, f"{net}.conv3.0", torch.cat([x1, x2], 1)), 0.1)
        x4 = F.leaky_relu(conv(w, f"{net}.conv4.0", torch.cat([x2, x3], 1)), 0.1)
        x5 = F.leaky_relu(conv(w, f"{net}.conv5.0", torch.cat([x3, x4], 1)), 0.1)
        flow = flow + conv(w, f"{net}.predict_flow.0", torch.cat([x4, x5], 1))
        flow = flow + context(w, "context_networks.convs", torch.cat([x5, flow], 1), 0.1)
        flows.append(twice(flow, 4))
    return flows[::-1]


def pwc_written_out(w: dict[str, Tensor], first: Tensor, second: Tensor) -> list[Tensor]:
    def unit(x: Tensor) -> Tensor:
        return x / (x.pow(2).sum(1, keepdim=True) + 1e-6).sqrt()

    a, b = (pyramid(w, "pyramid.convs", image, 0.2) for image in (first, second))
    flow, flows = torch.zeros_like(a[5][:, :2]), []
    for level in (6, 5, 4, 3, 2):
        if level < 6:
            flow = twice(flow)
        one, other = a[level - 1], b[level - 1]
        volume = F.leaky_relu(costs(unit(one), unit(shift(other, flow, "zeros"))), 0.2)
        x = torch.cat([one, volume, flow], 1)
        for i in range(5):
            x = F.leaky_relu(conv(w, f"estimators.{level}.convs.{i}.0", x), 0.2)
        flow = conv(w, f"estimators.{level}.flow", x)
        flows.append(flow)
    refined = context(w, "context.convs", torch.cat([x, flow], 1), 0.2)
    flows[-1] = twice(flow + refined, 4)
    return flows[::-1]


def test_pwclite_equals_the_forward_pass_written_out() -> None:
    torch.manual_seed(0)
    network, images = PWCLite(1 / 8), torch.rand(2, 2, 3, 128, 192)
    with torch.no_grad():
        expected = pwclite_written_out(network.state_dict(), *images)
        for a, b in zip(network(*images), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_pwc_equals_the_forward_pass_written_out() -> None:
    torch.manual_seed(0)
    network, images = PWC(1 / 8), torch.rand(2, 2, 3, 128, 192)
    with torch.no_grad():
        expected = pwc_written_out(network.state_dict(), *images)
        for a, b in zip(network(*images), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_pwclite_has_the_published_names_and_shapes() -> None:
    net, layers = "feature_pyramid_extractor.convs", {}
    for i in range(6):
        layers |= {f"{net}.{i}.0.0": (CHANNELS[i + 1], CHANNELS[i], 3, 3)}
        layers |= {f"{net}.{i}.1.0": (CHANNELS[i + 1], CHANNELS[i + 1], 3, 3)}
    layers |= {f"conv_1x1.{i}.0": (32, CHANNELS[6 - i], 1, 1) for i in range(5)}
    wide = {1: (81 + 32 + 2, 128), 2: (128, 128), 3: (256, 96), 4: (224, 64), 5: (160, 32)}
    layers |= {f"flow_estimators.conv{i}.0": (c_out, c_in, 3, 3) for i, (c_in, c_out) in wide.items()}
    layers |= {"flow_estimators.predict_flow.0": (2, 96, 3, 3)}
    dilated = (34, 128, 128, 128, 96, 64, 32, 2)
    layers |= {f"context_networks.convs.{i}.0": (dilated[i + 1], dilated[i], 3, 3) for i in range(7)}
    expected = {f"{k}.weight": v for k, v in layers.items()} | {f"{k}.bias": v[:1] for k, v in layers.items()}
    assert {k: tuple(v.shape) for k, v in PWCLite().state_dict().items()} == expected


def test_pwclite_has_2_24_million_parameters() -> None:
    assert round(sum(p.numel() for p in PWCLite().parameters()) / 1e6, 2) == 2.24


def test_three_frame_networks_see_two_cost_volumes_and_two_flows() -> None:
    lite, pwc = ThreeFramePWCLite(), ThreeFramePWC()
    assert lite.flow_estimators.conv1[0].in_channels == 32 + 2 * (81 + 2)
    assert lite.context_networks.convs[0][0].in_channels == 2 * (32 + 2)
    assert pwc.estimators["2"].convs[0][0].in_channels == 32 + 2 * (81 + 2)
    assert pwc.context.convs[0][0].in_channels == 2 * (32 + 2)


def test_the_context_network_gives_the_flow_itself_of_three_frames() -> None:
    """Biases of 1 of level 2's flow and 0.5 of the context: 4 (1 + 0.5) pixels with two frames, 4 * 0.5 with three."""
    for network, images, expected in ((PWC(1 / 8), 2, 6.0), (ThreeFramePWC(1 / 8), 3, 2.0)):
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        nn.init.constant_(network.estimators["2"].flow.bias, 1.0)
        nn.init.constant_(network.context.convs[-1][0].bias, 0.5)
        flows = network(*torch.rand(images, 1, 3, 64, 128))
        assert (flows[0] if images == 2 else flows[0][0]).unique().item() == expected


def written_inputs(network: ThreeFramePWC, module: nn.Module, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(*images)
    return seen[0]


def test_three_frame_estimator_sees_the_other_source_in_mirrored_roles() -> None:
    """At level 5, [x, costs, other costs, flow, -other flow] for the previous, then for the following image."""
    torch.manual_seed(0)
    network = ThreeFramePWC(1 / 8)
    inputs = written_inputs(network, network.estimators["5"], torch.rand(3, 2, 3, 64, 64))
    x, own, other, flow, negative = inputs.split([16, 81, 81, 2, 2], 1)
    assert inputs.shape[0] == 4
    assert torch.equal(x[:2], x[2:])
    assert torch.equal(own[:2], other[2:]) and torch.equal(own[2:], other[:2])
    assert torch.equal(flow[:2], -negative[2:]) and torch.equal(flow[2:], -negative[:2])


@pytest.mark.parametrize("build", [PWC, PWCLite])
def test_zero_weights_give_zero_flow(build: type[PWC] | type[PWCLite]) -> None:
    network = build(1 / 8)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    assert all(torch.all(flow == 0) for flow in network(*torch.rand(2, 1, 3, 65, 70)))


def test_a_flow_bias_of_pwc_is_pixels_of_its_level() -> None:
    """Level 2's one pixel is four of the image; where levels 3 to 6 start from does not matter, flow is absolute."""
    network = PWC(1 / 8)
    for name, parameter in network.named_parameters():
        nn.init.constant_(parameter, 1.0 if name.endswith("flow.bias") else 0.0)
    flows = network(*torch.rand(2, 1, 3, 64, 128))
    assert [flow.unique().item() for flow in flows] == [4, 1, 1, 1, 1]


def test_a_flow_bias_of_pwclite_adds_up_over_the_levels() -> None:
    """Level 6 says 1, level 5 then 2 * 1 + 1 = 3, ..., level 2 says 31; each is upsampled four times."""
    network = PWCLite(1 / 8)
    for name, parameter in network.named_parameters():
        nn.init.constant_(parameter, 1.0 if name.endswith("predict_flow.0.bias") else 0.0)
    flows = network(*torch.rand(2, 1, 3, 64, 128))
    assert [flow.unique().item() for flow in flows] == [4 * n for n in (31, 15, 7, 3, 1)]


@pytest.mark.parametrize("images", [2, 3])
def test_centred_features_are_free_of_what_all_pixels_of_a_sample_share(images: int) -> None:
    torch.manual_seed(0)
    features = torch.rand(images * 3, 4, 5, 7)
    centred = _centred(features, images)
    for sample in range(3):
        own = torch.stack([features[i * 3 + sample] for i in range(images)])
        expected = own - own.mean((0, 2, 3), keepdim=True)
        found = torch.stack([centred[i * 3 + sample] for i in range(images)])
        assert torch.allclose(found, expected, atol=1e-6)
    offset = torch.rand(4).view(1, 4, 1, 1)
    assert torch.allclose(_centred(features + offset, images), centred, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("width", [0.25, 1.0])
def test_centred_costs_tell_displacements_apart_before_anything_is_learned(width: float, seed: int) -> None:
    """Products of random directions in C dimensions have a standard deviation of 1 / sqrt(C)."""
    torch.manual_seed(seed)
    features = PWC(width).pyramid(torch.rand(2, 3, 128, 192))[1]

    def spread(features: Tensor) -> float:
        costs = _cost_volume(features[:1], features[1:], torch.zeros(1, 2, 32, 48))
        return costs[..., 4:-4, 4:-4].std(1).mean().item()

    centred = spread(_centred(features, 2))
    assert centred > 0.7 / features.shape[1] ** 0.5
    assert centred > spread(features)


def test_a_sample_of_a_centred_network_does_not_see_the_others() -> None:
    torch.manual_seed(0)
    for network, images in ((PWC(1 / 8, centred=True), 2), (ThreeFramePWC(1 / 8, centred=True), 3)):
        batch = torch.rand(images, 2, 3, 64, 96)
        with torch.no_grad():
            both, one = network(*batch), network(*batch[:, :1])
        both, one = (flows if images == 2 else flows[1] for flows in (both, one))
        assert torch.allclose(both[0][:1], one[0], atol=1e-4)
