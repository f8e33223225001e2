"""What a training step costs: time for data, networks, warp and loss, optimiser; and memory.

How it is measured: the step runs in its parts, the device waited for after each. The networks (the method's outermost
modules with parameters) are cut out of the graph: each returns detached copies of its outputs, so that the loss's
backward pass ends there and is timed by itself, and the networks' backward pass then starts from the gradients found.
The gradients are those of an uncut step (a test says so). Waiting after each part hides what a GPU would overlap, so
`seconds` is the time of uncut steps without waiting in between, and the shares divide it as the parts' times do.
`data` is the transfer and augmentation of a uint8 batch; decoding runs in the loader's processes, and a training's
`data_wait` figure tells whether it keeps up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from geossl.config import Augment, Train
from geossl.data.augment import augment
from geossl.engine.distributed import World, world_of
from geossl.engine.meter import memory_mb
from geossl.engine.precision import autocast
from geossl.engine.train import arrange, distribute, make_optimizer
from geossl.methods import build_method, without_pretrained
from geossl.methods.method import Method
from geossl.types import Batch, Frame

PARTS = ("data", "networks", "warp_and_loss", "optimizer")


@dataclass(frozen=True)
class StepCost:
    """The cost of a training step.

    Attributes:
        batch_size: Samples, of all processes together.
        seconds: Median time of a step.
        samples_per_second: Its inverse times the batch size.
        memory_mb: Largest memory so far: of the GPU, else resident memory of the process.
        gflop: What convolutions and matrix products multiply and add, forward and backward, in 10^9 operations.
        data, networks, warp_and_loss, optimizer: Shares of the time, summing to 1; see the module. What several
            processes tell each other is in none of them.
    """

    batch_size: int
    seconds: float
    samples_per_second: float
    memory_mb: float
    gflop: float
    data: float
    networks: float
    warp_and_loss: float
    optimizer: float

    def of_floor(self, gflops: float) -> float:
        """Share of the time that a machine needs for `gflop` when it does nothing but multiply, at this rate."""
        return self.gflop / gflops / self.seconds


def benchmark_training(
    method: str = "monodepth2",
    model: Mapping[str, Any] | None = None,
    *,
    height: int = 192,
    width: int = 640,
    batch_sizes: Sequence[int] = (4, 12),
    device: str = "auto",
    precision: str = "fp32",
    source_offsets: tuple[int, ...] = (-1, 1),
    stereo: bool = False,
    stereo_sources: bool = False,
    steps: int = 5,
    warmup: int = 2,
    progress: float = 0.0,
) -> list[StepCost]:
    """Measures training steps on random images, in ascending order of the batch size.

    Under torchrun the processes share each batch, as in a training, and every one of them measures.

    Args:
        method: A name of geossl.methods.
        model: The method's options; pre-trained weights are left out, as they cost nothing.
        height: Of the images.
        width: Of the images.
        batch_sizes: One row each.
        device: As `train.device`.
        precision: As `train.precision`; fp16 is measured without gradient scaling.
        source_offsets: The sources of a sample.
        stereo, stereo_sources: Whether samples have the other camera, at the target's time and at the sources'.
        steps: Measured steps of each kind, of which the median counts.
        warmup: Steps before.
        progress: Share of the training that is done: terms that set in later cost nothing before.

    Raises:
        ValueError: If a batch does not divide over the processes, or the device is not there.
    """
    options = Train(precision=precision, device=device)  # type: ignore[arg-type]
    values = without_pretrained(method, model or {})
    rows = []
    with world_of(device) as world:
        for batch_size in sorted(batch_sizes):
            if batch_size % world.size:
                raise ValueError(f"a batch of {batch_size} does not divide over {world.size} processes.")
            batch = random_batch(batch_size // world.size, height, width, source_offsets, stereo, stereo_sources)
            rows.append(_measure(method, values, batch, options, world, steps, warmup, progress))
    return rows


def _measure(
    method: str,
    model: Mapping[str, Any],
    batch: Batch,
    options: Train,
    world: World,
    steps: int,
    warmup: int,
    progress: float,
) -> StepCost:
    torch.manual_seed(0)
    device = world.device
    built = build_method(method, model).to(device).to(memory_format=torch.channels_last).train()
    built.progress = progress
    optimizer = make_optimizer(built, options, device)
    network = distribute(built, world)
    reset_peak(device)
    seconds = []
    for step in range(warmup + steps):
        wait(device)
        start = time.perf_counter()
        training_step(network, optimizer, batch, options, device, step)
        wait(device)
        seconds.append(time.perf_counter() - start)
    peak = peak_mb(device) or memory_mb(device)
    with FlopCounterMode(display=False) as counter:
        training_step(network, optimizer, batch, options, device, warmup + steps)
    parts = [step_in_parts(built, optimizer, batch, options, device, step) for step in range(steps)]
    medians = {name: statistics.median(part[name] for part in parts) for name in PARTS}
    shares = {name: value / sum(medians.values()) for name, value in medians.items()}
    second, samples = statistics.median(seconds[warmup:]), world.size * len(batch)
    gflop = world.size * counter.get_total_flops() / 1e9
    return StepCost(samples, second, samples / second, peak, gflop, **shares)


def cost_table(rows: Sequence[StepCost], gflops: float) -> str:
    """The rows as an aligned table, with the share of the time that the machine needs to multiply at `gflops`."""
    lines = ["batch   ms/step  samples/s  memory MB   data  networks  warp+loss  optimizer   GFLOP  of floor"]
    for r in rows:
        cost = f"{r.batch_size:5d}  {r.seconds * 1e3:8.1f}  {r.samples_per_second:9.2f}  {r.memory_mb:9.0f}"
        shares = f"{r.data:5.1%}  {r.networks:8.1%}  {r.warp_and_loss:9.1%}  {r.optimizer:9.1%}"
        lines.append(f"{cost}  {shares}  {r.gflop:6.0f}  {r.of_floor(gflops):8.0%}")
    return "\n".join(lines)


def cost_records(rows: Sequence[StepCost], gflops: float) -> list[dict[str, float]]:
    """The rows as JSON values, with `StepCost.of_floor`."""
    return [{**asdict(row), "of_floor": row.of_floor(gflops)} for row in rows]


def training_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, options: Train, device: torch.device, step: int
) -> None:
    """One plain step, as in `train`; `network` is the method, or what `distribute` made of it."""
    prepared = arrange(augment(batch.to(device), Augment(), 0, step), True)
    optimizer.zero_grad(set_to_none=True)
    with autocast(options.precision, device):
        objective = network(prepared)
    objective.total.backward()
    optimizer.step()


def step_in_parts(
    method: Method, optimizer: torch.optim.Optimizer, batch: Batch, options: Train, device: torch.device, step: int
) -> dict[str, float]:
    """One step, the device waited for after each part; seconds of each of `PARTS`."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def clocked(part: str, work: Callable[[], Any]) -> Any:
        wait(device)
        start = time.perf_counter()
        result = work()
        wait(device)
        seconds[part] += time.perf_counter() - start
        return result

    prepared = clocked("data", lambda: arrange(augment(batch.to(device), Augment(), 0, step), True))
    optimizer.zero_grad(set_to_none=True)
    with cut_networks(method, device) as cut:
        with autocast(options.precision, device):
            objective = clocked("warp_and_loss", lambda: method(prepared))
        seconds["warp_and_loss"] -= cut.seconds  # the networks' forward pass lies within
        seconds["networks"] += cut.seconds
        clocked("warp_and_loss", objective.total.backward)
        clocked("networks", cut.backward)
    clocked("optimizer", optimizer.step)
    return seconds


