"""Model folders: a trained method without its training, as model.safetensors, config.json and README.md.

`load_model` takes a model folder, a run folder or a checkpoint file alike, and executes nothing that it reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import geossl
from geossl.config import ConfigError, Experiment, parse_experiment
from geossl.engine.checkpoint import (
    CheckpointError,
    load_weights,
    read_checkpoint,
    read_safetensors,
    weights_hash,
    write_safetensors,
)
from geossl.engine.run_folder import best_path, last_path
from geossl.formats.atomic import write_text_atomic
from geossl.methods import build_method, without_pretrained
from geossl.methods.method import Method
from geossl.pretrain.method import Pretraining
from geossl.types import PredictsDepth, PredictsFlow

FORMAT = "geossl-model-1"


@dataclass(frozen=True)
class LoadedModel:
    """A trained method ready to predict.

    Attributes:
        method: In evaluation mode, on its device.
        config: The experiment that trained it.
        info: hash (sha256 of the weights), step, height and width of the training images, is_metric,
            intrinsics_of_size (fx/W, fy/H, (cx+0.5)/W, (cy+0.5)/H of the first training sample) and baseline_m where
            known, best (the validation score; see `validate.headline`) where known, path.
    """

    method: Method
    config: Experiment
    info: dict[str, Any]


def load_model(path: str | Path, device: torch.device | str = "cpu") -> LoadedModel:
    """Loads a model folder, a run folder (its best, else its last checkpoint) or a checkpoint file.

    Raises:
        CheckpointError: If there is no model at `path`, or its weights do not fit its method; names the tensors.
    """
    weights, values, facts, where = _read(Path(path))
    experiment = _experiment(values, where)
    method = build_method(experiment.method, without_pretrained(experiment.method, experiment.model))
    load_weights(method, weights, f"{where}, a model of method '{experiment.method}',")
    method.to(device).eval().requires_grad_(False)
    info = {"height": experiment.data.height, "width": experiment.data.width} | facts
    info |= {"hash": weights_hash(weights), "is_metric": bool(method.is_metric), "path": str(where)}
    return LoadedModel(method, experiment, info)


def stored_experiment(path: str | Path) -> Experiment:
    """The experiment that trained a model, without building the model; `path` and errors as `load_model`."""
    _, values, _, where = _read(Path(path))
    return _experiment(values, where)


def export_model(source: str | Path, folder: str | Path) -> Path:
    """Writes the model of a run folder or checkpoint file as a model folder.

    Args:
        source: What `load_model` takes.
        folder: Where to; made if missing. Files of the same names are replaced.

    Returns:
        The folder.

    Raises:
        CheckpointError: If `source` holds no model or a pre-training, or the files cannot be written.
    """
    folder = Path(folder)
    loaded = load_model(source)
    if isinstance(loaded.method, Pretraining):
        raise CheckpointError(
            f"{source} holds method '{loaded.config.method}', a pre-training, which predicts nothing. What it hands "
            "over is the folder `encoder` that `geossl pretrain` writes into its run folder at the end: give that to "
            "other methods as model.encoder_weights."
        )
    config = {
        "format": FORMAT,
        "geossl": geossl.__version__,
        "method": loaded.config.method,
        "info": loaded.info,
        "experiment": loaded.config.model_dump(mode="json"),
    }
    write_safetensors(folder / "model.safetensors", loaded.method.state_dict(), {"format": FORMAT})
    write_text_atomic(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_text_atomic(folder / "README.md", _card(loaded))
    return folder


def _experiment(values: Mapping[str, Any], where: Path) -> Experiment:
    try:
        return parse_experiment(values, where=f"the config of {where}")
    except ConfigError as error:
        raise CheckpointError(f"{where} was trained with a config that this version cannot use. {error}") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any], Path]:
    """Weights, config values, facts and the file they came from."""
    if (path / "config.json").is_file():
        return _read_folder(path)
    if path.is_dir():
        found = [file for file in (best_path(path), last_path(path)) if file.is_file()]
        if not found:
            raise CheckpointError(
                f"{path} is neither a model folder (no config.json) nor a run folder with a checkpoint "
                "(no checkpoints/best.safetensors or checkpoints/last.safetensors)."
            )
        path = found[0]
    checkpoint = read_checkpoint(path)
    state = checkpoint.state
    facts = dict(state.get("facts") or {}) | {"step": state.get("step"), "best": state.get("best")}
    return checkpoint.model, checkpoint.experiment, facts, path


def _read_folder(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any], Path]:
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file} is not readable JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or "experiment" not in config:
        found = config.get("format", "missing") if isinstance(config, dict) else "missing"
        raise CheckpointError(f"{file} is not of a geossl model folder (format {found}, expected {FORMAT}).")
    weights, _ = read_safetensors(path / "model.safetensors")
    return weights, config["experiment"], dict(config.get("info") or {}), path


def _card(loaded: LoadedModel) -> str:
    info, config = loaded.info, loaded.config
    flow_only = not isinstance(loaded.method, PredictsDepth) and isinstance(loaded.method, PredictsFlow)
    task, score = ("flow", "end-point error (px)") if flow_only else ("depth", "abs_rel")
    unit = "metres" if info["is_metric"] else "an unknown unit: right up to one scale factor"
    says = "flow is in pixels of the predicted image" if flow_only else f"depth is in {unit}"
    lines = [
        f"# {config.method}",
        "",
        f"Trained with geossl {geossl.__version__} on images of {info['width']}x{info['height']}; {says}.",
        "",
        f"* steps: {info.get('step')}",
        f"* validation {score}: {'not validated' if info.get('best') is None else format(info['best'], '.4f')}",
        f"* sha256 of the weights: {info['hash']}",
    ]
    if info.get("intrinsics_of_size"):
        fx, fy, cx, cy = info["intrinsics_of_size"]
        lines.append(f"* first training camera: fx = {fx:.4f} W, fy = {fy:.4f} H")
        lines.append(f"* its principal point: cx + 0.5 = {cx:.4f} W, cy + 0.5 = {cy:.4f} H")
    if info.get("baseline_m"):
        lines.append(f"* stereo baseline: {info['baseline_m']:.4f} m")
    lines += [
        "",
        "```",
        f"geossl predict {task} THIS_FOLDER IMAGES -o OUT --save {'flo' if flow_only else 'npy'},color",
        "```",
        "",
    ]
    lines += ["The weights carry the licence terms of the data they were trained on.", ""]
    return "\n".join(lines)
