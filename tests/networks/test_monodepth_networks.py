"""Monodepth's networks: sizes, an independent statement of their residual unit and pooling, any image size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geossl.networks.monodepth import MonodepthNet, _Residual, _ZeroPaddedMaxPool


def conv(k: int, channels_in: int, channels_out: int) -> int:
    return (k * k * channels_in + 1) * channels_out


def decoder_parameters(encoder: tuple[int, ...], dims: tuple[int, ...]) -> int:
    """Parameters of the decoder by the paper's table: up-convolution, joining convolution, heads of two channels."""
    total, below = 0, encoder[-1]
    for level, dim in zip(range(len(encoder), 0, -1), dims, strict=True):
        skip = encoder[level - 2] if level > 1 else 0
        total += conv(3, below, dim) + conv(3, dim + skip + (2 if level <= 3 else 0), dim)
        total += conv(3, dim, 2) if level <= 4 else 0
        below = dim
    return total


def test_vgg_form_has_the_papers_size() -> None:
    channels, kernels = (3, 32, 64, 128, 256, 512, 512, 512), (7, 5, 3, 3, 3, 3, 3)
    encoder = sum(
        conv(k, channels[i], channels[i + 1]) + conv(k, channels[i + 1], channels[i + 1])
        for i, k in enumerate(kernels)
    )
    expected = encoder + decoder_parameters(channels[1:], (512, 512, 256, 128, 64, 32, 16))
    assert sum(p.numel() for p in MonodepthNet("vgg").parameters()) == expected == 31_600_072  # "31 million"


def test_resnet50_form_has_a_projection_in_every_unit() -> None:
    expected, below = conv(7, 3, 64), 64
    for dim, units in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for _ in range(units):
            expected += conv(1, below, dim) + conv(3, dim, dim) + conv(1, dim, 4 * dim) + conv(1, below, 4 * dim)
            below = 4 * dim
    expected += decoder_parameters((64, 64, 256, 512, 1024, 2048), (512, 256, 128, 64, 32, 16))
    network = MonodepthNet("resnet50")
    assert sum(p.numel() for p in network.parameters()) == expected == 58_452_008
    assert sum(name.endswith("projection.weight") for name in network.state_dict()) == 3 + 4 + 6 + 3


@pytest.mark.parametrize("encoder", ["resnet50", "vgg"])
@pytest.mark.parametrize(("height", "width", "batch"), [(64, 128, 2), (75, 131, 1)])
def test_monodepth_gives_both_disparities_at_four_scales(encoder: str, height: int, width: int, batch: int) -> None:
    network = MonodepthNet(encoder, width=0.125)
    maps = network(torch.rand(batch, 3, height, width))
    assert [tuple(m.shape) for m in maps] == [(batch, 2, -(-height // 2**s), -(-width // 2**s)) for s in range(4)]
    assert all(m.min() > 0 and m.max() < 0.3 for m in maps)
    sum(m.mean() for m in maps).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_residual_unit_is_its_formula() -> None:
    unit = _Residual(6, 4, stride=2)
    x = torch.randn(1, 6, 9, 10)
    f, elu = nn.functional, nn.functional.elu
    y = elu(f.conv2d(x, unit.conv1.conv.weight, unit.conv1.conv.bias))
    y = elu(f.conv2d(y, unit.conv2.conv.weight, unit.conv2.conv.bias, stride=2, padding=1))
    y = f.conv2d(y, unit.conv3.weight, unit.conv3.bias)
    shortcut = f.conv2d(x[:, :, ::2, ::2], unit.projection.weight, unit.projection.bias)
    torch.testing.assert_close(unit(x), elu(y + shortcut))
    assert unit(x).shape == (1, 16, 5, 5)


def test_max_pool_lets_the_border_compete_with_zero() -> None:
    pooled = _ZeroPaddedMaxPool()(torch.full((1, 1, 6, 6), -0.5))
    assert torch.equal(pooled[0, 0], torch.tensor([[0, 0, 0], [0, -0.5, -0.5], [0, -0.5, -0.5]]))


def test_monodepth_refuses_unknown_encoders() -> None:
    with pytest.raises(ValueError, match="unknown Monodepth encoder 'resnet18'; expected 'resnet50' or 'vgg'"):
        MonodepthNet("resnet18")  # type: ignore[arg-type]


def test_monodepth_is_float32_and_close_under_bfloat16() -> None:
    torch.manual_seed(0)
    for encoder in ("resnet50", "vgg"):
        network, image = MonodepthNet(encoder, width=0.125), torch.rand(1, 3, 64, 128)
        with torch.no_grad():
            exact = network(image)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                mixed = network(image)
        for a, b in zip(exact, mixed, strict=True):
            assert b.dtype == torch.float32
            assert (a - b).abs().max() < 0.01
