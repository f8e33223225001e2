"""What is installed: names, configs, and nothing else at top level."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_only_geossl_is_packaged() -> None:
    find = setup_cfg()["options.packages.find"]
    assert find["include"].split() == ["geossl*"]
    assert "exclude" not in find


@pytest.mark.parametrize("folder", ["datasets", "tools", "tests"])
def test_folder_beside_the_package_is_no_module(folder: str) -> None:
    # A regular package called `datasets` or `tests` would shadow another one of that name.
    assert not (ROOT / folder / "__init__.py").exists()


def test_configs_are_the_same_beside_and_inside_the_package() -> None:
    inside = ROOT / "geossl" / "configs"
    assert inside.is_symlink()
    assert not inside.readlink().is_absolute()
    assert inside.resolve() == (ROOT / "configs").resolve()


def test_package_data_patterns_match_files() -> None:
    for package, patterns in setup_cfg()["options.package_data"].items():
        folder = ROOT / Path(*package.split("."))
        for pattern in patterns.replace("\n", ",").split(","):
            assert list(folder.glob(pattern.strip())), f"{package}: {pattern}"


def test_every_data_file_is_packaged() -> None:
    packaged = set()
    for package, patterns in setup_cfg()["options.package_data"].items():
        folder = ROOT / Path(*package.split("."))
        for pattern in patterns.replace("\n", ",").split(","):
            packaged.update(folder.glob(pattern.strip()))
    files = [p for p in (ROOT / "geossl").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    built = {".py", ".pyc", ".so", ".dll"}
    assert [p for p in files if p.suffix not in built and p not in packaged] == []


def test_torch_and_torchvision_are_unpinned() -> None:
    required = setup_cfg()["options"]["install_requires"].split("\n")
    assert {"torch", "torchvision"} <= set(required)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, geossl; assert not {'torch', 'numpy', 'cv2', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_the_command_imports_no_torch() -> None:
    code = "import sys, geossl.cli; assert not {'torch', 'cv2', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.slow
def test_wheel_holds_the_sources_and_finds_its_configs() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / "check_wheel.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
