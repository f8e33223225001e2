"""The experiment schema: what a YAML config may say, with every default and its meaning.

A config file holds only what differs from the defaults; `base: other.yaml` inherits from a file beside it or from
the packaged `configs/`. `key=value` overrides reach any field by its dotted path (`train.lr=2e-4`). All errors are
reported at once, each with the closest valid name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError


class ConfigError(ValueError):
    """A config that cannot be used; the message lists every error at once."""


class Strict(BaseModel):
    """A frozen model that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)


# --- data ------------------------------------------------------------------------------------------------------------


class Source(Strict):
    """What every kind of data source shares."""

    weight: float = Field(1.0, gt=0, description="Relative number of batches drawn from this source.")
    stereo: bool | None = Field(None, description="Load the other camera; null inherits data.stereo.")
    source_offsets: tuple[int, ...] | None = Field(None, description="Null inherits data.source_offsets.")


class KittiRaw(Source):
    """KITTI raw recordings (unpacked or the official zips), and the synthetic street, which has the same layout."""

    kind: Literal["kitti_raw"] = "kitti_raw"
    root: Path = Field(description="Folder with 2011_09_26/... or with the official zip files.")
    split: str | None = Field(
        None, description="eigen_zhou_train, eigen_zhou_val, eigen_test, a file list's path, or null for all frames."
    )
    drives: tuple[str, ...] | None = Field(None, description="Only these drives, e.g. 2011_09_26_drive_0001_sync.")
    cameras: tuple[Literal["image_00", "image_01", "image_02", "image_03"], ...] = ("image_02", "image_03")
    intrinsics: Literal["calibrated", "nominal"] = Field(
        "calibrated", description="Each date's calibration, or Monodepth2's nominal (0.58 W, 1.92 H, W/2, H/2)."
    )
    depth_root: Path | None = Field(None, description="Root of KITTI's improved depth ground truth, for evaluation.")


class KittiOdometry(Source):
    """KITTI odometry sequences."""

    kind: Literal["kitti_odometry"] = "kitti_odometry"
    root: Path = Field(description="Folder with sequences/ and poses/.")
    sequences: tuple[str, ...] = Field(("00", "01", "02", "03", "04", "05", "06", "07", "08"))
    cameras: tuple[Literal["image_0", "image_1", "image_2", "image_3"], ...] | None = Field(
        None, description="Target cameras; null takes colour left and right where present, else grey."
    )


class KittiStereo(Source):
    """KITTI 2012 and 2015 stereo/flow pairs (and their multi-view extension where unpacked beside them)."""

    kind: Literal["kitti_stereo"] = "kitti_stereo"
    root: Path = Field(description="Folder that contains training/ (or testing/).")
    year: Literal[2012, 2015] = 2015
    subset: Literal["training", "testing"] = "training"
    cameras: tuple[Literal["left", "right"], ...] = Field(("left",), description="Target cameras; labels are left's.")
    frames: Literal["reference", "all"] = Field(
        "reference", description="Targets: only image _10, which has the labels, or every image unpacked."
    )
    calibration: Literal["files", "by_size"] = Field(
        "files", description="by_size: of the recording day that has images of this size; for copies without files."
    )


class Folder(Source):
    """A folder of images in name order, optionally with the right camera's folder."""

    kind: Literal["folder"] = "folder"
    root: Path = Field(description="Folder of images; every subfolder with images is one clip.")
    intrinsics: tuple[float, float, float, float] | None = Field(
        None,
        description="fx, fy, cx, cy in pixels of the files; null reads intrinsics.txt or intrinsics.json in root.",
    )
    right: Path | None = Field(None, description="Folder of the right camera's images, same names.")
    baseline_m: float | None = Field(None, gt=0, description="Distance of the two cameras in metres.")


class Video(Source):
    """A video file."""

    kind: Literal["video"] = "video"
    root: Path = Field(description="The video file.")
    intrinsics: tuple[float, float, float, float] | None = Field(None, description="fx, fy, cx, cy in pixels.")
    stride: int = Field(1, ge=1, description="Take every n-th frame.")
    rate_hz: float | None = Field(None, gt=0, description="Take frames at about this rate instead of `stride`.")


