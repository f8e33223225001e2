"""Validation of scene flow: the right images, the truth's size and camera, the right figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_tiny import HEIGHT, WIDTH, Tiny, TinyLoader, TinyOptions, sample, tiny_experiment
from torch import Tensor

from geossl.config import Data, KittiRaw
from geossl.data.samples import DataError
from geossl.data.synthetic import StreetOptions, read_labels, write_street
from geossl.engine.distributed import World
from geossl.engine.train import train
from geossl.engine.validate import Validation, configured_validation, headline, validate
from geossl.engine.validate_scene_flow import maps_of, scene_flow_samples, validate_scene_flow
from geossl.evaluation.scene_flow_truth import SceneFlowLabels, SceneFlowMaps
from geossl.types import Batch

ALONE = World(0, 1, torch.device("cpu"))
DEPTH_M, COMES_M, BASELINE_M, FX = 4.0, 2.0, 0.5, 80.0  # 10 px, then 20 px


class Wall(Tiny):
    """A wall at 4 m that comes 2 m nearer."""

    predict_depth = None  # type: ignore[assignment]

    def predict_scene_flow(
        self, target: Tensor, source: Tensor, K: Tensor, K_source: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        assert not self.training and target.shape == source.shape == (len(K), 3, HEIGHT, WIDTH)
        assert all(float(image.min()) >= 0 and float(image.max()) <= 1 for image in (target, source))
        depth = torch.full_like(target[:, :1], DEPTH_M)
        return depth, torch.cat([torch.zeros_like(target[:, :2]), torch.full_like(depth, -COMES_M)], 1)


def pair(index: int) -> Batch:
    batch = sample(index)
    return replace(batch, sources=(batch.target,), source_offsets=(1,))


def wall_labels(height: int, width: int, d1: float = 0, d2: float = 0, du: float = 0) -> SceneFlowLabels:
    """The wall as a camera of this size sees it, its truth moved away by so many pixels."""
    K = np.array([[FX, 0, (width - 1) / 2], [0, FX, (height - 1) / 2], [0, 0, 1]])
    v, u = np.mgrid[:height, :width].astype(np.float32)
    flow = np.stack([u - K[0, 2] + du, v - K[1, 2]], axis=2)  # half as far is twice as large
    first, second = (np.full((height, width), d, np.float32) for d in (10 + d1, 20 + d2))
    return SceneFlowLabels(SceneFlowMaps(first, second, flow), K, BASELINE_M)


def test_exact_at_the_labels_own_size_and_camera() -> None:
    items = [(pair(0), wall_labels(45, 101)), (pair(1), wall_labels(HEIGHT, WIDTH))]
    figures = validate_scene_flow(Wall(TinyOptions()), items, ALONE)
    assert figures == {
        **{f"scene_flow/{name}_all_percent": 0.0 for name in ("d1", "d2", "fl", "sf")},
        "scene_flow/epe3d_all_m": pytest.approx(0, abs=1e-5),
        "scene_flow/acc3d_strict_all_percent": 100.0,
        "scene_flow/acc3d_relaxed_all_percent": 100.0,
        "scene_flow/outliers3d_all_percent": 0.0,
        "scene_flow/images": 2.0,
    }


@pytest.mark.parametrize(("wrong", "others"), [("d1", {"d1": 4.0}), ("d2", {"d2": -6.0}), ("fl", {"du": 50.0})])
def test_each_part_is_wrong_alone_and_pixels_are_pooled(wrong: str, others: dict[str, float]) -> None:
    """One of two images is wrong everywhere; it has a third of the other's pixels."""
    items = [(pair(0), wall_labels(30, 40, **others)), (pair(1), wall_labels(60, 60))]
    figures = validate_scene_flow(Wall(TinyOptions()), items, ALONE)
    expected = {name: 25.0 if name in (wrong, "sf") else 0.0 for name in ("d1", "d2", "fl", "sf")}
    assert {name: figures[f"scene_flow/{name}_all_percent"] for name in expected} == pytest.approx(expected)


def test_what_comes_behind_the_camera_is_unknown() -> None:
    labels = wall_labels(5, 7)
    motion = torch.zeros(1, 3, 5, 7)
    motion[:, 2, :, 3:] = -2 * DEPTH_M
    there = maps_of(torch.full((1, 1, 5, 7), DEPTH_M), motion, labels).there()
    assert there["d1"].all() and there["d2"][:, :3].all() and there["fl"][:, :3].all()
    assert not there["d2"][:, 3:].any() and not there["fl"][:, 3:].any()


