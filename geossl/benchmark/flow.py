"""What a training step of each method of optical flow costs, by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from geossl.engine.benchmark import benchmark_training, cost_records

# The sources that a sample of each has.
METHODS: dict[str, tuple[int, ...]] = {"unflow": (1,), "selflow": (-2, -1, 1, 2), "arflow": (1,), "smurf": (1,)}


def flow_costs(
    gflops: float,
    device: str = "auto",
    batch: int = 4,
    size: tuple[int, int] = (320, 832),
    steps: int = 5,
    methods: Sequence[str] = tuple(METHODS),
) -> Iterator[dict[str, Any]]:
    """A row a method, as soon as it is measured: time, memory, and shares of data, networks, warp and loss, optimiser.

    Measured as at the end of a training, when all terms have set in.

    Args:
        gflops: What the machine multiplies, see `StepCost.of_floor`.
        device: As `train.device`.
        batch: Samples.
        size: (height, width).
        steps: Measured steps.
        methods: Of `METHODS`.

    Raises:
        ValueError: If a method is none of these.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ValueError(f"'{unknown[0]}' is no method of optical flow; expected some of {', '.join(METHODS)}.")
    for name in methods:
        (cost,) = benchmark_training(
            name,
            height=size[0],
            width=size[1],
            batch_sizes=(batch,),
            device=device,
            source_offsets=METHODS[name],
            steps=steps,
            warmup=1,
            progress=1.0,
        )
        yield {"method": name, **cost_records([cost], gflops)[0]}
