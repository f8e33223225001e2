"""`geossl evaluate encoder` on a small street with labels, and with a model of ours where there are none."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from geossl.cli import app
from geossl.commands import encoder_data
from geossl.commands.encoder_data import Material
from geossl.commands.evaluate_encoder import evaluate_encoder
from geossl.config import parse_source
from geossl.data.synthetic import StreetOptions, write_street
from geossl.engine.checkpoint import save_checkpoint
from geossl.engine.pretrain import export_encoder
from geossl.engine.run_folder import last_path
from geossl.engine.train import make_optimizer
from geossl.geometry.warping import warp_by_flow
from geossl.methods import build_method

FIGURES = ["retrieval", "alignment", "uniformity", "rank", "spread", "depth_r2"]
ANGLES = [f"normal_{x}_deg" for x in ("mean", "median", "within_11.25", "within_22.5", "within_30")]
MATCHING = ["stereo_pck", "stereo_tones_pck", "flow_pck", "view_pck"]


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("street")
    write_street(root, StreetOptions(sequences=1, frames=4, width=96, height=64, seed=5, standing=0), processes=1)
    return root


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a pre-training of which only the encoder is left."""
    from geossl.config import parse_experiment

    folder = tmp_path_factory.mktemp("run")
    experiment = parse_experiment({"method": "pretrain_simclr", "model": {"encoder": "compact"}})
    experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update={"height": 64, "width": 96})})
    method = build_method(experiment.method, experiment.model)
    optimizer = make_optimizer(method, experiment.train, torch.device("cpu"))
    save_checkpoint(last_path(folder), method, optimizer, experiment, {"step": 3, "facts": {}})
    export_encoder(folder, folder / "encoder")
    return folder


def test_rows_of_encoders_stand_side_by_side(street: Path, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    data = f"kitti_raw:{street},cameras=[image_02]"
    command = ["evaluate", "encoder", str(encoder), "random", "zncc", "--data", data, "--json", str(out)]
    result = CliRunner().invoke(app, [*command, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    rows = {row["encoder"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(rows) == [str(encoder), "random", "zncc"]
    for row in rows.values():
        assert list(row) == ["encoder", *FIGURES, *ANGLES, *MATCHING]
        assert all(0 <= row[name] <= 1 for name in (*MATCHING, *ANGLES[2:]))
        assert 0 < row["normal_mean_deg"] < 90 and 0 < row["normal_median_deg"] < 90
    assert rows["random"]["retrieval"] == 1.0  # one recording
    assert rows["zncc"]["retrieval"] is None and rows["zncc"]["stereo_pck"] > 0.3
    assert "stereo_pairs: 3" in result.output and "size: 96x64" in result.output


def test_labels_lead_to_what_looks_the_same(street: Path) -> None:
    """The images at the places of a pair have nearly the same colours, unlike at the same pixels."""
    material = Material(parse_source(f"kitti_raw:{street},cameras=[image_02]"), (64, 96), 8, torch.device("cpu"))
    for pairs in (material.stereo_pairs(None), material.flow_pairs(None)):
        assert len(pairs) == 3
        for item in pairs:
            assert len(item.places.here) == encoder_data.PLACES
            there, here = (sampled(item.second, item.places.there), sampled(item.first, item.places.here))
            unmoved = sampled(item.second, item.places.here)
            assert (there - here).abs().mean() < 0.7 * (unmoved - here).abs().mean()


def test_normals_of_the_street_are_of_its_road_and_walls(street: Path) -> None:
    """Unit vectors towards the camera; about as many upwards as the road takes of the image."""
    material = Material(parse_source(f"kitti_raw:{street},cameras=[image_02]"), (64, 96), 8, torch.device("cpu"))
    items = material.normals()
    assert len(items) == len(material.depths()) == 3
    for item in items:
        assert item.here.shape == (encoder_data.PLACES, 2) and item.value.shape == (encoder_data.PLACES, 3)
        assert torch.allclose(item.value.norm(dim=1), torch.ones(encoder_data.PLACES))
        up = item.value[:, 1] < -0.99
        assert 0.2 < up.float().mean() < 0.9
        assert item.here[up, 1].mean() > item.here[~up, 1].mean()  # the road is below


def sampled(image: Tensor, places: Tensor) -> Tensor:
    flow = (
        places.T[None, :, None]
        - torch.stack([torch.arange(len(places)).float(), torch.zeros(len(places))])[None, :, None]
    )
    return warp_by_flow(image, flow)[0]


@dataclass
class Shift:
    """A flow model that says 2 pixels to the right, and back where the second image comes first."""

    flow_offsets: tuple[int, ...] = (1,)
    calls: int = 0

    def to(self, device: torch.device) -> Shift:
        return self

    def predict_flows(self, target: Tensor, sources: Any) -> Tensor:
        self.calls += 1
        flow = torch.zeros(len(target), 1, 2, *target.shape[-2:])
        flow[:, :, 0] = 2 if self.calls % 2 else -2
        return flow


def test_model_finds_places_where_there_are_no_labels(
    street: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_data, "load_teacher", lambda path: Shift())
    data = f"kitti_raw:{street},cameras=[image_03]"  # labels are the other camera's
    material = Material(parse_source(data), (64, 96), 8, torch.device("cpu"))
    pairs = material.flow_pairs(Path("teacher"))
    assert len(pairs) == 3
    for item in pairs:
        moved = item.places.there - item.places.here
        assert torch.allclose(moved, torch.tensor([2.0, 0.0]).expand_as(moved), atol=1e-4)
    assert material.stereo_pairs(Path("teacher")) == [] and material.depths() == [] == material.normals()
    (row,) = evaluate_encoder([str(encoder)], data, device="cpu").rows
    assert "flow_pck" not in row and "stereo_pck" not in row and math.isfinite(row["view_pck"])


def test_weights_of_a_file_are_a_row_like_their_folder(street: Path, encoder: Path) -> None:
    data = f"kitti_raw:{street},cameras=[image_02]"
    names = [str(encoder), f"compact@{encoder / 'encoder' / 'encoder.safetensors'}"]
    folder, file = (row | {"encoder": ""} for row in evaluate_encoder(names, data, samples=2, device="cpu").rows)
    assert folder == file
    with pytest.raises(ValueError, match="compact encoder has no ImageNet weights"):
        evaluate_encoder([str(encoder), "imagenet"], data, samples=2, device="cpu")


def test_unknown_encoder_and_size_are_named(street: Path, encoder: Path) -> None:
    data = f"kitti_raw:{street},cameras=[image_02]"
    with pytest.raises(ValueError, match=r"nowhere is no encoder folder, no finished run"):
        evaluate_encoder([str(encoder), "nowhere"], data)
    with pytest.raises(ValueError, match="give --size WxH"):
        evaluate_encoder(["random:compact"], data)
    with pytest.raises(ValueError, match="random has no encoder beside it"):
        evaluate_encoder(["random"], data, size=(64, 96))
