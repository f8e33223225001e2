import os
import zipfile
from pathlib import Path

import pytest

from geossl.formats.errors import FormatError
from geossl.formats.files import FileRef, FileTree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "on_disk.txt").write_text("disk")
    (tmp_path / "day" / "both.txt").write_text("disk")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("day/packed.txt", "packed " * 100)
        archive.writestr("day/both.txt", "zip")
        archive.writestr("dataset/poses/00.txt", "1 0")
    with zipfile.ZipFile(tmp_path / "day" / "b.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("day/deep/er/stored.bin", bytes(range(256)))
    return tmp_path


def read(tree: FileTree, relative: str) -> bytes:
    found = tree.find(relative)
    assert found is not None
    return found.read()


def test_tree_reads_folders_and_archives_alike(root: Path) -> None:
    tree = FileTree(root)
    assert read(tree, "day/on_disk.txt") == b"disk"
    assert read(tree, "day/packed.txt") == b"packed " * 100
    assert read(tree, "day/deep/er/stored.bin") == bytes(range(256))
    assert read(tree, "poses/00.txt") == b"1 0"
    assert read(tree, "day/./deep/../packed.txt") == b"packed " * 100
    assert tree.find("day/absent.txt") is None
    assert str(tree.expect("day/absent.txt")) == str(root / "day" / "absent.txt")


def test_tree_prefers_the_file_on_disk(root: Path) -> None:
    assert read(FileTree(root), "day/both.txt") == b"disk"
    assert FileTree(root).files("day")["both.txt"].member is None


def test_tree_lists_both(root: Path) -> None:
    tree = FileTree(root)
    assert tree.names("day") == ["b.zip", "both.txt", "deep", "on_disk.txt", "packed.txt"]
    assert tree.names("day/deep") == ["er"]
    assert list(tree.files("day")) == ["b.zip", "both.txt", "on_disk.txt", "packed.txt"]
    assert {"day", "poses"} <= set(tree.names())
    assert tree.names("nowhere") == [] and tree.files("nowhere") == {}


def test_tree_refuses_paths_that_leave_the_root(root: Path) -> None:
    with pytest.raises(ValueError, match="leads out"):
        FileTree(root).find("../secret.txt")
    with zipfile.ZipFile(root / "evil.zip", "w") as archive:
        archive.writestr("../../evil.txt", "x")
    with pytest.raises(FormatError, match=r"evil\.zip: holds an unsafe member"):
        FileTree(root)


def test_tree_names_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        FileTree(tmp_path / "nowhere")


def test_tree_names_a_cut_off_archive(root: Path) -> None:
    archive = root / "a.zip"
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(FormatError, match=r"a\.zip: is no readable zip file .* download may be incomplete"):
        FileTree(root)


def test_read_finds_a_damaged_member(root: Path) -> None:
    ref = FileTree(root).find("day/deep/er/stored.bin")
    assert ref is not None
    data = bytearray(Path(ref.path).read_bytes())
    data[ref.offset + 100] ^= 1
    Path(ref.path).write_bytes(data)
    with pytest.raises(FormatError, match=r"stored\.bin: its archive is cut off or damaged \(wrong checksum\)"):
        ref.read()
    Path(ref.path).write_bytes(b"other")
    with pytest.raises(FormatError, match="changed or cut off"):
        ref.read()


def test_stamp_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a")
    ref = FileRef(str(path))
    first = ref.stamp()
    os.utime(path, ns=(1, 1))
    assert ref.stamp() != first and ref.exists()
    path.unlink()
    assert not ref.exists()
    with pytest.raises(FileNotFoundError):
        ref.stamp()
