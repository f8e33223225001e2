"""The `geossl` command. It reads the command line; what it does lies in the modules it calls.

Exit status: 0 done, 1 failed (one message, no traceback; GEOSSL_DEBUG=1 shows it), 2 wrong usage.
torch is imported inside the commands, so that `geossl --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import geossl
from geossl.commands.benchmark_cli import benchmark_app
from geossl.commands.console import fail, progress_bar, show
from geossl.commands.evaluate_cli import evaluate_app
from geossl.commands.options import SPEC, Json, Out, image_size
from geossl.commands.predict_cli import predict_app


class Commands(TyperGroup):
    """Known errors become one message and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if not is_known(error) or os.environ.get("GEOSSL_DEBUG") == "1":
                raise
            fail(error)
            raise typer.Exit(1) from None


def is_known(error: Exception) -> bool:
    """Whether the message alone says what is wrong: wrong values, files, missing packages, and geossl's own errors."""
    return isinstance(error, ValueError | OSError | ImportError) or type(error).__module__.startswith("geossl.")


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Depth, ego-motion, flow and scene flow from unlabelled video and stereo: train, predict, evaluate.",
)
app.add_typer(predict_app, name="predict")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(benchmark_app, name="benchmark")


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(geossl.__version__)
        raise typer.Exit(0)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a packaged config.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. train.lr=2e-4")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder; default runs/CONFIG.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on where the run folder's last checkpoint stopped.")] = True,
    as_json: Json = False,
) -> None:
    """Train an experiment; started again, it goes on. Many processes: torchrun --no-python geossl train ..."""
    from geossl.config import load_experiment

    experiment = load_experiment(config, overrides or [])
    from geossl.engine.train import train as train_experiment

    result = train_experiment(experiment, out or Path("runs") / Path(config).stem, resume=resume)
    if int(os.environ.get("RANK", 0)) == 0:
        show(result, as_json)
    raise typer.Exit(result.exit_code)


@app.command()
def pretrain(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a packaged config: pretrain_...")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. train.lr=2e-4")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder; default runs/CONFIG.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on where the run folder's last checkpoint stopped.")] = True,
    as_json: Json = False,
) -> None:
    """Pre-train an encoder without labels, as `train` does; RUN/encoder is what `encoder_weights` takes."""
    from geossl.config import load_experiment

    experiment = load_experiment(config, overrides or [])
    from geossl.engine.pretrain import pretrain as pretrain_experiment

    result = pretrain_experiment(experiment, out or Path("runs") / Path(config).stem, resume=resume)
    if int(os.environ.get("RANK", 0)) == 0:
        show(result, as_json)
    raise typer.Exit(result.exit_code)


@app.command()
def submit(
    benchmark: Annotated[str, typer.Argument(help="kitti-flow, kitti-sceneflow (2015), kitti-flow-2012 or sintel.")],
    predictions: Annotated[Path, typer.Argument(help="Folder of predictions for the benchmark's test images.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .zip to write.")],
    images: Annotated[
        Path | None, typer.Option(help="The test images (KITTI's testing/image_2, Sintel's test), to check sizes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the archive that a benchmark's server takes, and check it: names, number, sizes, encoding."""
    from geossl.commands.submit import BENCHMARKS, submit_flow
    from geossl.commands.submit_scene_flow import SCENE_FLOW_BENCHMARK, submit_scene_flow

    if benchmark == SCENE_FLOW_BENCHMARK:
        show(submit_scene_flow(predictions, out, images), as_json)
    elif benchmark in BENCHMARKS:
        show(submit_flow(benchmark, predictions, out, images), as_json)
    else:
        raise typer.BadParameter(f"{benchmark} should be one of {', '.join([*BENCHMARKS, SCENE_FLOW_BENCHMARK])}.")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint.")],
    folder: Annotated[Path, typer.Argument(help="Model folder to write.")],
) -> None:
    """Write a model folder: model.safetensors, config.json, README.md."""
    from geossl.engine.model_folder import export_model

    export_model(run, folder)
    typer.echo(f"wrote {folder}")


@app.command()
def check(
    spec: Annotated[str, typer.Argument(help=f"{SPEC}; or a config, whose sources are all checked.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of a config.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Decode every file instead of a sample of 200.")] = False,
    as_json: Json = False,
) -> None:
    """Look at a data set: counts, sizes, cameras, labels, and every file that cannot be read."""
    from geossl.commands.check import check_data

    with progress_bar("decoding", quiet=as_json) as progress:
        summaries = check_data(spec, None if full else 200, progress, overrides or [])
    if as_json:
        show(summaries, as_json)
    else:
        for summary in summaries:
            show(summary, as_json)
    if any(summary["problems"] for summary in summaries):
        raise typer.Exit(1)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write, in KITTI raw layout.")],
    sequences: Annotated[int, typer.Option(min=1)] = 1,
    frames: Annotated[int, typer.Option(min=1, help="Frames a sequence.")] = 50,
    size: Annotated[str, typer.Option(metavar="WxH", help="Image size.")] = "640x192",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    noise: Annotated[float, typer.Option(min=0, help="Sensor noise, in 8-bit levels.")] = 1.5,
    exposure: Annotated[float, typer.Option(min=0, help="Spread of the frames' exposure; 0 for constant.")] = 0.0,
    moving_cars: Annotated[int, typer.Option(min=0, help="Cars with their own motion near the camera.")] = 3,
    standing: Annotated[float, typer.Option(min=0, help="Share of frames in which the camera stands.")] = 0.08,
    processes: Annotated[int | None, typer.Option(min=1, help="Default: one a processor.")] = None,
) -> None:
    """Generate a synthetic street with exact labels; started again, it goes on."""
    width, height = image_size(size)
    from geossl.data.synthetic import StreetOptions
    from geossl.data.synthetic.write import write_street

    options = StreetOptions(
        sequences=sequences,
        frames=frames,
        width=width,
        height=height,
        seed=seed,
        noise=noise,
        exposure=exposure,
        moving_cars=moving_cars,
        standing=standing,
    )
    with progress_bar("rendering") as progress:
        write_street(out, options, processes, progress)
    typer.echo(f"wrote {out}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write RUN/report.html: curves, sample pictures, config, in one file."""
    from geossl.report import write_report

    typer.echo(f"wrote {write_report(run)}")


@app.command()
def demo(out: Out = Path("runs/demo"), as_json: Json = False) -> None:
    """Generate a street, train on it, predict and score a held-out clip. Interrupted, it goes on."""
    from geossl.demo import run_demo

    summary = run_demo(out)
    if as_json:
        show(summary, as_json)


@app.command("config")
def show_config(
    name: Annotated[str | None, typer.Argument(help="A YAML file, or the name of a packaged config.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print the packaged configs.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print every option with its default and meaning.")] = False,
) -> None:
    """Print the resolved config: everything that a training would use."""
    from geossl.commands.configs import list_configs, list_options, resolved

    if listed:
        typer.echo(list_configs())
    elif schema:
        typer.echo(list_options(name))
    elif name is None:
        raise typer.BadParameter("give a config's NAME, --list or --schema.")
    else:
        typer.echo(resolved(name, overrides or []), nl=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the `geossl` command. Methods of the user's own are also looked for in the current folder."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that nothing there shadows an installed package
    app(None if arguments is None else list(arguments))
