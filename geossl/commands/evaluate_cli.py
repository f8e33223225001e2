"""The command lines of `geossl evaluate`. torch is imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geossl.commands.console import progress_bar
from geossl.commands.options import SPEC, Device, JsonFile, command_line, image_size, listed

evaluate_app = typer.Typer(no_args_is_help=True, help="Score predictions against ground truth.")


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
    require_one(model, predictions)
    if kind not in ("depth", "inverse_depth", "disparity_px"):
        raise typer.BadParameter(f"--kind {kind} should be depth, inverse_depth or disparity_px.")
    if model is not None and kind != "depth":
        raise typer.BadParameter(f"--kind {kind} is for files of another method; with --model they hold depth.")
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
            command=command_line(),
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
    require_one(model, predictions)
    if (data is None) == (truth is None):
        raise typer.BadParameter("give one of --data and --truth.")
    if model is not None and data is None:
        raise typer.BadParameter("--model needs --data to predict from.")
    unknown = sorted(set(listed(align)) - {"none", "scale", "6dof", "7dof"})
    if unknown or not listed(align):
        raise typer.BadParameter(f"--align {align} should be of none,scale,6dof,7dof.")
    from geossl.commands.evaluate import evaluate_pose as run

    with progress_bar("predicting motion", quiet=model is None) as progress:
        result = run(
            data,
            truth,
            model=model,
            predictions=predictions,
            alignments=listed(align),
            device=device,
            command=command_line(),
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
    require_one(model, predictions)
    from geossl.commands.evaluate_flow import evaluate_flow as run

    with progress_bar("predicting flow") as progress:
        result = run(
            data,
            protocol,
            model=model,
            predictions=predictions,
            fill_missing=fill_missing,
            device=device,
            command=command_line(),
            progress=progress,
        )
    result.finish(json_file)


@evaluate_app.command("sceneflow")
def evaluate_scene_flow(
    data: Annotated[str, typer.Option(help="e.g. kitti_stereo:datasets/kitti_2015,year=2015")],
    protocol: Annotated[str, typer.Option(help="kitti2015 or synthetic.")],
    model: Annotated[Path | None, typer.Option(help="Predict with this model first.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Folder with disp_0, disp_1 and flow.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="With --model: average with the mirrored images.")] = False,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Score scene flow: D1, D2, Fl and SF of background, foreground and all, and 3-D errors in metres."""
    require_one(model, predictions)
    from geossl.commands.evaluate_scene_flow import evaluate_scene_flow as run

    with progress_bar("predicting scene flow", quiet=model is None) as progress:
        result = run(
            data,
            protocol,
            model=model,
            predictions=predictions,
            flip=flip,
            device=device,
            command=command_line(),
            progress=progress,
        )
    result.finish(json_file)


@evaluate_app.command("encoder")
def evaluate_encoder(
    encoders: Annotated[
        list[str],
        typer.Argument(
            metavar="ENCODER...",
            help="Encoder folders or runs, random[:NETWORK], imagenet[:NETWORK], NETWORK@FILE (its weights), zncc.",
        ),
    ],
    data: Annotated[str, typer.Option(help=f"{SPEC}.")],
    teacher: Annotated[
        Path | None, typer.Option(help="Our depth in metres, or flow, that finds places where there are no labels.")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Of the images; default: as pre-trained.")] = None,
    px: Annotated[float, typer.Option(min=0, help="Pixels within which a place counts as found.")] = 3.0,
    samples: Annotated[int, typer.Option(min=2, help="Images at most, evenly spaced.")] = 64,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Compare encoders as they are: retrieval, spread, linear probes of depth and normals, and places found again."""
    width, height = (None, None) if size is None else image_size(size)
    from geossl.commands.evaluate_encoder import evaluate_encoder as run

    with progress_bar("encoders") as progress:
        result = run(
            encoders,
            data,
            teacher=teacher,
            size=None if height is None or width is None else (height, width),
            px=px,
            samples=samples,
            device=device,
            command=command_line(),
            progress=progress,
        )
    result.finish(json_file)


def require_one(model: Path | None, predictions: Path | str | None) -> None:
    """There must be something to score."""
    if model is None and predictions is None:
        raise typer.BadParameter("give --model or --predictions.")
