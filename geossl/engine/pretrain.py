"""Pre-training: the loop of `train`, and at its end a folder of the encoder (`geossl.networks.handover`)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from geossl.config import ConfigError, Experiment
from geossl.engine.checkpoint import CheckpointError, weights_hash, write_safetensors
from geossl.engine.model_folder import load_model
from geossl.engine.train import train
from geossl.formats.atomic import write_text_atomic
from geossl.methods import method_class
from geossl.networks.handover import FORMAT, INFO_FILE, normalisation
from geossl.networks.weights import ENCODER_FILE
from geossl.pretrain import PRETRAINING
from geossl.pretrain.method import Pretraining


@dataclass(frozen=True)
class PretrainResult:
    """How a pre-training ended: as `TrainResult`, and the folder that `encoder_weights` takes, None before the end."""

    run: Path
    step: int
    total_steps: int
    exit_code: int
    encoder: Path | None


def pretrain(experiment: Experiment, run: str | Path, *, resume: bool = True) -> PretrainResult:
    """Trains a method of pre-training, going on from the run folder's last checkpoint, and writes RUN/encoder.

    Raises:
        ConfigError: If the method has no encoder to hand over. Other errors as `train`.
    """
    if not issubclass(method_class(experiment.method), Pretraining):
        raise ConfigError(
            f"method '{experiment.method}' pre-trains no encoder; use `geossl train`, or one of "
            f"{', '.join(PRETRAINING)}."
        )
    result = train(experiment, run, resume=resume)
    folder = None if result.stopped else result.run / "encoder"
    if folder is not None and int(os.environ.get("RANK", 0)) == 0:
        export_encoder(result.model, folder)
    return PretrainResult(result.run, result.step, result.total_steps, result.exit_code, folder)


def export_encoder(source: str | Path, folder: str | Path) -> Path:
    """Writes the encoder of a pre-training as a folder; its heads, queues and averages stay behind.

    Args:
        source: Run folder or checkpoint of a method of pre-training.
        folder: Where to; made if missing. Files of the same names are replaced.

    Returns:
        The folder.

    Raises:
        CheckpointError: If `source` holds no such method, or the files cannot be written.
    """
    folder, loaded = Path(folder), load_model(source)
    method = loaded.method
    if not isinstance(method, Pretraining):
        raise CheckpointError(f"{source} holds method '{loaded.config.method}', which pre-trains no encoder.")
    weights = method.encoder.state_dict()
    info = {
        "format": FORMAT,
        "arch": method.options.encoder,
        "in_channels": 3 * method.encoder.images,
        **normalisation(method.encoder),
        "method": loaded.config.method,
        "step": loaded.info["step"],
        "height": loaded.info["height"],
        "width": loaded.info["width"],
        "sha256": weights_hash(weights),
    }
    write_safetensors(folder / ENCODER_FILE, weights, {"format": FORMAT})
    write_text_atomic(folder / INFO_FILE, json.dumps(info, indent=2) + "\n")
    return folder
