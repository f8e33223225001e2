"""Files that lie in a folder or inside a zip archive, read alike.

KITTI is published as zip files, and unpacking them doubles the space. A `FileTree` shows a folder and the archives in
it as one tree of relative paths; a `FileRef` is one file of it. A reference into an archive knows where its bytes
begin, so that any process reads it with one seek: no archive stays open, nothing is shared between loader workers.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geossl.formats.errors import FormatError
from geossl.formats.safe_paths import inside

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


@dataclass(frozen=True, slots=True)
class FileRef:
    """One file on disk, or one member of a zip archive.

    Attributes:
        path: The file, or the archive.
        member: Name inside the archive; None for a file on disk.
        offset: Where the member's local header begins in the archive.
        packed: Bytes the member takes in the archive.
        size: Bytes of the member unpacked.
        method: Compression, as zip numbers it (0 stored, 8 deflated).
        crc: The member's CRC-32.
    """

    path: str
    member: str | None = None
    offset: int = 0
    packed: int = 0
    size: int = 0
    method: int = 0
    crc: int = 0

    def __str__(self) -> str:
        return self.path if self.member is None else f"{self.path}::{self.member}"

    @property
    def suffix(self) -> str:
        """Lower-case suffix with its dot."""
        return PurePosixPath(self.member or self.path).suffix.lower()

    def exists(self) -> bool:
        return os.path.isfile(self.path)

    def stamp(self) -> tuple[int, int]:
        """Two numbers that change when the file does: modification time (ns) and size.

        Raises:
            FileNotFoundError: If it is missing.
        """
        status = os.stat(self.path)
        return status.st_mtime_ns, status.st_size

    def read(self) -> bytes:
        """The whole content.

        Raises:
            FileNotFoundError: If the file is missing.
            FormatError: If the archive is cut off or damaged at this member.
        """
        if self.member is None:
            return Path(self.path).read_bytes()
        with open(self.path, "rb") as archive:
            archive.seek(self.offset)
            header = archive.read(_LOCAL_HEADER.size)
            if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
                raise FormatError(str(self), "its archive was changed or cut off; download it again.")
            name_length, extra_length = _LOCAL_HEADER.unpack(header)[-2:]
            archive.seek(name_length + extra_length, os.SEEK_CUR)
            packed = archive.read(self.packed)
        try:
            data = zlib.decompress(packed, -zlib.MAX_WBITS) if self.method == zipfile.ZIP_DEFLATED else packed
        except zlib.error as error:
            raise FormatError(str(self), f"its archive is damaged ({error}); download it again.") from None
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise FormatError(str(self), "its archive is cut off or damaged (wrong checksum); download it again.")
        return data

    def read_text(self) -> str:
        return self.read().decode("utf-8", errors="replace")


class FileTree:
    """A folder and the zip archives in it (or one folder below it), seen as one tree of relative paths.

    A file on disk wins over a member of the same path; among archives the first in name order wins. A leading
    `dataset/` in an archive, as KITTI odometry has it, is left out.

    Args:
        root: The folder.

    Raises:
        FileNotFoundError: If there is no such folder.
        FormatError: If an archive is cut off, is no zip, or holds a path that leaves its root.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"data root {self.root} does not exist or is no folder; set the source's root.")
        self._packed: dict[str, dict[str, FileRef | None]] = {}  # folder -> name -> file, None for a folder
        for archive in (*sorted(self.root.glob("*.zip")), *sorted(self.root.glob("*/*.zip"))):
            self._add(archive)

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the files and folders in `folder`; none if it does not exist."""
        found = set(self._packed.get(folder, ()))
        try:
            with os.scandir(self.root / folder) as entries:
                found.update(entry.name for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            pass
        return sorted(found)

    def files(self, folder: str) -> dict[str, FileRef]:
        """The files in `folder` by name, in name order."""
        found = {name: ref for name, ref in self._packed.get(folder, {}).items() if ref is not None}
        base = str(self.root / folder)
        try:
            with os.scandir(base) as entries:
                found.update((e.name, FileRef(f"{base}/{e.name}")) for e in entries if e.is_file())
        except (FileNotFoundError, NotADirectoryError):
            pass
        return dict(sorted(found.items()))

    def find(self, relative: str) -> FileRef | None:
        """The file at a relative path, or None.

        Raises:
            ValueError: If the path leaves the root.
        """
        path = inside(self.root, relative)
        if path.is_file():
            return FileRef(str(path))
        folder, _, name = path.relative_to(self.root).as_posix().rpartition("/")
        return self._packed.get(folder, {}).get(name)

    def expect(self, relative: str) -> FileRef:
        """The file at a relative path, or where it should be, for a message that names it."""
        return self.find(relative) or FileRef(str(inside(self.root, relative)))

    def _add(self, archive: Path) -> None:
        try:
            with zipfile.ZipFile(archive) as opened:
                members = opened.infolist()
        except (zipfile.BadZipFile, OSError) as error:
            raise FormatError(archive, f"is no readable zip file ({error}); its download may be incomplete.") from None
        for member in members:
            if member.is_dir():
                continue
            try:
                path = inside(self.root, member.filename).relative_to(self.root).as_posix()
            except ValueError as error:
                raise FormatError(archive, f"holds an unsafe member: {error}") from None
            if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise FormatError(
                    archive, f"member {path} is encrypted or packed in a way that is not read; unpack it."
                )
            ref = FileRef(
                str(archive), path, member.header_offset, member.compress_size, member.file_size,
                member.compress_type, member.CRC,
            )  # fmt: skip
            self._insert(path.removeprefix("dataset/"), ref)

    def _insert(self, path: str, ref: FileRef) -> None:
        folder, _, name = path.rpartition("/")
        if folder in self._packed:
            self._packed[folder].setdefault(name, ref)
            return
        self._packed[folder] = {name: ref}
        while folder:
            parent, _, name = folder.rpartition("/")
            known = parent in self._packed
            self._packed.setdefault(parent, {}).setdefault(name, None)
            if known:
                break
            folder = parent
