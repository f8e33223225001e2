"""A trained method of ours as the source of correspondences and flow."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from geossl.config import Experiment, load_experiment, parse_experiment
from geossl.methods import build_method, without_pretrained
from geossl.methods.method import Method
from geossl.networks.weights import load_named, read_model_weights


def load_teacher(path: str | Path) -> Method:
    """A trained method from its run folder or model folder, frozen and in evaluation mode.

    Random numbers are drawn as if it had not been built, so that a resumed training draws what it would have.

    Raises:
        FileNotFoundError, ValueError: If there is none, or its weights do not fit; names the file.
    """
    experiment = _experiment(Path(path))
    with torch.random.fork_rng(devices=[]):
        method = build_method(experiment.method, without_pretrained(experiment.method, experiment.model))
    load_named(method, read_model_weights(path), f"teacher '{path}'", f" of method '{experiment.method}'")
    return method.eval().requires_grad_(False)


def _experiment(folder: Path) -> Experiment:
    if (folder / "config.yaml").is_file():
        return load_experiment(folder / "config.yaml")
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"teacher '{folder}' is neither a run folder (no config.yaml) nor a model folder (no config.json)."
        )
    try:
        values = json.loads(file.read_text(encoding="utf-8"))["experiment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not of a geossl model folder: {error!r}.") from None
    return parse_experiment(values, where=str(file))


class LazyTeacher:
    """A teacher that is read when it is first needed, on the device of what it is asked about.

    It is no module: the weights of what it teaches are complete without it, and are exported without it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._method: Method | None = None

    def on(self, device: torch.device) -> Method:
        """The teacher; errors as `load_teacher`."""
        if self._method is None:
            self._method = load_teacher(self.path)
        return self._method.to(device)
