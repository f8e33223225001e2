"""Several processes compute what one does."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from engine_tiny import (
    Tiny,
    TinyOptions,
    assert_same_bits,
    last,
    metrics,
    run_processes,
    tiny_experiment,
    train_tiny,
)

from geossl.config import ConfigError, Experiment
from geossl.data.samples import DataError
from geossl.engine.distributed import World, fresh_store, pick_device, share_of, world_of
from geossl.engine.train import configured_loader, step_seed

ONE_STEP = {"steps": 1, "log_every": 1, "checkpoint_every": 1, "freeze_batchnorm": True}


MONODEPTH2 = {"method": "monodepth2", "model": {"supervision": "MS", "encoder_weights": None}}


@pytest.mark.parametrize(
    ("experiment", "streets"),
    [
        (tiny_experiment(**ONE_STEP), False),
        pytest.param(tiny_experiment(**ONE_STEP, **MONODEPTH2), True, marks=pytest.mark.slow),
    ],
    ids=["tiny", "monodepth2"],
)
def test_two_processes_with_half_the_batch_give_the_loss_and_gradients_of_one(
    experiment: Experiment, streets: bool, tmp_path: Path
) -> None:
    assert run_processes(tmp_path / "one", 1, experiment, streets=streets) == [0]
    assert run_processes(tmp_path / "two", 2, experiment, streets=streets) == [0, 0]
    (one,), (two,) = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    for name in ("loss", "loss/photometric", "loss/smoothness", "health/gradient_norm"):
        assert two[name] == pytest.approx(one[name], rel=1e-6), name
    # Adam's first moment after one step is (1 - beta1) times the gradient.
    ones, twos = last(tmp_path / "one").optimizer, last(tmp_path / "two").optimizer
    names = [name for name in ones if name.endswith("/exp_avg")]
    expected, found = (torch.cat([slots[name].flatten() for name in names]) for slots in (ones, twos))
    assert (found - expected).norm() < 1e-6 * expected.norm()


def test_frozen_batchnorm_keeps_its_statistics(tmp_path: Path) -> None:
    train_tiny(tmp_path, tiny_experiment(**ONE_STEP))
    model = last(tmp_path).model
    assert torch.equal(model["encoder.1.running_mean"], torch.zeros(4))
    assert int(model["encoder.1.num_batches_tracked"]) == 0
    assert not torch.equal(model["encoder.1.weight"], torch.ones(4))  # its scale still learns


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    run_processes(tmp_path, 2, tiny_experiment(steps=3))
    assert sorted(file.name for file in tmp_path.rglob("*.*") if file.is_file() and "events" not in file.name) == [
        "0000003.png",
        "config.yaml",
        "env.json",
        "last.safetensors",
        "metrics.jsonl",
    ]
    assert [line["step"] for line in metrics(tmp_path)] == [3]


@pytest.mark.slow
def test_torchrun_restarts_a_killed_process_and_the_training_goes_on(tmp_path: Path) -> None:
    child = (
        f"import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path\n"
        "import torch; torch.set_num_threads(1)\n"
        "from engine_tiny import train_tiny\n"
        "first = os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and os.environ['RANK'] == '1'\n"
        f"train_tiny(Path({str(tmp_path / 'elastic')!r}), signal_at=7 if first else None)\n"
    )
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command = [*start, "--no-python", sys.executable, "-c", child]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "going on from step 4 of 11" in done.stderr
    assert run_processes(tmp_path / "undisturbed", 2) == [0, 0]
    assert_same_bits(last(tmp_path / "elastic"), last(tmp_path / "undisturbed"))
    assert metrics(tmp_path / "elastic") == metrics(tmp_path / "undisturbed")


def test_fresh_store_ignores_what_killed_processes_left() -> None:
    store = dist.HashStore()
    store.set("geossl/token/1", "of a killed process")
    store.set("geossl/session/of a killed process", "old")
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):  # attempts, one after another on one store
            found = list(pool.map(lambda rank: fresh_store(store, rank, 3, 30), (0, 1, 2)))
            assert not found[1].check(["address"])
            found[0].set("address", "here")
            assert [part.get("address") for part in found] == [b"here"] * 3
    with pytest.raises(TimeoutError, match=r"processes \[1, 2\] of 3"):
        fresh_store(dist.HashStore(), 0, 3, patience_s=0.1)


def test_killed_process_is_reported_by_its_signal(tmp_path: Path) -> None:
    assert run_processes(tmp_path, 1, signal_at=0) == [-signal.SIGKILL]


def test_single_world_is_transparent() -> None:
    world = World(0, 1, torch.device("cpu"))
    values = torch.tensor([1.0, 2.0])
    assert world.any(True, False) == (True, False)
    assert world.mean(values) is values
    assert world.gather("x") == ["x"]
    world.share_buffers(Tiny(TinyOptions()))


def test_share_of_deals_every_item_once() -> None:
    parts = [share_of(range(7), World(rank, 3, torch.device("cpu"))) for rank in range(3)]
    assert sorted(item for part in parts for item in part) == list(range(7))


def test_pick_device_says_what_is_missing() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="PyTorch sees no GPU"):
        pick_device("cuda")
    with world_of("auto") as world:
        assert world.device.type in ("cpu", "mps")


def test_step_seed_differs_between_neighbours() -> None:
    seeds = {step_seed(s, t, r) for s in range(5) for t in range(50) for r in range(4)}
    assert len(seeds) == 5 * 50 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_no_training_data_is_a_clear_error() -> None:
    with pytest.raises((DataError, ConfigError), match=r"data\.train"):
        configured_loader(tiny_experiment(), World(0, 1, torch.device("cpu")), 0)
