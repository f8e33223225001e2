"""Networks' own encoders by name, so that they can be pre-trained and handed over.

What hands over is the part of a network of flow, scene flow or depth that sees one image. What compares two images,
and the decoders, learn with the task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geossl.networks import flownet, monodepth, pwc, pwclite, raft, scene_flow, sfmlearner
from geossl.networks.blocks import Encoder, Standardize, init_xavier
from geossl.networks.encoders import NAMES, build_encoder, check_name
from geossl.networks.flow_layers import PYRAMID_CHANNELS, FeaturePyramid, init_he, scaled
from geossl.networks.handover import check_handed_over, check_normalisation, normalisation, read_encoder_info
from geossl.networks.weights import inflate_conv, load_named, read_state_dict

FLOWNET_STD = 0.225  # UnFlow's is 1; weights are rescaled to what a network divides by


class PyramidEncoder(Encoder):
    """A network's own layers: a feature for every halving of the image.

    Args:
        pyramid: One image -> the features.
        channels: Theirs.
        mean, std: What the network normalises images by; 0 and 1 where it takes them as they are.
    """

    def __init__(
        self, pyramid: nn.Module, channels: Sequence[int], mean: float | Sequence[float] = 0.0, std: float = 1.0
    ) -> None:
        super().__init__()
        self.images = 1
        self.channels = tuple(channels)
        self.standardize = Standardize(mean, std)
        self.pyramid = pyramid

    def forward(self, image: Tensor) -> list[Tensor]:
        self.check_input(image)
        return self.pyramid(self.standardize(image))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Kind:
    """Encoders of one kind of network.

    Attributes:
        build: What follows the colon in the encoder's name, or '' -> the encoder; ValueError if that is wrong.
        part: A network -> the part of it that has the encoder's tensors.
        variants: What may follow the colon, for messages.
    """

    build: Callable[[str], PyramidEncoder]
    part: Callable[[Any], nn.Module]
    variants: str = "WIDTH, e.g. 0.25"


def build_any_encoder(name: str, weights: str | Path | None = None) -> Encoder:
    """An encoder for one image by name: those of `build_encoder`, and networks' own.

    Args:
        name: 'pwclite', 'pwc', 'flownet', 'self_mono_sf', 'monodepth_resnet50' or 'monodepth_vgg', with ':WIDTH' if
            not 1; 'raft', with ':SIZE' if not large; 'dispnet'; or a name of `build_encoder`.
        weights: As of `build_encoder`; networks' own encoders have none of ImageNet.

    Raises:
        ValueError: If the name or what follows its colon is unknown (names the closest), or the weights do not fit.
            Other errors as `build_encoder`.
    """
    arch, _, variant = name.partition(":")
    if arch not in KINDS:
        check_name(name, (*NAMES, *KINDS))
        return build_encoder(name, weights)
    try:
        encoder = KINDS[arch].build(variant)
    except ValueError:
        known = f" or {arch}:{KINDS[arch].variants}" if KINDS[arch].variants else ""
        raise ValueError(f"encoder '{name}' should read {arch}{known}.") from None
    if weights is not None:
        _load(encoder.pyramid, encoder, weights, arch)
    return encoder


def load_pyramid(network: nn.Module, weights: str | Path | None, arch: str) -> None:
    """Loads a pre-trained encoder into the network that it is a part of.

    A first convolution for one image is spread over stacked ones, and rescaled where the network divides images by
    another standard deviation than the pre-training did, so that the features stay the same.

    Args:
        network: Changed in place.
        weights: An encoder folder of a pre-training, or a state dict with the part's own names; None changes nothing.
        arch: The encoder's name, without width or size.

    Raises:
        ValueError: If the weights are another encoder's (names the first tensor that does not fit), or learned from
            images less another mean.
        FileNotFoundError: If there are none.
    """
    if weights is not None:
        _load(KINDS[arch].part(network), network, weights, arch)


def _load(part: nn.Module, network: nn.Module, weights: str | Path, arch: str) -> None:
    if weights == "imagenet":
        raise ValueError(
            f"there are no ImageNet weights of {arch}; set encoder_weights to null or to the encoder folder of a "
            f"pre-training with model.encoder={arch}."
        )
    info, std = read_encoder_info(weights), normalisation(network)["std"]
    with check_handed_over(weights, arch):
        state = {name.removeprefix("pyramid."): tensor for name, tensor in read_state_dict(weights).items()}
        first, own = next(iter(part.state_dict().items()))
        if first in state and state[first].ndim == 4:
            state[first] = _adapted(state[first], own.shape[1], std, std if info is None else info["std"])
        load_named(part, state, f"weights '{weights}'", f" of {arch}")
    if info is not None:
        check_normalisation(network, {**info, "std": std}, weights)


def _adapted(weight: Tensor, channels: int, std: Sequence[float], trained_std: Sequence[float]) -> Tensor:
    """A first convolution, learned on an image divided by `trained_std`, for `channels` of stacked ones by `std`."""
    if std != trained_std:
        weight = weight * (torch.tensor(std) / torch.tensor(trained_std)).view(1, -1, 1, 1)
    images = channels // weight.shape[1]
    return inflate_conv(weight, images) if images > 1 else weight


def _width(variant: str) -> float:
    width = float(variant or 1)
    if not width > 0:
        raise ValueError
    return width


def _pyramid(channels: Sequence[int], leak: float) -> Callable[[str], PyramidEncoder]:
    def build(variant: str) -> PyramidEncoder:
        own = scaled(channels, _width(variant))
        return _begun(PyramidEncoder(FeaturePyramid(own, leak), own), init_he)

    return build


def _flownet(variant: str) -> PyramidEncoder:
    width = _width(variant)
    stages, channels = flownet.first_stages(3, width), scaled(flownet.FIRST_CHANNELS, width)
    return _begun(PyramidEncoder(stages, channels, flownet.UNFLOW_MEAN, FLOWNET_STD), init_he)


def _raft(variant: str) -> PyramidEncoder:
    size = variant or "large"
    if size not in raft.FEATURE_LAYERS:
        raise ValueError
    _, half, quarter, _, eighth = raft.FEATURE_LAYERS[size]
    stages = raft.FeatureStages(raft.feature_encoder(size))
    return PyramidEncoder(stages, (half, quarter, eighth), raft.IMAGE_MEAN, raft.IMAGE_STD)


def _dispnet(variant: str) -> PyramidEncoder:
    if variant:
        raise ValueError
    channels = sfmlearner.ENCODER_CHANNELS
    stages = sfmlearner.encoder_stages(channels)
    return _begun(PyramidEncoder(stages, channels, sfmlearner.IMAGE_MEAN, sfmlearner.IMAGE_STD), init_xavier)


def _monodepth(form: str) -> Callable[[str], PyramidEncoder]:
    def build(variant: str) -> PyramidEncoder:
        levels = monodepth.LEVELS[form](_width(variant))
        return _begun(PyramidEncoder(levels, levels.channels), init_xavier)

    return build


def _begun(encoder: PyramidEncoder, init: Callable[[nn.Module], None]) -> PyramidEncoder:
    """The encoder with the first weights that its network begins with."""
    init(encoder)
    return encoder


KINDS = {
    "pwclite": Kind(_pyramid(PYRAMID_CHANNELS, pwclite.LEAK), lambda network: network.feature_pyramid_extractor),
    "pwc": Kind(_pyramid(PYRAMID_CHANNELS, pwc.LEAK), lambda network: network.pyramid),
    "self_mono_sf": Kind(_pyramid(scene_flow.PYRAMID_CHANNELS, scene_flow.LEAK), lambda network: network.pyramid),
    "flownet": Kind(_flownet, lambda network: network.encoder),
    "raft": Kind(_raft, lambda network: network.encoder, "SIZE, one of " + ", ".join(raft.FEATURE_LAYERS)),
    "dispnet": Kind(_dispnet, lambda network: network.encoder, ""),
    "monodepth_resnet50": Kind(_monodepth("resnet50"), lambda network: network.encoder),
    "monodepth_vgg": Kind(_monodepth("vgg"), lambda network: network.encoder),
}
"""Networks' own encoders by name."""
