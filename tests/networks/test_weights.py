"""Reading state dicts."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch import nn

from geossl.networks.weights import load_named, read_state_dict, strip_prefixes


def test_read_state_dict_unwraps_and_keeps_tensors_only(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"a": torch.ones(2), "height": 192}}, tmp_path / "w.pth.tar")
    state = read_state_dict(tmp_path / "w.pth.tar")
    assert list(state) == ["a"]


def test_read_state_dict_never_unpickles_objects(tmp_path: Path) -> None:
    torch.save({"hparams": argparse.Namespace(lr=1), "a": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth cannot be read as weights"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_read_state_dict_names_broken_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no weights file .*{name}"):
        read_state_dict(tmp_path / name)
    for content in (b"", b"not weights at all", b"PK\x03\x04 truncated zip"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read as weights"):
            read_state_dict(tmp_path / name)


def test_read_state_dict_refuses_files_without_tensors(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no tensors by name"):
        read_state_dict(tmp_path / "w.pth")


def test_strip_prefixes_removes_only_what_all_names_share() -> None:
    one = torch.ones(1)
    assert list(strip_prefixes({"module.encoder.a": one, "module.encoder.b": one})) == ["a", "b"]
    assert list(strip_prefixes({"encoder.a": one, "b": one})) == ["encoder.a", "b"]
    assert strip_prefixes({}) == {}


def test_load_named_says_all_kinds_of_misfit() -> None:
    state = {"weight": torch.ones(2, 5), "extra": torch.ones(1)}
    with pytest.raises(ValueError, match=r"file does not fit Linear: .*'bias'.*\(2, 5\) where \(2, 3\).*'extra'"):
        load_named(nn.Linear(3, 2), state, "file")


def test_load_named_counts_absent_batch_counters_as_zero() -> None:
    norm = nn.BatchNorm2d(2)
    norm.num_batches_tracked += 5
    load_named(norm, {k: v for k, v in nn.BatchNorm2d(2).state_dict().items() if "num" not in k}, "file")
    assert norm.num_batches_tracked == 0
