"""Monodepth2's pose networks: published names, all three forms, scale of the first predictions."""

from __future__ import annotations

import pytest
import torch

from geossl.networks.pose import PoseCNN, PoseDecoder
from geossl.networks.resnet import ResnetEncoder

CHANNELS = (64, 64, 128, 256, 512)


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def test_pose_decoder_has_the_published_names_and_shapes() -> None:
    separate = {"net.0": (256, 512, 1, 1), "net.1": (256, 256, 3, 3), "net.2": (256, 256, 3, 3)}
    separate |= {"net.3": (12, 256, 1, 1)}
    shared = separate | {"net.1": (256, 512, 3, 3), "net.3": (6, 256, 1, 1)}
    for table, decoder in ((separate, PoseDecoder(CHANNELS)), (shared, PoseDecoder(CHANNELS, features=2, frames=1))):
        expected = {f"{name}.weight": shape for name, shape in table.items()}
        expected |= {f"{name}.bias": shape[:1] for name, shape in table.items()}
        assert shapes_of(decoder) == expected


def test_pose_cnn_has_the_published_names_and_shapes() -> None:
    widths, kernels = (6, 16, 32, 64, 128, 256, 256, 256), (7, 5, 3, 3, 3, 3, 3)
    expected = {f"net.{i}.weight": (widths[i + 1], widths[i], k, k) for i, k in enumerate(kernels)}
    expected |= {f"net.{i}.bias": (widths[i + 1],) for i in range(7)}
    expected |= {"pose_conv.weight": (6, 256, 1, 1), "pose_conv.bias": (6,)}
    assert shapes_of(PoseCNN()) == expected


@pytest.mark.parametrize("batch", [1, 3])
def test_separate_and_shared_encoders_give_motions(batch: int) -> None:
    images = torch.rand(batch, 6, 64, 64)
    axis_angle, translation = PoseDecoder(CHANNELS)(ResnetEncoder(18, images=2)(images))
    assert axis_angle.shape == translation.shape == (batch, 2, 3)
    encoder = ResnetEncoder(18)
    axis_angle, translation = PoseDecoder(CHANNELS, 2, 1)(encoder(images[:, :3]), encoder(images[:, 3:]))
    assert axis_angle.shape == translation.shape == (batch, 1, 3)
    axis_angle, translation = PoseCNN()(images)
    assert axis_angle.shape == translation.shape == (batch, 1, 3)


def test_pose_decoder_splits_and_scales_the_last_layer() -> None:
    decoder = PoseDecoder((1, 1, 1, 1, 8), frames=2)
    torch.nn.init.zeros_(decoder.net[3].weight)
    with torch.no_grad():
        decoder.net[3].bias.copy_(torch.arange(12.0))
    axis_angle, translation = decoder([torch.randn(2, 8, 3, 5)])
    torch.testing.assert_close(axis_angle[1], 0.01 * torch.tensor([[0.0, 1, 2], [6, 7, 8]]))
    torch.testing.assert_close(translation[1], 0.01 * torch.tensor([[3.0, 4, 5], [9, 10, 11]]))


def test_pose_decoder_refuses_another_number_of_features() -> None:
    with pytest.raises(ValueError, match="got 2 lists of features; this PoseDecoder was built for 1"):
        PoseDecoder(CHANNELS)([torch.rand(1, 512, 2, 2)], [torch.rand(1, 512, 2, 2)])


def test_pose_networks_are_float32_and_close_under_bfloat16() -> None:
    torch.manual_seed(0)
    network, images = PoseCNN(), torch.rand(2, 6, 64, 64)
    features = [torch.rand(2, 512, 2, 2)]
    decoder = PoseDecoder(CHANNELS)
    with torch.no_grad():
        exact = (*network(images), *decoder(features))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = (*network(images), *decoder(features))
    for a, b in zip(exact, mixed, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).abs().max() < 0.02 * a.abs().max()
