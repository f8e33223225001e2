"""The plain implementation in tools/plain, loaded by its path: it is no part of the package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

NAME = "geossl_plain"


def plain_modules(folder: str | Path) -> PlainModules | None:
    """The modules of a folder, None where there is none."""
    folder = Path(folder).resolve()
    return PlainModules(folder) if (folder / "reprojection.py").is_file() else None


class PlainModules:
    """The folder's modules as attributes, imported when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        package = ModuleType(NAME)
        package.__path__ = [str(folder)]
        for known in [name for name in sys.modules if name.partition(".")[0] == NAME]:
            del sys.modules[known]
        sys.modules[NAME] = package

    def __getattr__(self, module: str) -> Any:
        return importlib.import_module(f"{NAME}.{module}")


def missing_note(folder: str | Path) -> str:
    """What a user is told where there is no plain implementation."""
    return (
        f"{folder} does not hold the plain implementation: only geossl's own times are measured. "
        "Give --plain DIR, the folder tools/plain of a checkout of geossl."
    )
