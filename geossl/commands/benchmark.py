"""`geossl benchmark`: what is measured, and the result as text and JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

from geossl.benchmark.contest import Contest, Outcome, hold, table_rows
from geossl.benchmark.evaluate import evaluation_contests
from geossl.benchmark.flow import METHODS, flow_costs
from geossl.benchmark.growth import growth, growth_figure, growth_rows, series
from geossl.benchmark.kernels import kernel_contests
from geossl.benchmark.machine import floors, machine
from geossl.benchmark.plain import PlainModules, missing_note, plain_modules
from geossl.benchmark.predict import export_contests
from geossl.benchmark.samples import sample_contests
from geossl.benchmark.step import step_contests
from geossl.commands.console import text_table, to_plain
from geossl.config import Experiment, load_experiment
from geossl.engine.benchmark import StepCost, benchmark_training, cost_records, cost_table
from geossl.engine.distributed import pick_device
from geossl.formats.atomic import write_text_atomic
from geossl.formats.image import write_image
from geossl.methods.monodepth2 import Monodepth2Options

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Measuring:
    """How it is measured.

    Attributes:
        device: auto, cpu, cuda or mps.
        threads: Of torch and OpenCV; None leaves them.
        repeats: Turns of every contest, steps of every table.
        batch: Samples; None takes each part's own.
        size: (height, width); None takes each part's own.
        plain: Folder of the plain implementation.
        tell: Called with every line of the result as soon as it is there.
    """

    device: str = "auto"
    threads: int | None = None
    repeats: int = 5
    batch: int | None = None
    size: tuple[int, int] | None = None
    plain: Path = Path("tools/plain")
    tell: Tell = print

    def given(self) -> dict[str, Any]:
        """The batch and size that were asked for, as arguments."""
        return {name: value for name in ("batch", "size") if (value := getattr(self, name)) is not None}


def benchmark_kernels(how: Measuring) -> dict[str, Any]:
    """The hot functions; a size given is that of all of them."""
    given = how.given()
    if how.size is not None:
        h, w = how.size
        given |= {"flow_size": how.size, "features": ((64, h // 4, w // 4), (128, h // 16, w // 16))}
    with measuring(how) as (device, plain):
        return report(how, device, kernel_contests(plain, device, **given))


def benchmark_data(how: Measuring) -> dict[str, Any]:
    """A sample from disk."""
    with measuring(how) as (_, plain), tempfile.TemporaryDirectory() as folder:
        size = {} if how.size is None else {"size": how.size}
        return report(how, torch.device("cpu"), sample_contests(plain, Path(folder), **size))


def benchmark_predict(how: Measuring) -> dict[str, Any]:
    """Depth export."""
    with measuring(how) as (device, plain), tempfile.TemporaryDirectory() as folder:
        return report(how, device, export_contests(plain, Path(folder), device, **how.given()))


def benchmark_evaluate(how: Measuring) -> dict[str, Any]:
    """Eigen scoring and LiDAR maps."""
    with measuring(how) as (_, plain), tempfile.TemporaryDirectory() as folder:
        size = {} if how.size is None else {"size": how.size}
        return report(how, torch.device("cpu"), evaluation_contests(plain, Path(folder), **size))


def benchmark_flow(how: Measuring, methods: Sequence[str] = tuple(METHODS)) -> dict[str, Any]:
    """A step of methods of flow; each is told as soon as it is measured, as the next may need more than there is."""
    rows = []
    with measuring(how) as (device, _):
        header = headed(how, device)
        gflops = header["fp32_gflops"]
        for row in flow_costs(gflops, device.type, steps=how.repeats, methods=methods, **how.given()):
            rows.append(row)
            how.tell(
                ", ".join(f"{name} {v:.3g}" if isinstance(v, float) else f"{name} {v}" for name, v in row.items())
            )
    return {"machine": header, "rows": rows}


def benchmark_growth(
    how: Measuring,
    batches: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    sources: Sequence[int],
    processes: Sequence[int],
    figure: Path | None = None,
) -> dict[str, Any]:
    """How a step of Monodepth2 from video grows with each of these, and a picture of it.

    Args:
        how: Its batch and size are not used.
        batches, sizes, sources, processes: See `geossl.benchmark.growth.series`.
        figure: Image file to write.
    """
    with measuring(how) as (device, _):
        header = headed(how, device)
        curves = []
        for points in growth(
            series(batches, sizes, sources, processes), device.type, torch.get_num_threads(), how.repeats
        ):
            how.tell(text_table(growth_rows(points)))
            curves.append(points)
    if figure is not None:
        write_image(figure, growth_figure(curves))
        how.tell(f"wrote {figure}")
    return {"machine": header, "curves": [asdict(point) for points in curves for point in points]}


def benchmark_train(
    how: Measuring, config: str | None, overrides: Sequence[str], batch_sizes: Sequence[int], compare: bool
) -> dict[str, Any]:
    """A config's training step (on random images of its size, whatever its data), by part.

    Args:
        how: Its batch is not used.
        config: A config's name or file; None takes Monodepth2 from video.
        overrides: key=value.
        batch_sizes: A row each.
        compare: Whether to time the published step beside it.

    Raises:
        ValueError: If the published step is asked for and there is none of this config, or no plain implementation.
    """
    experiment = load_experiment(config, overrides)
    if compare:
        check_published(experiment)
    data = experiment.data
    height, width = how.size or (data.height, data.width)
    with measuring(how, needed=compare) as (device, plain):
        header = headed(how, device)
        how.tell(f"{experiment.method}, {width}x{height}, {experiment.train.precision}")
        costs: list[StepCost] = benchmark_training(
            experiment.method,
            experiment.model,
            height=height,
            width=width,
            batch_sizes=batch_sizes,
            device=device.type,
            precision=experiment.train.precision,
            source_offsets=data.source_offsets,
            stereo=data.stereo,
            stereo_sources=data.stereo_sources,
            steps=how.repeats,
        )
        gflops = header["fp32_gflops" if experiment.train.precision == "fp32" else "bf16_gflops"]
        how.tell(cost_table(costs, gflops))
        result: dict[str, Any] = {"machine": header, "rows": cost_records(costs, gflops)}
        if compare and plain is not None:
            size, precision = (height, width), experiment.train.precision
            contests = [c for b in batch_sizes for c in step_contests(plain, device, b, size, precision)]
            result["contests"] = held(how, device, contests)
    return result


def check_published(experiment: Experiment) -> None:
    """Raises ValueError unless the experiment's step is the one that the plain implementation has."""
    method, options = experiment.method, experiment.model
    same = method == "monodepth2" and Monodepth2Options.model_validate(
        {**options, "encoder_weights": None}
    ) == Monodepth2Options(encoder_weights=None)
    if not same or experiment.data.source_offsets != (-1, 1):
        raise ValueError(
            "--compare needs Monodepth2 from video with its default options, of which there is a plain step; "
            "leave CONFIG out."
        )


