"""The depth decoder: published names, an independent statement of its forward pass, precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from geossl.networks.depth_decoder import Conv3x3, DepthDecoder, reflected
from geossl.networks.resnet import ResnetEncoder

CHANNELS = (64, 64, 128, 256, 512)
# decoder.N: (out, in) of the 3x3 convolutions in Monodepth2's depth.pth for ResNet 18
PUBLISHED = {
    **{"0.conv.conv": (256, 512), "1.conv.conv": (256, 512), "2.conv.conv": (128, 256), "3.conv.conv": (128, 256)},
    **{"4.conv.conv": (64, 128), "5.conv.conv": (64, 128), "6.conv.conv": (32, 64), "7.conv.conv": (32, 96)},
    **{"8.conv.conv": (16, 32), "9.conv.conv": (16, 16)},
    **{"10.conv": (1, 16), "11.conv": (1, 32), "12.conv": (1, 64), "13.conv": (1, 128)},
}
PUBLISHED_R50 = PUBLISHED | {
    **{"0.conv.conv": (256, 2048), "1.conv.conv": (256, 1280), "3.conv.conv": (128, 640), "5.conv.conv": (64, 320)},
}


def shapes_of(table: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    weights = {f"decoder.{name}.weight": (*shape, 3, 3) for name, shape in table.items()}
    return weights | {f"decoder.{name}.bias": shape[:1] for name, shape in table.items()}


def features_of(channels: tuple[int, ...], height: int, width: int, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, c, height // s, width // s, generator=generator)
        for c, s in zip(channels, (2, 4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(
    ("channels", "table"), [(CHANNELS, PUBLISHED), ((64, 256, 512, 1024, 2048), PUBLISHED_R50)], ids=["r18", "r50"]
)
def test_depth_decoder_has_the_published_names_and_shapes(
    channels: tuple[int, ...], table: dict[str, tuple[int, int]]
) -> None:
    ours = {name: tuple(tensor.shape) for name, tensor in DepthDecoder(channels).state_dict().items()}
    assert ours == shapes_of(table)
    assert len(ours) == 28


def test_depth_decoder_has_the_published_size() -> None:
    assert sum(p.numel() for p in DepthDecoder(CHANNELS).parameters()) == 3_152_724


def test_depth_decoder_with_fewer_scales_leaves_out_the_last_heads() -> None:
    three = DepthDecoder(CHANNELS, scales=(0, 1, 2)).state_dict()
    assert set(DepthDecoder(CHANNELS).state_dict()) - set(three) == {"decoder.13.conv.weight", "decoder.13.conv.bias"}


def test_depth_decoder_of_sc_depth_loads_by_renaming() -> None:
    """The same tensors under `upconvs0.k`, `upconvs1.k`, `dispconvs.s` map to decoder.(2k), (2k+1), (10+s)."""
    ours = DepthDecoder(CHANNELS)
    published = {}
    for name, tensor in ours.state_dict().items():
        _, index, rest = name.split(".", 2)
        n = int(index)
        group = f"dispconvs.{n - 10}" if n >= 10 else f"upconvs{n % 2}.{n // 2}"
        published[f"{group}.{rest}"] = torch.randn_like(tensor)
    renamed = {}
    for name, tensor in published.items():
        group, index, rest = name.split(".", 2)
        n = {"upconvs0": 2 * int(index), "upconvs1": 2 * int(index) + 1, "dispconvs": 10 + int(index)}[group]
        renamed[f"decoder.{n}.{rest}"] = tensor
    ours.load_state_dict(renamed, strict=True)


@pytest.mark.parametrize(("height", "width", "batch"), [(64, 96, 1), (96, 64, 3)])
def test_depth_decoder_outputs_are_finest_first(height: int, width: int, batch: int) -> None:
    decoder = DepthDecoder(CHANNELS, outputs=2, dims=(4, 4, 8, 8, 16))
    maps = decoder(features_of(CHANNELS, height, width, batch))
    assert [tuple(m.shape) for m in maps] == [(batch, 2, height >> s, width >> s) for s in range(4)]
    assert all(m.min() > 0 and m.max() < 1 for m in maps)
    assert len(DepthDecoder(CHANNELS, scales=(1,))(features_of(CHANNELS, height, width, batch))) == 1


def test_depth_decoder_equals_a_numpy_statement_of_it() -> None:
    channels, dims = (2, 3, 2, 3, 4), (2, 2, 3, 2, 3)
    torch.manual_seed(2)
    decoder = DepthDecoder(channels, dims=dims).double()
    features = [f.double() for f in features_of(channels, 64, 64, batch=1)]
    weights = {k: v.numpy() for k, v in decoder.state_dict().items()}

    def conv(x: np.ndarray, name: str) -> np.ndarray:
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="reflect")
        h, w = x.shape[1:]
        taps = [[padded[:, i : i + h, j : j + w] for j in range(3)] for i in range(3)]
        return (
            np.einsum("oiyx,yxihw->ohw", weights[f"{name}.weight"], np.array(taps))
            + weights[f"{name}.bias"][:, None, None]
        )

    def elu(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))

    x = features[4][0].numpy()
    expected = {}
    for level in (4, 3, 2, 1, 0):
        first = 2 * (4 - level)
        x = elu(conv(x, f"decoder.{first}.conv.conv")).repeat(2, 1).repeat(2, 2)
        if level > 0:
            x = np.concatenate([x, features[level - 1][0].numpy()])
        x = elu(conv(x, f"decoder.{first + 1}.conv.conv"))
        if level < 4:
            expected[level] = 1 / (1 + np.exp(-conv(x, f"decoder.{10 + level}.conv")))
    with torch.no_grad():
        for level, ours in enumerate(decoder(features)):
            np.testing.assert_allclose(ours[0].numpy(), expected[level], atol=1e-6)  # heads end in float32


def test_convolution_of_a_reflected_map_sees_its_mirror_image() -> None:
    conv = Conv3x3(1, 1)
    torch.nn.init.constant_(conv.conv.weight, 1.0)
    torch.nn.init.zeros_(conv.conv.bias)
    x = torch.arange(9.0).view(1, 1, 3, 3)
    # around pixel 0 reflection sees 4 3 4 / 1 0 1 / 4 3 4
    assert conv(reflected(x))[0, 0, 0, 0] == 4 + 3 + 4 + 1 + 0 + 1 + 4 + 3 + 4


def test_depth_decoder_is_float32_and_close_under_bfloat16() -> None:
    torch.manual_seed(0)
    encoder, decoder = ResnetEncoder(18).eval(), DepthDecoder(CHANNELS)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        exact = decoder(encoder(image))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = encoder(image)
            mixed = decoder(features)
    assert features[-1].dtype == torch.bfloat16
    for a, b in zip(exact, mixed, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).abs().max() < 0.02
        assert b.unique().numel() > b.numel() // 2  # a sigmoid of bfloat16 would fall on few values


def test_depth_decoder_keeps_channels_last_and_gives_the_same_twice() -> None:
    decoder = DepthDecoder(CHANNELS, dims=(4, 4, 8, 8, 16)).to(memory_format=torch.channels_last)
    features = [f.contiguous(memory_format=torch.channels_last) for f in features_of(CHANNELS, 64, 96)]
    seen: list[Tensor] = []
    for block in decoder.decoder:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    first, second = decoder(features), decoder(features)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_depth_decoder_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"channels is \(64, 64\); expected 5 numbers"):
        DepthDecoder((64, 64))
    with pytest.raises(ValueError, match=r"scales is \(1, 0\); expected rising levels"):
        DepthDecoder(CHANNELS, scales=(1, 0))
    decoder = DepthDecoder(CHANNELS)
    for height, width in ((70, 96), (32, 64)):
        with pytest.raises(ValueError, match="Resize or pad images to multiples of 32, at least 64"):
            decoder(ResnetEncoder(18)(torch.rand(2, 3, height, width)))


@pytest.mark.slow
def test_depth_network_exports_with_free_batch_size(tmp_path: Path) -> None:
    class Depth(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = ResnetEncoder(18), DepthDecoder(CHANNELS)

        def forward(self, image: Tensor) -> Tensor:
            return self.decoder(self.encoder(image))[0]

    network = Depth().eval()
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(network, (torch.rand(2, 3, 64, 96),), dynamic_shapes=({0: batch},))
    image = torch.rand(3, 3, 64, 96)
    torch.testing.assert_close(program.module()(image), network(image))
