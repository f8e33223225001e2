"""Encoder folders: what a pre-training hands over to depth, pose and flow.

A folder holds `encoder.safetensors` (the encoder's own tensor names) and `encoder.json`: format, arch (a name of
`build_any_encoder`), in_channels, mean and std of the input's normalisation, the method, its step and image size, and
the sha256 of the weights. A folder is read wherever `encoder_weights` takes a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geossl.networks.blocks import Standardize

FORMAT = "geossl-encoder-1"
INFO_FILE = "encoder.json"


def read_encoder_info(path: str | Path | None) -> dict[str, Any] | None:
    """What `encoder.json` says, or None where `path` is no encoder folder.

    Raises:
        ValueError: If the file is not readable, or of another format.
    """
    file = Path(path or "") / INFO_FILE
    if path is None or not file.is_file():
        return None
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is not readable JSON: {error}") from None
    found = info.get("format", "missing") if isinstance(info, dict) else "missing"
    if found != FORMAT:
        raise ValueError(f"{file} is not of a geossl encoder (format {found}, expected {FORMAT}).")
    return info  # type: ignore[no-any-return]


def origin(path: str | Path | None) -> str:
    """Where an encoder folder's weights come from, for the log of what starts from them; '' for anything else."""
    info = read_encoder_info(path)
    if info is None:
        return ""
    return f"encoder from {path}: {info['method']}, step {info['step']}, sha256 {info['sha256'][:12]}"


def normalisation(encoder: nn.Module) -> dict[str, list[float]]:
    """mean and std by which an encoder standardises its channels; 0 and 1 where it takes images as they are."""
    standardize = getattr(encoder, "standardize", None)
    if not isinstance(standardize, Standardize):
        return {"mean": [0.0], "std": [1.0]}
    return {name: getattr(standardize, name).flatten().tolist() for name in ("mean", "std")}


@contextmanager
def check_handed_over(weights: str | Path | None, name: str) -> Iterator[None]:
    """Around the loading of weights: adds to its error which encoder an encoder folder holds, and checks it.

    Args:
        weights: As given; anything but an encoder folder is not checked.
        name: The encoder that loads them.

    Raises:
        ValueError: If the folder is of another encoder; names the first tensor that does not fit.
    """
    info = read_encoder_info(weights)
    if info is None:
        yield
        return
    is_other = info["arch"].partition(":")[0] != name.partition(":")[0]
    told = f"They were pre-trained as encoder '{info['arch']}'"
    if is_other:
        told += (
            f", and this one is '{name}': choose the same (model.encoder, and model.pose_encoder where there is one), "
            f"or pre-train with model.encoder={name}"
        )
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error} {told}.") from None
    if is_other:
        raise ValueError(f"weights '{weights}' do not fit. {told}.")


def check_normalisation(encoder: nn.Module, info: Mapping[str, Any], where: str | Path) -> None:
    """Raises ValueError unless the encoder standardises images as the one that was pre-trained."""
    own = normalisation(encoder)
    for name, values in own.items():
        count = max(len(values), len(info[name]))
        there, here = (torch.tensor(v).repeat(count // len(v)) for v in (info[name], values))
        if there.shape != here.shape or not torch.allclose(there, here, atol=1e-6):
            raise ValueError(
                f"weights '{where}' were pre-trained on images standardised with {name} {info[name]}, and this "
                f"encoder's is {values}; give both the same."
            )
