"""What commands print: one error message, a progress bar or plain lines, results as text or JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLAIN_EVERY_S = 10.0


def fail(error: BaseException) -> None:
    """Prints an error, and the notes added to it, as one message on stderr."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    print("\n".join([f"error: {text}", *getattr(error, "__notes__", ())]), file=sys.stderr)


@contextmanager
def progress_bar(title: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (done, total): a bar on a terminal, a line every ten seconds elsewhere."""
    if quiet:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)
    else:
        last = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_EVERY_S:
                last = time.monotonic()
                print(f"{title}: {done}/{total}", file=sys.stderr, flush=True)

        yield line


def show(result: Any, as_json: bool) -> None:
    """Prints a dataclass, mapping or list of mappings: as JSON, or one line for each field, or as a table."""
    plain = to_plain(result)
    if as_json:
        print(json.dumps(plain, indent=1))
    elif isinstance(plain, list):
        print(text_table(plain))
    elif isinstance(plain, Mapping):
        for name, value in plain.items():
            lines = value if isinstance(value, list) else [value]
            for item in lines:
                print(f"{name}: {item:.4g}" if isinstance(item, float) else f"{name}: {item}")
    elif plain is not None:
        print(plain)


def to_plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and torch
        return value.tolist()
    return value


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of fields as aligned text."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns] + [[_text(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
