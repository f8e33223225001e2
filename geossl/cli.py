"""The `geossl` command. It reads the command line; what it does lies in the modules it calls.

Exit status: 0 done, 1 failed (one message, no traceback; GEOSSL_DEBUG=1 shows it), 2 wrong usage.
torch is imported inside the commands, so that `geossl --help` answers at once.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import geossl
from geossl.commands.console import fail, progress_bar, show


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
    help="Depth and ego-motion from unlabelled video and stereo: train, predict, evaluate.",
)
predict_app = typer.Typer(no_args_is_help=True, help="Write the depth maps, trajectories or flow of a trained model.")
evaluate_app = typer.Typer(no_args_is_help=True, help="Score predictions against ground truth.")
app.add_typer(predict_app, name="predict")
app.add_typer(evaluate_app, name="evaluate")

SPEC = "kind:root[,key=value...], e.g. kitti_raw:datasets/kitti_raw,split=eigen_test"
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder to write to.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Compute again what is there already.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the full result to this file.")]
Intrinsics = Annotated[str | None, typer.Option(help="fx,fy,cx,cy in pixels of the source.")]


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


@predict_app.command("depth")
def predict_depth(
    model: Annotated[Path, typer.Argument(help="Model folder, run folder or checkpoint.")],
    source: Annotated[str, typer.Argument(help=f"Image, folder, 'glob', video, or {SPEC}.")],
    out: Out,
    save: Annotated[str, typer.Option(help="Of npy,png16,pfm,color,ply.")] = "npy,color",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image's prediction.")] = False,
    intrinsics: Intrinsics = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 4,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write depth maps at the source's resolution, with a meta.json that states their unit."""
    from geossl.predict import predict_depth as run

    with progress_bar("predicting depth", as_json) as progress:
        summary = run(
            model,
            source,
            out,
            save=_listed(save),
            flip=flip,
            intrinsics=_numbers(intrinsics),
            device=device,
            batch_size=batch_size,
            overwrite=overwrite,
            command=_command_line(),
            progress=progress,
        )
    show(summary, as_json)


