"""Validation of optical flow: the right images, the right size, the right figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
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
from geossl.engine.validate_flow import flow_samples, validate_flow
from geossl.evaluation.flow_truth import FlowLabels
from geossl.methods.method import Method

ALONE = World(0, 1, torch.device("cpu"))


class Constant(Tiny):
    """The same flow everywhere: (3, 4) pixels to the next image, (-1, -1) to the one before."""

    predict_depth = None  # type: ignore[assignment]
    flow_offsets: tuple[int, ...] = (-1, 1)

    def predict_flows(self, target: Tensor, sources: Sequence[Tensor]) -> Tensor:
        assert len(sources) == len(self.flow_offsets) and not self.training
        assert all(float(image.min()) >= 0 and float(image.max()) <= 1 for image in (target, *sources))
        flows = {-1: (-1.0, -1.0), 1: (3.0, 4.0)}
        flow = torch.tensor([flows[offset] for offset in self.flow_offsets])  # (S, 2)
        return flow[None, :, :, None, None].expand(len(target), -1, -1, *target.shape[-2:])


class Both(Constant):
    """Predicts depth too."""

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:  # type: ignore[override]
        return torch.full_like(image[:, :1], 10.0)


def with_sources(index: int):
    batch = sample(index)
    return type(batch)(batch.target, (batch.target,) * 2, (-1, 1), index=batch.index, names=batch.names)


def labels(error: tuple[float, float], height: int, width: int, **more: object) -> FlowLabels:
    """Labels that the constant flow, brought to this size, misses by `error`."""
    exact = np.array([3 * width / WIDTH, 4 * height / HEIGHT])
    flow = np.tile((exact + error).astype(np.float32), (height, width, 1))
    return FlowLabels(flow, np.ones((height, width), bool), **more)  # type: ignore[arg-type]


def test_errors_at_the_labels_own_size() -> None:
    """Errors of 5 and 13 px at sizes other than the images': the mean over images, whatever their pixels."""
    items = [(with_sources(0), labels((3, 4), 45, 101)), (with_sources(1), labels((5, 12), 33, 64))]
    figures = validate_flow(Constant(TinyOptions()), items, ALONE)
    assert figures == {
        "flow/epe_all": pytest.approx(9, rel=1e-5),
        "flow/fl_all_percent": 100.0,
        "flow/images": 2.0,
    }
    assert headline(figures, True) == figures["flow/epe_all"]


