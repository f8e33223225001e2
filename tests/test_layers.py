"""Which part of geossl may import which, read from the sources."""

import ast
from functools import lru_cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "geossl"
BASE = {"types", "config", "geometry", "formats", "appearance"}
# A part may import what is listed and itself. What is not a key (cli, commands, demo, predict, ...) is at the top.
ALLOWED = {
    "config": {"methods"},  # inside functions only: the schema of a method's options
    "types": set(),
    "kernels": set(),  # of tensors and numbers alone, so that every part above may have a fast version
    "geometry": {"types", "kernels"},
    "appearance": {"geometry", "kernels"},
    "losses": {"types", "geometry", "kernels"},
    "networks": {"types", "config", "geometry", "losses", "kernels"},
    # of pretrain only its table of names
    "methods": {"types", "config", "geometry", "appearance", "losses", "kernels", "networks", "pretrain"},
    "pretrain": {"types", "config", "geometry", "appearance", "losses", "kernels", "networks", "methods"},
    "formats": {"types", "geometry"},
    "data": BASE,
    "evaluation": {*BASE, "kernels"},
    "visualize": set(),
    "visualize_points": {"visualize"},
    "report": {"visualize", "formats"},
    "engine": {*BASE, "losses", "kernels", "networks", "methods", "pretrain", "data", "evaluation", "visualize"},
}


@lru_cache
def modules() -> dict[str, Path]:
    """Dotted name below geossl -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, late: bool = True) -> set[str]:
    """The geossl modules that a file imports, below `geossl.`; those inside functions only if `late`."""
    found: set[str] = set()
    known = modules()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import geossl modules by their full name"
            package, _, module = (node.module or "").partition(".")
            if package == "geossl":
                names = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
                found.update(name if name in known else module for name in names)
        elif isinstance(node, ast.Import):
            found.update(a.name.removeprefix("geossl.") for a in node.names if a.name.startswith("geossl."))
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if late or not (inside or typing_only):
                visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_go_down_the_layers(module: str) -> None:
    part = module.split(".")[0]
    if part not in ALLOWED:
        return
    used = {name.split(".")[0] for name in imports(modules()[module])} - {part, "__version__"}
    wrong = sorted(used - ALLOWED[part])
    assert not wrong, f"geossl.{module} must not import from {wrong}"


def test_every_part_is_placed() -> None:
    top = {"", "__main__", "benchmark", "cli", "commands", "configs", "demo", "inputs", "predict", "prediction_folder"}
    parts = {name.split(".")[0] for name in modules()}
    unplaced = sorted(parts - top - set(ALLOWED))
    assert not unplaced, f"say in tests/test_layers.py where {unplaced} belong"


def test_module_imports_have_no_cycle() -> None:
    known = modules()
    graph = {name: {m for m in imports(path, late=False) if m in known and m != name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_config_imports_no_method_at_module_level() -> None:
    for name, path in modules().items():
        if name.split(".")[0] == "config":
            assert {used.split(".")[0] for used in imports(path, late=False)} <= {"config"}


def test_grid_sample_is_called_in_one_place() -> None:
    users = [name for name, path in modules().items() if "grid_sample(" in path.read_text(encoding="utf-8")]
    assert users == ["geometry.pixels"]
