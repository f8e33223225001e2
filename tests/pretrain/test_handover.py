"""An encoder that was pre-trained arrives in depth, pose and flow exactly, or the message says what does not fit."""

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geossl.config import ConfigError, parse_experiment
from geossl.engine.checkpoint import CheckpointError, save_checkpoint
from geossl.engine.pretrain import export_encoder, pretrain
from geossl.engine.run_folder import last_path
from geossl.engine.train import make_optimizer
from geossl.methods import build_method
from geossl.methods.monodepth2 import Monodepth2
from geossl.methods.sfmlearner import SfMLearner
from geossl.networks.blocks import Encoder
from geossl.networks.encoders import build_encoder
from geossl.networks.flownet import FlowNet
from geossl.networks.handover import INFO_FILE, origin
from geossl.networks.monodepth import MonodepthNet
from geossl.networks.pwc import ThreeFramePWC
from geossl.networks.pwclite import PWCLite
from geossl.networks.pyramid_encoder import FLOWNET_STD, KINDS, build_any_encoder
from geossl.networks.raft import RAFT
from geossl.networks.scene_flow import SceneFlowNet
from geossl.networks.sfmlearner import DispNet
from geossl.pretrain.method import Pretraining
from geossl.types import Batch, Frame

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


OWN = ["pwclite:0.25", "pwc:0.5", "flownet:0.375", "raft:tiny", "self_mono_sf:0.25", "dispnet"]


@pytest.mark.parametrize("name", ["compact", "resnet18", *OWN, "monodepth_resnet50:0.25", "monodepth_vgg:0.25"])
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


@pytest.mark.parametrize(
    ("method", "name", "options"),
    [
        ("arflow", "pwclite:0.25", {"width": 0.25}),
        ("selflow", "pwc:0.25", {"width": 0.25}),
        ("unflow", "flownet:0.25", {"width": 0.25, "image_std": FLOWNET_STD}),
        ("smurf", "raft:small", {"network": "small"}),
        ("smurf", "raft", {"network": "large"}),
        ("self_mono_sf", "self_mono_sf:0.25", {"width": 0.25}),
        ("sfmlearner", "dispnet", {}),
        ("monodepth", "monodepth_vgg", {"network": "monodepth_vgg"}),
        ("monodepth", "compact", {"network": "compact", "decoder_channels": (4, 4, 8, 8, 8)}),
    ],
)
def test_every_method_takes_its_encoder(method: str, name: str, options: dict[str, Any], tmp_path: Path) -> None:
    encoder, folder = exported(tmp_path, name)
    model: Any = build_method(method, {**options, "encoder_weights": str(folder)}).eval()
    image = torch.rand(1, 3, 49, 71)
    found = encoder(image)
    assert all(torch.equal(a, b) for a, b in zip(found, features_within(model, image), strict=True))


def features_within(model: Any, image: Tensor) -> list[Tensor]:
    """What a method's network itself makes of an image, by its own layers."""
    network = model.depth_network if isinstance(model, SfMLearner) else model.network
    match network:
        case PWCLite():
            return network.feature_pyramid_extractor(image)  # type: ignore[no-any-return]
        case ThreeFramePWC() | SceneFlowNet():
            return network.pyramid(image)  # type: ignore[no-any-return]
        case FlowNet():
            x, features = network.standardize(image), []
            for conv in (network.nets[0].conv1, network.nets[0].conv2, network.nets[0].conv3):
                x = conv(x)
                features.append(x)
            return features
        case RAFT():
            net, x = network.net.feature_encoder, network.standardize(image)
            x1 = net.layer1(net.convnormrelu(x))
            return [x1, net.layer2(x1), net(x)]
        case DispNet():
            features = [network.standardize(image)]
            for i in range(1, 8):
                features.append(network.get_submodule(f"conv{i}")(features[-1]))
            return features[1:]
        case MonodepthNet():
            return network.encoder(image)
        case _:
            return network[0](image)  # type: ignore[no-any-return]


