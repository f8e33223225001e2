"""Checkpoints: one safetensors file with weights, optimiser state and where the training stands.

Tensors are named `model/<name>` and `optimizer/<parameter>/<slot>`; the resolved config and the training's state are
JSON in the file's metadata. Reading one executes nothing (no pickle). A file is written beside the old one, flushed to
the disk and then put in its place, so whatever happens there is always one whole checkpoint. Random numbers are keyed
by (seed, step, sample), so their state need not be stored.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from geossl.config import Experiment
from geossl.formats.atomic import write_bytes_atomic

FORMAT = "geossl-checkpoint-1"
LISTED = 5  # names shown in an error message


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read or used for this model; the message says which and why."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        model: Weights and buffers by name.
        optimizer: State by `<parameter name>/<slot>`.
        experiment: The resolved config, as nested values.
        state: Where the training stands: step, best validation, moving figures.
        path: The file.
    """

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    experiment: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()


def save_checkpoint(
    path: Path, method: nn.Module, optimizer: Optimizer, experiment: Experiment, state: Mapping[str, Any]
) -> None:
    """Replaces the checkpoint at `path` atomically.

    Args:
        state: JSON values; must hold `step`.

    Raises:
        CheckpointError: If the file cannot be written, e.g. because the disk is full; an older one stays as it was.
    """
    tensors = {f"model/{name}": value for name, value in method.state_dict().items()}
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    for parameter, slots in optimizer.state.items():
        for slot, value in slots.items():
            tensors[f"optimizer/{names[id(parameter)]}/{slot}"] = value
    metadata = {
        "format": FORMAT,
        "experiment": json.dumps(experiment.model_dump(mode="json")),
        "state": json.dumps(dict(state)),
    }
    write_safetensors(path, tensors, metadata)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file atomically and durably.

    Raises:
        CheckpointError: If the file cannot be written; what was at `path` before stays as it was.
    """
    # Clones: safetensors refuses tensors that share memory, and wants them contiguous (weights may be channels_last).
    plain = {
        name: value.detach().to("cpu").clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
    }
    data = safetensors.torch.save(plain, dict(metadata))
    existed = path.exists()
    try:
        write_bytes_atomic(path, data, durable=True)
    except OSError as error:
        kept = "The file of that name from before is intact." if existed else "No file of that name existed before."
        raise CheckpointError(
            f"{path} could not be written: {error.strerror or error}. It needs {len(data) / 1e6:.1f} MB and "
            f"{_free_bytes(path.parent) / 1e6:.1f} MB are free. {kept} Make room and start again."
        ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint into CPU memory.

    Raises:
        CheckpointError: If the file is missing, truncated, or not a geossl checkpoint.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file, but not a geossl checkpoint "
            f"(format {metadata.get('format', 'missing')}, expected {FORMAT})."
        )
    return Checkpoint(
        model={name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")},
        optimizer={name.removeprefix("optimizer/"): t for name, t in tensors.items() if name.startswith("optimizer/")},
        experiment=json.loads(metadata["experiment"]),
        state=json.loads(metadata["state"]),
        path=path,
    )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        CheckpointError: If the file is missing or is not a whole safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist.") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is cut short: {error}") from None


def load_weights(method: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copies weights into a method, which keeps its device and memory layout.

    Args:
        where: What the weights come from, for messages.

    Raises:
        CheckpointError: If names or shapes differ; names them. The method is then untouched.
    """
    own = method.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    misshaped = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems = [
        f"{title}: {_listed(names)}"
        for title, names in (("missing", missing), ("not in the model", unexpected), ("of another shape", misshaped))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{where} does not fit {type(method).__name__} with these options. " + ". ".join(problems) + "."
        )
    method.load_state_dict(weights)


def load_optimizer(optimizer: Optimizer, method: nn.Module, saved: Mapping[str, Tensor], where: str) -> None:
    """Restores each parameter's state, in the memory layout of the parameter.

    Raises:
        CheckpointError: If the state belongs to other parameters.
    """
    parameters = dict(method.named_parameters())
    for key, value in saved.items():
        name, _, slot = key.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or (value.ndim and value.shape != parameter.shape):
            raise CheckpointError(f"{where} holds optimiser state '{key}' that fits no parameter of the model.")
        # A scalar is the step count, which fused Adam keeps beside the parameter and plain Adam on the CPU.
        device = parameter.device if value.ndim or optimizer.defaults.get("fused") else torch.device("cpu")
        restored = torch.empty_like(parameter) if value.ndim else torch.empty_like(value, device=device)
        optimizer.state[parameter][slot] = restored.detach().copy_(value)


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """sha256 of names, shapes and values: the same for a checkpoint and the model folder exported from it."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().to("cpu").contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Deletes the half-written files that a killed process left."""
    for file in folder.glob(".*.tmp.safetensors"):
        file.unlink(missing_ok=True)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _free_bytes(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(os.fspath(folder)).free