def test_what_cannot_be_validated_is_said() -> None:
    method, labels = Wall(TinyOptions()), wall_labels(5, 7)
    nowhere = replace(labels, maps=replace(labels.maps, flow=np.full((5, 7, 2), np.nan, np.float32)))
    with pytest.raises(ValueError, match="no validation sample has a pixel of known scene flow"):
        validate_scene_flow(method, [(pair(0), nowhere)], ALONE)
    with pytest.raises(ValueError, match="wall: the predicted depth or scene flow is not finite"):
        maps_of(torch.full((1, 1, 5, 7), torch.nan), torch.zeros(1, 3, 5, 7), labels, "wall")
    with pytest.raises(ValueError, match="Tiny predicts no scene flow in metres"):
        validate_scene_flow(Tiny(TinyOptions()), [], ALONE)
    method.is_metric = False  # type: ignore[misc]
    with pytest.raises(ValueError, match="Wall predicts no scene flow in metres"):
        validate_scene_flow(method, [], ALONE)


def test_training_keeps_the_checkpoint_of_the_fewest_outliers(tmp_path: Path) -> None:
    result = train(
        tiny_experiment(steps=4, validate_every=2, method="test_validate_scene_flow:Wall"),
        tmp_path,
        make_loader=lambda e, world, step: TinyLoader(world, 0, step, 0),
        make_validation=lambda data, method: Validation(scene_flow=[(pair(0), wall_labels(30, 40, du=50.0))]),
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation/scene_flow/sf_all_percent" in line] == [2, 4]
    assert result.best == 100.0 and headline(result.validation, True) == 100.0


# --- the samples of data.validation ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street")
    write_street(folder, StreetOptions(sequences=1, frames=3, width=128, height=64, seed=3, standing=0), processes=1)
    return folder


def data(root: Path, **more: object) -> Data:
    sources = (KittiRaw(root=root, **more),)
    return Data(validation=sources, height=64, width=96, source_offsets=(-1,), stereo=True, stereo_sources=True)


def test_street_samples_have_the_next_image_and_scene_flow(street: Path) -> None:
    found = scene_flow_samples(data(street, cameras=("image_02",)))
    assert [batch.names[0][-10:] for batch, _ in found] == ["0000000000", "0000000001"]
    batch, truth = found[0]
    assert batch.source_offsets == (1,) and batch.stereo is None and batch.target.image.shape == (1, 3, 64, 96)
    exact = read_labels(next(street.rglob("labels/0000000000.npz")))
    np.testing.assert_array_equal(truth.maps.disparity_px, exact.disparity_px)


def test_the_truth_has_no_outliers(street: Path) -> None:
    exact = read_labels(next(street.rglob("labels/0000000000.npz")))

    class Truth(Wall):
        def predict_scene_flow(
            self, target: Tensor, source: Tensor, K: Tensor, K_source: Tensor | None = None
        ) -> tuple[Tensor, Tensor]:
            depth = torch.from_numpy(np.where(exact.valid, exact.depth, 80).astype(np.float32))
            return depth[None, None], torch.from_numpy(np.nan_to_num(exact.scene_flow).astype(np.float32))[None]

    first, *_ = scene_flow_samples(data(street, cameras=("image_02",)).model_copy(update={"width": 128}))
    figures = validate_scene_flow(Truth(TinyOptions()), [first], ALONE)
    assert figures["scene_flow/sf_all_percent"] == 0
    assert figures["scene_flow/epe3d_all_m"] < 1e-2


def test_scene_flow_joins_the_other_tasks(street: Path) -> None:
    class Both(Wall):
        def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:  # type: ignore[override]
            return torch.full_like(image[:, :1], DEPTH_M)

    method = Both(TinyOptions())
    found = configured_validation(data(street, cameras=("image_02",)), method)
    assert (len(found.depth), len(found.flow), len(found.scene_flow)) == (3, 0, 2)
    truth = np.full((HEIGHT, WIDTH), 2 * DEPTH_M, np.float32)
    both = Validation(depth=[(sample(0), truth)], scene_flow=[(pair(0), wall_labels(30, 40, du=50.0))])
    figures = validate(method, both, ALONE)
    assert figures["none/abs_rel"] == pytest.approx(0.5)
    assert headline(figures, True) == figures["scene_flow/sf_all_percent"] == 100.0
    with pytest.raises(DataError, match="has no scene flow labels, which Wall would be validated by"):
        configured_validation(data(street, cameras=("image_03",)), Wall(TinyOptions()))
    method.is_metric = False  # type: ignore[misc]
    assert not configured_validation(data(street, cameras=("image_02",)), method).scene_flow
