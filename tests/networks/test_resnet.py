"""ResNet encoders: published names, weights files, stacked images, messages."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision import models

from geossl.networks.resnet import ResnetEncoder, guess_resnet_depth


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def published_encoder_shapes(images: int = 1) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in Monodepth2's encoder.pth for ResNet 18, written out from its table."""

    def batchnorm(name: str, c: int) -> dict[str, tuple[int, ...]]:
        parts = ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.{p}": (c,) for p in parts} | {f"{name}.num_batches_tracked": ()}

    shapes: dict[str, tuple[int, ...]] = {"encoder.conv1.weight": (64, 3 * images, 7, 7)}
    shapes |= batchnorm("encoder.bn1", 64)
    below = 64
    for layer, c in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"encoder.layer{layer}.{block}"
            shapes |= {f"{name}.conv1.weight": (c, below, 3, 3), f"{name}.conv2.weight": (c, c, 3, 3)}
            shapes |= batchnorm(f"{name}.bn1", c) | batchnorm(f"{name}.bn2", c)
            if block == 0 and layer > 1:
                shapes |= {f"{name}.downsample.0.weight": (c, below, 1, 1)}
                shapes |= batchnorm(f"{name}.downsample.1", c)
            below = c
    return shapes | {"encoder.fc.weight": (1000, 512), "encoder.fc.bias": (1000,)}


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.tensor(7) if shape == () else torch.rand(shape, generator=generator)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(
    ("depth", "parameters", "channels"),
    [
        # torchvision's published totals less the classifier's (inputs + 1) * 1000
        (18, 11_689_512 - 513 * 1000, (64, 64, 128, 256, 512)),
        (34, 21_797_672 - 513 * 1000, (64, 64, 128, 256, 512)),
        (50, 25_557_032 - 2049 * 1000, (64, 256, 512, 1024, 2048)),
    ],
)
def test_resnet_encoder_has_the_published_size(depth: int, parameters: int, channels: tuple[int, ...]) -> None:
    encoder = ResnetEncoder(depth)
    assert count(encoder) == parameters
    assert encoder.channels == channels
    features = encoder(torch.rand(1, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (1, c, 64 // s, 96 // s) for c, s in zip(channels, (2, 4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("images", [1, 2])
def test_resnet_encoder_has_the_published_names_and_shapes(images: int) -> None:
    published = published_encoder_shapes(images)
    assert len(published) == 122
    ours = {name: tuple(tensor.shape) for name, tensor in ResnetEncoder(18, images=images).state_dict().items()}
    assert ours == {name: shape for name, shape in published.items() if ".fc." not in name}


def test_resnet_encoder_loads_a_published_file(tmp_path: Path) -> None:
    state = random_state(published_encoder_shapes())
    torch.save(OrderedDict(state) | {"height": 192, "width": 640, "use_stereo": False}, tmp_path / "encoder.pth")
    loaded = ResnetEncoder(18, weights=tmp_path / "encoder.pth").state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())


def test_resnet_encoder_equals_torchvision_after_normalisation(tmp_path: Path) -> None:
    reference = models.resnet18(weights=None).eval()
    save_file({k: v.contiguous() for k, v in reference.state_dict().items()}, tmp_path / "r18.safetensors")
    encoder = ResnetEncoder(18, tmp_path / "r18.safetensors").eval()
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        pooled = encoder(image)[-1].mean((2, 3))
        torch.testing.assert_close(reference.fc(pooled), reference((image - 0.45) / 0.225))


def test_resnet_encoder_centres_images_as_monodepth2(tmp_path: Path) -> None:
    encoder = ResnetEncoder(18).eval()
    grey = torch.full((1, 3, 64, 64), 0.45)  # becomes zero, and a convolution without bias keeps it
    seen = []
    encoder.encoder.conv1.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    encoder(grey + 0.225)
    encoder(grey)
    torch.testing.assert_close(seen[0][0], torch.ones(1, 3, 64, 64))
    assert seen[1][1].abs().max() < 1e-6


@pytest.mark.parametrize("images", [2, 3])
def test_inflated_weights_keep_the_response_to_identical_images(tmp_path: Path, images: int) -> None:
    torch.manual_seed(1)
    one = ResnetEncoder(18).eval()
    torch.save(one.state_dict(), tmp_path / "one.pth")
    several = ResnetEncoder(18, tmp_path / "one.pth", images=images).eval()
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(one(image), several(image.repeat(1, images, 1, 1)), strict=True):
            assert (a - b).abs().max() < 1e-5 * a.abs().max()


@pytest.mark.parametrize(("height", "width"), [(65, 97), (33, 45)])
def test_resnet_encoder_takes_odd_sizes(height: int, width: int) -> None:
    for feature, stride in zip(ResnetEncoder(18)(torch.rand(2, 3, height, width)), (2, 4, 8, 16, 32), strict=True):
        assert feature.shape[-2:] == (-(-height // stride), -(-width // stride))


def test_resnet_encoder_keeps_channels_last() -> None:
    encoder = ResnetEncoder(18).to(memory_format=torch.channels_last)
    features = encoder(torch.rand(2, 3, 64, 96).contiguous(memory_format=torch.channels_last))
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in features)


def test_weights_of_another_depth_are_named(tmp_path: Path) -> None:
    torch.save(models.resnet34(weights=None).state_dict(), tmp_path / "r34.pth")
    with pytest.raises(ValueError, match=r"ResNet 34; use encoder resnet34.*unknown, the first 'layer1\.2\.conv1"):
        ResnetEncoder(18, tmp_path / "r34.pth")
    with pytest.raises(ValueError, match=r"missing, the first 'layer1\.0\.conv3\.weight'.*of another shape"):
        ResnetEncoder(50, tmp_path / "r34.pth")


def test_resnet_encoder_refuses_unknown_depth_and_shape() -> None:
    with pytest.raises(ValueError, match="ResNet depth is 19; expected one of 18, 34, 50"):
        ResnetEncoder(19)
    with pytest.raises(ValueError, match=r"expected \(B, 6, H, W\) \(2 RGB images"):
        ResnetEncoder(18, images=2)(torch.rand(1, 3, 64, 64))


def test_imagenet_weights_without_network_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(ConnectionError, match=r"(?s)ResNet 50.*not known.*Fetch resnet50-\w+\.pth.*as `weights`"):
        ResnetEncoder(50, "imagenet")


def test_guess_resnet_depth() -> None:
    assert guess_resnet_depth(models.resnet50(weights=None).state_dict()) == 50
    assert guess_resnet_depth({"conv1.weight": torch.zeros(1)}) is None
