"""The training loop.

Everything random is a function of (seed, step, process) or (seed, epoch, sample), and the learning rate one of the
step: a training that was killed at any step and goes on from its last checkpoint ends as if nothing had happened (on a
CPU to the bit, with as many threads and the same kernels). `train` is the loop, from top to bottom; what follows are
its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from geossl import kernels
from geossl.config import Data, Experiment, Train, parse_experiment
from geossl.data.augment import augment
from geossl.data.build import build_loader
from geossl.engine.checkpoint import Checkpoint, load_optimizer, load_weights, save_checkpoint
from geossl.engine.distributed import World, world_of
from geossl.engine.health import Health, depth_bounds
from geossl.engine.log import Log
from geossl.engine.meter import Meter
from geossl.engine.nonfinite import non_finite_error
from geossl.engine.precision import autocast, slow_precision
from geossl.engine.run_folder import best_path, last_path, open_run
from geossl.engine.schedule import learning_rate
from geossl.engine.stop import StopRequest
from geossl.engine.validate import Validation, configured_validation, headline, validate
from geossl.methods import build_method, without_pretrained
from geossl.methods.method import Method
from geossl.networks.handover import origin
from geossl.networks.weights import read_model_weights
from geossl.types import Batch


class Loader(Protocol):
    """Batches without end, from a given step on; `steps_per_epoch` of them are an epoch."""

    steps_per_epoch: int

    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Attributes:
        run: Its folder.
        step: Steps done, of `total_steps`.
        stopped: Whether a signal ended it early; started again, it goes on.
        exit_code: 0 when done; 143 after SIGTERM, 130 after Ctrl-C.
        best: The best validation score (see `validate.headline`), None without validation.
        validation: The figures of the last validation.
        model: The checkpoint to use: the best one, else the last.
    """

    run: Path
    step: int
    total_steps: int
    stopped: bool
    exit_code: int
    best: float | None
    validation: dict[str, float]
    model: Path