AnySource = Annotated[KittiRaw | KittiOdometry | KittiStereo | Folder | Video, Field(discriminator="kind")]
SOURCE_KINDS: dict[str, type[Source]] = {
    "kitti_raw": KittiRaw,
    "kitti_odometry": KittiOdometry,
    "kitti_stereo": KittiStereo,
    "folder": Folder,
    "video": Video,
}


class Augment(Strict):
    """Colour jitter and horizontal flip of whole samples (Monodepth2's values)."""

    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    jitter: float = Field(0.5, ge=0, le=1, description="Probability of colour jitter; one draw for all frames.")
    brightness: float = Field(0.2, ge=0)
    contrast: float = Field(0.2, ge=0)
    saturation: float = Field(0.2, ge=0)
    hue: float = Field(0.1, ge=0, le=0.5)


class Data(Strict):
    train: tuple[AnySource, ...] = Field((), description="Sources of training samples.")
    validation: tuple[AnySource, ...] = Field((), description="Sources with LiDAR or depth labels.")
    height: int = Field(192, ge=64, multiple_of=32)
    width: int = Field(640, ge=64, multiple_of=32)
    source_offsets: tuple[int, ...] = Field((-1, 1), description="Time steps of the source views; () for none.")
    stereo: bool = Field(False, description="Load the other camera of the target's time.")
    stereo_sources: bool = Field(False, description="Load the other camera of the sources' times too.")
    cache: Literal["none", "memory", "disk"] = Field("none", description="Keep decoded uint8 images at training size.")
    cache_dir: Path | None = Field(None, description="Folder of the disk cache; null: ~/.cache/geossl.")
    on_error: Literal["raise", "skip"] = Field("raise", description="What to do about an unreadable sample.")
    num_workers: int = Field(2, ge=0, description="Loader processes; 0 loads in the training process.")
    augment: Augment = Augment()


# --- training --------------------------------------------------------------------------------------------------------


class Train(Strict):
    epochs: int = Field(20, ge=1)
    steps: int | None = Field(None, ge=1, description="Optimiser steps; overrides `epochs` where given.")
    batch_size: int = Field(12, ge=1, description="Samples a step over all processes.")
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "step"
    milestones: tuple[float, ...] = Field((0.75,), description="Shares of the training after which `step` drops.")
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of each drop of `step`.")
    warmup: float = Field(0.0, ge=0, lt=1, description="Share of the training with linearly rising rate.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Of the networks; losses stay float32.")
    channels_last: bool = True
    grad_clip: float | None = Field(None, gt=0, description="Largest gradient norm.")
    freeze_batchnorm: bool = Field(False, description="Use running statistics and do not update them.")
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    log_every: int = Field(20, ge=1, description="Steps between lines of metrics.jsonl.")
    sample_every: int = Field(500, ge=1, description="Steps between sample pictures.")
    validate_every: int = Field(1000, ge=1, description="Steps between validations.")
    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints.")


class Experiment(Strict):
    """One experiment: a method with its options, data and training."""

    method: str = Field("monodepth2", description="A name of geossl.methods, or package.module:Class of your own.")
    model: dict[str, Any] = Field(default_factory=dict, description="The method's own options.")
    data: Data = Data()
    train: Train = Train()


# --- reading ---------------------------------------------------------------------------------------------------------


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


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Reads a config file, its bases and `key=value` overrides.

    Args:
        path: A YAML file, or the name of a packaged config (`monodepth2_kitti` or `monodepth2_kitti.yaml`).
        overrides: Dotted paths with YAML values, e.g. `train.lr=2e-4`, `data.train.0.root=/data/kitti`.

    Raises:
        ConfigError: Listing every error at once.
    """
    path = find_config(path)
    values = _load_with_bases(path, seen=())
    for override in overrides:
        _apply_override(values, override)
    return parse_experiment(values, where=str(path))


def parse_experiment(values: Mapping[str, Any], where: str = "config") -> Experiment:
    """Validates nested values into an `Experiment`, the method's options filled in with their defaults.

    Raises:
        ConfigError: Listing every error at once.
    """
    from geossl.methods import method_options  # late: methods import torch

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
    return experiment.model_copy(update={"model": options})


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
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


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
