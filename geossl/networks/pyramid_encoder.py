"""The feature pyramids of the flow networks as encoders, so that they can be pre-trained and handed over.

What hands over is the pyramid alone: the part of PWC-Lite (ARFlow) and PWC (DDFlow, SelFlow) that sees one image. The
decoders, which compare two, learn with the flow.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from geossl.networks import pwc, pwclite
from geossl.networks.blocks import Encoder
from geossl.networks.encoders import build_encoder
from geossl.networks.flow_layers import PYRAMID_CHANNELS, FeaturePyramid, init_he, scaled
from geossl.networks.handover import check_handed_over
from geossl.networks.weights import load_named, read_state_dict

LEAKS = {"pwclite": pwclite.LEAK, "pwc": pwc.LEAK}


class PyramidEncoder(Encoder):
    """Six features, at strides 2 to 64; images enter as they are, in [0, 1].

    Args:
        arch: 'pwclite' or 'pwc', whose pyramids differ in the leak of their ReLUs.
        width: Factor of the channels, as the flow network's.
    """

    def __init__(self, arch: str, width: float = 1.0) -> None:
        super().__init__()
        self.images = 1
        self.channels = tuple(scaled(PYRAMID_CHANNELS, width))
        self.pyramid = FeaturePyramid(self.channels, LEAKS[arch])
        init_he(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        self.check_input(image)
        return self.pyramid(image)  # type: ignore[no-any-return]


def build_any_encoder(name: str, weights: str | Path | None = None) -> Encoder:
    """An encoder for one image by name: those of `build_encoder`, and 'pwclite' or 'pwc', with ':WIDTH' if not 1.

    Raises:
        ValueError: If the name or width is unknown, or the weights do not fit. Other errors as `build_encoder`.
    """
    arch, colon, width = name.partition(":")
    if arch not in LEAKS:
        return build_encoder(name, weights)
    try:
        encoder = PyramidEncoder(arch, float(width) if colon else 1.0)
    except ValueError:
        raise ValueError(f"encoder '{name}' should read {arch} or {arch}:WIDTH, e.g. {arch}:0.25.") from None
    if weights is not None:
        load_pyramid(encoder.pyramid, weights, arch)
    return encoder


def load_pyramid(pyramid: nn.Module, weights: str | Path, arch: str) -> None:
    """Loads a pre-trained pyramid into a flow network's.

    Args:
        pyramid: Changed in place.
        weights: An encoder folder of a pre-training, or a state dict with the pyramid's own names.
        arch: What the network's pyramid is: 'pwclite' or 'pwc'.

    Raises:
        ValueError: If the weights are another encoder's; names the first tensor that does not fit.
        FileNotFoundError: If there are none.
    """
    with check_handed_over(weights, arch):
        state = read_state_dict(weights)
        own = {name.removeprefix("pyramid."): tensor for name, tensor in state.items()}
        load_named(pyramid, own, f"weights '{weights}'", f" of {arch}")