@dataclass
class State:
    """Where a training stands; together with weights and optimiser all that a checkpoint needs."""

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    validation: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def train(
    experiment: Experiment,
    run: str | Path,
    *,
    resume: bool = True,
    make_loader: Callable[[Experiment, World, int], Loader] | None = None,
    make_validation: Callable[[Data, Method], Validation] = configured_validation,
) -> TrainResult:
    """Trains an experiment in a run folder, going on from its last checkpoint.

    Args:
        experiment: What to train.
        run: The run folder; see `run_folder`.
        resume: False refuses a folder that already holds a checkpoint.
        make_loader: (experiment, world, first step) -> this process's batches; default: the sources of `data.train`.
        make_validation: (data, method) -> labelled samples; default: the sources of `data.validation`.

    Raises:
        ConfigError: If the folder holds another experiment, or the batch does not divide over the processes.
        NonFiniteError: If a loss or gradient is not finite; the batch is saved, the weights are as before the step.
        CheckpointError: If a checkpoint cannot be read or written.
        MissingInput: If the method needs what the data do not give.
    """
    run, experiment = Path(run), parse_experiment(experiment.model_dump(mode="json"), where="experiment")
    options = experiment.train
    with world_of(options.device) as world, StopRequest() as stop, kernels.use(options.kernels):
        checkpoint = open_run(run, experiment, world, resume)
        start = 0 if checkpoint is None else int(checkpoint.state["step"])
        loader = (make_loader or configured_loader)(experiment, world, start)
        method = first_method(experiment, world, pretrained=checkpoint is None)
        samples = make_validation(experiment.data, method)
        optimizer = make_optimizer(method, options, world.device)
        scaler = torch.amp.GradScaler(world.device.type, enabled=options.precision == "fp16")
        total = options.steps or options.epochs * loader.steps_per_epoch
        state, meter = State(), Meter(world, options.batch_size, Health(total, depth_bounds(method)))
        if checkpoint is not None:
            restore(checkpoint, method, optimizer, scaler, state, meter)
        network = distribute(method, world)
        parameters = [p for p in method.parameters() if p.requires_grad]

        with Log(run, state.step, total, world.is_main) as log:

            def save(path: Path) -> None:
                moving = meter.state() | {"scaler": scaler.state_dict()}
                if world.is_main:
                    log.flush()
                    save_checkpoint(path, method, optimizer, experiment, vars(state) | moving)

            log.say(opening(run, experiment, world, method, state, total))
            if checkpoint is None and (known := origin(experiment.model.get("encoder_weights"))):
                log.say(known)
            for note in selection_notes(loader):
                log.say(note)
            if slow := slow_precision(options.precision, world.device):
                log.warn(slow)
            if without := kernels.slower(world.device):
                log.warn(without)
            stream, stopping = iter(loader), False
            meter.clock.restart()
            while state.step < total and not stopping:
                step, epoch = state.step, state.step // loader.steps_per_epoch
                with meter.clock.waiting():
                    batch = next(stream)
                state.facts = data_facts(batch, state.facts)
                torch.manual_seed(step_seed(options.seed, step, world.rank))  # so no random state need be saved
                batch = augment(batch.to(world.device), experiment.data.augment, options.seed, epoch)
                batch = arrange(batch, options.channels_last)
                lr = learning_rate(step, total, options)
                for group in optimizer.param_groups:
                    group["lr"] = lr

                set_mode(method, options.freeze_batchnorm)
                method.progress = step / total
                optimizer.zero_grad(set_to_none=True)
                with autocast(options.precision, world.device):  # networks only: losses and geometry leave it
                    objective = network(batch)
                loss = objective.total
                scaler.scale(loss).backward()  # several processes: gradients are averaged over them here
                scaler.unscale_(optimizer)
                norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
                # All processes fail or leave at the same step, and before the weights are touched.
                failed, stopping = world.any(not sound(loss, norm, scaler), stop.requested)
                if failed:
                    raise non_finite_error(run, experiment, world, step, batch, objective, method)
                if options.grad_clip is not None:
                    clip_grads_with_norm_(parameters, options.grad_clip, norm)
                scaler.step(optimizer)  # fp16 leaves a step out where its scaled gradients overflowed
                scaler.update()
                method.after_step()
                state.step = step + 1

                meter.add(objective, norm)
                log.advance(state.step)
                if due(state.step, options.log_every, total):
                    figures, warnings = meter.read(state.step)
                    figures = {"epoch": state.step / loader.steps_per_epoch, "lr": lr, **figures}
                    log.train_line(state.step, figures, warnings)
                with meter.clock.outside():
                    if due(state.step, options.sample_every, total):
                        log.pictures(state.step, objective.maps)
                    if samples and due(state.step, options.validate_every, total):
                        state.validation = validate(method, samples, world, options.precision)
                        log.validation_line(state.step, state.validation)
                        score = headline(state.validation, method.is_metric)
                        if state.best is None or score < state.best:
                            state.best, state.best_step = score, state.step
                            save(best_path(run))
                    if stopping or due(state.step, options.checkpoint_every, total):
                        save(last_path(run))

            if skipped := skipped_samples(loader):
                log.warn(f"{len(skipped)} samples could not be read and were left out: {', '.join(skipped[:5])} ...")
            left_early = state.step < total
            if left_early:
                log.say(f"stopped by a signal after step {state.step} of {total}; saved. Start again to go on.")
            code = max(world.gather(stop.exit_code)) if left_early else 0
        model = best_path(run) if best_path(run).exists() else last_path(run)
        return TrainResult(run, state.step, total, left_early, code, state.best, state.validation, model)


def due(step: int, every: int, total: int) -> bool:
    """Whether something done every so many steps, and at the end, is done after `step` steps."""
    return step % every == 0 or step == total


def step_seed(seed: int, step: int, rank: int) -> int:
    """A number for each (seed, step, process), spread over 63 bits (the finaliser of splitmix64)."""
    x = (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + rank * 0x8CB92BA72F3D8DD7) % 2**64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return (x ^ (x >> 31)) >> 1


def first_method(experiment: Experiment, world: World, pretrained: bool) -> Method:
    """The method on its device: the same first weights in every process.

    Args:
        pretrained: False where a checkpoint's weights follow, so that no others are fetched for them.

    Raises:
        CheckpointError: If `train.start_from` holds the weights of another method or of other options.
    """
    torch.manual_seed(experiment.train.seed)
    name, options = experiment.method, experiment.model
    method = build_method(name, options if pretrained else without_pretrained(name, options)).to(world.device)
    start_from = experiment.train.start_from
    if pretrained and start_from is not None:
        load_weights(method, read_model_weights(start_from), str(start_from))
    if experiment.train.channels_last:
        method = method.to(memory_format=torch.channels_last)
    return method


