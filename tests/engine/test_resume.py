"""A training that was killed and started again ends as if nothing had happened."""

from __future__ import annotations

import signal
from functools import cache
from pathlib import Path

import pytest
from engine_tiny import STEPS, assert_same_bits, last, metrics, run_processes, tiny_experiment

from geossl.engine.checkpoint import CheckpointError, read_checkpoint
from geossl.engine.run_folder import last_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory):
    """The run folder of an undisturbed training with some number of processes."""

    @cache
    def run(processes: int) -> Path:
        folder = tmp_path_factory.mktemp(f"undisturbed{processes}")
        assert run_processes(folder, processes) == [0] * processes
        return folder

    return run


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_training_ends_bit_identical(processes: int, workers: int, undisturbed, tmp_path: Path) -> None:
    killed = -signal.SIGKILL
    # Before the first checkpoint (after step 4), within an epoch (they have 3 steps), and while writing a checkpoint.
    assert killed in run_processes(tmp_path, processes, workers=workers, signal_at=2)
    assert not last_path(tmp_path).exists()
    assert killed in run_processes(tmp_path, processes, workers=workers, signal_at=7)
    assert last(tmp_path).state["step"] == 4
    assert run_processes(tmp_path, processes, workers=workers) == [0] * processes
    assert_same_bits(last(tmp_path), last(undisturbed(processes)))
    assert metrics(tmp_path) == metrics(undisturbed(processes))
    assert [line["step"] for line in metrics(tmp_path)] == [3, 6, 9, STEPS]


def test_kill_while_writing_a_checkpoint_keeps_the_old_one(tmp_path: Path, undisturbed) -> None:
    run_processes(tmp_path, signal_at=7)
    before = last_path(tmp_path).read_bytes()
    assert run_processes(tmp_path, kill_in_save=True) == [-signal.SIGKILL]
    assert last_path(tmp_path).read_bytes() == before
    assert run_processes(tmp_path) == [0]
    assert_same_bits(last(tmp_path), last(undisturbed(1)))
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_and_leaves(number: int, code: int, tmp_path: Path, undisturbed) -> None:
    assert run_processes(tmp_path, signal_at=5, signal_number=number) == [code]
    assert last(tmp_path).state["step"] == 6
    assert run_processes(tmp_path) == [0]
    assert_same_bits(last(tmp_path), last(undisturbed(1)))
    assert metrics(tmp_path) == metrics(undisturbed(1))


def test_finished_training_is_left_alone(undisturbed) -> None:
    folder = undisturbed(1)
    before = last_path(folder).read_bytes()
    assert run_processes(folder) == [0]
    assert last_path(folder).read_bytes() == before


def test_truncated_checkpoint_is_named(undisturbed, tmp_path: Path) -> None:
    file = tmp_path / "cut.safetensors"
    file.write_bytes(last_path(undisturbed(1)).read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is not a safetensors file, or is cut short"):
        read_checkpoint(file)


def test_signal_in_one_process_stops_all(tmp_path: Path) -> None:
    codes = run_processes(tmp_path, 2, tiny_experiment(steps=6), signal_at=3, signal_number=signal.SIGTERM)
    assert codes == [143, 143]
    assert last(tmp_path).state["step"] == 4
