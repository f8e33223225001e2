"""Paths that come out of a file (split lists, zip members, json) must not lead outside their root."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath


def inside(root: str | Path, relative: str) -> Path:
    """The path `relative` below `root`.

    The check is lexical: a symbolic link that the user put inside `root` is followed, as data folders often link to
    another disk; what a file says cannot leave the root.

    Args:
        root: The folder that must not be left.
        relative: A path with forward slashes, as read from a file.

    Returns:
        `root` / `relative` with `.` and `..` worked out.

    Raises:
        ValueError: If `relative` is absolute, empty, holds a backslash, drive or NUL, or leads out of `root`.
    """
    if not relative or "\0" in relative or "\\" in relative:
        raise ValueError(f"path {relative!r} should be a relative path with forward slashes, below {root}.")
    if PurePosixPath(relative).is_absolute() or PureWindowsPath(relative).drive:
        raise ValueError(f"path {relative!r} is absolute; expected one relative to {root}.")
    parts: list[str] = []
    for part in PurePosixPath(relative).parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise ValueError(f"path {relative!r} leads out of {root}; only files below it are read.")
    return Path(root, *parts)