@contextmanager
def measuring(how: Measuring, needed: bool = False) -> Iterator[tuple[torch.device, PlainModules | None]]:
    """The device and the plain implementation, with the threads asked for.

    Raises:
        ValueError: If the plain implementation is `needed` and missing.
    """
    plain = plain_modules(how.plain)
    if plain is None and needed:
        raise ValueError(f"--compare needs the plain implementation. {missing_note(how.plain)}")
    before = torch.get_num_threads(), cv2.getNumThreads()
    if how.threads is not None:
        torch.set_num_threads(how.threads)
        cv2.setNumThreads(how.threads)
    try:
        yield pick_device(how.device), plain
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def report(how: Measuring, device: torch.device, contests: Sequence[Contest]) -> dict[str, Any]:
    """Holds contests under a header."""
    header = headed(how, device)
    if plain_modules(how.plain) is None:
        how.tell(missing_note(how.plain))
    return {"machine": header, "contests": held(how, device, contests)}


def headed(how: Measuring, device: torch.device) -> dict[str, Any]:
    """The machine, told in a line and a second one of its floors."""
    found = machine(device)
    limits = floors(device)
    how.tell(", ".join(f"{name} {value}" for name, value in found.items()))
    how.tell("measured floors: " + ", ".join(f"{name} {value:.4g}" for name, value in limits.items()))
    return {**found, **limits}


def held(how: Measuring, device: torch.device, contests: Sequence[Contest]) -> list[dict[str, Any]]:
    """Holds contests, and tells the table."""
    outcomes: list[Outcome] = [hold(contest, how.repeats, device) for contest in contests]
    how.tell(text_table(table_rows(outcomes)))
    how.tell(f"ms of one, medians of {how.repeats} turns; ratio of plain to geossl; apart: deviation of the results")
    return [asdict(outcome) for outcome in outcomes]


def save(result: dict[str, Any], path: Path) -> None:
    """Writes a result as JSON."""
    write_text_atomic(path, json.dumps(to_plain(result), indent=1) + "\n")
