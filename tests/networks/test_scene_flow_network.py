"""The scene flow network: published layers, its forward pass written out, any size, first estimates."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.networks.scene_flow import SceneFlowNet, depth_of_fraction

WIDTH = 1 / 8


def cameras(batch: int, height: int, width: int) -> Tensor:
    K = torch.tensor([[0.6 * width, 0, 0.45 * width], [0, 0.6 * width, 0.55 * height], [0, 0, 1]])
    return K.expand(batch, 3, 3)


def estimates(network: SceneFlowNet, height: int, width: int, batch: int = 1) -> list[Tensor]:
    K, baseline = cameras(batch, height, width), torch.full((batch,), 0.5)
    found = network(*torch.rand(2, batch, 3, height, width), K, K * 1.0, baseline)
    return [torch.cat(estimate, 1) for estimate in found]


def conv(w: dict[str, Tensor], name: str, x: Tensor, stride: int = 1, dilation: int = 1, leak: bool = True) -> Tensor:
    x = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, dilation, dilation)
    return F.leaky_relu(x, 0.1) if leak else x


def costs(a: Tensor, b: Tensor) -> Tensor:
    n, c, h, w = b.shape
    around = F.unfold(b, 9, padding=4).view(n, c, 81, h, w)
    return F.leaky_relu(torch.einsum("nchw,nckhw->nkhw", a, around) / c, 0.1)


def moved(b: Tensor, scene_flow: Tensor, disparity: Tensor, K: Tensor, K_b: Tensor, baseline: float) -> Tensor:
    """Recipe: Z = fx B / d, P = K^-1 p Z, p' = K_b (P + s); zero where p' is outside; in float64 matrices."""
    n, _, h, w = scene_flow.shape
    v, u = torch.meshgrid(torch.arange(h).double(), torch.arange(w).double(), indexing="ij")
    p = torch.stack([u, v, torch.ones_like(u)]).flatten(1)
    z = (K[:, :1, :1].double() * baseline / (disparity.double().flatten(2) * w)).clamp(1e-3, 80)
    points = torch.linalg.inv(K.double()) @ p * z + scene_flow.double().flatten(2)
    x = K_b.double() @ points
    u, v = (x[:, i] / x[:, 2] for i in (0, 1))
    inside = (u >= -1e-3) & (u <= w - 1 + 1e-3) & (v >= -1e-3) & (v <= h - 1 + 1e-3) & (points[:, 2] > 1e-3)
    grid = torch.stack([2 * u / (w - 1) - 1, 2 * v / (h - 1) - 1], -1).view(n, h, w, 2).float()
    return F.grid_sample(b, grid, padding_mode="border", align_corners=True) * inside.view(n, 1, h, w)


def written_out(w: dict[str, Tensor], a: Tensor, b: Tensor, K: Tensor, K_b: Tensor, baseline: float) -> list[Tensor]:
    def pyramid(x: Tensor) -> list[Tensor]:
        levels = []
        for i in range(6):
            x = conv(w, f"pyramid.convs.{i}.1.0", conv(w, f"pyramid.convs.{i}.0.0", x, stride=2))
            levels.append(x)
        return levels[::-1]

    def twice(x: Tensor, factor: int = 2) -> Tensor:
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)

    found: list[Tensor] = []
    x = scene_flow = disparity = torch.zeros(0)
    for i, (one, other) in enumerate(zip(pyramid(a)[:5], pyramid(b)[:5], strict=True)):
        known = [one]
        if i > 0:
            hidden = conv(w, f"upconvs.{i - 1}.0", x.repeat_interleave(2, 2).repeat_interleave(2, 3))
            scene_flow, disparity = twice(scene_flow), twice(disparity)
            s = 2.0 ** (i - 6)
            shrink = torch.tensor([[s, 0, s / 2 - 0.5], [0, s, s / 2 - 0.5], [0, 0, 1]])
            other = moved(other, scene_flow, disparity, shrink @ K, shrink @ K_b, baseline)
            known = [one, hidden, scene_flow, disparity]
        x = torch.cat([costs(one, other), *known], 1)
        for j in range(5):
            x = conv(w, f"estimators.{i}.convs.{j}.0", x)
        out = conv(w, f"estimators.{i}.head", x, leak=False)
        scene_flow = out[:, :3] + (scene_flow if i > 0 else 0)
        raw = out[:, 3:]
        if i == 4:
            y = torch.cat([x, scene_flow, raw], 1)
            for j, dilation in enumerate((1, 2, 4, 8, 16, 1)):
                y = conv(w, f"context.convs.{j}.0", y, dilation=dilation)
            y = conv(w, "context.convs.6.0", y, leak=False)
            scene_flow, raw = scene_flow + y[:, :3], y[:, 3:]
        disparity = 0.3 * torch.sigmoid(raw)
        found.append(twice(torch.cat([scene_flow, disparity], 1), 4))
    return found[::-1]


def test_network_equals_the_forward_pass_written_out() -> None:
    torch.manual_seed(0)
    network, images = SceneFlowNet(WIDTH), torch.rand(2, 2, 3, 128, 192)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn_like(parameter)  # motions of some pixels
        K = cameras(2, 128, 192)
        K_second = K * torch.tensor([1.05, 0.97, 1.0])[:, None]
        expected = written_out(network.state_dict(), *images, K, K_second, 0.54)
        result = network(*images, K, K_second, torch.full((2,), 0.54))
    assert expected[0][:, :3].abs().mean() > 0.05
    for a, b in zip(result, expected, strict=True):
        torch.testing.assert_close(torch.cat(a, 1), b, rtol=1e-3, atol=1e-3)


def test_network_has_the_published_layers() -> None:
    network = SceneFlowNet()
    features = [c for convs in network.pyramid.convs for c in (convs[0][0].out_channels, convs[1][0].out_channels)]
    assert features == [c for c in (32, 64, 96, 128, 192, 256) for _ in range(2)]
    inputs = [estimator.convs[0][0].in_channels for estimator in network.estimators]
    assert inputs == [81 + 256, *(81 + c + 32 + 3 + 1 for c in (192, 128, 96, 64))]
    assert [conv[0].out_channels for conv in network.estimators[0].convs] == [128, 128, 96, 64, 32]
    context = [layer[0] for layer in network.context.convs]
    assert [c.out_channels for c in context] == [128, 128, 128, 96, 64, 32, 4] and context[0].in_channels == 36
    assert [c.dilation[0] for c in context] == [1, 2, 4, 8, 16, 1, 1]


@pytest.mark.parametrize(("height", "width", "batch"), [(64, 128, 3), (51, 77, 1), (1, 3, 1)])
@pytest.mark.parametrize("normalize_costs", [False, True])
def test_images_of_any_size_give_five_finite_estimates(
    height: int, width: int, batch: int, normalize_costs: bool
) -> None:
    torch.manual_seed(0)
    found = estimates(SceneFlowNet(WIDTH, normalize_costs), height, width, batch)
    sizes = [(batch, 4, math.ceil(height / s), math.ceil(width / s)) for s in (1, 2, 4, 8, 16)]
    assert [tuple(x.shape) for x in found] == sizes
    assert all(x.isfinite().all() and (x[:, 3] > 0).all() and (x[:, 3] < 0.3).all() for x in found)


def test_first_scene_flows_are_near_zero_and_disparities_near_3_percent() -> None:
    torch.manual_seed(0)
    for x in estimates(SceneFlowNet(), 64, 128):
        assert x[:, :3].abs().mean() < 0.1
        assert 0.02 < x[:, 3].mean() < 0.045


def test_scene_flow_biases_add_up_over_the_levels() -> None:
    """Each of five levels adds 1 m; the disparity, which is not added up, is 0.3 / 2 where the logit is 0."""
    network = SceneFlowNet(WIDTH)
    for name, parameter in network.named_parameters():
        nn.init.zeros_(parameter)
        if name.startswith("estimators") and name.endswith("head.bias"):
            parameter.data[:3] = 1
    found = estimates(network, 65, 100)
    for x, motion in zip(found, (5.0, 4.0, 3.0, 2.0, 1.0), strict=True):
        torch.testing.assert_close(x[:, :3], torch.full_like(x[:, :3], motion))
        torch.testing.assert_close(x[:, 3:], torch.full_like(x[:, 3:], 0.15))


def test_a_sample_does_not_see_its_neighbours() -> None:
    torch.manual_seed(0)
    network, images = SceneFlowNet(WIDTH, normalize_costs=True), torch.rand(2, 3, 3, 64, 96)
    K, baseline = cameras(3, 64, 96), torch.tensor([0.5, 0.6, 0.7])
    with torch.no_grad():
        together = network(*images, K, K, baseline)[0]
        alone = network(*images[:, 1:2], K[1:2], K[1:2], baseline[1:2])[0]
    torch.testing.assert_close(together.scene_flow[1:2], alone.scene_flow)
    torch.testing.assert_close(together.disparity_fraction[1:2], alone.disparity_fraction)


def test_depth_of_fraction_worked_number_and_bounds() -> None:
    K = torch.tensor([[[700.0, 0, 600], [0, 700, 180], [0, 0, 1]]])
    baseline = torch.tensor([0.5])
    fraction = torch.tensor([0.025, 1e-9, 0.0]).view(1, 1, 1, 3).requires_grad_()
    depth = depth_of_fraction(fraction, K, baseline, 1400)
    assert depth.flatten().tolist() == pytest.approx([10.0, 80.0, 80.0])
    depth.sum().backward()
    assert fraction.grad is not None and fraction.grad.isfinite().all()


def test_black_images_give_finite_gradients_to_every_parameter() -> None:
    torch.manual_seed(0)
    network = SceneFlowNet(WIDTH)
    black, K = torch.zeros(1, 3, 65, 64), cameras(1, 65, 64)
    found = network(black, black, K, K, torch.tensor([0.5]))
    torch.stack([x.square().mean() + x.mean() for estimate in found for x in estimate]).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_estimates_are_float32_and_close_under_bfloat16() -> None:
    torch.manual_seed(0)
    network = SceneFlowNet(WIDTH)
    with torch.no_grad():
        torch.manual_seed(1)
        exact = estimates(network, 64, 96)
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = estimates(network, 64, 96)
    for a, b in zip(exact, mixed, strict=True):
        assert b.dtype == torch.float32 and (a - b).abs().max() < 0.1 * a.abs().max()


def test_images_of_different_size_are_refused() -> None:
    K = cameras(1, 64, 64)
    with pytest.raises(ValueError, match=r"expected one \(B, 3, H, W\)"):
        SceneFlowNet(WIDTH)(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 65), K, K, torch.ones(1))
