"""How time and memory of a training step grow with batch, size, source frames and processes.

Every point is measured in processes of its own, so that its memory is not that of the points before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from geossl.engine.benchmark import StepCost, benchmark_training
from geossl.visualize import Picture, plot_curves, stack

# Source offsets by their number: the nearest frames first, from both sides where there are two or more.
SOURCES: dict[int, tuple[int, ...]] = {1: (1,), 2: (-1, 1), 3: (-2, -1, 1), 4: (-2, -1, 1, 2)}


@dataclass(frozen=True)
class Setup:
    """A training step of Monodepth2 from video.

    Attributes:
        batch: Samples, of all processes together.
        size: (height, width).
        sources: Source frames of a sample, a key of `SOURCES`.
        processes: That share the batch, and the threads.
    """

    batch: int = 2
    size: tuple[int, int] = (96, 320)
    sources: int = 2
    processes: int = 1


@dataclass(frozen=True)
class Growth:
    """A point of a curve.

    Attributes:
        grows: What the curve follows: batch, pixels, sources or processes.
        amount: How much of it there is here.
        setup: The step.
        seconds: Median time of a step.
        samples_per_second: Of all processes together.
        memory_mb: Largest memory of a process: of its GPU, else resident, the libraries included.
    """

    grows: str
    amount: int
    setup: Setup
    seconds: float
    samples_per_second: float
    memory_mb: float


def series(
    batches: Sequence[int], sizes: Sequence[tuple[int, int]], sources: Sequence[int], processes: Sequence[int]
) -> dict[str, list[tuple[int, Setup]]]:
    """What is measured, by what grows: (amount, step) in ascending order; all else is as `Setup` has it."""
    base = Setup()
    return {
        "batch": [(n, replace(base, batch=n)) for n in sorted(batches)],
        "pixels": sorted(((h * w, replace(base, size=(h, w))) for h, w in sizes), key=lambda point: point[0]),
        "sources": [(n, replace(base, sources=n)) for n in sorted(sources)],
        "processes": [(n, replace(base, processes=n)) for n in sorted(processes)],
    }


def growth(
    wanted: Mapping[str, Sequence[tuple[int, Setup]]], device: str = "auto", threads: int = 1, steps: int = 3
) -> Iterator[list[Growth]]:
    """The points of one curve after the other; a step that lies on several is measured once.

    Args:
        wanted: From `series`.
        device: As `train.device`.
        threads: Of all processes of a point together.
        steps: Measured steps, of which the median counts.

    Raises:
        ChildFailedError: Of torch.distributed, if a process fails; it says why.
    """

    @cache
    def cost(setup: Setup) -> StepCost:
        return measured(setup, device, threads, steps)

    for name, points in wanted.items():
        costs = [(amount, setup, cost(setup)) for amount, setup in points]
        yield [Growth(name, n, setup, c.seconds, c.samples_per_second, c.memory_mb) for n, setup, c in costs]


def measured(setup: Setup, device: str, threads: int, steps: int) -> StepCost:
    """A step's cost in new processes, as process 0 saw it."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        run_id="growth",
        nproc_per_node=setup.processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    costs = elastic_launch(config, cost_in_process)(setup, device, max(1, threads // setup.processes), steps)
    return costs[0]  # type: ignore[no-any-return]


def cost_in_process(setup: Setup, device: str, threads: int, steps: int) -> StepCost:
    """A step's cost in this process, one of those that torch.distributed started."""
    torch.set_num_threads(threads)
    height, width = setup.size
    (cost,) = benchmark_training(
        height=height,
        width=width,
        batch_sizes=(setup.batch,),
        device=device,
        source_offsets=SOURCES[setup.sources],
        steps=steps,
        warmup=1,
    )
    return cost


def growth_rows(points: Sequence[Growth]) -> list[dict[str, Any]]:
    """The points of a curve as rows of a table; `x time` and `x memory` are relative to its first."""
    first = points[0]
    return [
        {
            "batch": p.setup.batch,
            "size": f"{p.setup.size[1]}x{p.setup.size[0]}",
            "sources": p.setup.sources,
            "processes": p.setup.processes,
            "ms/step": round(1e3 * p.seconds, 1),
            "samples/s": round(p.samples_per_second, 2),
            "memory MB": round(p.memory_mb),
            f"x {p.grows}": round(p.amount / first.amount, 2),
            "x time": round(p.seconds / first.seconds, 2),
            "x memory": round(p.memory_mb / first.memory_mb, 2),
        }
        for p in points
    ]


def growth_figure(curves: Sequence[Sequence[Growth]]) -> Picture:
    """Time and memory over what grows, all relative to the first point of a curve; proportional is the diagonal."""
    pictures = []
    for title, value in (("time of a step", "seconds"), ("memory of a process", "memory_mb")):
        drawn = {}
        for points in curves:
            first = points[0]
            times = [p.amount / first.amount for p in points]
            drawn[first.grows] = times, [getattr(p, value) / getattr(first, value) for p in points]
        longest = max(max(x) for x, _ in drawn.values())
        drawn["proportional"] = [1, longest], [1, longest]
        label = "times the smallest batch, pixels, sources or processes"
        pictures.append(plot_curves(drawn, f"{title}, times the first", label, log=True, log_x=True))
    return stack(pictures)
