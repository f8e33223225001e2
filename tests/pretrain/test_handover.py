"""An encoder that was pre-trained arrives in depth, pose and flow exactly, or the message says what does not fit."""

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from geossl.config import ConfigError, parse_experiment
from geossl.engine.checkpoint import CheckpointError, save_checkpoint
from geossl.engine.pretrain import export_encoder, pretrain
from geossl.engine.run_folder import last_path
from geossl.engine.train import make_optimizer
from geossl.methods import build_method
from geossl.methods.monodepth2 import Monodepth2
from geossl.networks.blocks import Encoder
from geossl.networks.encoders import build_encoder
from geossl.networks.handover import INFO_FILE, origin
from geossl.networks.pyramid_encoder import build_any_encoder
from geossl.pretrain.method import Pretraining

SMALL_DEPTH = {"decoder_channels": (4, 4, 8, 8, 8), "supervision": "M"}


def exported(folder: Path, encoder: str, method: str = "pretrain_simclr") -> tuple[Encoder, Path]:
    """An encoder whose weights and statistics are no longer the first ones, and its folder."""
    torch.manual_seed(0)
    experiment = parse_experiment({"method": method, "model": {"encoder": encoder}})
    model = build_method(experiment.method, experiment.model)
    assert isinstance(model, Pretraining)
    model.encoder.train()(torch.rand(2, 3, 64, 96))
    optimizer = make_optimizer(model, experiment.train, torch.device("cpu"))
    save_checkpoint(last_path(folder), model, optimizer, experiment, {"step": 3, "facts": {}})
    return model.encoder.eval(), export_encoder(folder, folder / "encoder")


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, Path]:
    return exported(tmp_path_factory.mktemp("compact"), "compact", "pretrain_moco")


@pytest.mark.parametrize("name", ["compact", "resnet18", "pwclite:0.25", "pwc:0.5"])
def test_features_arrive_to_the_bit(name: str, tmp_path: Path) -> None:
    encoder, folder = exported(tmp_path, name)
    assert sorted(file.name for file in folder.iterdir()) == ["encoder.json", "encoder.safetensors"]
    loaded = build_any_encoder(name, folder).eval()
    image = torch.rand(1, 3, 49, 65)
    assert all(torch.equal(a, b) for a, b in zip(encoder(image), loaded(image), strict=True))
    info = json.loads((folder / INFO_FILE).read_text())
    assert (info["arch"], info["in_channels"], info["method"], info["step"]) == (name, 3, "pretrain_simclr", 3)
    assert origin(folder) == f"encoder from {folder}: pretrain_simclr, step 3, sha256 {info['sha256'][:12]}"


def test_timm_encoder_arrives_for_one_image_and_two(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    encoder, folder = exported(tmp_path, "timm:resnet10t")
    image = torch.rand(1, 3, 64, 96)
    one, two = (build_encoder("timm:resnet10t", folder, images).eval() for images in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(encoder(image), one(image), strict=True))
    pairs = zip(encoder(image), two(image.repeat(1, 2, 1, 1)), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)


def test_depth_and_pose_take_the_encoder(compact: tuple[Encoder, Path]) -> None:
    encoder, folder = compact
    options = SMALL_DEPTH | {"encoder": "compact", "pose_encoder": "compact", "encoder_weights": str(folder)}
    method = build_method("monodepth2", options).eval()
    assert isinstance(method, Monodepth2)
    image = torch.rand(2, 3, 64, 96)
    for a, b in zip(encoder(image), method.encoder(image), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(encoder(image), method.pose_encoder(image.repeat(1, 2, 1, 1)), strict=True):
        assert (a - b).abs().max() < 1e-5  # two images of one time give the response of one


@pytest.mark.parametrize(("method", "arch"), [("arflow", "pwclite"), ("selflow", "pwc")])
def test_flow_takes_the_pyramid(method: str, arch: str, tmp_path: Path) -> None:
    encoder, folder = exported(tmp_path, f"{arch}:0.25", "pretrain_simclr")
    model: Any = build_method(method, {"width": 0.25, "encoder_weights": str(folder)})
    pyramid = model.network.feature_pyramid_extractor if method == "arflow" else model.network.pyramid
    image = torch.rand(1, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(encoder(image), pyramid(image), strict=True))


def test_another_encoder_is_named_with_the_first_mismatch(compact: tuple[Encoder, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing, the first 'conv1\.weight'.*pre-trained as encoder 'compact'"):
        build_encoder("resnet18", compact[1])
    with pytest.raises(ValueError, match=r"'compact', and this one is 'resnet18': choose the same.*pose_encoder"):
        build_method("monodepth2", SMALL_DEPTH | {"encoder": "compact", "encoder_weights": str(compact[1])})
    _, pwc = exported(tmp_path, "pwc:0.25")
    with pytest.raises(ValueError, match=r"pre-trained as encoder 'pwc:0\.25', and this one is 'pwclite'"):
        build_method("arflow", {"width": 0.25, "encoder_weights": str(pwc)})  # equal shapes, other leak
    with pytest.raises(ValueError, match=r"of another shape, the first 'convs\.0\.0\.0\.weight'"):
        build_method("selflow", {"width": 0.5, "encoder_weights": str(pwc)})


def test_another_normalisation_is_named(compact: tuple[Encoder, Path], tmp_path: Path) -> None:
    for file in compact[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    info = json.loads((tmp_path / INFO_FILE).read_text())
    (tmp_path / INFO_FILE).write_text(json.dumps(info | {"mean": [0.5]}))
    with pytest.raises(ValueError, match=r"standardised with mean \[0\.5\], and this encoder's is \[0\.4"):
        build_encoder("compact", tmp_path)
    (tmp_path / INFO_FILE).write_text(json.dumps(info | {"format": "other"}))
    with pytest.raises(ValueError, match="format other, expected geossl-encoder-1"):
        build_encoder("compact", tmp_path)


def test_encoder_names_are_checked() -> None:
    with pytest.raises(ValueError, match=r"'pwclite:wide' should read pwclite or pwclite:WIDTH"):
        build_any_encoder("pwclite:wide")
    with pytest.raises(ValueError, match="unknown encoder 'compcat'"):
        build_any_encoder("compcat")


def test_only_pre_training_hands_over(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'monodepth2' pre-trains no encoder; use `geossl train`"):
        pretrain(parse_experiment({"method": "monodepth2"}), tmp_path)
    experiment = parse_experiment({"method": "arflow", "model": {"width": 0.1}})
    model = build_method("arflow", experiment.model)
    optimizer = make_optimizer(model, experiment.train, torch.device("cpu"))
    save_checkpoint(last_path(tmp_path), model, optimizer, experiment, {"step": 1})
    with pytest.raises(CheckpointError, match="'arflow', which pre-trains no encoder"):
        export_encoder(tmp_path, tmp_path / "encoder")


def test_nothing_of_it_needs_more_packages(compact: tuple[Encoder, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def bare(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in ("lightly", "pytorch_metric_learning", "timm"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", bare)
    for name in [name for name in sys.modules if name.startswith("geossl.pretrain.")]:
        monkeypatch.delitem(sys.modules, name)
    build_method("pretrain_moco", {"encoder": "compact"})
    build_encoder("compact", compact[1])
