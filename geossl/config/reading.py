"""From YAML files, overrides and words of the command line to an experiment or a source, and back to YAML."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from geossl.config.experiment import Experiment
from geossl.config.sources import SOURCE_KINDS, AnySource, KittiOdometry, KittiRaw, KittiStereo
from geossl.config.strict import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its surprises: `2e-4` is a number; `off`, `no`, `06` and `2011_09_26` are words."""


_Loader.yaml_implicit_resolvers = {
    key: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":bool", ":int", ":float", ":timestamp"))]
    for key, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.inf$|^\.nan$"),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """Reads YAML; see `_Loader` for what differs from PyYAML."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def load_experiment(path: str | Path | None, overrides: Sequence[str] = ()) -> Experiment:
    """Reads a config file, its bases and `key=value` overrides.

    Args:
        path: A YAML file, or the name of a packaged config (`monodepth2_kitti` or `monodepth2_kitti.yaml`); None:
            every field's default.
        overrides: Dotted paths with YAML values, e.g. `train.lr=2e-4`, `data.train.0.root=/data/kitti`.

    Raises:
        ConfigError: Listing every error at once.
    """
    file = None if path is None else find_config(path)
    values = {} if file is None else _load_with_bases(file, seen=())
    for override in overrides:
        _apply_override(values, override)
    return parse_experiment(values, where="config" if file is None else str(file))


def parse_experiment(values: Mapping[str, Any], where: str = "config") -> Experiment:
    """Validates nested values into an `Experiment`, its method's options filled in with their defaults.

    Where a method of optical or scene flow is trained, training sources that do not say what to `exclude` leave out
    what the benchmarks of flow test.

    Raises:
        ConfigError: Listing every error at once.
    """
    from geossl.methods import method_options, predicts_flow  # late: methods import torch

    errors: list[str] = []
    experiment: Experiment | None = None
    try:
        experiment = Experiment.model_validate({**values})
    except ValidationError as error:
        errors += _explain(error, Experiment, prefix="")
    options: dict[str, Any] = {}
    try:
        schema = method_options(str(values.get("method", Experiment.model_fields["method"].default)))
        try:
            options = schema.model_validate(values.get("model") or {}).model_dump(mode="json")
        except ValidationError as error:
            errors += _explain(error, schema, prefix="model.")
    except ConfigError as error:
        errors.append(f"method: {error}")
    if errors or experiment is None:
        listed = "\n".join(f"  {line}" for line in errors)
        raise ConfigError(f"{where} has {len(errors)} error{'s' if len(errors) != 1 else ''}:\n{listed}")
    resolved: dict[str, Any] = {"model": options}
    if predicts_flow(experiment.method):
        train = tuple(_without_benchmarks(source) for source in experiment.data.train)
        resolved["data"] = experiment.data.model_copy(update={"train": train})
    return experiment.model_copy(update=resolved)


def _without_benchmarks(source: AnySource) -> AnySource:
    """The source with what is tested left out, unless it says what to do about it."""
    undecided = isinstance(source, KittiRaw | KittiOdometry | KittiStereo) and source.exclude is None
    return source.model_copy(update={"exclude": "benchmarks"}) if undecided else source


def parse_source(spec: str) -> AnySource:
    """Reads a data specification of the command line: `kind:root[,key=value...]`.

    Example: `kitti_raw:datasets/kitti_raw,split=eigen_test,cameras=[image_02]`.

    Raises:
        ConfigError: If the kind is unknown or a value does not fit.
    """
    kind, colon, rest = spec.partition(":")
    if not colon or kind not in SOURCE_KINDS:
        raise ConfigError(
            f"data specification '{spec}' should read kind:root[,key=value...] with kind one of "
            f"{', '.join(SOURCE_KINDS)}."
        )
    root, *pairs = _split_commas(rest)
    if not root:
        raise ConfigError(f"data specification '{spec}' names no root; it should read kind:root[,key=value...].")
    values: dict[str, Any] = {"kind": kind, "root": root}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"'{pair}' in data specification '{spec}' should read key=value.")
        values[key] = _parse_value(value, f"'{pair}' in data specification '{spec}'")
    try:
        return TypeAdapter(AnySource).validate_python(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error, SOURCE_KINDS[kind], prefix=f"{spec}: "))) from None


