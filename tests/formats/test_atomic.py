import os
from pathlib import Path

import pytest

from geossl.formats.atomic import atomic_write, write_bytes_atomic, write_text_atomic


@pytest.mark.parametrize("durable", [False, True])
def test_write_bytes_atomic_replaces_and_makes_folders(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a" / "b.bin"
    write_bytes_atomic(path, b"one", durable=durable)
    write_bytes_atomic(path, b"two", durable=durable)
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["b.bin"]


def test_atomic_write_keeps_the_old_file_when_the_body_fails(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space"), atomic_write(path) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_leaves_nothing_when_replacing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        write_text_atomic(tmp_path / "x.txt", "text")
    assert not list(tmp_path.iterdir())


def test_atomic_write_keeps_the_suffix_and_removes_on_interrupt(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "x.png") as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_bytes(b"1")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_atomic_write_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "x"):
        pass