def test_flownet_keeps_the_response_of_one_image_for_two_and_another_deviation(tmp_path: Path) -> None:
    encoder, folder = exported(tmp_path, "flownet:0.25")
    options = {"stack": "S", "width": 0.25, "image_std": 1.0, "encoder_weights": str(folder)}
    network: Any = build_method("unflow", options).network
    image = torch.rand(2, 3, 49, 71)
    x = network.standardize(image).repeat(1, 2, 1, 1)
    for layer, expected in zip(("conv1", "conv2", "conv3"), encoder(image), strict=True):
        x = network.nets[0].get_submodule(layer)(x)
        assert (x - expected).abs().max() < 1e-5 * expected.abs().max()


def test_what_cannot_be_handed_over_is_named(tmp_path: Path) -> None:
    _, folder = exported(tmp_path, "flownet:0.25")
    weights = {"width": 0.25, "encoder_weights": str(folder)}
    with pytest.raises(ValueError, match=r"standardised with mean"):
        build_method("unflow", {**weights, "image_mean": (0.5, 0.5, 0.5)})
    with pytest.raises(ValueError, match=r"stack CS starts from the stage before"):
        build_method("unflow", {**weights, "stack": "CS"})
    with pytest.raises(ValueError, match=r"encoder 'flownet:0\.25', and this one is 'raft'.*model\.encoder=raft"):
        build_method("smurf", {"network": "tiny", "encoder_weights": str(folder)})
    with pytest.raises(
        ValueError, match=r"does not fit Stages of flownet: .*another shape.*encoder 'flownet:0\.25'\."
    ):
        build_method("unflow", {"width": 0.5, "encoder_weights": str(folder)})
    with pytest.raises(ValueError, match=r"no ImageNet weights of monodepth_vgg; .*model\.encoder=monodepth_vgg"):
        build_method("monodepth", {"network": "monodepth_vgg", "encoder_weights": "imagenet"})
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build_method("self_mono_sf", {"width": 0.1, "encoder_weights": "nowhere"})


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("pretraining", ["pretrain_moco", "pretrain_dense", "pretrain_flow", "pretrain_inpaint"])
def test_pre_training_reaches_every_layer(name: str, pretraining: str) -> None:
    torch.manual_seed(0)
    options = {"queue": 4} if pretraining == "pretrain_moco" else {}
    method = build_method(pretraining, {"encoder": name, **options})
    image = torch.rand(2, 3, 64, 96)
    frame = Frame(image, image, torch.eye(3).repeat(2, 1, 1))
    method(Batch(frame, (frame,), (1,), index=torch.arange(2), names=("a/0", "b/0"))).total.backward()
    assert all(p.grad is not None for n, p in method.named_parameters() if n.startswith("encoder."))
    assert any((p.grad != 0).any() for n, p in method.named_parameters() if n.startswith("encoder."))  # type: ignore[union-attr]


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
    with pytest.raises(ValueError, match=r"'flownet:-1' should read flownet or flownet:WIDTH, e\.g\. 0\.25"):
        build_any_encoder("flownet:-1")
    with pytest.raises(ValueError, match=r"'raft:huge' should read raft or raft:SIZE, one of large, small, tiny"):
        build_any_encoder("raft:huge")
    with pytest.raises(ValueError, match=r"'dispnet:2' should read dispnet\."):
        build_any_encoder("dispnet:2")
    with pytest.raises(ValueError, match="unknown encoder 'compcat'"):
        build_any_encoder("compcat")
    known = ", ".join(("resnet18, resnet34, resnet50, compact, timm:NAME", *KINDS))
    for name in ("pwcc", "pwcc:0.5"):
        with pytest.raises(ValueError, match=f"unknown encoder '{name}'. Did you mean 'pwc'. Known: {known}"):
            build_any_encoder(name)


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