def test_visible_and_hidden_pixels() -> None:
    """A left half that is visible and exact, a right half that is hidden and 10 px off."""
    truth = labels(
        (0, 0), HEIGHT, WIDTH, visible=np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % WIDTH < WIDTH // 2
    )
    truth.flow[:, WIDTH // 2 :] += np.float32([6, 8])
    figures = validate_flow(Constant(TinyOptions()), [(with_sources(0), truth)], ALONE)
    expected = {"flow/epe_all": 5, "flow/epe_noc": 0, "flow/epe_occ": 10, "flow/fl_all_percent": 50}
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_labels_of_visible_pixels_only_have_no_figure_of_all() -> None:
    seen = np.ones((HEIGHT, WIDTH), bool)
    items = [(with_sources(0), labels((0, 1), HEIGHT, WIDTH, visible=seen, visible_only=True))]
    figures = validate_flow(Constant(TinyOptions()), items, ALONE)
    assert "flow/epe_all" not in figures and headline(figures, False) == pytest.approx(1)
    mixed = [*items, (with_sources(1), labels((0, 1), HEIGHT, WIDTH))]
    with pytest.raises(ValueError, match="no figure is of all samples"):
        validate_flow(Constant(TinyOptions()), mixed, ALONE)


def test_what_cannot_be_validated_is_said() -> None:
    unknown = FlowLabels(np.zeros((HEIGHT, WIDTH, 2), np.float32), np.zeros((HEIGHT, WIDTH), bool))
    method = Constant(TinyOptions())
    with pytest.raises(ValueError, match="no validation sample has a pixel of known flow"):
        validate_flow(method, [(with_sources(0), unknown)], ALONE)
    method.flow_offsets = (-1,)
    with pytest.raises(ValueError, match="Constant predicts no flow to the next image"):
        validate_flow(method, [], ALONE)


def test_a_method_of_both_is_validated_in_both() -> None:
    truth = np.full((HEIGHT, WIDTH), 20, np.float32)
    samples = Validation([(sample(0), truth)], [(with_sources(0), labels((0, 2), HEIGHT, WIDTH))])
    figures = validate(Both(TinyOptions()), samples, ALONE)
    assert figures["none/abs_rel"] == pytest.approx(0.5) and figures["flow/epe_all"] == pytest.approx(2, rel=1e-5)
    assert headline(figures, True) == figures["none/abs_rel"]


def test_training_keeps_the_checkpoint_of_the_smallest_error(tmp_path: Path) -> None:
    items = [(with_sources(0), labels((3, 4), HEIGHT, WIDTH))]
    result = train(
        tiny_experiment(steps=4, validate_every=2, method="test_validate_flow:Constant"),
        tmp_path,
        make_loader=lambda e, world, step: TinyLoader(world, 0, step, 0),
        make_validation=lambda data, method: Validation(flow=items),
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation/flow/epe_all" in line] == [2, 4]
    assert result.best == pytest.approx(5, rel=1e-5)


# --- the samples of data.validation ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street")
    write_street(folder, StreetOptions(sequences=1, frames=4, width=128, height=64, seed=3, standing=0), processes=1)
    return folder


def data(root: Path, **more: object) -> Data:
    return Data(validation=(KittiRaw(root=root, **more),), height=64, width=96, source_offsets=(-2,))


@pytest.mark.parametrize(("offsets", "frames"), [((1,), (0, 1, 2)), ((-1, 1), (1, 2))])
def test_street_samples_have_the_methods_views_and_flow(
    street: Path, offsets: tuple[int, ...], frames: tuple[int, ...]
) -> None:
    found = flow_samples(data(street), offsets)
    assert [batch.names[0][-24:] for batch, _ in found] == [f"image_02/data/{f:010d}" for f in frames]
    batch, truth = found[0]
    assert batch.source_offsets == offsets and batch.target.image.shape == (1, 3, 64, 96)
    exact = read_labels(next(street.rglob(f"labels/{frames[0]:010d}.npz")))
    np.testing.assert_array_equal(truth.flow, exact.flow.transpose(1, 2, 0))
    assert truth.visible is not None and np.array_equal(truth.visible & truth.valid, exact.flow_valid_noc)


def test_true_flow_aligns_the_street(street: Path) -> None:
    """The label's flow leads from the target to the source at +1: sampling there looks like the target."""
    (first, truth), *_ = flow_samples(data(street).model_copy(update={"width": 128}), (1,))
    u, v = np.meshgrid(np.arange(128, dtype=np.float32), np.arange(64, dtype=np.float32))
    target, source = (f.image[0].permute(1, 2, 0).numpy().astype(np.float32) for f in (first.target, *first.sources))
    warped = cv2.remap(source, u + truth.flow[..., 0], v + truth.flow[..., 1], cv2.INTER_LINEAR)
    seen = truth.valid & truth.visible
    errors = [float(np.abs(image - target)[seen].mean()) for image in (warped, source)]
    assert errors[0] < 0.5 * errors[1]


def test_tasks_follow_what_the_method_predicts(street: Path) -> None:
    def tasks(method: Method) -> tuple[int, int]:
        found = configured_validation(data(street, cameras=("image_02",)), method)
        return len(found.depth), len(found.flow)

    assert tasks(Constant(TinyOptions())) == (0, 2)
    assert tasks(Tiny(TinyOptions())) == (4, 0)
    assert tasks(Both(TinyOptions())) == (4, 2)
    assert not configured_validation(Data(), Tiny(TinyOptions()))


def test_data_without_such_labels_are_refused(street: Path) -> None:
    with pytest.raises(DataError, match="has no flow labels, which Constant would be validated by"):
        configured_validation(data(street, cameras=("image_03",)), Constant(TinyOptions()))
