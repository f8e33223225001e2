"""Writing a file so that it is there whole or not at all, whatever interrupts the writing."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it replaces `path`, on an error it is removed.

    A file that was at `path` before stays untouched until the new one is complete. The temporary name starts with
    a dot and keeps the suffix, for libraries that choose the format by it. Missing folders are made.

    Args:
        path: The file to write.
        durable: Flush file and folder to the disk first (fsync), so that the file also survives a power failure.

    Raises:
        OSError: If the file cannot be written (no space, no permission), or the body wrote nothing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.stem[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}"
    try:
        yield temporary
        if durable:
            _fsync(temporary)
        os.replace(temporary, path)
        if durable and os.name == "posix":
            _fsync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes_atomic(path: str | Path, data: bytes, *, durable: bool = False) -> None:
    """Writes `data` as the whole content of `path`; see `atomic_write`."""
    with atomic_write(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: str | Path, text: str, *, durable: bool = False) -> None:
    """Writes `text` in UTF-8 as the whole content of `path`; see `atomic_write`."""
    write_bytes_atomic(path, text.encode("utf-8"), durable=durable)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
