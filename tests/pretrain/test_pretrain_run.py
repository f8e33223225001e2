"""`geossl pretrain`: the training loop, exact resume with queue and averages, and the encoder at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from geossl.cli import app
from geossl.config import Experiment, dump_yaml, parse_experiment
from geossl.engine.checkpoint import CheckpointError, read_checkpoint
from geossl.engine.model_folder import export_model
from geossl.engine.pretrain import pretrain
from geossl.engine.run_folder import last_path
from geossl.networks.encoders import build_encoder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(8):
        coarse = random.integers(0, 256, (8, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:06d}.png"), cv2.resize(coarse, (96, 64)))
    return folder


def experiment(images: Path, steps: int, **options: Any) -> Experiment:
    source = {"kind": "folder", "root": str(images), "intrinsics": [60, 60, 48, 32]}
    data = {"train": [source], "height": 64, "width": 96, "source_offsets": [], "num_workers": 0}
    train = {"steps": steps, "batch_size": 4, "schedule": "constant", "device": "cpu", "checkpoint_every": 2}
    values = {"method": "pretrain_moco", "data": data, "train": train}
    return parse_experiment({**values, "model": {"encoder": "compact", "queue": 10, "momentum": 0.9, **options}})


def test_stopped_and_continued_run_ends_bit_identical(images: Path, tmp_path: Path) -> None:
    result = pretrain(experiment(images, 5), tmp_path / "whole")
    assert (result.step, result.exit_code, result.encoder) == (5, 0, tmp_path / "whole" / "encoder")
    pretrain(experiment(images, 3), tmp_path / "parts")
    pretrain(experiment(images, 5), tmp_path / "parts")
    whole, parts = (read_checkpoint(last_path(tmp_path / name)) for name in ("whole", "parts"))
    for a, b in ((whole.model, parts.model), (whole.optimizer, parts.optimizer)):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert "queue.place" in whole.model and whole.model["queue.place"] == 0  # 20 keys in a queue of 10
    assert any(name.startswith("key_encoder.") for name in whole.model)

    encoder = build_encoder("compact", tmp_path / "whole" / "encoder")  # the online one, not its average
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, whole.model[f"encoder.{name}"])


def test_command_writes_the_encoder(images: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(dump_yaml(experiment(images, 1)))
    result = CliRunner().invoke(app, ["pretrain", str(config), "-o", str(tmp_path / "run"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["encoder"] == str(tmp_path / "run" / "encoder")
    assert json.loads((tmp_path / "run" / "encoder" / "encoder.json").read_text())["method"] == "pretrain_moco"


def test_export_refuses_a_pretraining_and_points_to_the_encoder(images: Path, tmp_path: Path) -> None:
    pretrain(experiment(images, 1), tmp_path / "run")
    result = CliRunner().invoke(app, ["export", str(tmp_path / "run"), str(tmp_path / "model")])
    assert result.exit_code != 0 and not (tmp_path / "model").exists()
    with pytest.raises(CheckpointError, match=r"'pretrain_moco', a pre-training.*folder `encoder`.*encoder_weights"):
        export_model(tmp_path / "run", tmp_path / "model")