class Cut:
    """The places where networks were cut out of the graph, and the time of their forward passes."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[Tensor, Tensor]]] = []
        self.seconds = 0.0

    def backward(self) -> None:
        """Carries the gradients that reached the copies on into the networks, the last call first."""
        for pairs in reversed(self.calls):
            reached = [(output, copy.grad) for output, copy in pairs if copy.grad is not None]
            if reached:
                torch.autograd.backward([o for o, _ in reached], [g for _, g in reached])


@contextmanager
def cut_networks(method: nn.Module, device: torch.device) -> Iterator[Cut]:
    """While entered, the method's networks return detached copies, which `Cut.backward` joins to them again."""
    cut = Cut()
    started: list[float] = []

    def before(module: nn.Module, inputs: Any) -> None:
        wait(device)
        started.append(time.perf_counter())

    def after(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        pairs: list[tuple[Tensor, Tensor]] = []

        def copy(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.requires_grad:
                return value
            leaf = value.detach().requires_grad_()
            pairs.append((value, leaf))
            return leaf

        copied = tree_map(copy, outputs)
        wait(device)
        cut.seconds += time.perf_counter() - started.pop()
        cut.calls.append(pairs)
        return copied

    handles = []
    for network in networks_of(method):
        handles += [network.register_forward_pre_hook(before), network.register_forward_hook(after)]
    try:
        yield cut
    finally:
        for handle in handles:
            handle.remove()


def networks_of(module: nn.Module) -> list[nn.Module]:
    """The outermost called modules with parameters; lists and dicts of modules are looked into."""
    found = []
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            found += networks_of(child)
        elif any(True for _ in child.parameters()):
            found.append(child)
    return found


def random_batch(
    batch_size: int,
    height: int,
    width: int,
    source_offsets: tuple[int, ...] = (-1, 1),
    stereo: bool = False,
    stereo_sources: bool = False,
) -> Batch:
    """A uint8 batch of smooth random images with a KITTI-like camera."""
    generator = torch.Generator().manual_seed(0)
    K = torch.tensor([[0.58 * width, 0, width / 2], [0, 1.92 * height, height / 2], [0, 0, 1]])
    K = K.expand(batch_size, 3, 3).contiguous()

    def frame() -> Frame:
        coarse = torch.rand((batch_size, 3, height // 8, width // 8), generator=generator)
        image = nn.functional.interpolate(coarse, (height, width), mode="bilinear").mul(255).byte()
        return Frame(image, image, K)

    T = torch.eye(4).repeat(batch_size, 1, 1)
    T[:, 0, 3] = -0.54
    return Batch(
        target=frame(),
        sources=tuple(frame() for _ in source_offsets),
        source_offsets=source_offsets,
        stereo=frame() if stereo else None,
        stereo_sources=tuple(frame() for _ in source_offsets) if stereo_sources else (),
        T_stereo_target=T if stereo else None,
        index=torch.arange(batch_size),
        names=tuple(f"random/{index}" for index in range(batch_size)),
    )


def wait(device: torch.device) -> None:
    """Waits until the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def reset_peak(device: torch.device) -> None:
    """Forgets the largest memory so far, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of resident memory


def peak_mb(device: torch.device) -> float | None:
    """Largest memory since `reset_peak`: of the GPU, or resident where Linux tells it; else None."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return None
