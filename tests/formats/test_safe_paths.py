from pathlib import Path

import pytest

from geossl.formats.safe_paths import inside


def test_inside_joins_and_works_out_dots(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/b.png") == tmp_path / "a" / "b.png"
    assert inside(tmp_path, "./a/../c") == tmp_path / "c"


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/passwd", "", "C:/x", "C:x", "a\\..\\x", "a\0b", "//server/share"]
)
def test_inside_refuses_what_leaves_the_root(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        inside(tmp_path, path)


def test_inside_follows_links_of_the_user(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "x.txt").write_text("here")
    root = tmp_path / "root"
    root.mkdir()
    (root / "date").symlink_to(disk)
    assert inside(root, "date/x.txt").read_text() == "here"
