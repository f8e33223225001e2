"""The command lines of `geossl predict`. torch is imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geossl.commands.console import progress_bar, show
from geossl.commands.options import (
    SPEC,
    Device,
    Intrinsics,
    Json,
    Out,
    Overwrite,
    command_line,
    image_size,
    listed,
    numbers,
)

predict_app = typer.Typer(
    no_args_is_help=True, help="Write a trained model's depth, trajectories, flow, scene flow or moving objects."
)


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
    runtime: Annotated[str, typer.Option(help="torch or openvino (an extra; faster on the CPU).")] = "torch",
    precision: Annotated[str, typer.Option(help="Of the network: fp32 or bf16.")] = "fp32",
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
            save=listed(save),
            flip=flip,
            intrinsics=numbers(intrinsics),
            device=device,
            batch_size=batch_size,
            runtime=runtime,
            precision=precision,
            overwrite=overwrite,
            command=command_line(),
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
            save=listed(save),
            rate_hz=rate_hz,
            device=device,
            batch_size=batch_size,
            overwrite=overwrite,
            command=command_line(),
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
    wanted: Any = size if size in ("model", "native") else image_size(size)[::-1]
    from geossl.predict import predict_flow as run

    with progress_bar("predicting flow", as_json) as progress:
        summary = run(
            model,
            source,
            out,
            second=second,
            save=listed(save),
            size=wanted,
            max_px=max_px,
            rate_hz=rate_hz,
            device=device,
            batch_size=batch_size,
            overwrite=overwrite,
            command=command_line(),
            progress=progress,
        )
    show(summary, as_json)


@predict_app.command("motion")
def predict_motion(
    model: Annotated[Path, typer.Argument(help="Model folder, run folder or checkpoint of depth and camera motion.")],
    source: Annotated[str, typer.Argument(help=f"Folder, 'glob', video, or {SPEC}.")],
    out: Out,
    flow: Annotated[Path, typer.Option(help="Model of optical flow.")],
    save: Annotated[str, typer.Option(help="Of rigid,residual,moving,static,color.")] = "residual,moving,static,color",
    intrinsics: Intrinsics = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs at a time.")] = 4,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write what moves by itself between successive images: where flow contradicts depth and camera motion."""
    from geossl.predict import predict_motion as run

    with progress_bar("predicting motion", as_json) as progress:
        summary = run(
            model,
            flow,
            source,
            out,
            save=listed(save),
            intrinsics=numbers(intrinsics),
            device=device,
            batch_size=batch_size,
            overwrite=overwrite,
            command=command_line(),
            progress=progress,
        )
    show(summary, as_json)


@predict_app.command("sceneflow")
def predict_scene_flow(
    model_and_source: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] SOURCE", help=f"Model (none with --depth and --flow); folder, video, or {SPEC}."
        ),
    ],
    out: Out,
    depth: Annotated[Path | None, typer.Option(help="Depth model, for scene flow from parts.")] = None,
    flow: Annotated[Path | None, typer.Option(help="Flow model, for scene flow from parts.")] = None,
    save: Annotated[str, typer.Option(help="Of disp_0,disp_1,flow,npy,depth,ply,rrd.")] = "disp_0,disp_1,flow",
    baseline_m: Annotated[
        float | None, typer.Option(min=1e-6, help="Of the disparities, metres; default: the source's own cameras'.")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored images' prediction.")] = False,
    intrinsics: Intrinsics = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs at a time.")] = 4,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the scene flow between successive images: KITTI's disparities and flow, 3-D motion, point clouds.

    With --depth and --flow it is put together from two models: the baseline that a scene flow model has to beat.
    """
    parts = depth is not None and flow is not None
    if (depth is None) != (flow is None) or len(model_and_source) != (1 if parts else 2):
        raise typer.BadParameter("give MODEL SOURCE, or --depth MODEL --flow MODEL SOURCE.")
    if parts and flip:
        raise typer.BadParameter("--flip is for a scene flow model, not for parts.")
    *models, source = model_and_source
    from geossl.predict import SceneFlowRequest, predict_scene_flow_from_parts
    from geossl.predict import predict_scene_flow as run

    with progress_bar("predicting scene flow", as_json) as progress:
        request = SceneFlowRequest(
            save=listed(save),
            baseline_m=baseline_m,
            intrinsics=numbers(intrinsics),
            device=device,
            batch_size=batch_size,
            overwrite=overwrite,
            command=command_line(),
            progress=progress,
        )
        if depth is not None and flow is not None:
            summary = predict_scene_flow_from_parts(depth, flow, source, out, request)
        else:
            summary = run(models[0], source, out, request, flip=flip)
    show(summary, as_json)
