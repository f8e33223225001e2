"""A contest: the same work done by several sides, first compared, then timed in turns."""

from __future__ import annotations

import ctypes
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from geossl.engine.benchmark import peak_mb, reset_peak, wait

PLAIN, TORCH, OURS = "plain", "torch", "geossl"


@dataclass(frozen=True)
class Contest:
    """Work that several sides do.

    Attributes:
        part: What it is.
        sides: By name, a function that does it all and returns the result: `geossl`, and where they are there `plain`
            (the published algorithm, written plainly) and `torch` (geossl without compiled kernels).
        goal: How many times faster than `plain` geossl should be.
        tolerance: Largest `deviation` of a side's result from geossl's.
        checks: What is compared instead of the results of `sides`, where those draw random numbers.
        count: How many samples or images a call does; times are of one.
    """

    part: str
    sides: Mapping[str, Callable[[], Any]]
    goal: float | None = None
    tolerance: float = 1e-4
    checks: Mapping[str, Callable[[], Any]] | None = None
    count: int = 1


@dataclass(frozen=True)
class Outcome:
    """What a contest showed.

    Attributes:
        part, goal, tolerance: The contest's.
        seconds: Median time of one by side.
        ratio: Median over the turns of plain's time divided by geossl's; None without `plain`.
        deviation: Largest difference between the results of geossl and another side.
        memory_mb: By side, how far memory rose above what was in use before; None where the system does not tell.
    """

    part: str
    goal: float | None
    tolerance: float
    seconds: Mapping[str, float]
    ratio: float | None
    deviation: float
    memory_mb: Mapping[str, float | None]


def hold(contest: Contest, repeats: int, device: torch.device) -> Outcome:
    """Compares the sides' results, then times the sides in turns.

    Args:
        contest: What to do.
        repeats: Turns.
        device: Waited for after each call.

    Raises:
        ValueError: If the results differ by more than the tolerance: the times would be of different things.
    """
    checks = contest.checks or contest.sides
    ours = checks[OURS]()
    apart = 0.0
    for name, work in checks.items():
        if name != OURS:
            apart = max(apart, deviation(work(), ours))
            if not apart <= contest.tolerance:
                raise ValueError(
                    f"{contest.part}: the result of '{name}' differs from geossl's by {apart:.2g}, more than "
                    f"{contest.tolerance:g}: their times would not be of the same work."
                )
    memory = {name: memory_rise_mb(work, device) for name, work in contest.sides.items()}
    times: dict[str, list[float]] = {name: [] for name in contest.sides}
    for _ in range(repeats):
        for name, work in contest.sides.items():
            times[name].append(seconds_of(work, device) / contest.count)
    pairs = zip(times.get(PLAIN, ()), times[OURS], strict=False)
    ratio = statistics.median(p / o for p, o in pairs) if PLAIN in times else None
    medians = {name: statistics.median(values) for name, values in times.items()}
    return Outcome(contest.part, contest.goal, contest.tolerance, medians, ratio, apart, memory)


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """Time of a call, the device waited for before and after."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def memory_rise_mb(work: Callable[[], Any], device: torch.device) -> float | None:
    """How far a call lifts memory (of the GPU, else resident) above what is in use before it; None where unknown."""
    if device.type == "cpu":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process keeps would hide a rise
    reset_peak(device)
    before = peak_mb(device)
    work()
    wait(device)
    after = peak_mb(device)
    return None if before is None or after is None else after - before


def deviation(a: Any, b: Any) -> float:
    """How far two results (tensors, arrays, numbers, in any nesting) are apart.

    Returns:
        The largest over their tensors of |a - b| / |b| in the Euclidean norm (|a| where b is 0), infinite where one is
        not finite. Of bool tensors the share that differs.

    Raises:
        ValueError: If they do not consist of the same tensors.

    Convention: (3, 4) against (3, 5) differs by 1 / sqrt(34) = 0.171.
    """
    left, right = ([_tensor(leaf) for leaf in tree_leaves(value)] for value in (a, b))
    if [x.shape for x in left] != [x.shape for x in right]:
        raise ValueError(
            f"results have shapes {[tuple(x.shape) for x in left]} and {[tuple(x.shape) for x in right]}; they differ."
        )
    worst = 0.0
    for x, y in zip(left, right, strict=True):
        if x.dtype == torch.bool:
            worst = max(worst, float((x != y).double().mean()))
            continue
        difference, size = float((x.double() - y.double()).norm()), float(y.double().norm())
        worst = max(worst, difference / (size or 1.0) if math.isfinite(difference) else math.inf)
    return worst


def _tensor(leaf: Any) -> Tensor:
    if isinstance(leaf, Tensor):
        return leaf.detach().cpu()
    return torch.from_numpy(np.asarray(leaf))


def table_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The outcomes as rows of a table."""
    rows = []
    for outcome in outcomes:
        row: dict[str, Any] = {"part": outcome.part}
        row |= {f"{name} ms": round(1e3 * seconds, 3) for name, seconds in outcome.seconds.items()}
        row |= {"ratio": "-" if outcome.ratio is None else f"{outcome.ratio:.2f}x"}
        row |= {"goal": "-" if outcome.goal is None else f"{outcome.goal:g}x", "apart": f"{outcome.deviation:.1e}"}
        row |= {f"{name} MB": "-" if mb is None else f"{mb:.0f}" for name, mb in outcome.memory_mb.items()}
        rows.append(row)
    return rows