def make_optimizer(method: nn.Module, options: Train, device: torch.device) -> torch.optim.Optimizer:
    """Adam or AdamW over the parameters that learn, fused into few kernels where the device has them."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.optimizer]
    parameters = [p for p in method.parameters() if p.requires_grad]
    fused = device.type in ("cuda", "cpu", "mps")
    return kind(parameters, lr=options.lr, betas=options.betas, weight_decay=options.weight_decay, fused=fused)


def distribute(method: Method, world: World) -> nn.Module:
    """The method itself, or wrapped so that gradients are averaged over the processes."""
    if world.size == 1:
        return method
    return DistributedDataParallel(method, find_unused_parameters=not method.uses_all_parameters)


def restore(
    checkpoint: Checkpoint,
    method: Method,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    state: State,
    meter: Meter,
) -> None:
    """Puts everything where the checkpoint left it."""
    where, saved = str(checkpoint.path), checkpoint.state
    load_weights(method, checkpoint.model, where)
    load_optimizer(optimizer, method, checkpoint.optimizer, where)
    scaler.load_state_dict(saved["scaler"])
    meter.restore(saved)
    for name in vars(state):
        setattr(state, name, saved[name])


def set_mode(method: nn.Module, freeze_batchnorm: bool) -> None:
    """Training mode; frozen batch norm keeps using, and does not update, its running statistics."""
    method.train()
    if freeze_batchnorm:
        for module in method.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def arrange(batch: Batch, channels_last: bool) -> Batch:
    """The batch's images in the memory layout of the networks."""
    if not channels_last:
        return batch
    return batch.map(lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x)


def sound(loss: Tensor, gradient_norm: Tensor, scaler: torch.amp.GradScaler) -> bool:
    """Whether loss and gradient are finite. Waits for the device: a bad step must not reach the weights.

    fp16 gradients may overflow while their scale is being found; they count once the scale has fallen below 1.
    """
    loss_ok, gradient_ok = torch.stack([loss.detach(), gradient_norm.to(loss.device)]).isfinite().tolist()
    overflow = scaler.is_enabled() and scaler.get_scale() >= 1
    return loss_ok and (gradient_ok or overflow)


def data_facts(batch: Batch, known: dict[str, Any]) -> dict[str, Any]:
    """What a model's user should know of the data it learned from: image size and the first sample's calibration.

    Args:
        batch: As loaded.
        known: The facts found so far; only a missing baseline is still looked for.
    """
    stereo = batch.T_stereo_target
    if known:
        if known["baseline_m"] is not None or stereo is None:
            return known
        return known | {"baseline_m": float(stereo[0, :3, 3].norm())}
    height, width = batch.target.height, batch.target.width
    K = batch.target.K[0].double()
    return {
        "height": height,
        "width": width,
        # fx / W, fy / H, (cx + 0.5) / W, (cy + 0.5) / H: the same at every size of the image
        "intrinsics_of_size": [
            float(K[0, 0] / width),
            float(K[1, 1] / height),
            float((K[0, 2] + 0.5) / width),
            float((K[1, 2] + 0.5) / height),
        ],
        "baseline_m": None if stereo is None else float(stereo[0, :3, 3].norm()),
        "source_offsets": list(batch.source_offsets),
    }


def opening(run: Path, experiment: Experiment, world: World, method: nn.Module, state: State, total: int) -> str:
    """The line a training starts with."""
    count = sum(p.numel() for p in method.parameters()) / 1e6
    verb = f"going on from step {state.step} of {total}" if state.step else f"training {total} steps"
    processes = f", {world.size} processes" if world.size > 1 else ""
    return f"{experiment.method} ({count:.1f} M parameters) in {run}: {verb} on {world.device}{processes}"


def configured_loader(experiment: Experiment, world: World, start_step: int) -> Loader:
    """Batches of the sources of `data.train`."""
    data, options = experiment.data, experiment.train
    return build_loader(data, options, world.rank, world.size, start_step)


def skipped_samples(loader: Loader) -> list[str]:
    """Samples that `data.on_error: skip` left out while loading, in any loader process of this process."""
    return list(getattr(getattr(loader, "dataset", None), "unreadable", ()))


def selection_notes(loader: Loader) -> Sequence[str]:
    """What was left out of the training data by choice, and why."""
    return tuple(getattr(getattr(loader, "dataset", None), "notes", ()))
