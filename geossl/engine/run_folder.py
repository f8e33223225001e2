"""The folder of one training: its config, what it ran on, metrics.jsonl, checkpoints/ and samples/.

A training started in the folder of an earlier one goes on from its last checkpoint, if it is the same experiment.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import geossl
from geossl.config import ConfigError, Experiment, dump_yaml, load_experiment
from geossl.engine.checkpoint import Checkpoint, CheckpointError, read_checkpoint, remove_leftovers
from geossl.engine.distributed import World
from geossl.formats.atomic import write_text_atomic

# What may differ between a training and the one it goes on from: how long, how often it reports, how it loads.
MAY_CHANGE = frozenset(
    {
        "train.steps",
        "train.epochs",
        "train.log_every",
        "train.sample_every",
        "train.validate_every",
        "train.checkpoint_every",
        "train.device",
        "train.kernels",
        "data.num_workers",
        "data.cache",
        "data.cache_dir",
    }
)


def last_path(run: Path) -> Path:
    return run / "checkpoints" / "last.safetensors"


def best_path(run: Path) -> Path:
    return run / "checkpoints" / "best.safetensors"


def open_run(run: Path, experiment: Experiment, world: World, resume: bool = True) -> Checkpoint | None:
    """Prepares a run folder and finds the checkpoint to go on from.

    Args:
        run: The folder; made if missing.
        experiment: What is about to be trained; written to config.yaml.
        world: Every process checks, the main one writes.
        resume: False refuses a folder that already holds a checkpoint.

    Returns:
        The last checkpoint, or None where there is none yet.

    Raises:
        ConfigError: If the folder holds checkpoints of another experiment; names the fields that differ.
        CheckpointError: If the last checkpoint cannot be read, or `resume` is False and there is one.
    """
    last, best = last_path(run), best_path(run)
    if (last.exists() or best.exists()) and (run / "config.yaml").exists():
        check_same_experiment(run, experiment)  # without a checkpoint there is nothing that another config could spoil
    if last.exists() and not resume:
        raise CheckpointError(f"{run} already holds a training; resume it, or choose another folder.")
    try:
        checkpoint = read_checkpoint(last) if last.exists() else None
    except CheckpointError as error:
        hint = f" {best.name} beside it may be copied over it." if best.exists() else ""
        raise CheckpointError(f"{error}{hint}") from error
    found = world.gather(0 if checkpoint is None else int(checkpoint.state["step"]))
    if len(set(found)) > 1:
        raise CheckpointError(f"the processes found steps {found} in {run}; it must be a folder that all share.")
    if world.is_main:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        remove_leftovers(run / "checkpoints")
        write_text_atomic(run / "config.yaml", dump_yaml(experiment))
        write_environment(run / "env.json", world, found[0])
    return checkpoint


def check_same_experiment(run: Path, experiment: Experiment) -> None:
    """Raises `ConfigError` if the folder's config differs in anything that a training cannot change on its way."""
    old = flatten(load_experiment(run / "config.yaml").model_dump(mode="json"))
    new = flatten(experiment.model_dump(mode="json"))
    differing = [
        f"  {name}: {_shown(old, name)} there, {_shown(new, name)} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in MAY_CHANGE
    ]
    if differing:
        listed = "\n".join(differing)
        raise ConfigError(
            f"{run} holds a training with another config:\n{listed}\nChoose another run folder, or give the same "
            f"config. Only these may change: {', '.join(sorted(MAY_CHANGE))}."
        )


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping of dotted names."""
    items: Iterator[tuple[Any, Any]]
    if isinstance(values, Mapping):
        items = iter(values.items())
    elif isinstance(values, list) and any(isinstance(value, Mapping) for value in values):
        items = iter(enumerate(values))
    else:
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def write_environment(path: Path, world: World, step: int) -> None:
    """Appends what this start of the training runs on to env.json."""
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"] if path.exists() else []
    except (ValueError, KeyError):
        starts = []
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.processor()
    starts.append(
        {
            "step": step,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "geossl": geossl.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: _version(name) for name in ("torch", "torchvision", "kornia", "numpy")},
            "cuda": torch.version.cuda if world.device.type == "cuda" else None,
            "device": f"{world.device.type} {device}".strip(),
            "processes": world.size,
            "threads": torch.get_num_threads(),
            "cpus": os.cpu_count(),
        }
    )
    write_text_atomic(path, json.dumps({"starts": starts}, indent=2) + "\n")


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "absent"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
