"""The figures of a training: means over the steps since the last line, rates, memory, health.

Scalars are summed on the device without waiting for it. What is not yet in a line goes into the checkpoint, so that
the lines of a resumed training are those of an undisturbed one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from geossl.engine.distributed import World
from geossl.engine.health import Health
from geossl.types import Objective, tensors_of


class Meter:
    """Averages, clock and health of a training, read once for each line.

    Args:
        world: The processes, over which figures are averaged.
        batch_size: Samples a step over all of them.
        health: The health checks.
    """

    def __init__(self, world: World, batch_size: int, health: Health) -> None:
        self.world, self.batch_size, self.health = world, batch_size, health
        self.averages, self.clock = Averages(), Clock()

    def add(self, objective: Objective, gradient_norm: Tensor) -> None:
        """Takes in one step."""
        self.averages.add(tensors_of(objective) | {"health/gradient_norm": gradient_norm})

    def read(self, step: int) -> tuple[dict[str, float], list[str]]:
        """The figures since the last line, and warnings; every process calls it at the same step."""
        self.averages.share(self.world)
        figures, steps = self.averages.read()
        health = {name.removeprefix("health/"): x for name, x in figures.items() if name.startswith("health/")}
        derived, warnings = self.health.update(step, health, steps)
        figures |= {f"health/{name}": value for name, value in derived.items()}
        figures |= self.clock.figures(steps, self.batch_size) | {"memory_mb": memory_mb(self.world.device)}
        self.clock.restart()
        return figures, warnings

    def state(self) -> dict[str, Any]:
        """JSON values that `restore` takes; every process calls it at the same step."""
        self.averages.share(self.world)  # process 0 saves, and must know every process's part
        return {"averages": self.averages.state(), "health": self.health.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint's state."""
        self.averages.restore(state["averages"], self.world.device)
        self.health.restore(state["health"])


class Averages:
    """Running means of scalars on the device; a scalar that some steps lack is averaged over the others."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.steps = 0

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Takes in one step's scalars."""
        for name, value in scalars.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.steps += 1

    def share(self, world: World) -> None:
        """Replaces the sums by their means over the processes, which see batches of one kind."""
        if self.sums:
            shared = world.mean(torch.stack(list(self.sums.values())))
            self.sums = dict(zip(self.sums, shared.unbind(), strict=True))

    def read(self) -> tuple[dict[str, float], int]:
        """The means and the number of steps they cover; starts anew."""
        values = torch.stack(list(self.sums.values())).tolist() if self.sums else []
        means = {name: value / self.counts[name] for name, value in zip(self.sums, values, strict=True)}
        steps, self.sums, self.counts, self.steps = self.steps, {}, {}, 0
        return means, steps

    def state(self) -> dict[str, Any]:
        """JSON values that `restore` takes."""
        sums = {name: float(value) for name, value in self.sums.items()}
        return {"sums": sums, "counts": dict(self.counts), "steps": self.steps}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Goes on from a checkpoint's state."""
        self.sums = {name: torch.tensor(value, device=device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])
        self.steps = int(state["steps"])


class Clock:
    """Where the time since the last line went: steps, and of these waiting for data; saving and scoring left out."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Starts anew, as after every line."""
        self.started, self.waited, self.paused = time.perf_counter(), 0.0, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Around what is not part of a step."""
        start = time.perf_counter()
        yield
        self.paused += time.perf_counter() - start

    def figures(self, steps: int, batch_size: int) -> dict[str, float]:
        """Rates over `steps` steps."""
        seconds = max(time.perf_counter() - self.started - self.paused, 1e-9)
        return {
            "samples_per_second": steps * batch_size / seconds,
            "seconds_per_step": seconds / max(steps, 1),
            "data_wait": min(self.waited / seconds, 1.0),
        }


def memory_mb(device: torch.device) -> float:
    """Largest memory in use so far: of the GPU, else of this process (resident)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    import resource  # late: Windows lacks it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
