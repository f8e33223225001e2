"""The experiment schema: reading, inheritance, overrides, messages."""

from pathlib import Path

import pytest
import yaml

from geossl.config import (
    ConfigError,
    Experiment,
    KittiRaw,
    configs_dir,
    dump_yaml,
    find_config,
    load_experiment,
    merge,
    parse_experiment,
    parse_source,
    parse_yaml,
)

PACKAGED = sorted(path.stem for path in configs_dir().glob("*.yaml"))


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# --- YAML ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),  # PyYAML: the string '2e-4'
        ("1.5", 1.5),
        ("-3", -3),
        (".5", 0.5),
        ("1e5", 1e5),
        ("off", "off"),  # PyYAML: False
        ("no", "no"),
        ("true", True),
        ("06", "06"),  # PyYAML: 6; a KITTI sequence is '06'
        ("2011_09_26", "2011_09_26"),  # PyYAML: 20110926
        ("2011-09-26", "2011-09-26"),  # PyYAML: a date
        ("null", None),
        ("~", None),
        ("[-1, 1]", [-1, 1]),
        ("{a: 06}", {"a": "06"}),
        ("1:30", "1:30"),  # PyYAML: 90
    ],
)
def test_parse_yaml_has_no_surprises(text: str, value: object) -> None:
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["!!python/object/apply:os.getcwd []", "!!python/name:os.system"])
def test_parse_yaml_executes_nothing(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)


WRONG = "method: monodepth22\ntrain: {lrr: 1.0, batch_size: 0}\ndata: {height: 100}\n"


# --- errors ----------------------------------------------------------------------------------------------------------


def test_every_error_is_listed_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path, "wrong.yaml", "method: monodepth22\ntrain: {lrr: 1.0, batch_size: 0}\ndata: {height: 100}\n"
    )
    with pytest.raises(ConfigError) as raised:
        load_experiment(path)
    message = str(raised.value)
    assert "4 errors" in message
    assert "train.lrr: unknown field; did you mean 'lr'?" in message
    assert "train.batch_size: 0 should be greater than or equal to 1" in message
    assert "data.height: 100 should be a multiple of 32" in message
    assert "did you mean 'monodepth2'?" in message
    assert str(path) in message


def test_method_options_are_checked_with_the_rest() -> None:
    with pytest.raises(ConfigError, match=r"(?s)model\.supervison: unknown field; did you mean 'supervision'.*"):
        parse_experiment({"method": "monodepth2", "model": {"supervison": "S"}})
    with pytest.raises(ConfigError, match=r"(?s)2 errors:.*train\.lr.*model\.supervision: 'X' should be"):
        parse_experiment({"method": "monodepth2", "model": {"supervision": "X"}, "train": {"lr": -1}})


def test_unknown_field_of_a_source_names_the_source_s_fields() -> None:
    data = {"train": [{"kind": "kitti_raw", "root": "x", "splitt": "eigen_test"}]}
    with pytest.raises(ConfigError, match=r"data\.train\.0\.splitt: unknown field; did you mean 'split'\?"):
        parse_experiment({"data": data})


def test_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data\.train\.0\.root: required, but not given"):
        parse_experiment({"data": {"train": [{"kind": "kitti_raw"}]}})


def test_unknown_kind_of_source_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data\.train\.0.*kitti_row"):
        parse_experiment({"data": {"train": [{"kind": "kitti_row", "root": "x"}]}})


@pytest.mark.parametrize("values", [{"method": 3}, {"model": 5}, {"model": [1]}, {"data": 1}, {"train": None}])
def test_wrong_types_are_config_errors(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        parse_experiment(values)


def test_method_that_cannot_be_imported_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no_such_package"):
        parse_experiment({"method": "no_such_package.module:Method"})


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "a: [", "a: 1\n\tb: 2"])
def test_file_that_is_no_mapping_is_a_config_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_experiment(write(tmp_path, "bad.yaml", text))


def test_binary_file_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(ConfigError, match="not readable YAML"):
        load_experiment(path)


def test_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load_experiment(write(tmp_path, "empty.yaml", "# nothing\n")) == parse_experiment({})


# --- inheritance -----------------------------------------------------------------------------------------------------


def test_base_is_found_beside_and_overridden(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "train: {lr: 3e-4, epochs: 5}\ndata: {source_offsets: [-2, 2]}\n")
    path = write(tmp_path, "child.yaml", "base: base.yaml\ntrain: {epochs: 7}\ndata: {source_offsets: [1]}\n")
    experiment = load_experiment(path)
    assert experiment.train.lr == 3e-4
    assert experiment.train.epochs == 7
    assert experiment.data.source_offsets == (1,)  # lists are replaced whole


