"""`geossl config`: the packaged configs, the resolved one, and every option with its meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from geossl.config import SOURCE_KINDS, Experiment, configs_dir, dump_yaml, load_experiment


def list_configs() -> str:
    """One line for each packaged config: its name and the first line of its header."""
    files = sorted(configs_dir().glob("*.yaml"))
    width = max((len(file.stem) for file in files), default=0)
    return "\n".join(f"{file.stem:<{width}}  {_first_comment(file)}".rstrip() for file in files)


def _first_comment(file: Path) -> str:
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("#") and line.strip("# \n"):
                return line.strip("# \n")
            if line.strip() and not line.startswith("#"):
                break
    return ""


def resolved(name: str, overrides: Sequence[str]) -> str:
    """The config as YAML with every default filled in."""
    return dump_yaml(load_experiment(name, overrides))


def list_options(name: str | None = None) -> str:
    """Every option: dotted name, type, default and meaning. The method's own are those of config `name`'s method,
    or of every method where no config is given."""
    from geossl.methods import METHODS, method_options

    lines = ["method: str = monodepth2", "    " + (Experiment.model_fields["method"].description or "")]
    methods = list(METHODS) if name is None else [load_experiment(name).method]
    for method in methods:
        lines += ["", f"# model: the options of method {method}"]
        lines += _options(method_options(method), "model.")
    for section in ("data", "train"):
        lines += ["", f"# {section}"]
        lines += _options(Experiment.model_fields[section].annotation, f"{section}.")
    for kind, source in SOURCE_KINDS.items():
        lines += ["", f"# data.train and data.validation: a source of kind {kind}"]
        lines += _options(source, "data.train.N.")
    return "\n".join(lines)


def _options(model: Any, prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _options(annotation, f"{prefix}{name}.")
            continue
        default = "required" if field.default is PydanticUndefined else _value(field.default)
        yield f"{prefix}{name}: {_type_name(annotation)} = {default}"
        if field.description:
            yield f"    {field.description}"


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _type_name(annotation: Any) -> str:
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _type_name(arguments[0])
    if not arguments:
        return "null" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))
    if all(isinstance(a, str) for a in arguments):
        return " | ".join(arguments)
    if getattr(annotation, "__origin__", None) is tuple:
        return f"list of {_type_name(arguments[0])}" if Ellipsis in arguments else f"{len(arguments)} values"
    return " | ".join(dict.fromkeys(_type_name(a) for a in arguments))
