"""`geossl check` and `geossl evaluate` say how much of the evaluated data a model was trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from geossl.cli import app
from geossl.commands.trained_on import evaluated_samples, leak_note, training_of
from geossl.config import KittiRaw, Strict, parse_experiment, parse_source
from geossl.data.synthetic import StreetOptions
from geossl.data.synthetic.write import write_street
from geossl.engine.checkpoint import save_checkpoint
from geossl.methods.method import Method
from geossl.types import Batch, Objective

SIZE = (128, 64)
DRIVES = ("2000_01_01_drive_0001_sync", "2000_01_01_drive_0002_sync")


class NoOptions(Strict):
    pass


class Flat(Method):
    """Sees a wall 10 m ahead, and goes 1 m a frame."""

    Options = NoOptions
    is_metric = True
    pose_offsets = (1,)

    def __init__(self, options: NoOptions) -> None:
        super().__init__(options)
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> Objective:
        raise NotImplementedError

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
        return torch.full_like(image[:, :1], 10.0)

    def predict_motions(self, target: Tensor, sources: list[Tensor]) -> Tensor:
        T = torch.eye(4)
        T[2, 3] = -1.0
        return T.expand(len(target), len(sources), 4, 4)


def geossl(*arguments: object) -> str:
    """What the command prints."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drives of four small frames."""
    return make_street(tmp_path_factory.mktemp("street"), seed=3)


def make_street(folder: Path, seed: int) -> Path:
    options = StreetOptions(sequences=2, frames=4, width=SIZE[0], height=SIZE[1], seed=seed, standing=0)
    write_street(folder, options, processes=1)
    return folder


def source(root: Path, *drives: str) -> dict[str, Any]:
    return {"kind": "kitti_raw", "root": str(root), "cameras": ["image_02"], "drives": list(drives) or None}


def model_trained_on(folder: Path, *sources: dict[str, Any]) -> Path:
    data = {"train": list(sources), "width": SIZE[0], "height": SIZE[1], "source_offsets": [1]}
    experiment = parse_experiment({"method": "test_leaks_in_commands:Flat", "data": data})
    method = Flat(NoOptions())
    path = folder / "model.safetensors"
    save_checkpoint(path, method, torch.optim.Adam(method.parameters()), experiment, {"step": 1})
    return path


def evaluated(kind: str, model: Path, spec: str, folder: Path, *more: str) -> tuple[dict[str, Any], str]:
    """The result's JSON and what is printed."""
    file = folder / "result.json"
    text = geossl("evaluate", kind, "--model", model, "--data", spec, *more, "--json", file)
    return json.loads(file.read_text()), text


# --- evaluate --------------------------------------------------------------------------------------------------------


def test_depth_counts_the_frames_that_were_trained_on(street: Path, tmp_path: Path) -> None:
    model, spec = model_trained_on(tmp_path, source(street, DRIVES[0])), f"kitti_raw:{street},cameras=[image_03]"
    result, text = evaluated("depth", model, spec, tmp_path, "--protocol", "native")
    # The other camera of the drive: all four frames are a target or the source of one.
    assert result["row"]["leaks"] == "4 of 8 frames trained on, 4 within 10 frames"
    recording = "2000_01_01_drive_0001 of street 3"
    assert result["leaks"] == {
        "tested": 8,
        "trained_on": 4,
        "near": 4,
        "recordings": {recording: 4},
        "unknown": [],
    }
    for views in ("source_offsets=[-1,1]", "stereo=true"):  # which images are scored does not depend on them
        again, _ = evaluated("depth", model, f"{spec},{views}", tmp_path, "--protocol", "native")
        assert again["row"] == result["row"]
    assert "leaks: 4 of 8 frames trained on" in text
    assert text.count("warning: the model has seen what it is tested on: training uses 4 of 8 test frames") == 1


def test_pose_counts_each_clip_s_frames(street: Path, tmp_path: Path) -> None:
    model, spec = model_trained_on(tmp_path, source(street, DRIVES[0])), f"kitti_raw:{street},cameras=[image_02]"
    result, text = evaluated("pose", model, spec, tmp_path, "--align", "7dof")
    seen, unseen = result["rows"]
    assert seen["leaks"] == "4 of 4 frames trained on, 4 within 10 frames"
    assert unseen["leaks"] == "0 of 4 frames trained on"
    assert [note["trained_on"] for note in result["leaks"].values()] == [4, 0]
    assert any("has seen" in warning for warning in seen["warnings"])
    assert not any("has seen" in warning for warning in unseen["warnings"])
    assert text.count("warning: the model has seen") == 1


def test_training_data_that_are_not_here_are_unknown(street: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    model, spec = model_trained_on(tmp_path, source(gone)), f"kitti_raw:{street},cameras=[image_02]"
    result, text = evaluated("depth", model, spec, tmp_path, "--protocol", "native")
    assert f"leaks: unknown (training data not found at {gone})" in text
    assert result["leaks"]["trained_on"] is None
    assert result["leaks"]["unknown"] == [f"training data not found at {gone}"]


# --- the note --------------------------------------------------------------------------------------------------------


def note_of(model: Path, root: Path) -> str:
    return str(leak_note(training_of(model), evaluated_samples(KittiRaw(root=root, cameras=("image_02",)))))


def test_what_is_known_is_said_beside_what_is_not(street: Path, tmp_path: Path) -> None:
    model = model_trained_on(tmp_path, source(tmp_path / "gone"), source(street, DRIVES[1]))
    note = note_of(model, street)
    assert note.startswith("4 of 8 frames trained on, 4 within 10 frames; unknown for the rest of the training (")
    assert "gone" in note


def test_data_that_have_changed_are_unknown_with_the_reason(street: Path, tmp_path: Path) -> None:
    model = model_trained_on(tmp_path, source(street, "2000_01_01_drive_0009_sync"))
    assert note_of(model, street).startswith(f"unknown (training data at {street} cannot be used: drive 2000_01_01")


def test_model_without_training_data_is_unknown(street: Path, tmp_path: Path) -> None:
    assert note_of(model_trained_on(tmp_path), street) == "unknown (the model's config names no training data)"


def test_streets_of_different_seeds_share_nothing(street: Path, tmp_path: Path) -> None:
    """All streets have the same dates and drives; those of other seeds are other places."""
    other = make_street(tmp_path / "other", seed=4)
    assert note_of(model_trained_on(tmp_path, source(street)), other) == "0 of 8 frames trained on"


def test_only_named_frames_are_evaluated(street: Path) -> None:
    everything = evaluated_samples(parse_source(f"kitti_raw:{street}"))
    assert len(everything) == 16
    assert len(evaluated_samples(parse_source(f"kitti_raw:{street}"), [everything[3].name])) == 1


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_says_what_training_shares_with_validation(street: Path, tmp_path: Path) -> None:
    values = {
        "method": "monodepth2",
        "data": {
            "train": [source(street, DRIVES[0])],
            "validation": [source(street, DRIVES[1]), source(street)],
            "width": SIZE[0],
            "height": SIZE[1],
        },
    }
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(values))  # JSON is YAML
    training, clean, leaky = json.loads(geossl("check", config, "--json"))
    assert "leaks" not in training
    assert clean["leaks"].startswith("no leak: training uses none of the recordings of the 4 test frames")
    assert leaky["leaks"].startswith("training uses 4 of 8 test frames")
    assert "leaks: training uses 4 of 8 test frames" in geossl("check", config)
