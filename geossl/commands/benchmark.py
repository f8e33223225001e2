"""`geossl benchmark`: the cost of a config's training step on this machine."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from geossl.config import Experiment, load_experiment, parse_experiment
from geossl.engine.benchmark import benchmark_training, cost_records, cost_table
from geossl.engine.distributed import pick_device


def benchmark_config(
    config: str | None, overrides: Sequence[str], batch_sizes: Sequence[int], steps: int, device: str
) -> tuple[list[dict[str, float]], str]:
    """Measures a config's training step (on random images of its size, whatever its data).

    Returns:
        The rows, and a table with a line that says what was measured.
    """
    experiment: Experiment = parse_experiment({}) if config is None else load_experiment(config, overrides)
    data = experiment.data
    rows = benchmark_training(
        experiment.method,
        experiment.model,
        height=data.height,
        width=data.width,
        batch_sizes=batch_sizes,
        device=device,
        precision=experiment.train.precision,
        source_offsets=data.source_offsets,
        stereo=data.stereo,
        steps=steps,
    )
    used = pick_device(device)
    name = torch.cuda.get_device_name(used) if used.type == "cuda" else f"{torch.get_num_threads()} threads"
    what = f"{experiment.method}, {data.width}x{data.height}, {experiment.train.precision}, {used.type} ({name})"
    return cost_records(rows), f"{what}\n{cost_table(rows)}"
