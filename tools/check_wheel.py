"""Builds the wheel, checks its file list, and runs the packaged command from another folder.

`python tools/check_wheel.py` exits 1 and says what is wrong.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE", "geossl", "configs")
BUILT = {"geossl/kernels/_cpu.so", "geossl/kernels/_cpu.dll"}  # of one platform, and only where there is a compiler
GIVEN = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None


def build(folder: Path) -> Path:
    """The wheel, built from a copy of the sources so that no stale build/ folder leaks into it."""
    copy = folder / "source"
    copy.mkdir()
    for name in NEEDED:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "_cpu.*"))
        elif origin.exists():
            shutil.copy2(origin, copy / name)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(copy))
    return next(folder.glob("geossl-*.whl"))


def problems(wheel: Path) -> list[str]:
    """What is wrong with the wheel's file list."""
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    found = []
    tops = {name.split("/")[0] for name in files}
    found += [f"unexpected at top level: {t}" for t in sorted(tops) if t != "geossl" and not t.endswith(".dist-info")]
    found += [f"a module called datasets: {f}" for f in sorted(files) if "datasets" in Path(f).parts[:-1]]
    tracked = [p for p in (ROOT / "geossl").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    expected = {f"geossl/{p.relative_to(ROOT / 'geossl').as_posix()}" for p in tracked}
    expected -= BUILT
    expected |= {f"geossl/configs/{p.name}" for p in (ROOT / "configs").glob("*") if p.is_file()}
    packaged = {f for f in files if f.startswith("geossl/")}
    found += [f"missing: {f}" for f in sorted(expected - packaged)]
    found += [f"not in the sources: {f}" for f in sorted(packaged - expected - BUILT)]
    return found


def try_installed(wheel: Path, folder: Path) -> None:
    """Unpacks the wheel beside nothing else and asks its command for every packaged config."""
    site = folder / "site"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
    env = {**os.environ, "PYTHONPATH": str(site)}
    where = "import geossl, sys; sys.exit(not geossl.__file__.startswith(sys.argv[1]))"
    run(sys.executable, "-c", where, str(site), cwd=folder, env=env)
    names = sorted(config.stem for config in (ROOT / "configs").glob("*.yaml"))
    load = "import sys; from geossl.config import load_experiment as load; [load(name) for name in sys.argv[1:]]"
    run(sys.executable, "-c", load, *names, cwd=folder, env=env)
    run(sys.executable, "-m", "geossl", "config", names[0], cwd=folder, env=env)


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = GIVEN or build(folder)
        found = problems(wheel)
        if found:
            sys.exit(f"{wheel.name}:\n" + "\n".join(f"  {line}" for line in found))
        try_installed(wheel, folder)
        print(f"{wheel.name}: file list as the sources, packaged configs found from another folder")


if __name__ == "__main__":
    main()
