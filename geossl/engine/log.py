"""What a training tells: metrics.jsonl, TensorBoard where installed, sample pictures, a line or bar on the screen."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from geossl.formats.atomic import atomic_write, write_bytes_atomic
from geossl.visualize import Picture, colorize, colorize_depth, colorize_disparity, colorize_flow, png_bytes, stack

PLAIN_SECONDS = 5.0  # least time between two plain lines
SAMPLES_SHOWN = 4  # samples of a batch in a picture
SHOWN = (
    "abs_rel",
    "delta1",
    "epe_all",
    "epe_noc",
    "epe_occ",
    "sf_all_percent",
    "epe3d_all_m",
)  # validation figures on the terminal
ERROR_LIMIT = 0.5  # photometric error of an error map's last colour
FLOW_LIMIT = 0.05  # length of flow's full colour over the image's width: 62 pixels of KITTI's 1242


class Log:
    """Writes a run's figures and pictures; silent in every process but the main one.

    Args:
        run: The run folder.
        step: The step the training starts from; later lines of metrics.jsonl (from a run that was killed) are cut.
        total_steps: For the progress bar.
        main: Whether this process writes.
    """

    def __init__(self, run: Path, step: int, total_steps: int, main: bool = True) -> None:
        self.run, self.total_steps, self.main = run, total_steps, main
        self.console = Console(file=sys.stderr, quiet=not main, soft_wrap=True)
        self.progress: Progress | None = None
        self.task = TaskID(0)
        self.said = 0.0
        if not main:
            return
        truncate_metrics(run / "metrics.jsonl", step)
        self.file = (run / "metrics.jsonl").open("a", encoding="utf-8")
        self.tensorboard = _tensorboard(run, step)
        if self.console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.task = self.progress.add_task("train", total=total_steps, completed=step, figures="")
            self.progress.start()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.main:
            return
        if self.progress is not None:
            self.progress.stop()
        self.file.close()
        if self.tensorboard is not None:
            self.tensorboard.close()

    def say(self, message: str) -> None:
        """One line on the terminal."""
        self.console.print(message, markup=False, highlight=False)

    def warn(self, message: str) -> None:
        self.console.print(f"warning: {message}", style="yellow", markup=False, highlight=False)

    def advance(self, step: int) -> None:
        """Moves the progress bar."""
        if self.progress is not None:
            self.progress.update(self.task, completed=step)

    def line(self, step: int, figures: Mapping[str, float | int], warnings: Sequence[str] = ()) -> None:
        """Appends one line to metrics.jsonl; not-finite figures become null."""
        if not self.main:
            return
        values: dict[str, Any] = {name: x if math.isfinite(x) else None for name, x in figures.items()}
        if warnings:
            values["warnings"] = list(warnings)
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        if self.tensorboard is not None:
            for name, value in figures.items():
                self.tensorboard.add_scalar(name, value, step)

    def train_line(self, step: int, figures: Mapping[str, float | int], warnings: Sequence[str] = ()) -> None:
        """A line of training figures and of what they warn of, also shown on the terminal."""
        self.line(step, figures, warnings)
        shown = f"loss {figures['loss']:.4f}  {figures['samples_per_second']:.1f} samples/s"
        if self.progress is not None:
            self.progress.update(self.task, completed=step, figures=shown)
        elif time.monotonic() - self.said > PLAIN_SECONDS or step == self.total_steps:
            self.said = time.monotonic()
            remaining = (self.total_steps - step) * figures["seconds_per_step"]
            self.say(f"step {step}/{self.total_steps}  {shown}  lr {figures['lr']:.2e}  {_duration(remaining)} left")
        for warning in warnings:
            self.warn(warning)

    def validation_line(self, step: int, figures: Mapping[str, float]) -> None:
        """A line of validation figures, also shown on the terminal."""
        self.line(step, {f"validation/{name}": value for name, value in figures.items()})
        shown = [f"{name} {value:.4f}" for name, value in figures.items() if name.endswith(SHOWN)]
        images = " and ".join(f"{value:.0f}" for name, value in figures.items() if name.endswith("images"))
        self.say(f"step {step}/{self.total_steps}  validation on {images} images: {'  '.join(shown)}")

    def flush(self) -> None:
        """Puts the lines on the disk, so that a checkpoint never survives a power failure that its lines do not."""
        if self.main:
            self.file.flush()
            os.fsync(self.file.fileno())

    def pictures(self, step: int, maps: Mapping[str, Tensor]) -> None:
        """Writes samples/<step>.png: a row for each sample, a column for each map, its name in the corner."""
        if not self.main or not maps:
            return
        picture = picture_of_maps(maps)
        write_bytes_atomic(self.run / "samples" / f"{step:07d}.png", png_bytes(picture))
        if self.tensorboard is not None:
            self.tensorboard.add_image("samples", picture, step, dataformats="HWC")


def picture_of_maps(maps: Mapping[str, Tensor], samples: int = SAMPLES_SHOWN) -> Picture:
    """The maps of an objective as one picture: a row for each sample, a column for each map.

    Args:
        maps: (B, C, H, W) by name. Three channels are RGB in [0, 1], two are flow in pixels, its full colour fixed at
            5 % of the width and named in the caption. Of one channel, names with `depth` are coloured by inverse depth
            and names with `disparity` by disparity (each over its own range), names with `error` from 0 to 0.5; others
            are grey from 0 to 1.
        samples: Rows at most.
    """
    cells, captions = [], []
    count = min(samples, *(len(values) for values in maps.values()))
    for index in range(count):
        for name, values in maps.items():
            value = values[index].detach().float().cpu().numpy()  # (C, H, W)
            caption = name
            if value.shape[0] == 3:
                cell = (value.clip(0, 1) * 255).round().astype("uint8").transpose(1, 2, 0)
            elif value.shape[0] == 2:
                max_px = FLOW_LIMIT * value.shape[2]
                cell, caption = colorize_flow(value.transpose(1, 2, 0), max_px), f"{name} {max_px:.3g} px"
            elif "depth" in name:
                cell = colorize_depth(value[0])
            elif "disparity" in name:
                cell = colorize_disparity(value[0])
            elif "error" in name:
                cell = colorize(value[0], 0.0, ERROR_LIMIT, "inferno")
            else:
                cell = colorize(value[0], 0.0, 1.0, "gray")
            cells.append(cell)
            captions.append(caption)
    return stack(cells, captions, columns=len(maps))


def truncate_metrics(path: Path, step: int) -> None:
    """Keeps the lines up to `step`: what a killed run logged after its last checkpoint will be logged again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if _step_of(line) <= step]
    if len(kept) < len(lines):
        with atomic_write(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):  # cut in the middle of writing
        return math.inf


def _tensorboard(run: Path, step: int) -> Any:
    """A TensorBoard writer where tensorboard is installed, else None."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run), purge_step=step + 1)


def _duration(seconds: float) -> str:
    minutes, hours = int(seconds // 60) % 60, int(seconds // 3600)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {int(seconds) % 60:02d} s"
