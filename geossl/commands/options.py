"""What the commands' lines share: options by name, and how a list, numbers and a size are written."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

SPEC = "kind:root[,key=value...], e.g. kitti_raw:datasets/kitti_raw,split=eigen_test"
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder to write to.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Compute again what is there already.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the full result to this file.")]
Intrinsics = Annotated[str | None, typer.Option(help="fx,fy,cx,cy in pixels of the source.")]


def listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in listed(text)]
    except ValueError:
        raise typer.BadParameter(f"'{text}' should be numbers with commas between.") from None


def image_size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise typer.BadParameter(f"'{text}' should read WxH, e.g. 640x192.")
    return int(width), int(height)


def command_line() -> str:
    return shlex.join(["geossl", *sys.argv[1:]])
