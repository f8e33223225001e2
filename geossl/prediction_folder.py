"""The folder of predictions: what its meta.json says, what is there already, and who writes which part of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import geossl
from geossl.engine.model_folder import LoadedModel
from geossl.formats.atomic import write_text_atomic
from geossl.formats.errors import FormatError
from geossl.formats.prediction_meta import read_meta

IDENTITY = (
    "kind",
    "checkpoint_hash",
    "model_size",
    "flip_postprocessing",
    "network_size",
    "max_px",
    "baseline_m",
    "times",
    "runtime",
    "precision",
)
"""Fields of meta.json in which two predictions in one folder must agree."""
OF_A_FILE = {"source": "from", "K": "with K"}
"""Fields of an entry of `files` in which two predictions of one name must agree, and how a message says them."""

Item = TypeVar("Item")


def my_share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of the work under torchrun (every WORLD_SIZE-th item), everything without it."""
    return items[int(os.environ.get("RANK", 0)) :: int(os.environ.get("WORLD_SIZE", 1))]


def common_meta(kind: str, loaded: LoadedModel, command: str) -> dict[str, Any]:
    """What meta.json says of every kind of prediction."""
    return {
        "kind": kind,
        "units": "metres" if loaded.info["is_metric"] else "up_to_scale",
        "checkpoint_hash": loaded.info["hash"],
        "method": loaded.config.method,
        "step": loaded.info.get("step"),
        "model_size": {"width": loaded.info["width"], "height": loaded.info["height"]},
        "command": command,
        "geossl": geossl.__version__,
    }


def parts_meta(kind: str, one: LoadedModel, other: LoadedModel, command: str) -> dict[str, Any]:
    """As `common_meta`, of two models: what is said of the model is said of each, the unit is the first one's."""
    metas = [common_meta(kind, loaded, command) for loaded in (one, other)]
    both = {key: [meta[key] for meta in metas] for key in ("checkpoint_hash", "method", "step", "model_size")}
    return {**metas[0], **both}


def begin(out: Path, meta: Mapping[str, Any], mine: Sequence[Path], overwrite: bool) -> None:
    """Checks OUT's meta.json against this prediction's and writes the new one (process 0 only).

    Args:
        out: The folder.
        meta: With `files`: for each name at least its `source`.
        mine: The files that this process is about to write.
        overwrite: Remove those that exist, and accept whatever the folder says of itself.

    Raises:
        ValueError: If OUT holds predictions that differ in `IDENTITY`, or under these names another source's or
            another camera's.
    """
    path = out / "meta.json"
    if overwrite:
        for file in mine:
            file.unlink(missing_ok=True)
    old = None if overwrite and not _is_readable(out) else read_meta(out).values
    agree = old is not None and all(old.get(key) == meta.get(key) for key in IDENTITY)
    if not overwrite:
        _check_agrees(out, old, meta, mine)
    if int(os.environ.get("RANK", 0)) == 0:
        before = old["files"] if old is not None and agree and isinstance(old.get("files"), dict) else {}
        write_text_atomic(path, json.dumps({**meta, "files": {**before, **meta["files"]}}, indent=1) + "\n")


def _check_agrees(out: Path, old: Mapping[str, Any] | None, meta: Mapping[str, Any], mine: Sequence[Path]) -> None:
    remedy = "Choose another folder, or give --overwrite."
    if old is None:
        if any(file.is_file() for file in mine):
            raise ValueError(f"{out} holds predictions but no meta.json that says whose. {remedy}")
        return
    for key in IDENTITY:
        if old.get(key) != meta.get(key):
            before = old.get(key, "not said")
            raise ValueError(f"{out} holds predictions with {key} = {before}, these have {meta.get(key)}. {remedy}")
    for name, entry in meta["files"].items():
        there = old.get("files", {}).get(name, {})
        for key, word in OF_A_FILE.items():
            if key in there and there[key] != entry.get(key):
                raise ValueError(
                    f"{out} holds a prediction '{name}' {word} {there[key]}, this one is {word} {entry.get(key)}. "
                    f"{remedy}"
                )


def _is_readable(out: Path) -> bool:
    try:
        return read_meta(out).values is not None
    except FormatError:
        return False
