"""Reports as one HTML file each, with everything inlined: pictures, tables, curves.

`write_report(run)` reports a training run from its metrics.jsonl, config.yaml and sample pictures. Other reports are
made from the same blocks: `page(title, [heading(...), table(...), picture(...)])`.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.formats.atomic import write_bytes_atomic
from geossl.visualize import plot_curves, png_bytes

FLOW_COLOURS = (
    "Flow: to the right is red, down yellow, left azure, up violet, no motion white. The full colour's length is in "
    "the picture's caption, the same in all pictures of a run."
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: .25em .8em; border-bottom: 1px solid #ddd; }
th { text-align: left; background: #f4f4f4; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1em 0; } img { max-width: 100%; } figcaption { color: #555; }
pre { background: #f6f6f6; padding: 1em; overflow: auto; } .warning { color: #a40000; font-weight: 600; }
"""


def page(title: str, blocks: Iterable[str]) -> str:
    """A whole HTML document of the blocks."""
    body = "\n".join(blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str, warning: bool = False) -> str:
    opening = '<p class="warning">' if warning else "<p>"
    return f"{opening}{html.escape(text)}</p>"


def preformatted(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of the rows' fields, in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = []
    for row in rows:
        cells = (_cell(row.get(column, "")) for column in columns)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _cell(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    opening = '<td class="number">' if number else "<td>"
    return f"{opening}{html.escape(format_value(value))}</td>"


def format_value(value: Any) -> str:
    """Numbers with four significant digits, everything else as it prints."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def picture(image: NDArray[np.uint8] | Path, caption: str = "") -> str:
    """An image, (H, W, 3) or a PNG or JPEG file, inlined."""
    if isinstance(image, Path):
        kind = "jpeg" if image.suffix.lower() in {".jpg", ".jpeg"} else "png"
        data = image.read_bytes()
    else:
        kind, data = "png", png_bytes(image)
    encoded = base64.b64encode(data).decode("ascii")
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/{kind};base64,{encoded}"><figcaption>{text}</figcaption></figure>'
    )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut short by a kill is left out.

    Raises:
        ValueError: If another line is not JSON.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number} is not JSON: {error}. Remove that line.") from None
    return rows


def curves_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """(steps, values) of every finite number in the rows, by name; a step logged twice counts with its last value."""
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        step = row.get("step")
        if not isinstance(step, int | float):
            continue
        for name, value in row.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if name != "step" and number and math.isfinite(value):
                points.setdefault(name, {})[float(step)] = float(value)
    return {name: (sorted(found), [found[step] for step in sorted(found)]) for name, found in points.items()}


def curve_blocks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One plot for each group of names: `loss` and `loss/...` together, `health/...` one by one, and so on."""
    groups: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for name, curve in curves_of(rows).items():
        family = name.split("/")[0]
        groups.setdefault(family if family == "loss" else name, {})[name] = curve
    return [picture(plot_curves(curves, title=group)) for group, curves in groups.items()]


def write_report(run: Path, max_pictures: int = 12) -> Path:
    """Writes RUN/report.html from the run folder's files and returns its path.

    Args:
        run: A folder that `train` wrote.
        max_pictures: The newest sample pictures to show.

    Raises:
        ValueError: If the folder has no metrics.jsonl.
    """
    metrics = run / "metrics.jsonl"
    if not metrics.is_file():
        raise ValueError(f"{run} has no metrics.jsonl, so it is not a run folder; give the folder that train wrote.")
    rows = read_metrics(metrics)
    blocks = [heading("Last values"), table([{"name": k, "value": v[1][-1]} for k, v in curves_of(rows).items()])]
    warnings = [str(text) for row in rows for text in row.get("warnings", ())]
    blocks += [paragraph(text, warning=True) for text in dict.fromkeys(warnings)]
    blocks += [heading("Curves"), *curve_blocks(rows)]
    shown = sorted((run / "samples").glob("*.png"), key=lambda p: (p.stat().st_mtime, p.name))[-max_pictures:]
    if shown:
        blocks += [heading("Samples"), *(picture(path, path.stem) for path in reversed(shown))]
    if shown and any("health/flow_px" in row for row in rows):
        blocks += [paragraph(FLOW_COLOURS)]
    for name in ("config.yaml", "env.json"):
        if (run / name).is_file():
            blocks += [heading(name), preformatted((run / name).read_text(encoding="utf-8"))]
    target = run / "report.html"
    write_bytes_atomic(target, page(f"geossl run {run.resolve().name}", blocks).encode())
    return target
