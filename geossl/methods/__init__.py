"""One system, one file. `METHODS` is the table of names that a config may use."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from geossl.config import ConfigError, Strict
from geossl.pretrain import PRETRAINING

if TYPE_CHECKING:
    from geossl.methods.method import Method

METHODS = {
    "sfmlearner": "geossl.methods.sfmlearner:SfMLearner",
    "monodepth": "geossl.methods.monodepth:Monodepth",
    "monodepth2": "geossl.methods.monodepth2:Monodepth2",
    "arflow": "geossl.methods.arflow:ARFlow",
    "smurf": "geossl.methods.smurf:SMURF",
    "unflow": "geossl.methods.unflow:UnFlow",
    "selflow": "geossl.methods.selflow:SelFlow",
    "self_mono_sf": "geossl.methods.self_mono_sf:SelfMonoSF",
    **PRETRAINING,
}
PRETRAINED = ("encoder_weights", "weights")  # of an encoder, of a method's stage before


def method_class(name: str) -> type[Method]:
    """The class of a method: a name of `METHODS`, or `package.module:Class`.

    Raises:
        ConfigError: If there is none; names the closest.
    """
    target = METHODS.get(name, name)
    module, colon, cls = target.partition(":")
    if not colon:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ConfigError(
            f"there is no method '{name}'; {hint}known methods: {', '.join(METHODS)}, or package.module:Class."
        )
    try:
        return getattr(importlib.import_module(module), cls)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"method '{name}' cannot be imported: {error}") from error


def method_options(name: str) -> type[Strict]:
    """The schema of a method's `model:` section."""
    return method_class(name).Options


def predicts_flow(name: str) -> bool:
    """Whether a method is one of optical flow or scene flow."""
    cls = method_class(name)
    return hasattr(cls, "predict_flows") or hasattr(cls, "predict_scene_flow")


def build_method(name: str, options: Mapping[str, Any]) -> Method:
    """A freshly initialised method."""
    cls = method_class(name)
    return cls(cls.Options.model_validate(options))


def without_pretrained(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A method's options without pre-trained weights, which would be fetched only to be overwritten.

    By convention a method that starts from such weights names them in its options `PRETRAINED`.
    """
    known = method_options(method).model_fields
    return {**options, **{name: None for name in PRETRAINED if name in known}}