@predict_app.command("pose")
def predict_pose(
    model: Annotated[Path, typer.Argument(help="Model folder, run folder or checkpoint.")],
    source: Annotated[str, typer.Argument(help=f"Folder, 'glob', video, or {SPEC}.")],
    out: Out,
    save: Annotated[str, typer.Option(help="Of kitti,tum.")] = "kitti,tum",
    rate_hz: Annotated[float | None, typer.Option(min=1e-6, help="Frames a second, for TUM's times.")] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write each clip's trajectory: T_world_camera, the first frame being the world."""
    from geossl.predict import predict_pose as run

    with progress_bar("predicting motion", as_json) as progress:
        summary = run(
            model,
            source,
            out,
            save=_listed(save),
            rate_hz=rate_hz,
            device=device,
            batch_size=batch_size,
            overwrite=overwrite,
            command=_command_line(),
            progress=progress,
        )
    show(summary, as_json)


@predict_app.command("flow")
def predict_flow(
    model: Annotated[Path, typer.Argument(help="Model folder, run folder or checkpoint.")],
    source: Annotated[str, typer.Argument(help=f"Folder, 'glob', video, or {SPEC}; or an image with --second.")],
    out: Out,
    second: Annotated[Path | None, typer.Option(help="Second image, where the source is one image.")] = None,
    save: Annotated[str, typer.Option(help="Of flo,png16,npy,color,visible,confidence,video.")] = "flo,color",
    size: Annotated[str, typer.Option(help="What the network sees: model, native (the source's) or WxH.")] = "model",
    max_px: Annotated[float, typer.Option(min=1e-3, help="Flow of the colours' full strength, in pixels.")] = 64.0,
    rate_hz: Annotated[float | None, typer.Option(min=1e-6, help="Frames a second of the videos.")] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs at a time.")] = 4,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the optical flow between successive images, forth and back, in pixels of the source."""
    wanted: Any = size if size in ("model", "native") else _size(size)[::-1]
    from geossl.predict import predict_flow as run

    with progress_bar("predicting flow", as_json) as progress:
        summary = run(
            model,
            source,
            out,
            second=second,
            save=_listed(save),
            size=wanted,
            max_px=max_px,
            rate_hz=rate_hz,
            device=device,
            batch_size=batch_size,
            overwrite=overwrite,
            command=_command_line(),
            progress=progress,
        )
    show(summary, as_json)


@evaluate_app.command("depth")
def evaluate_depth(
    data: Annotated[str, typer.Option(help=f"{SPEC}.")],
    protocol: Annotated[str, typer.Option(help="eigen, eigen_benchmark, kitti2015, native, ...")],
    model: Annotated[Path | None, typer.Option(help="Predict with this model first.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Folder of depth maps; with --model they go there.")] = None,
    scaling: Annotated[str | None, typer.Option(help="none, median or a factor; default: the protocol's.")] = None,
    kind: Annotated[str, typer.Option(help="The files hold: depth, inverse_depth or disparity_px.")] = "depth",
    flip: Annotated[bool, typer.Option("--flip", help="With --model: average with the mirrored image.")] = False,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Score depth against LiDAR, improved depth or disparity labels, by a named protocol."""
    if model is None and predictions is None:
        raise typer.BadParameter("give --model or --predictions.")
    if kind not in ("depth", "inverse_depth", "disparity_px"):
        raise typer.BadParameter(f"--kind {kind} should be depth, inverse_depth or disparity_px.")
    from geossl.commands.evaluate import evaluate_depth as run

    with progress_bar("predicting depth", quiet=model is None) as progress:
        result = run(
            data,
            protocol,
            model=model,
            predictions=predictions,
            scaling=scaling,
            kind=kind,
            flip=flip,
            device=device,
            command=_command_line(),
            progress=progress,
        )
    result.finish(json_file)


@evaluate_app.command("pose")
def evaluate_pose(
    data: Annotated[str | None, typer.Option(help="kitti_odometry:root[,...], or kitti_raw with oxts.")] = None,
    truth: Annotated[Path | None, typer.Option(help="A trajectory file instead of --data.")] = None,
    model: Annotated[Path | None, typer.Option(help="Predict with this model first (needs --data).")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Trajectory file, or folder of them.")] = None,
    align: Annotated[str, typer.Option(help="Of none,scale,6dof,7dof.")] = "none,scale,6dof,7dof",
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Score trajectories: KITTI's t_err and r_err, five-frame ATE, APE and RPE."""
    if model is None and predictions is None:
        raise typer.BadParameter("give --model or --predictions.")
    if (data is None) == (truth is None):
        raise typer.BadParameter("give one of --data and --truth.")
    if model is not None and data is None:
        raise typer.BadParameter("--model needs --data to predict from.")
    unknown = sorted(set(_listed(align)) - {"none", "scale", "6dof", "7dof"})
    if unknown or not _listed(align):
        raise typer.BadParameter(f"--align {align} should be of none,scale,6dof,7dof.")
    from geossl.commands.evaluate import evaluate_pose as run

    with progress_bar("predicting motion", quiet=model is None) as progress:
        result = run(
            data,
            truth,
            model=model,
            predictions=predictions,
            alignments=_listed(align),
            device=device,
            command=_command_line(),
            progress=progress,
        )
    result.finish(json_file)


@evaluate_app.command("flow")
def evaluate_flow(
    data: Annotated[str, typer.Option(help="e.g. kitti_stereo:datasets/kitti_2015,year=2015")],
    protocol: Annotated[str, typer.Option(help="kitti2015, kitti2012, sintel, chairs or native.")],
    model: Annotated[Path | None, typer.Option(help="Predict with this model first.")] = None,
    predictions: Annotated[
        str | None, typer.Option(help="Folder of .flo, 16-bit .png or .npy; or zero, farneback or dis.")
    ] = None,
    fill_missing: Annotated[
        bool, typer.Option("--fill-missing", help="Fill missing estimates from the background, as KITTI does.")
    ] = False,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Score optical flow: end-point error, KITTI's Fl and thresholds, speed classes, by a named protocol."""
    if model is None and predictions is None:
        raise typer.BadParameter("give --model or --predictions.")
    from geossl.commands.evaluate_flow import evaluate_flow as run

    with progress_bar("predicting flow") as progress:
        result = run(
            data,
            protocol,
            model=model,
            predictions=predictions,
            fill_missing=fill_missing,
            device=device,
            command=_command_line(),
            progress=progress,
        )
    result.finish(json_file)


@app.command()
def submit(
    benchmark: Annotated[str, typer.Argument(help="kitti-flow (2015), kitti-flow-2012 or sintel.")],
    predictions: Annotated[Path, typer.Argument(help="Folder of flow for the benchmark's test images.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .zip to write.")],
    images: Annotated[
        Path | None, typer.Option(help="The test images (KITTI's testing/image_2, Sintel's test), to check sizes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the archive that a benchmark's server takes, and check it: names, number, sizes, encoding."""
    from geossl.commands.submit import BENCHMARKS, submit_flow

    if benchmark not in BENCHMARKS:
        raise typer.BadParameter(f"{benchmark} should be one of {', '.join(BENCHMARKS)}.")
    show(submit_flow(benchmark, predictions, out, images), as_json)


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
    full: Annotated[bool, typer.Option("--full", help="Decode every file instead of a sample of 200.")] = False,
    as_json: Json = False,
) -> None:
    """Look at a data set: counts, sizes, cameras, labels, and every file that cannot be read."""
    from geossl.commands.check import check_data

    with progress_bar("decoding", quiet=as_json) as progress:
        summaries = check_data(spec, None if full else 200, progress)
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
    width, height = _size(size)
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
def benchmark(
    config: Annotated[str | None, typer.Argument(help="Config to measure; default: Monodepth2 from video.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    batch_sizes: Annotated[str, typer.Option(help="Comma-separated.")] = "4,12",
    steps: Annotated[int, typer.Option(min=1, help="Measured steps.")] = 5,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Time and memory of a training step, by parts: data, networks, warp and loss, optimiser."""
    sizes = [int(value) for value in _numbers(batch_sizes) or ()]
    if not sizes or min(sizes) < 1:
        raise typer.BadParameter(f"--batch-sizes {batch_sizes} should be numbers above 0.")
    from geossl.commands.benchmark import benchmark_config

    rows, text = benchmark_config(config, overrides or [], sizes, steps, device)
    if as_json:
        show(rows, as_json)
    else:
        typer.echo(text)


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


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in _listed(text)]
    except ValueError:
        raise typer.BadParameter(f"'{text}' should be numbers with commas between.") from None


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise typer.BadParameter(f"'{text}' should read WxH, e.g. 640x192.")
    return int(width), int(height)


def _command_line() -> str:
    return shlex.join(["geossl", *sys.argv[1:]])


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the `geossl` command. Methods of the user's own are also looked for in the current folder."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that nothing there shadows an installed package
    app(None if arguments is None else list(arguments))
