"""Reading state dicts from files and loading them with messages that name what does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model")  # keys under which published files nest their tensors
PREFIXES = ("module.", "encoder.", "backbone.")
ENCODER_FILE = "encoder.safetensors"  # of an encoder folder
MODEL_FILES = ("model.safetensors", "checkpoints/best.safetensors", "checkpoints/last.safetensors")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, of a torch file, which is read without unpickling objects, or of an encoder
    folder (`geossl.networks.handover`).

    What is not a tensor (Monodepth2's `height`, `width`, `use_stereo`) is left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a state dict, or holds objects other than tensors and plain values.
    """
    path = Path(path)
    if (path / ENCODER_FILE).is_file():
        path = path / ENCODER_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights file {path}; weights are none, 'imagenet', or the path of a state dict or encoder folder."
        )
    loaded: Any
    try:
        if path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{path} cannot be read as weights ({reason}). "
            "Expected a state dict of tensors in a .safetensors or .pth file; files with pickled objects are refused."
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, Mapping) else {}
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name; expected a state dict.")
    return tensors


def read_model_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights of a trained method: of a model folder, a run folder (its best, else its last) or a checkpoint file.

    Raises:
        FileNotFoundError, ValueError: As `read_state_dict`.
    """
    path = Path(path)
    candidates = [path / name for name in MODEL_FILES if (path / name).is_file()]
    if path.is_dir() and not candidates:
        raise FileNotFoundError(f"{path} holds no trained method: none of {', '.join(MODEL_FILES)}.")
    state = read_state_dict(candidates[0] if candidates else path)
    of_checkpoint = {k.removeprefix("model/"): v for k, v in state.items() if k.startswith("model/")}
    return of_checkpoint or state


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes `module.`, `encoder.` and `backbone.` in front of the names, as often as all names carry one."""
    stripped = dict(state)
    while stripped:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in stripped)), None)
        if prefix is None:
            break
        stripped = {name.removeprefix(prefix): tensor for name, tensor in stripped.items()}
    return stripped


def inflate_conv(weight: Tensor, images: int) -> Tensor:
    """Repeats a first convolution for stacked images, so that n identical images give the response of one.

    Args:
        weight: (out, 3, k, k) for one image.

    Returns:
        (out, 3 * images, k, k), divided by `images`.

    Source: Godard et al., ICCV 2019, section 4.
    """
    return torch.cat([weight] * images, 1) / images


def load_named(module: nn.Module, state: Mapping[str, Tensor], where: str, hint: str = "") -> None:
    """Loads a state dict whose names and shapes must be the module's own.

    A missing `num_batches_tracked` (files older than torch 0.4.1) counts as 0.

    Raises:
        ValueError: Naming the first tensor that is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked") and name not in state}
    state = {**state, **{name: torch.zeros_like(own[name]) for name in counters}}
    misfit = describe_misfit(own, state)
    if misfit:
        raise ValueError(f"{where} does not fit {type(module).__name__}{hint}: {misfit}.")
    module.load_state_dict(dict(state))


def describe_misfit(needed: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """How two state dicts differ in names and shapes, in words; "" if they do not."""
    missing = [name for name in needed if name not in given]
    unknown = [name for name in given if name not in needed]
    reshaped = [name for name in needed if name in given and needed[name].shape != given[name].shape]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing, the first '{missing[0]}'")
    if reshaped:
        name = reshaped[0]
        shapes = f"{tuple(given[name].shape)} where {tuple(needed[name].shape)} is needed"
        parts.append(f"{len(reshaped)} of another shape, the first '{name}' {shapes}")
    if unknown:
        parts.append(f"{len(unknown)} unknown, the first '{unknown[0]}'")
    return f"tensors {'; '.join(parts)}" if parts else ""
