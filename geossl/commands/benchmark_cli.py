"""The command lines of `geossl benchmark`. torch is imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geossl.commands.options import Device, JsonFile, image_size, listed, numbers

if TYPE_CHECKING:
    from geossl.commands.benchmark import Measuring

benchmark_app = typer.Typer(
    no_args_is_help=True,
    help="Time and memory on this machine, against a plain implementation of the published algorithms.",
)

Threads = Annotated[int | None, typer.Option(min=1, help="Of torch and OpenCV; default: as they are.")]
Repeats = Annotated[int, typer.Option(min=1, help="Turns, of which the medians count; 5 or more to report.")]
Samples = Annotated[int | None, typer.Option("--batch", min=1, help="Samples at a time; default: each part's own.")]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Size of the images; default: each part's own.")]
Plain = Annotated[Path, typer.Option(help="The plain implementation, tools/plain of a checkout.")]
PLAIN = Path("tools/plain")


@benchmark_app.command("train")
def train(
    config: Annotated[str | None, typer.Argument(help="To measure; may be left out: Monodepth2 from video.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    batch_sizes: Annotated[str, typer.Option(help="Comma-separated.")] = "4,12",
    compare: Annotated[bool, typer.Option("--compare", help="Time the published Monodepth2 step beside it.")] = False,
    size: Size = None,
    threads: Threads = None,
    repeats: Repeats = 5,
    device: Device = "auto",
    plain: Plain = PLAIN,
    json_file: JsonFile = None,
) -> None:
    """A training step by parts: data, networks, warp and loss, optimiser; its peak memory."""
    batches = counts("--batch-sizes", batch_sizes)
    changes = overrides or []
    if config is not None and "=" in config and not Path(config).is_file():
        changes, config = [config, *changes], None
    from geossl.commands.benchmark import benchmark_train

    how = measuring(device, threads, repeats, None, size, plain)
    finish(benchmark_train(how, config, changes, batches, compare), json_file)


@benchmark_app.command("kernels")
def kernels(
    batch: Samples = None,
    size: Size = None,
    threads: Threads = None,
    repeats: Repeats = 5,
    device: Device = "auto",
    plain: Plain = PLAIN,
    json_file: JsonFile = None,
) -> None:
    """The hot functions: photometric objective, census, correlation, lookup, visibility, decoder inputs, jitter."""
    from geossl.commands.benchmark import benchmark_kernels

    run(benchmark_kernels, measuring(device, threads, repeats, batch, size, plain), json_file)


@benchmark_app.command("data")
def data(
    size: Size = None,
    threads: Threads = None,
    repeats: Repeats = 5,
    plain: Plain = PLAIN,
    json_file: JsonFile = None,
) -> None:
    """A sample from disk: png and jpg, not cached and cached."""
    from geossl.commands.benchmark import benchmark_data

    run(benchmark_data, measuring("cpu", threads, repeats, None, size, plain), json_file)


@benchmark_app.command("predict")
def predict(
    batch: Samples = None,
    size: Size = None,
    threads: Threads = None,
    repeats: Repeats = 5,
    device: Device = "auto",
    plain: Plain = PLAIN,
    json_file: JsonFile = None,
) -> None:
    """Depth export, from the image file to the written map and picture."""
    from geossl.commands.benchmark import benchmark_predict

    run(benchmark_predict, measuring(device, threads, repeats, batch, size, plain), json_file)


@benchmark_app.command("evaluate")
def evaluate(
    size: Size = None,
    threads: Threads = None,
    repeats: Repeats = 5,
    plain: Plain = PLAIN,
    json_file: JsonFile = None,
) -> None:
    """Eigen scoring and LiDAR depth maps."""
    from geossl.commands.benchmark import benchmark_evaluate

    run(benchmark_evaluate, measuring("cpu", threads, repeats, None, size, plain), json_file)


@benchmark_app.command("flow")
def flow(
    methods: Annotated[str, typer.Option(help="Comma-separated.")] = "unflow,selflow,arflow,smurf",
    batch: Samples = None,
    size: Size = None,
    threads: Threads = None,
    repeats: Repeats = 5,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """A training step of methods of optical flow, by parts, when all its terms have set in."""
    from geossl.commands.benchmark import benchmark_flow

    how = measuring(device, threads, repeats, batch, size, PLAIN)
    finish(benchmark_flow(how, listed(methods)), json_file)


@benchmark_app.command("growth")
def growth(
    batches: Annotated[str, typer.Option(help="Samples, comma-separated.")] = "1,2,4,8,16",
    sizes: Annotated[str, typer.Option(help="WxH, comma-separated.")] = "320x96,512x160,640x192,1024x320",
    sources: Annotated[str, typer.Option(help="Source frames of a sample, 1 to 4, comma-separated.")] = "1,2,4",
    processes: Annotated[str, typer.Option(help="Processes that share a batch, comma-separated.")] = "1,2",
    figure: Annotated[Path | None, typer.Option(help="Image file to draw the curves to.")] = None,
    threads: Threads = None,
    repeats: Repeats = 3,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """How time and memory of a training step grow; where not varied, 2 samples of 320x96 with 2 sources."""
    samples, frames, sharing = (
        counts(name, text)
        for name, text in (("--batches", batches), ("--sources", sources), ("--processes", processes))
    )
    if max(frames) > 4:
        raise typer.BadParameter(f"--sources {sources} should be numbers from 1 to 4.")
    areas = [image_size(text)[::-1] for text in listed(sizes)]
    if not areas:
        raise typer.BadParameter("--sizes should be one or more of WxH, e.g. 320x96,640x192.")
    from geossl.commands.benchmark import benchmark_growth

    how = measuring(device, threads, repeats, None, None, PLAIN)
    finish(benchmark_growth(how, samples, areas, frames, sharing, figure), json_file)


def counts(option: str, text: str) -> list[int]:
    """Whole numbers above 0."""
    found = numbers(text) or []
    if not found or min(found) < 1 or any(value % 1 for value in found):
        raise typer.BadParameter(f"{option} {text} should be whole numbers above 0.")
    return [int(value) for value in found]


def measuring(
    device: str, threads: int | None, repeats: int, batch: int | None, size: str | None, plain: Path
) -> Measuring:
    width_height = None if size is None else image_size(size)
    from geossl.commands.benchmark import Measuring

    return Measuring(device, threads, repeats, batch, width_height and width_height[::-1], plain, typer.echo)


def run(benchmark: Callable[[Measuring], dict[str, Any]], how: Measuring, json_file: Path | None) -> None:
    finish(benchmark(how), json_file)


def finish(result: dict[str, Any], json_file: Path | None) -> None:
    from geossl.commands.benchmark import save

    if json_file is not None:
        save(result, json_file)
        typer.echo(f"wrote {json_file}")
