"""The one error that every codec raises for a file it cannot read."""

from __future__ import annotations

from pathlib import Path


class FormatError(ValueError):
    """A file exists but does not hold what it should; the message names the file, the reason and the remedy."""

    def __init__(self, where: str | Path, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = str(where)
        self.reason = reason
