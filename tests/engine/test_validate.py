"""Validation scores what it should, and decides which checkpoint is best."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_tiny import HEIGHT, WIDTH, Tiny, TinyLoader, TinyOptions, sample, tiny_experiment

from geossl.engine.distributed import World
from geossl.engine.labelled import thinned
from geossl.engine.model_folder import load_model
from geossl.engine.train import train
from geossl.engine.validate import Validation, headline
from geossl.engine.validate_depth import validate_depth

ALONE = World(0, 1, torch.device("cpu"))


def labelled(method: Tiny, factors: list[float]):
    """Samples whose truth is `factor` times the method's own prediction, at twice the size."""
    items = []
    for index, factor in enumerate(factors):
        batch = sample(index)
        with torch.no_grad():
            depth = method.eval().predict_depth(batch.target.image.float() / 255, batch.target.K)[0, 0].numpy()
        items.append((batch, np.repeat(np.repeat(depth, 2, 0), 2, 1) * np.float32(factor)))
    return items


class Constant(Tiny):
    """Depth 10 everywhere."""

    def predict_depth(self, image: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
        return torch.full_like(image[:, :1], 10.0)


def test_validate_scales_by_the_median_and_not() -> None:
    method = Constant(TinyOptions())
    figures = validate_depth(method, labelled(method, [1.0, 2.0, 4.0]), ALONE)
    assert figures["median/abs_rel"] == pytest.approx(0, abs=1e-6)
    # |p - f p| / (f p) for f = 1, 2, 4 is 0, 1/2, 3/4
    assert figures["none/abs_rel"] == pytest.approx((0 + 0.5 + 0.75) / 3, rel=1e-6)
    assert figures["none/delta1"] == pytest.approx(1 / 3)
    assert figures["ratio_std"] == pytest.approx(np.std([0.5, 1, 2]))
    assert figures["images"] == 3
    assert method.training
    assert headline(figures, True) == figures["none/abs_rel"]
    assert headline(figures, False) == figures["median/abs_rel"]


def test_validate_of_a_model_up_to_scale_has_no_unscaled_score() -> None:
    method = Constant(TinyOptions())
    method.is_metric = False  # type: ignore[misc]
    assert "none/abs_rel" not in validate_depth(method, labelled(method, [1.0]), ALONE)


def test_validate_leaves_out_samples_without_labels() -> None:
    method = Constant(TinyOptions())
    items = labelled(method, [1.0, 1.0])
    items[0] = (items[0][0], np.zeros((HEIGHT, WIDTH), np.float32))
    assert validate_depth(method, items, ALONE)["images"] == 1
    with pytest.raises(ValueError, match="no validation sample has a known depth"):
        validate_depth(method, items[:1], ALONE)


def test_best_checkpoint_is_the_best_validated_one(tmp_path: Path) -> None:
    truth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    experiment = tiny_experiment(steps=20, validate_every=5, lr=0.1, schedule="constant")
    result = train(
        experiment,
        tmp_path,
        make_loader=lambda e, world, step: TinyLoader(world, 0, step, 0),
        make_validation=lambda data, method: Validation(depth=[(sample(0), truth)]),
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["validation/none/abs_rel"] for line in lines if "validation/images" in line}
    assert list(scores) == [5, 10, 15, 20]
    assert result.best == min(scores.values())
    assert result.model.name == "best.safetensors"
    assert load_model(tmp_path).info["step"] == min(scores, key=lambda step: scores[step])


def test_thinned_is_even_and_keeps_short_lists() -> None:
    assert thinned(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert thinned([1, 2], 5) == [1, 2]
    assert thinned([], 5) == []
