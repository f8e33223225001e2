"""SfMLearner's networks: published names, any image size, order and scale of the outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from geossl.networks.sfmlearner import DispNet, PoseExpNet


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def with_biases(weights: dict[str, tuple[int, ...]], transposed: str = "upconv") -> dict[str, tuple[int, ...]]:
    """A transposed convolution's weight is (in, out, k, k), any other's (out, in, k, k)."""
    biases = {name: (shape[1] if name.startswith(transposed) else shape[0],) for name, shape in weights.items()}
    return {f"{k}.weight": v for k, v in weights.items()} | {f"{k}.bias": v for k, v in biases.items()}


def test_dispnet_has_the_published_names_and_shapes() -> None:
    c, d = (3, 32, 64, 128, 256, 512, 512, 512), (512, 512, 256, 128, 64, 32, 16)
    kernels = (7, 5, 3, 3, 3, 3, 3)
    weights: dict[str, tuple[int, ...]] = {}
    for i, k in enumerate(kernels, start=1):
        weights |= {f"conv{i}.0": (c[i], c[i - 1], k, k), f"conv{i}.2": (c[i], c[i], k, k)}
    inputs = {7: 512 + 512, 6: 512 + 512, 5: 256 + 256, 4: 128 + 128, 3: 1 + 64 + 64, 2: 1 + 32 + 32, 1: 1 + 16}
    for i in range(7, 0, -1):
        below = 512 if i == 7 else d[6 - i]
        weights |= {f"upconv{i}.0": (below, d[7 - i], 3, 3), f"iconv{i}.0": (d[7 - i], inputs[i], 3, 3)}
    weights |= {f"predict_disp{i}.0": (1, d[7 - i], 3, 3) for i in range(1, 5)}
    ours = shapes_of(DispNet())
    assert ours == with_biases(weights)
    assert len(ours) == 64
    assert round(sum(p.numel() for p in DispNet().parameters()) / 1e6, 2) == 31.60


def test_pose_exp_net_has_the_published_names_and_shapes() -> None:
    c = (15, 16, 32, 64, 128, 256, 256, 256)
    weights: dict[str, tuple[int, ...]] = {
        f"conv{i}.0": (c[i], c[i - 1], k, k) for i, k in enumerate((7, 5, 3, 3, 3, 3, 3), start=1)
    }
    weights["pose_pred"] = (24, 256, 1, 1)
    d = (256, 256, 128, 64, 32, 16)
    weights |= {f"upconv{5 - j}.0": (d[j], d[j + 1], 4, 4) for j in range(5)}
    weights |= {f"predict_mask{i}": (4, {4: 128, 3: 64, 2: 32, 1: 16}[i], 3, 3) for i in range(1, 5)}
    ours = shapes_of(PoseExpNet(sources=4, explainability=True))
    assert ours == with_biases(weights)
    assert len(ours) == 34
    without = {k: v for k, v in with_biases(weights).items() if not k.startswith(("upconv", "predict_mask"))}
    assert shapes_of(PoseExpNet(sources=4)) == without


@pytest.mark.parametrize(("height", "width", "batch"), [(64, 96, 3), (51, 77, 1), (2, 3, 1)])
def test_dispnet_gives_inverse_depth_at_four_scales_of_any_size(height: int, width: int, batch: int) -> None:
    network = DispNet(channels=(4,) * 7, decoder_channels=(4,) * 7)
    maps = network(torch.rand(batch, 3, height, width))
    assert [tuple(m.shape) for m in maps] == [(batch, 1, -(-height // 2**s), -(-width // 2**s)) for s in range(4)]
    assert all(m.min() > 0.01 and m.max() < 10.01 for m in maps)


def test_dispnet_of_zero_weights_is_in_the_middle() -> None:
    network = DispNet()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    for inverse_depth in network(torch.rand(1, 3, 32, 32)):
        assert torch.all(inverse_depth == 10 * 0.5 + 0.01)


def dispnet_written_out(w: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The released forward pass, line by line."""
    f = nn.functional

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        k = w[f"{name}.weight"]
        return f.conv2d(x, k, w[f"{name}.bias"], stride=stride, padding=k.shape[-1] // 2)

    def up(name: str, x: Tensor, like: Tensor) -> Tensor:
        y = f.conv_transpose2d(x, w[f"{name}.0.weight"], w[f"{name}.0.bias"], 2, 1, 1).relu()
        return y[:, :, : like.shape[2], : like.shape[3]]

    def finer(disp: Tensor, like: Tensor) -> Tensor:
        y = f.interpolate(disp, scale_factor=2, mode="bilinear", align_corners=False)
        return y[:, :, : like.shape[2], : like.shape[3]]

    x = (image - 0.5) / 0.5
    c = {0: x}
    for i in range(1, 8):
        c[i] = conv(f"conv{i}.2", conv(f"conv{i}.0", c[i - 1], 2).relu()).relu()
    i7 = conv("iconv7.0", torch.cat([up("upconv7", c[7], c[6]), c[6]], 1)).relu()
    i6 = conv("iconv6.0", torch.cat([up("upconv6", i7, c[5]), c[5]], 1)).relu()
    i5 = conv("iconv5.0", torch.cat([up("upconv5", i6, c[4]), c[4]], 1)).relu()
    i4 = conv("iconv4.0", torch.cat([up("upconv4", i5, c[3]), c[3]], 1)).relu()
    d4 = 10 * conv("predict_disp4.0", i4).sigmoid() + 0.01
    i3 = conv("iconv3.0", torch.cat([up("upconv3", i4, c[2]), c[2], finer(d4, c[2])], 1)).relu()
    d3 = 10 * conv("predict_disp3.0", i3).sigmoid() + 0.01
    i2 = conv("iconv2.0", torch.cat([up("upconv2", i3, c[1]), c[1], finer(d3, c[1])], 1)).relu()
    d2 = 10 * conv("predict_disp2.0", i2).sigmoid() + 0.01
    i1 = conv("iconv1.0", torch.cat([up("upconv1", i2, x), finer(d2, x)], 1)).relu()
    return [10 * conv("predict_disp1.0", i1).sigmoid() + 0.01, d2, d3, d4]


def test_dispnet_equals_the_forward_pass_written_out() -> None:
    torch.manual_seed(0)
    network, image = DispNet(channels=(4,) * 7, decoder_channels=(4,) * 7), torch.rand(2, 3, 45, 70)
    with torch.no_grad():
        for a, b in zip(network(image), dispnet_written_out(network.state_dict(), image), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("height", "width", "sources"), [(64, 96, 2), (51, 77, 4)])
def test_pose_exp_net_gives_motions_and_maps_of_any_size(height: int, width: int, sources: int) -> None:
    network = PoseExpNet(sources, explainability=True)
    images = list(torch.rand(sources + 1, 2, 3, height, width))
    translation, euler, explainability = network(images[0], images[1:])
    assert translation.shape == euler.shape == (2, sources, 3)
    assert [tuple(m.shape) for m in explainability] == [
        (2, sources, -(-height // 2**s), -(-width // 2**s)) for s in range(4)
    ]
    assert all(m.min() > 0 and m.max() < 1 for m in explainability)
    assert PoseExpNet(sources)(images[0], images[1:])[2] == []
    with pytest.raises(ValueError, match=f"got 1 source images; this PoseExpNet was built for {sources}"):
        network(images[0], images[1:2])


def test_pose_exp_net_orders_translation_before_euler() -> None:
    network = PoseExpNet(sources=2)
    nn.init.zeros_(network.pose_pred.weight)
    with torch.no_grad():
        network.pose_pred.bias.copy_(torch.arange(12.0))
    image = torch.rand(1, 3, 64, 64)
    translation, euler, _ = network(image, [image, image])
    torch.testing.assert_close(translation[0], 0.01 * torch.tensor([[0.0, 1, 2], [6, 7, 8]]))
    torch.testing.assert_close(euler[0], 0.01 * torch.tensor([[3.0, 4, 5], [9, 10, 11]]))


def test_sfmlearner_networks_start_from_xavier() -> None:
    torch.manual_seed(0)
    weight = DispNet().get_parameter("conv6.2.weight")  # fan in = fan out = 512 * 9
    bound = (6 / (2 * 512 * 9)) ** 0.5
    assert weight.abs().max() <= bound
    torch.testing.assert_close(weight.std().item(), bound / 3**0.5, rtol=0.01, atol=0)
    assert PoseExpNet().get_parameter("pose_pred.bias").abs().max() == 0


def test_sfmlearner_networks_are_float32_and_close_under_bfloat16() -> None:
    torch.manual_seed(0)
    disp, pose = DispNet((8,) * 7, (8,) * 7), PoseExpNet(2, explainability=True)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        translation, euler, maps = pose(image, [image, image])
        exact = [*disp(image), translation, euler, *maps]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            translation, euler, maps = pose(image, [image, image])
            mixed = [*disp(image), translation, euler, *maps]
    for a, b in zip(exact, mixed, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).abs().max() < 0.05 * a.abs().max()