def dump_yaml(experiment: Experiment) -> str:
    """The resolved experiment as YAML that `load_experiment` reads back."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)


def configs_dir() -> Path:
    """Where the packaged configs lie: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parents[1]
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def find_config(path: str | Path) -> Path:
    """An existing file, or a packaged config of that name.

    Raises:
        ConfigError: If there is neither; names the closest packaged config.
    """
    given = Path(path)
    if given.is_file():
        return given
    name = given.name if given.suffix == ".yaml" else f"{given.name}.yaml"
    packaged = configs_dir() / name
    if packaged.is_file() and given.parent == Path("."):
        return packaged
    names = sorted(file.stem for file in configs_dir().glob("*.yaml"))
    close = difflib.get_close_matches(given.stem, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ConfigError(
        f"no config file {given} and no packaged config of that name.{hint} Packaged: {', '.join(names)}"
    )


def _load_with_bases(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"configs inherit in a circle: {' -> '.join(str(p) for p in (*seen, path))}")
    try:
        values = parse_yaml(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} should hold a mapping of fields, not a {type(values).__name__}.")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base {base!r} should be one config's file or name.")
    beside = path.parent / base
    return merge(_load_with_bases(beside if beside.is_file() else find_config(base), (*seen, path)), values)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings merged, `over` winning; lists are replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"override '{override}' should read key=value, e.g. train.lr=2e-4.")
    *parents, last = path.split(".")
    node: Any = values
    for parent in parents:
        if isinstance(node, list):
            node = node[_list_index(node, parent, path)]
        else:
            node = node.setdefault(parent, {})
        if not isinstance(node, dict | list):
            raise ConfigError(f"override '{path}': '{parent}' is a value, not a section.")
    value = _parse_value(text, f"override '{override}'")
    if isinstance(node, list):
        node[_list_index(node, last, path)] = value
    else:
        node[last] = value


def _parse_value(text: str, where: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        raise ConfigError(f"{where}: '{text}' is no YAML value.") from None


def _list_index(node: list[Any], key: str, path: str) -> int:
    if not key.isdigit() or int(key) >= len(node):
        raise ConfigError(f"override '{path}': '{key}' should be an index below {len(node)}.")
    return int(key)


def _split_commas(text: str) -> list[str]:
    """Splits at commas that are not inside brackets."""
    return re.split(r",(?![^\[\]]*\])", text)


def _explain(error: ValidationError, schema: type[BaseModel], prefix: str) -> list[str]:
    """One readable line for each error of a validation."""
    lines = []
    for item in error.errors():
        location = [str(part) for part in item["loc"]]
        where = prefix + ".".join(part for part in location if part not in SOURCE_KINDS)
        if item["type"] == "extra_forbidden":
            known = _known_fields(schema, item["loc"])
            close = difflib.get_close_matches(location[-1], known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known fields: {', '.join(known)}"
            lines.append(f"{where}: unknown field; {hint}")
        elif item["type"] == "missing":
            lines.append(f"{where}: required, but not given")
        else:
            expected = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            lines.append(f"{where}: {item['input']!r} should be {expected}")
    return lines


def _known_fields(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The field names of the model in which the last part of `location` was not found."""
    model: Any = schema
    for part in location[:-1]:
        if part in SOURCE_KINDS:
            model = SOURCE_KINDS[str(part)]
        elif isinstance(part, str) and isinstance(model, type) and issubclass(model, BaseModel):
            annotation = model.model_fields[part].annotation if part in model.model_fields else None
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
    return list(model.model_fields)
