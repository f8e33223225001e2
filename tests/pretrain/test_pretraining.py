"""What holds for every method of pre-training: one step, exact resume, and what it says of a batch it cannot use."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geossl.config import ConfigError, parse_experiment
from geossl.engine.model_folder import export_model
from geossl.methods import build_method, method_class
from geossl.methods.method import Method
from geossl.pretrain import PRETRAINING
from geossl.pretrain.dense_infonce import DenseInfoNCE, excluded_places
from geossl.pretrain.method import Pretraining
from geossl.pretrain.video_colour import hard_flow, k_means, soft_flow
from geossl.types import Batch, Frame, MissingInput

OPTIONS: dict[str, dict[str, Any]] = {
    "pretrain_moco": {"queue": 8, "batchnorm_splits": 2, "momentum": 0.5},
    "pretrain_byol": {"momentum": 0.5},
    "pretrain_instance": {"samples": 6, "noise": 16},
    "pretrain_exemplar": {"samples": 6},
    "pretrain_jigsaw": {"orders": 10},
    "pretrain_metric triplet": {"loss": "triplet"},
    "pretrain_metric lifted": {"loss": "lifted"},
    "pretrain_metric n_pair": {"loss": "n_pair"},
    "pretrain_instance softmax": {"samples": 6, "loss": "softmax"},
    "pretrain_inpaint alone": {"adversary": 0.0},
}
CASES = [*PRETRAINING, *(name for name in OPTIONS if " " in name)]  # a method by its name, or with a variant's behind

STATEFUL = [name for name in PRETRAINING if method_class(name).after_step is not Method.after_step]


@pytest.fixture(scope="module", autouse=True)
def tracker(tmp_path_factory: pytest.TempPathFactory) -> None:
    OPTIONS["pretrain_tracking"] = {"teacher": flow_model(tmp_path_factory.mktemp("flow")), "least_motion_px": 0.0}


def build(name: str, **options: Any) -> Pretraining:
    torch.manual_seed(0)
    method = build_method(name.split()[0], {"encoder": "compact", **OPTIONS.get(name, {}), **options})
    assert isinstance(method, Pretraining)
    return method


@cache
def batch(samples: int = 3, height: int = 64, width: int = 96, seed: int = 0) -> Batch:
    """Smooth pictures; the source is the target moved 4 pixels to the right, and so on with each step of time."""
    coarse = torch.rand(samples, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    K = torch.tensor([[56.0, 0, 47.0], [0, 56.0, 31.0], [0, 0, 1]]).repeat(samples, 1, 1)
    names = tuple(f"drive{i}/image_02/{i:06d}" for i in range(samples))
    offsets = (1, -2, -1, 2)
    moved = [image.roll(4 * offset, 3) for offset in offsets]
    sources = tuple(Frame(x, x, K) for x in moved)
    return Batch(Frame(image, image, K), sources, offsets, index=torch.arange(samples), names=names)


def stepped(method: Pretraining, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
    """One step as the training loop makes it; the loss before it."""
    torch.manual_seed(100 + step)
    method.progress = step / 10
    optimizer.zero_grad()
    loss = method(batch(seed=step)).total
    loss.backward()
    optimizer.step()
    method.after_step()
    return loss.detach()


@pytest.mark.parametrize("name", CASES)
def test_one_step_reaches_every_parameter(name: str) -> None:
    method = build(name)
    objective = method(batch())
    objective.total.backward()
    assert objective.total.isfinite() and objective.total.dtype == torch.float32
    learned = {n: p for n, p in method.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned.values())
    assert any(p.grad is not None and (p.grad != 0).any() for n, p in learned.items() if n.startswith("encoder."))
    assert not any(value.requires_grad for value in (*objective.maps.values(), *objective.health.values()))


@pytest.mark.parametrize("name", CASES)
def test_a_repeated_forward_gives_the_same_objective(name: str) -> None:
    method = build(name)
    totals = []
    for _ in range(2):
        torch.manual_seed(7)
        totals.append(method(batch()).total)
    assert torch.equal(*totals)


@pytest.mark.parametrize("name", ["pretrain_dense", *STATEFUL])
def test_state_dict_goes_on_to_the_bit(name: str) -> None:
    """Queues, banks, averages: what a step needs of the steps before is in the state dict and the optimiser."""
    method = build(name)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 1e-3)
    for step in range(3):
        stepped(method, optimizer, step)
    other = build(name, encoder_weights=None)
    other.load_state_dict(method.state_dict())
    its_optimizer = torch.optim.Adam([p for p in other.parameters() if p.requires_grad], 1e-3)
    its_optimizer.load_state_dict(deepcopy(optimizer.state_dict()))  # else both share their moments
    for step in range(3, 5):
        assert torch.equal(stepped(method, optimizer, step), stepped(other, its_optimizer, step))


def test_bfloat16_networks_leave_objectives_in_float32() -> None:
    for name in CASES:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            objective = build(name)(batch())
        assert objective.total.dtype == torch.float32 and objective.total.isfinite(), name


@pytest.mark.parametrize(
    "name",
    ["simclr", "byol", "dense", "align_uniform", "metric", "infomax", "cmc", "order", "tracking"],
)
def test_a_batch_of_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"tells samples of a batch apart.*batch_size to at least 2"):
        build(f"pretrain_{name}")(batch(samples=1))


@pytest.mark.parametrize("name", ["pretrain_flow", "pretrain_colour", "pretrain_arrow", "pretrain_tracking"])
def test_missing_sources_are_named(name: str) -> None:
    with pytest.raises(MissingInput, match=r"needs batch.sources"):
        build(name)(replace(batch(), sources=(), source_offsets=()))


def test_moco_moves_after_the_step_only() -> None:
    method: Any = build("pretrain_moco")
    before = {name: value.clone() for name, value in method.state_dict().items()}
    keys, when = None, None
    method(batch())
    keys, when = method._fresh
    assert not keys.requires_grad and torch.equal(method.queue.keys, before["queue.keys"])
    method.after_step()
    assert torch.allclose(method.queue.keys[:3], keys) and torch.equal(method.queue.recording[:3], when.recording)
    assert torch.equal(method.queue.keys[3:], before["queue.keys"][3:])


def test_byol_gradient_reaches_the_predictor_and_not_the_target() -> None:
    method: Any = build("pretrain_byol")
    method(batch()).total.backward()
    assert all(p.grad is not None for p in method.predictor.parameters())
    assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())


def test_instance_beyond_the_bank_is_named() -> None:
    with pytest.raises(ValueError, match=r"sample 2 is beyond model.samples = 2"):
        build("pretrain_instance", samples=2)(batch())


def test_near_samples_are_no_negatives() -> None:
    """Of one recording and time, the pooled loss has no negatives left but is no error; far apart it has."""
    method = build("pretrain_simclr")
    near = replace(batch(), names=("d/000001", "d/000002", "d/000003"))
    torch.manual_seed(1)
    assert method(near).total.item() == pytest.approx(0.0, abs=1e-6)
    torch.manual_seed(1)
    assert method(batch()).total.item() > 0.1


# --- dense -----------------------------------------------------------------------------------------------------------


def test_excluded_places_are_near_ones_and_near_samples() -> None:
    xy = torch.tensor([[[0.0, 3.0, 9.0]], [[0.0, 3.0, 9.0]], [[0.0, 3.0, 9.0]]]).repeat(1, 2, 1)
    near = torch.eye(3, dtype=torch.bool)
    near[0, 2] = near[2, 0] = True
    excluded = excluded_places(xy, near, radius_px=5.0)
    close = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    for i in range(3):
        for j in range(3):
            block = excluded[3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
            assert torch.equal(block, close if i == j else near[i, j].expand(3, 3))


def test_pairs_of_frames_need_a_teacher() -> None:
    with pytest.raises(ConfigError, match="pairs: stereo needs `teacher`"):
        parse_experiment({"method": "pretrain_dense", "model": {"pairs": "stereo"}})


def flow_model(folder: Path) -> str:
    """An untrained model of flow in a model folder."""
    from geossl.engine.checkpoint import save_checkpoint
    from geossl.engine.run_folder import last_path
    from geossl.engine.train import make_optimizer

    experiment = parse_experiment({"method": "arflow", "model": {"width": 0.1}})
    method = build_method("arflow", experiment.model)
    optimizer = make_optimizer(method, experiment.train, torch.device("cpu"))
    save_checkpoint(last_path(folder), method, optimizer, experiment, {"step": 1})
    return str(export_model(folder, folder / "model"))


@pytest.mark.parametrize("name", ["pretrain_dense", "pretrain_flow"])
def test_teacher_of_flow_is_used_and_not_kept(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"teacher": flow_model(tmp_path), "least_motion_px": 0.0}
    options |= {"pairs": "temporal"} if name == "pretrain_dense" else {}
    method = build(name, **options)
    torch.manual_seed(3)
    first = method(batch())
    torch.manual_seed(3)
    assert torch.equal(first.total, method(batch()).total)  # reading the teacher drew no random numbers
    first.total.backward()
    assert first.total.isfinite()
    assert not any("teacher" in key for key in method.state_dict())


def test_unfit_teacher_is_named(tmp_path: Path) -> None:
    stereo = replace(batch(), stereo=batch().sources[0], T_stereo_target=torch.eye(4).repeat(3, 1, 1))
    teacher = flow_model(tmp_path)
    with pytest.raises(MissingInput, match="teacher that predicts depth in metres, and ARFlow does not"):
        build("pretrain_dense", pairs="stereo", teacher=teacher)(stereo)
    with pytest.raises(MissingInput, match=r"pairs: stereo needs batch\.stereo"):
        build("pretrain_dense", pairs="stereo", teacher=teacher)(batch())
    with pytest.raises(FileNotFoundError, match="neither a run folder"):
        build("pretrain_dense", pairs="temporal", teacher=str(tmp_path / "none"))(batch())


@pytest.mark.slow
def test_dense_learns_to_find_places() -> None:
    """Of true correspondences the loss falls well below that of shuffled ones, which stays near chance."""

    class Shuffled(DenseInfoNCE):
        def descriptors(self, pair: Any, maps: Tensor) -> Any:
            query, key, xy, valid = super().descriptors(pair, maps)
            return query, key[torch.randperm(len(key))], xy, valid

    losses = {}
    for cls in (DenseInfoNCE, Shuffled):
        torch.manual_seed(0)
        method = cls(cls.Options(encoder="compact", dense_weight=1.0, places=32, radius_px=4.0))
        optimizer = torch.optim.Adam(method.parameters(), 3e-3)
        losses[cls] = torch.stack([stepped(method, optimizer, step) for step in range(80)])[-20:].mean().item()
    chance = math.log(3 * 32 * 0.7)  # about as many places are valid
    assert losses[DenseInfoNCE] < 0.75 * losses[Shuffled] and losses[Shuffled] > chance - 0.5


# --- video colour ----------------------------------------------------------------------------------------------------


def test_ideal_features_give_the_flow_of_a_shift() -> None:
    h, w = 5, 7
    target = torch.eye(h * w).view(1, h * w, h, w) * 20
    source = target.roll((1, 2), (2, 3))  # what is at (v, u) moves to (v + 1, u + 2)
    attention = soft_flow(target, source[None])
    assert torch.allclose(attention.sum(2), torch.ones(1, h * w))
    flow = hard_flow(attention, (h, w))
    assert (flow[0, 0, :4, :5] == 2).all() and (flow[0, 1, :4, :5] == 1).all()


def test_k_means_finds_separate_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 6.0]])
    points = (true[:, None] + 0.1 * torch.randn(3, 50, 2, generator=generator)).flatten(0, 1)
    centres = k_means(points, 3)
    assert torch.cdist(true, centres).amin(1).max() < 0.1
