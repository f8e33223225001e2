"""Checkpoints are whole or absent, and fit or say why not."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from engine_tiny import Tiny, TinyOptions, last, tiny_experiment, train_tiny

from geossl.engine.checkpoint import (
    CheckpointError,
    load_optimizer,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    weights_hash,
    write_safetensors,
)
from geossl.engine.run_folder import last_path
from geossl.engine.train import make_optimizer


@contextmanager
def largest_file(size: int):
    """The system refuses to make a file longer than `size`, as a full disk would, in the middle of writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def saved(path: Path) -> Tiny:
    method = Tiny(TinyOptions())
    experiment = tiny_experiment()
    optimizer = make_optimizer(method, experiment.train, torch.device("cpu"))
    save_checkpoint(path, method, optimizer, experiment, {"step": 1})
    return method


def test_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    saved(path)
    before = path.read_bytes()
    with largest_file(len(before) // 2), pytest.raises(CheckpointError, match=r"could not be written.*is intact"):
        saved(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_full_disk_stops_a_training_that_can_then_go_on(tmp_path: Path) -> None:
    train_tiny(tmp_path / "undisturbed")
    train_tiny(tmp_path / "run", tiny_experiment(steps=4, log_every=3))
    before = last_path(tmp_path / "run").stat().st_size
    with largest_file(before // 2), pytest.raises(CheckpointError, match="Make room and start again"):
        train_tiny(tmp_path / "run", tiny_experiment(sample_every=1000))
    assert last(tmp_path / "run").state["step"] == 4
    train_tiny(tmp_path / "run")
    assert last(tmp_path / "run").state["step"] == last(tmp_path / "undisturbed").state["step"]


def test_load_weights_names_missing_unexpected_and_misshaped() -> None:
    method = Tiny(TinyOptions())
    weights = dict(method.state_dict())
    weights["decoder.kernel"] = weights.pop("decoder.weight")
    weights["encoder.0.bias"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as error:
        load_weights(method, weights, "old.safetensors")
    message = str(error.value)
    assert "old.safetensors does not fit Tiny" in message
    assert "missing: decoder.weight" in message
    assert "not in the model: decoder.kernel" in message
    assert "encoder.0.bias is (7,), expected (4,)" in message


def test_load_optimizer_keeps_the_memory_layout_of_parameters(tmp_path: Path) -> None:
    train_tiny(tmp_path, tiny_experiment(steps=2))
    method = Tiny(TinyOptions()).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(method, tiny_experiment().train, torch.device("cpu"))
    load_optimizer(optimizer, method, last(tmp_path).optimizer, "here")
    for parameter, slots in optimizer.state.items():
        assert slots["exp_avg"].stride() == parameter.stride()
        assert int(slots["step"]) == 2
    with pytest.raises(CheckpointError, match="fits no parameter"):
        load_optimizer(optimizer, method, {"elsewhere/exp_avg": torch.zeros(3)}, "here")


def test_foreign_files_are_named(tmp_path: Path) -> None:
    pickle = tmp_path / "model.pth"
    torch.save({"weight": torch.zeros(3)}, pickle)
    with pytest.raises(CheckpointError, match=r"model\.pth is not a safetensors file"):
        read_checkpoint(pickle)
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, foreign)
    with pytest.raises(CheckpointError, match="not a geossl checkpoint"):
        read_checkpoint(foreign)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "absent.safetensors")


def test_weights_hash_tells_values_names_and_shapes_apart() -> None:
    a = {"x": torch.arange(6.0), "y": torch.tensor(3)}
    same = {"y": torch.tensor(3), "x": torch.arange(6.0)}
    assert weights_hash(a) == weights_hash(same)
    others = [a | {"x": torch.arange(6.0).view(2, 3)}, a | {"x": torch.arange(6.0) + 1e-6}, {"x": a["x"], "z": a["y"]}]
    assert len({weights_hash(other) for other in (a, *others)}) == 4


def test_write_safetensors_takes_shared_and_strided_tensors(tmp_path: Path) -> None:
    grid = torch.arange(6.0).view(2, 3)
    write_safetensors(tmp_path / "x.safetensors", {"a": grid, "b": grid.T, "c": grid}, {})
    assert torch.equal(safetensors.torch.load_file(tmp_path / "x.safetensors")["b"], grid.T)
