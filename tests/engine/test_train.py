"""The loop: precision, order of business, what stops it and what it leaves behind."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from engine_tiny import (
    HEIGHT,
    STEPS,
    WIDTH,
    Tiny,
    TinyLoader,
    assert_same_bits,
    last,
    metrics,
    sample,
    street,
    tiny_experiment,
    train_tiny,
)

from geossl.config import ConfigError, load_experiment
from geossl.engine.checkpoint import CheckpointError
from geossl.engine.distributed import World
from geossl.engine.nonfinite import NonFiniteError, load_batch, save_batch
from geossl.engine.precision import slow_precision
from geossl.engine.train import arrange, data_facts, due
from geossl.types import Batch, collate


def test_loss_falls_and_the_folder_holds_everything(tmp_path: Path) -> None:
    result = train_tiny(tmp_path, tiny_experiment(steps=40, log_every=10))
    lines = metrics(tmp_path)
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert result.step == result.total_steps == 40 and not result.stopped and result.exit_code == 0
    assert result.model == tmp_path / "checkpoints" / "last.safetensors"
    assert load_experiment(tmp_path / "config.yaml") == tiny_experiment(steps=40, log_every=10)
    (start,) = json.loads((tmp_path / "env.json").read_text())["starts"]
    assert start["packages"]["torch"] and start["threads"] == torch.get_num_threads()
    expected = {"step", "epoch", "lr", "loss", "loss/photometric", "loss/smoothness", "health/median_depth"}
    assert expected < set(lines[0])
    raw = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert {"samples_per_second", "data_wait", "memory_mb"} < set(raw)
    assert (tmp_path / "samples" / "0000040.png").exists()


def test_logged_loss_is_the_mean_over_the_steps_since_the_last_line(tmp_path: Path) -> None:
    train_tiny(tmp_path / "every", tiny_experiment(steps=6, log_every=1))
    train_tiny(tmp_path / "third", tiny_experiment(steps=6, log_every=3))
    each = [line["loss"] for line in metrics(tmp_path / "every")]
    means = [line["loss"] for line in metrics(tmp_path / "third")]
    assert means == pytest.approx([sum(each[:3]) / 3, sum(each[3:]) / 3], rel=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_like_full(precision: str, tmp_path: Path) -> None:
    train_tiny(tmp_path / "full", tiny_experiment(steps=6))
    train_tiny(tmp_path / "half", tiny_experiment(steps=6, precision=precision))
    full, half = metrics(tmp_path / "full")[-1]["loss"], metrics(tmp_path / "half")[-1]["loss"]
    assert half == pytest.approx(full, rel=0.05)
    assert all(value.dtype != torch.half for value in last(tmp_path / "half").model.values())


def test_gradient_clipping_bounds_the_first_update(tmp_path: Path) -> None:
    train_tiny(tmp_path, tiny_experiment(steps=1, grad_clip=1e-3))
    moments = [value for name, value in last(tmp_path).optimizer.items() if name.endswith("/exp_avg")]
    # Adam's first moment after one step is 0.1 times the clipped gradient.
    assert torch.cat([m.flatten() for m in moments]).norm() == pytest.approx(1e-4, rel=1e-3)


def test_memory_layout_changes_nothing_but_rounding(tmp_path: Path) -> None:
    for name, channels_last in (("first", False), ("last", True)):
        train_tiny(tmp_path / name, tiny_experiment(steps=3, channels_last=channels_last))
    a, b = metrics(tmp_path / "first")[-1]["loss"], metrics(tmp_path / "last")[-1]["loss"]
    assert a == pytest.approx(b, rel=1e-5)
    batch = arrange(sample(0).map(lambda x: x.float()), True)
    assert batch.target.image.is_contiguous(memory_format=torch.channels_last)


def test_longer_training_goes_on_from_a_finished_one(tmp_path: Path) -> None:
    train_tiny(tmp_path, tiny_experiment(steps=4, schedule="constant"))
    train_tiny(tmp_path, tiny_experiment(steps=8, schedule="constant"))
    train_tiny(tmp_path / "once", tiny_experiment(steps=8, schedule="constant"))
    assert_same_bits(last(tmp_path), last(tmp_path / "once"), with_state=False)  # the lines' averages differ


def test_starts_from_the_weights_of_another_training(tmp_path: Path) -> None:
    train_tiny(tmp_path / "first", tiny_experiment(steps=3))
    train_tiny(tmp_path / "second", tiny_experiment(steps=1, lr=1e-12, start_from=tmp_path / "first"))
    first, second = last(tmp_path / "first").model, last(tmp_path / "second").model
    assert all(torch.allclose(first[name], second[name]) for name in first if name.endswith(("weight", "bias")))
    with pytest.raises(FileNotFoundError, match="holds no trained method"):
        train_tiny(tmp_path / "third", tiny_experiment(steps=1, start_from=tmp_path))


def test_another_experiment_in_the_folder_is_refused(tmp_path: Path) -> None:
    train_tiny(tmp_path, tiny_experiment(steps=2))
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"train\.lr: 0\.01 there, 0\.02 now") as error:
        train_tiny(tmp_path, tiny_experiment(steps=2, lr=2e-2, model={"channels": 8}))
    assert "model.channels: 4 there, 8 now" in str(error.value)
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_config_of_a_training_that_never_saved_may_be_changed(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError):
        train_tiny(tmp_path, tiny_experiment(steps=2, model={"poison_gradient": True}))
    assert train_tiny(tmp_path, tiny_experiment(steps=2)).step == 2


def test_without_resume_a_used_folder_is_refused(tmp_path: Path) -> None:
    train_tiny(tmp_path, tiny_experiment(steps=2))
    with pytest.raises(CheckpointError, match="already holds a training"):
        train_tiny(tmp_path, tiny_experiment(steps=2), resume=False)


# --- not finite ------------------------------------------------------------------------------------------------------


def test_non_finite_loss_stops_before_the_weights_change(tmp_path: Path) -> None:
    alone = World(0, 1, torch.device("cpu"))
    first, second = itertools.islice(TinyLoader(alone, 0, 0, 0).indices(), 2)
    poison = f"sample/{min(set(second) - set(first))}"
    experiment = tiny_experiment(model={"poison": poison}, log_every=1, checkpoint_every=1)
    with pytest.raises(NonFiniteError) as caught:
        train_tiny(tmp_path, experiment)
    error = caught.value
    assert error.terms == ["loss term smoothness"]
    assert error.step == 1 and error.names == [f"sample/{index}" for index in second]
    assert "in step 1" in str(error) and poison in str(error)
    # The last checkpoint is from just before, and the method in memory still has its weights.
    checkpoint = last(tmp_path)
    assert checkpoint.state["step"] == error.step
    assert Tiny.latest is not None
    for name, parameter in Tiny.latest.named_parameters():
        assert torch.equal(parameter, checkpoint.model[name])
    batch = load_batch(error.batches[0])
    assert list(batch.names) == error.names
    assert not Tiny.latest(batch).total.isfinite()  # the replay shows it


def test_non_finite_gradient_names_the_parameters(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"gradient of encoder\.0\.weight") as error:
        train_tiny(tmp_path, tiny_experiment(model={"poison_gradient": True}))
    assert error.value.step == 0


def test_fp16_overflow_skips_steps_but_not_for_ever(tmp_path: Path) -> None:
    experiment = tiny_experiment(model={"poison_gradient": True}, precision="fp16", steps=40, log_every=40)
    with pytest.raises(NonFiniteError) as error:
        train_tiny(tmp_path, experiment)
    assert error.value.step == 17  # the scale starts at 2^16 and halves each step; it is below 1 after 17


def test_saved_batch_reads_back_whole(tmp_path: Path) -> None:
    one = sample(5)
    full = Batch(
        one.target,
        sources=(sample(6).target, sample(7).target),
        source_offsets=(-1, 1),
        stereo=sample(8).target,
        T_stereo_target=torch.eye(4)[None],
        stereo_sources=(sample(9).target,),
        index=one.index,
        names=("a/b",),
    )
    batch = collate([full, full])
    save_batch(tmp_path / "batch.safetensors", batch, {"step": "1"})
    back = load_batch(tmp_path / "batch.safetensors")
    assert back.names == ("a/b", "a/b") and back.source_offsets == (-1, 1)
    assert len(back.frames) == 5
    for a, b in zip(back.frames, batch.frames, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.K, b.K)
    assert back.target.image.shape == (2, 3, HEIGHT, WIDTH)


def test_data_facts_take_the_baseline_from_the_first_batch_that_has_one() -> None:
    mono, stereo = sample(0), street(0)
    facts = data_facts(mono, {})
    assert facts["baseline_m"] is None
    both = data_facts(stereo, facts)
    assert both == facts | {"baseline_m": pytest.approx(0.54)}
    assert data_facts(mono, both) == both


def test_slow_precision_warns_of_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"architecture": "x86_64", "avx512_f": False, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: old)
    assert "no bf16 arithmetic" in slow_precision("bf16", torch.device("cpu"))
    assert slow_precision("fp32", torch.device("cpu")) == ""
    assert slow_precision("bf16", torch.device("cuda")) == ""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: old | {"avx512_f": True})
    assert slow_precision("bf16", torch.device("cpu")) == ""


def test_due_is_every_so_many_steps_and_at_the_end() -> None:
    assert [step for step in range(1, STEPS + 1) if due(step, 4, STEPS)] == [4, 8, 11]
