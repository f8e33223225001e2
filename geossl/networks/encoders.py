"""Encoders by name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from geossl.networks.blocks import Encoder, Standardize
from geossl.networks.compact import CompactEncoder
from geossl.networks.handover import check_handed_over, check_normalisation, read_encoder_info
from geossl.networks.resnet import ResnetEncoder
from geossl.networks.weights import describe_misfit, inflate_conv, load_named, read_state_dict

RESNET_NAMES = {"resnet18": 18, "resnet34": 34, "resnet50": 50}
NAMES = (*RESNET_NAMES, "compact", "timm:NAME")
STRIDES = (2, 4, 8, 16, 32)


def build_encoder(name: str, weights: str | Path | None = None, images: int = 1) -> Encoder:
    """An encoder by name.

    Args:
        name: 'resnet18', 'resnet34', 'resnet50', 'compact', or 'timm:NAME' with a model of timm that has features at
            strides (2,) 4, 8, 16, 32.
        weights: None, 'imagenet', or a path to a state dict or to the encoder folder of a pre-training.
        images: RGB images stacked along the channels of the input.

    Raises:
        ValueError: If the name is unknown (names the closest) or the weights do not fit.
        ImportError: If timm is needed and not installed.
    """
    with check_handed_over(weights, name):
        encoder = _build(name, weights, images)
    info = read_encoder_info(weights)
    if info is not None:
        check_normalisation(encoder, info, str(weights))
    return encoder


def check_name(name: str, known: Sequence[str]) -> None:
    """Raises ValueError unless the encoder is known or one of timm's; names the closest and all that are known."""
    if name in known or name.startswith("timm:"):
        return
    close = difflib.get_close_matches(name.partition(":")[0], known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ValueError(f"unknown encoder '{name}'.{hint} Known: {', '.join(known)}.")


def _build(name: str, weights: str | Path | None, images: int) -> Encoder:
    if name.startswith("timm:"):
        handed_over = read_encoder_info(weights) is not None
        encoder = TimmEncoder(name.removeprefix("timm:"), None if handed_over else weights, images)
        if handed_over:
            _load_own_names(encoder, str(weights))
        return encoder
    if name == "compact":
        return CompactEncoder(weights, images)
    check_name(name, NAMES)
    return ResnetEncoder(RESNET_NAMES[name], weights, images)


def _load_own_names(encoder: Encoder, weights: str) -> None:
    """Loads an encoder folder's tensors by the encoder's own names, the first convolution spread over its images."""
    state, own = read_state_dict(weights), encoder.state_dict()
    for name, tensor in state.items():
        if (
            name in own
            and tensor.ndim == 4
            and own[name].shape[1] == encoder.images * tensor.shape[1] != tensor.shape[1]
        ):
            state[name] = inflate_conv(tensor, encoder.images)
    load_named(encoder, state, f"weights '{weights}'")


class TimmEncoder(Encoder):
    """The features of a timm model, normalised by that model's own mean and std.

    Where a model has nothing at stride 2 (ConvNeXt), that feature has 0 channels and the decoder goes without.

    Args:
        name: timm's model name.
        weights: None, 'imagenet' (timm's pre-trained weights, whatever they were trained on), or a path to a
            state dict with the model's own names.
        images: RGB images stacked along the channels; timm spreads the first convolution over them.

    Raises:
        ImportError: If timm is not installed.
        ValueError: If timm has no such model, or it lacks features at strides 4 to 32.
        ConnectionError: If pre-trained weights are neither cached nor downloadable.
    """

    def __init__(self, name: str, weights: str | Path | None = None, images: int = 1) -> None:
        super().__init__()
        try:
            import timm
        except ImportError:
            raise ImportError(f"encoder 'timm:{name}' needs timm: pip install geossl[timm]") from None
        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=1)
            hint = f" Did you mean 'timm:{close[0]}'?" if close else ""
            raise ValueError(f"timm {timm.__version__} has no model '{name}'.{hint}")
        options: dict[str, Any] = {"features_only": True, "in_chans": 3 * images}
        if weights is None or weights == "imagenet":
            options["pretrained"] = weights is not None
        else:
            _check_weights(name, weights)
            options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(weights)}}
        try:
            self.encoder = timm.create_model(name, **options)
        except (OSError, RuntimeError, ValueError, AttributeError) as error:
            reason = str(error).strip().partition("\n")[0]
            if weights == "imagenet" and isinstance(error, OSError | RuntimeError):
                raise ConnectionError(
                    f"pre-trained weights of timm's '{name}' are not cached and cannot be downloaded ({reason}). "
                    "Give a path as `weights`, or train from scratch with weights none."
                ) from None
            given = "" if weights is None else f" with weights '{weights}'"
            raise ValueError(f"timm cannot build '{name}' as features{given}: {reason}") from None
        self.images = images
        info: Any = self.encoder.feature_info
        self._indices = _stride_indices(name, info.reduction())
        channels = info.channels()
        self.channels = tuple(0 if index is None else channels[index] for index in self._indices)
        self._channels_at_end = getattr(self.encoder, "output_fmt", None) is not None and (
            str(self.encoder.output_fmt).upper().endswith("NHWC")
        )
        config: Any = self.encoder.pretrained_cfg or {}
        self.standardize = Standardize(config.get("mean", 0.45), config.get("std", 0.225), images)

    def forward(self, image: Tensor) -> list[Tensor]:
        self.check_input(image)
        found = self.encoder(self.standardize(image))
        if self._channels_at_end:
            found = [feature.permute(0, 3, 1, 2) for feature in found]
        empty = image[:, :0, ::2, ::2]  # (B, 0, H / 2, W / 2)
        return [empty if index is None else found[index] for index in self._indices]


def _check_weights(name: str, path: str | Path) -> None:
    """Raises ValueError unless the file holds the tensors of timm's model: timm itself skips what does not fit."""
    import timm

    model: Any = timm.create_model(name)
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))

    def body(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: tensor for key, tensor in state.items() if not key.startswith(heads)}

    misfit = describe_misfit(body(model.state_dict()), body(read_state_dict(path)))
    if misfit:
        raise ValueError(f"weights '{path}' do not fit timm's '{name}': {misfit}.")


def _stride_indices(name: str, reductions: Sequence[int]) -> tuple[int | None, ...]:
    """For each of our strides the last feature that has it; None only for stride 2."""
    last = {int(stride): index for index, stride in enumerate(reductions) if math.isclose(stride, int(stride))}
    missing = [stride for stride in STRIDES[1:] if stride not in last]
    if missing:
        raise ValueError(
            f"timm's '{name}' has features at strides {', '.join(map(str, reductions))}; "
            f"expected 4, 8, 16 and 32 among them (missing: {', '.join(map(str, missing))})."
        )
    return tuple(last.get(stride) for stride in STRIDES)
