"""A model folder, a run folder and a checkpoint load as the same model, and others say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from engine_tiny import HEIGHT, WIDTH, sample, tiny_experiment, train_tiny

from geossl.engine.checkpoint import CheckpointError
from geossl.engine.model_folder import export_model, load_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_tiny(folder, tiny_experiment(steps=2))
    return folder


def test_folder_run_and_checkpoint_predict_the_same(run: Path, tmp_path: Path) -> None:
    folder = export_model(run, tmp_path / "model")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    models = [load_model(path) for path in (run, run / "checkpoints" / "last.safetensors", folder)]
    image, K = sample(0).target.image.float() / 255, sample(0).target.K
    depths = [model.method.predict_depth(image, K) for model in models]  # type: ignore[attr-defined]
    assert torch.equal(depths[0], depths[1]) and torch.equal(depths[0], depths[2])
    assert len({model.info["hash"] for model in models}) == 1
    assert not any(parameter.requires_grad for parameter in models[2].method.parameters())
    assert not models[2].method.training


def test_exported_folder_carries_size_and_calibration(run: Path, tmp_path: Path) -> None:
    info = load_model(export_model(run, tmp_path / "model")).info
    assert (info["height"], info["width"], info["step"], info["is_metric"]) == (HEIGHT, WIDTH, 2, True)
    assert info["intrinsics_of_size"] == pytest.approx([40 / 64, 40 / 32, 0.5, 0.5])
    assert info["baseline_m"] is None
    assert "sha256" in (tmp_path / "model" / "README.md").read_text()


def test_loading_fetches_no_pretrained_weights(run: Path) -> None:
    model = load_model(run)
    assert model.config.model["encoder_weights"] == "imagenet"  # as trained
    assert model.method.options.encoder_weights is None


def test_checkpoint_of_another_method_is_named(run: Path, tmp_path: Path) -> None:
    folder = export_model(run, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["experiment"]["model"]["channels"] = 8
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"encoder\.0\.weight is \(4, 3, 3, 3\), expected \(8, 3, 3, 3\)"):
        load_model(folder)
    config["experiment"]["method"] = "monodepth3"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="there is no method 'monodepth3'"):
        load_model(folder)


def test_renamed_tensor_is_named(run: Path, tmp_path: Path) -> None:
    folder = export_model(run, tmp_path / "model")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["head.weight"] = weights.pop("decoder.weight")
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: decoder\.weight\. not in the model: head\.weight"):
        load_model(folder)


def test_what_is_no_model_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a model folder"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not readable JSON"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "other"}')
    with pytest.raises(CheckpointError, match="format other"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(tmp_path / "nowhere.safetensors")