def test_base_may_be_a_packaged_config(tmp_path: Path) -> None:
    name = PACKAGED[0]
    path = write(tmp_path, "mine.yaml", f"base: {name}\ntrain: {{seed: 77}}\n")
    expected = load_experiment(name)
    assert load_experiment(path).train == expected.train.model_copy(update={"seed": 77})


def test_circular_bases_are_a_config_error(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "base: b.yaml\n")
    write(tmp_path, "b.yaml", "base: a.yaml\n")
    with pytest.raises(ConfigError, match=r"circle.*a\.yaml.*b\.yaml"):
        load_experiment(tmp_path / "a.yaml")


def test_missing_base_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load_experiment(write(tmp_path, "a.yaml", "base: nowhere.yaml\n"))
    with pytest.raises(ConfigError, match=r"base \['a', 'b'\] should be one config's file or name"):
        load_experiment(write(tmp_path, "a.yaml", "base: [a, b]\n"))


def test_merge_changes_neither_argument() -> None:
    base, over = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}
    assert merge(base, over) == {"a": {"b": 3, "c": 2}}
    assert base == {"a": {"b": 1, "c": 2}}


# --- overrides -------------------------------------------------------------------------------------------------------


def test_overrides_reach_every_depth(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "data: {train: [{kind: kitti_raw, root: old}]}\n")
    overrides = ["train.lr=2e-4", "data.train.0.root=/new", "model.supervision=MS", "data.augment.flip=0"]
    experiment = load_experiment(path, overrides)
    assert experiment.train.lr == 2e-4
    assert experiment.data.train[0].root == Path("/new")
    assert experiment.model["supervision"] == "MS"
    assert experiment.data.augment.flip == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr", "should read key=value"),
        ("=3", "should read key=value"),
        ("method.name=3", "'method' is a value, not a section"),
        ("data.train.5.root=x", "'5' should be an index below 1"),
        ("data.train.x.root=x", "'x' should be an index below 1"),
        ("train.nothing=1", "train.nothing: unknown field"),
        ("train.lr=[", "train.lr"),
    ],
)
def test_wrong_override_is_named(tmp_path: Path, override: str, message: str) -> None:
    path = write(tmp_path, "a.yaml", "method: monodepth2\ndata: {train: [{kind: kitti_raw, root: old}]}\n")
    with pytest.raises(ConfigError) as raised:
        load_experiment(path, [override])
    assert message in str(raised.value)


def test_override_of_a_section_that_is_null_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_experiment(write(tmp_path, "a.yaml", "train:\n"), ["train.lr=1"])


# --- packaged --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_config_is_valid_and_round_trips(name: str, tmp_path: Path) -> None:
    experiment = load_experiment(name)
    assert load_experiment(write(tmp_path, "resolved.yaml", dump_yaml(experiment))) == experiment


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_config_starts_with_a_comment(name: str) -> None:
    assert (configs_dir() / f"{name}.yaml").read_text(encoding="utf-8").startswith("#")


def test_unknown_config_names_the_closest() -> None:
    close = PACKAGED[0] + "x"
    with pytest.raises(ConfigError, match=f"Did you mean '{PACKAGED[0]}'"):
        find_config(close)


def test_experiment_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Experiment().method = "x"  # type: ignore[misc]


# --- data specifications ---------------------------------------------------------------------------------------------


def test_parse_source_reads_lists_and_scalars() -> None:
    source = parse_source("kitti_raw:data/kitti raw,split=eigen_test,cameras=[image_02, image_03],weight=2")
    assert source == KittiRaw(
        root=Path("data/kitti raw"), split="eigen_test", cameras=("image_02", "image_03"), weight=2.0
    )


def test_parse_source_keeps_leading_zeros() -> None:
    source = parse_source("kitti_odometry:root,sequences=[06, 09]")
    assert source.sequences == ("06", "09")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "should read kind:root"),
        ("kitti:x", "kind one of kitti_raw"),
        ("kitti_raw:x,split", "'split' in data specification"),
        ("kitti_raw:x,splitt=a", "did you mean 'split'"),
        ("kitti_odometry:x,sequences=06", "sequences"),
        ("folder:x,intrinsics=[1, 2]", "intrinsics"),
        ("kitti_raw:x,split=[", "split"),
        ("kitti_raw:", "root"),
    ],
)
def test_wrong_data_specification_is_named(spec: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_source(spec)
    assert message in str(raised.value)
