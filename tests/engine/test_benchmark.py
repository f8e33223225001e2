"""The timed parts of a step are the step."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from engine_tiny import HEIGHT, WIDTH, Tiny, TinyOptions

from geossl.data.augment import to_float
from geossl.engine.benchmark import (
    benchmark_training,
    cost_records,
    cost_table,
    cut_networks,
    networks_of,
    random_batch,
)
from geossl.engine.distributed import World

CPU = torch.device("cpu")


def test_cut_networks_give_the_gradients_of_an_uncut_step() -> None:
    method = Tiny(TinyOptions()).train()
    batch = to_float(random_batch(2, HEIGHT, WIDTH))
    assert networks_of(method) == [method.encoder, method.decoder]
    method(batch).total.backward()
    expected = {name: parameter.grad.clone() for name, parameter in method.named_parameters()}  # type: ignore[union-attr]
    method.zero_grad()
    with cut_networks(method, CPU) as cut:
        method(batch).total.backward()
        assert all(parameter.grad is None for parameter in method.parameters())
        cut.backward()
    for name, parameter in method.named_parameters():
        assert torch.equal(parameter.grad, expected[name]), name
    assert cut.seconds > 0


def test_benchmark_shares_add_up() -> None:
    (row,) = benchmark_training(
        "engine_tiny:Tiny", height=HEIGHT, width=WIDTH, batch_sizes=(2,), device="cpu", steps=2
    )
    assert row.data + row.networks + row.warp_and_loss + row.optimizer == pytest.approx(1)
    assert row.samples_per_second == pytest.approx(2 / row.seconds)
    assert row.memory_mb > 0
    (record,) = cost_records([row], gflops=10.0)
    assert record["batch_size"] == 2 and record["of_floor"] == pytest.approx(row.gflop / 10 / row.seconds)
    assert len(cost_table([row], gflops=10.0).splitlines()) == 2


def test_step_of_monodepth2_multiplies_as_much_as_published() -> None:
    (row,) = benchmark_training(height=64, width=64, batch_sizes=(2,), device="cpu", steps=1, warmup=0)
    per_sample = row.gflop / row.batch_size * (640 * 192) / (64 * 64)
    assert per_sample == pytest.approx(103.9, rel=0.01)


def test_steps_of_stereo_video_are_measured() -> None:
    model = {"width": 0.1}
    (row,) = benchmark_training(
        "self_mono_sf", model, height=64, width=64, batch_sizes=(1,), device="cpu", source_offsets=(1,), stereo=True,
        stereo_sources=True, steps=1, warmup=0,
    )  # fmt: skip
    assert row.seconds > 0


def test_batch_divides_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geossl.engine.benchmark.world_of", lambda device: nullcontext(World(0, 2, CPU)))
    with pytest.raises(ValueError, match="a batch of 3 does not divide over 2 processes"):
        benchmark_training("engine_tiny:Tiny", height=HEIGHT, width=WIDTH, batch_sizes=(3,), steps=1)
