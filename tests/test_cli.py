"""The `geossl` command: exit status, messages, and one pass from a street to scores."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from geossl.cli import app
from geossl.commands.check import check_data
from geossl.commands.console import fail, text_table, to_plain
from geossl.config import ConfigError
from geossl.data.synthetic import StreetOptions
from geossl.data.synthetic.write import write_street
from geossl.formats.trajectory import write_kitti_trajectory

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "train",
    "predict",
    "evaluate",
    "submit",
    "export",
    "check",
    "synth",
    "report",
    "benchmark",
    "demo",
    "config",
)
SIZE = (128, 64)


def geossl(*arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command, in this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small frames of a synthetic street."""
    folder = tmp_path_factory.mktemp("street")
    options = StreetOptions(sequences=1, frames=6, width=SIZE[0], height=SIZE[1], seed=3, standing=0)
    write_street(folder, options, processes=1)
    return folder


def config_for(street: Path, folder: Path, **train: Any) -> Path:
    values = {
        "method": "monodepth2",
        "model": {"supervision": "MS", "encoder": "compact", "encoder_weights": None, "pose": "shared"},
        "data": {
            "train": [{"kind": "kitti_raw", "root": str(street), "cameras": ["image_02"]}],
            "width": SIZE[0],
            "height": SIZE[1],
            "stereo": True,
            "num_workers": 0,
        },
        "train": {"steps": 1, "batch_size": 1, "device": "cpu", "log_every": 1, **train},
    }
    path = folder / "small.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return path


@pytest.fixture(scope="module")
def run(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of one step."""
    folder = tmp_path_factory.mktemp("trained")
    code, _, err = geossl("train", config_for(street, folder), "-o", folder / "run")
    assert code == 0, err
    return folder / "run"


# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "",
        *COMMANDS,
        "predict depth",
        "predict pose",
        "predict flow",
        "evaluate depth",
        "evaluate pose",
        "evaluate flow",
        "predict sceneflow",
        "evaluate sceneflow",
    ],
)
def test_help_is_there(command: str) -> None:
    code, out, _ = geossl(*command.split(), "--help")
    assert code == 0
    assert "Usage" in out


def test_help_answers_without_torch() -> None:
    code = (
        "import sys; from geossl.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit as e:"
        "\n assert e.code == 0\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_version_is_printed() -> None:
    import geossl as package

    assert geossl("--version") == (0, f"{package.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        "nonsense",
        "train",
        "train a -x",
        "predict depth",
        "predict depth m s",
        "evaluate depth --data x --protocol eigen",
        "evaluate depth --data x --protocol eigen --predictions d --kind meters",
        "evaluate depth --data x --protocol eigen --model m --kind inverse_depth",
        "evaluate pose --predictions p",
        "evaluate pose --predictions p --data d --truth t",
        "evaluate pose --model m --truth t",
        "evaluate pose --predictions p --truth t --align 8dof",
        "evaluate flow --data x --protocol kitti2015",
        "evaluate sceneflow --data x --protocol kitti2015",
        "predict sceneflow m -o out",
        "predict sceneflow m s --depth d -o out",
        "predict sceneflow m s --depth d --flow f -o out",
        "predict sceneflow s --depth d --flow f --flip -o out",
        "submit middlebury d -o a.zip",
        "synth out --size 640",
        "synth out --frames 0",
        "benchmark train --batch-sizes 4,x",
        "benchmark kernels --size 640",
        "benchmark growth --sources 5",
        "benchmark growth --sizes ,",
        "benchmark growth --batches 1.5",
        "config",
    ],
)
def test_wrong_usage_exits_with_2(arguments: str) -> None:
    code, _, err = geossl(*arguments.split())
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "config", "changes"),
    [
        ("train.precision=bf16 train.lr=1", None, ["train.precision=bf16", "train.lr=1"]),
        ("monodepth2_kitti_s train.lr=1", "monodepth2_kitti_s", ["train.lr=1"]),
        ("", None, []),
    ],
)
def test_a_step_is_measured_of_the_default_with_changes(
    monkeypatch: pytest.MonkeyPatch, arguments: str, config: str | None, changes: list[str]
) -> None:
    given: list[Any] = []

    def measured(how: Any, *arguments: Any) -> dict[str, Any]:
        given.extend(arguments)
        return {}

    monkeypatch.setattr("geossl.commands.benchmark.benchmark_train", measured)
    code, _, err = geossl("benchmark", "train", *arguments.split())
    assert code == 0, err
    assert given[:2] == [config, changes]


def test_unexpected_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geossl.commands.configs.list_configs", lambda: 1 // 0)
    result = CliRunner().invoke(app, ["config", "--list"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_debug_shows_the_traceback_of_known_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSSL_DEBUG", "1")
    result = CliRunner().invoke(app, ["config", "no_such_config"])
    assert isinstance(result.exception, ConfigError)


# --- wrong input -----------------------------------------------------------------------------------------------------


def error_of(*arguments: object) -> str:
    """The one message of a command that fails."""
    code, _, err = geossl(*arguments)
    assert code == 1
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    return err


def test_config_with_three_errors_lists_three(tmp_path: Path) -> None:
    message = error_of(
        "train", "monodepth2_kitti_m", "train.lrr=3", "data.height=33", "method=monodepth22", "-o", tmp_path
    )
    assert "3 errors" in message
    for part in ("train.lrr", "data.height", "'monodepth2'"):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_missing_calibration_is_named(street: Path, tmp_path: Path) -> None:
    date = next(street.glob("????_??_??"))
    (tmp_path / date.name).mkdir()
    for drive in date.glob("*_sync"):
        (tmp_path / date.name / drive.name).symlink_to(drive)
    message = error_of("train", config_for(tmp_path, tmp_path), "-o", tmp_path / "run")
    assert "calib_cam_to_cam.txt" in message


def test_camera_that_does_not_fit_the_images_is_named(tmp_path: Path, street: Path) -> None:
    image = next(street.rglob("image_02/data/*.png"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / image.name).write_bytes(image.read_bytes())
    message = error_of("check", f"folder:{tmp_path / 'in'},intrinsics=[0.58, 1.92, 0.5, 0.5]")  # normalised K
    assert "does not fit images of 128x64" in message


def test_empty_split_is_named(street: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("")
    message = error_of("check", f"kitti_raw:{street},split={tmp_path / 'list.txt'}")
    assert "list.txt" in message


def test_path_that_leaves_the_root_is_refused(street: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("../../../etc/passwd 0 l\n")
    message = error_of("check", f"kitti_raw:{street},split={tmp_path / 'list.txt'}")
    assert "list.txt" in message or "leads out" in message


def test_checkpoint_of_another_method_is_named(run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    assert geossl("export", run, model)[0] == 0
    config = json.loads((model / "config.json").read_text())
    config["experiment"] |= {"method": "sfmlearner", "model": {}}
    (model / "config.json").write_text(json.dumps(config))
    image = next((run / "samples").glob("*.png"))
    message = error_of("predict", "depth", model, image, "-o", tmp_path / "out")
    assert "method 'sfmlearner'" in message
    assert "depth_network" in message  # a tensor that is missing, by its name
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle", b"\x00" * 100])
def test_file_that_is_no_checkpoint_is_named(street: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert "weights.pth" in error_of("predict", "depth", path, next(street.rglob("*.png")), "-o", tmp_path / "out")


def test_missing_model_is_named(street: Path, tmp_path: Path) -> None:
    assert "nowhere" in error_of("predict", "depth", "nowhere", next(street.rglob("*.png")), "-o", tmp_path / "out")


def test_run_folder_of_another_experiment_is_refused(street: Path, run: Path, tmp_path: Path) -> None:
    before = (run / "checkpoints" / "last.safetensors").read_bytes()
    message = error_of("train", config_for(street, tmp_path), "train.lr=1e-3", "-o", run)
    assert "train.lr" in message
    assert (run / "checkpoints" / "last.safetensors").read_bytes() == before


def test_unknown_protocol_names_the_closest(street: Path, tmp_path: Path) -> None:
    spec = f"kitti_raw:{street}"
    message = error_of("evaluate", "depth", "--predictions", tmp_path, "--data", spec, "--protocol", "eigenn")
    assert "Did you mean 'eigen'" in message


def test_protocol_that_needs_other_labels_is_refused(street: Path, tmp_path: Path) -> None:
    spec = f"kitti_raw:{street}"
    message = error_of("evaluate", "depth", "--predictions", tmp_path, "--data", spec, "--protocol", "eigen_benchmark")
    assert "depth_root" in message


def test_missing_predictions_are_counted_and_named(street: Path, tmp_path: Path) -> None:
    spec = f"kitti_raw:{street},cameras=[image_02]"
    message = error_of("evaluate", "depth", "--predictions", tmp_path, "--data", spec, "--protocol", "native")
    assert "6 of 6 predictions are missing" in message


def test_report_of_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    assert "metrics.jsonl" in error_of("report", tmp_path)


# --- from a street to scores -----------------------------------------------------------------------------------------


def test_training_again_has_nothing_left_to_do(street: Path, run: Path, tmp_path: Path) -> None:
    before = (run / "checkpoints" / "last.safetensors").read_bytes()
    assert geossl("train", config_for(street, tmp_path), "-o", run)[0] == 0
    assert (run / "checkpoints" / "last.safetensors").read_bytes() == before


def test_exported_model_predicts_as_its_run(street: Path, run: Path, tmp_path: Path) -> None:
    assert geossl("export", run, tmp_path / "model")[0] == 0
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    image = next(street.rglob("image_02/data/*.png"))
    for model in ("model", run):
        code, out, err = geossl(
            "predict", "depth", tmp_path / model, image, "-o", tmp_path / "out" / Path(model).name, "--json"
        )
        assert code == 0, err
        assert json.loads(out)["written"] == 1
    maps = [np.load(path) for path in sorted((tmp_path / "out").rglob("*.npy"))]
    assert maps[0].shape == (SIZE[1], SIZE[0])
    np.testing.assert_array_equal(maps[0], maps[1])


def test_model_is_predicted_and_scored_in_one_command(street: Path, run: Path, tmp_path: Path) -> None:
    spec, result = f"kitti_raw:{street},cameras=[image_02]", tmp_path / "result.json"
    arguments = ("--data", spec, "--protocol", "native", "--scaling", "median", "--json", result)
    code, out, err = geossl("evaluate", "depth", "--model", run, *arguments)
    assert code == 0, err
    assert "abs_rel" in out
    row = json.loads(result.read_text())["row"]
    assert row["images"] == 6
    assert row["metric"] == "metres"
    assert "median" in row["scaling"]
    # The same files, predicted first and scored afterwards, give the same figures.
    assert geossl("predict", "depth", run, spec, "-o", tmp_path / "out", "--save", "npy")[0] == 0
    again = ("--data", spec, "--protocol", "native", "--scaling", "median", "--json", tmp_path / "again.json")
    assert geossl("evaluate", "depth", "--predictions", tmp_path / "out", *again)[0] == 0
    assert json.loads((tmp_path / "again.json").read_text())["row"]["abs_rel"] == row["abs_rel"]


def test_truth_as_prediction_scores_nearly_perfectly(street: Path, tmp_path: Path) -> None:
    from geossl.data.synthetic import read_labels

    for labels in street.rglob("labels/*.npz"):
        depth = np.nan_to_num(read_labels(labels).depth, posinf=500.0)
        path = tmp_path / labels.parents[1].relative_to(street) / "image_02" / "data" / f"{labels.stem}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.where(depth > 0, depth, 500).astype(np.float32))
    spec, result = f"kitti_raw:{street},cameras=[image_02]", tmp_path / "result.json"
    code, _, err = geossl(
        "evaluate", "depth", "--predictions", tmp_path, "--data", spec, "--protocol", "native", "--scaling", "none",
        "--json", result,
    )  # fmt: skip
    assert code == 0, err
    row = json.loads(result.read_text())["row"]
    assert row["abs_rel"] < 0.05  # LiDAR points lie between pixel centres, and edges are edges
    assert row["delta1"] > 0.95


def test_trajectory_is_predicted_and_scored(street: Path, run: Path, tmp_path: Path) -> None:
    spec, result = f"kitti_raw:{street},cameras=[image_02]", tmp_path / "result.json"
    code, out, err = geossl("evaluate", "pose", "--model", run, "--data", spec, "--align", "7dof", "--json", result)
    assert code == 0, err
    assert "ape_rmse_m" in out
    (row,) = json.loads(result.read_text())["rows"]
    assert row["alignment"] == "7dof"
    assert row["frames"] == 6


def test_trajectory_file_is_scored_against_a_file(tmp_path: Path) -> None:
    poses = np.tile(np.eye(4), (20, 1, 1))
    poses[:, 2, 3] = np.arange(20)
    poses[:, 0, 3] = np.sin(np.arange(20))
    write_kitti_trajectory(tmp_path / "truth.txt", poses)
    poses[:, :3, 3] *= 3
    write_kitti_trajectory(tmp_path / "estimate.txt", poses)
    arguments = ("--predictions", tmp_path / "estimate.txt", "--truth", tmp_path / "truth.txt")
    code, _, err = geossl("evaluate", "pose", *arguments, "--json", tmp_path / "r.json")
    assert code == 0, err
    errors = {row["alignment"]: row["ape_rmse_m"] for row in json.loads((tmp_path / "r.json").read_text())["rows"]}
    assert errors["7dof"] < 1e-9
    assert errors["scale"] < 1e-9
    assert errors["none"] > 1


def test_check_counts_and_names_what_is_wrong(street: Path, tmp_path: Path) -> None:
    code, out, _ = geossl("check", f"kitti_raw:{street}", "--json")
    assert code == 0
    (summary,) = json.loads(out)
    assert summary["samples"] == 12
    assert summary["problems"] == []
    assert summary["labels"] == "velodyne (12), flow of street (5), scene flow of street (5)"
    assert summary["excluded"] == "none"
    broken = tmp_path / "street"
    subprocess.run(["cp", "-r", street, broken], check=True)
    image = sorted(broken.rglob("image_03/data/*.png"))[2]
    image.write_bytes(image.read_bytes()[:100])
    code, out, _ = geossl("check", f"kitti_raw:{broken}", "--full")
    assert code == 1
    assert str(image) in out


def test_check_looks_for_every_file_and_opens_some(street: Path, tmp_path: Path) -> None:
    broken = tmp_path / "street"
    shutil.copytree(street, broken)
    images = sorted(broken.rglob("image_03/data/*.png"))
    for image in images[1:]:
        image.write_bytes(image.read_bytes()[:100])
    images[2].write_bytes(b"")
    (summary,) = check_data(f"kitti_raw:{broken},cameras=[image_03]", limit=1)
    assert summary["decoded"] == "1 of 6 samples"
    assert summary["problems"] == [f"{images[2]}: is empty"]


def test_check_of_a_config_looks_at_its_sources(street: Path, tmp_path: Path) -> None:
    code, out, err = geossl("check", config_for(street, tmp_path))
    assert code == 0, err
    assert "samples: 4" in out  # the ends lack a neighbour
    assert "stereo t_x (m): -" in out


def test_check_takes_the_overrides_of_a_config(street: Path, tmp_path: Path) -> None:
    code, out, err = geossl("check", config_for(street, tmp_path), "data.source_offsets=[1]")
    assert code == 0, err
    assert "samples: 5" in out
    assert "'cache=none' is for a config" in error_of("check", f"kitti_raw:{street}", "cache=none")


def test_synth_writes_what_it_says(tmp_path: Path) -> None:
    code, out, err = geossl("synth", tmp_path / "s", "--frames", 2, "--size", "64x32", "--processes", 1)
    assert code == 0, err
    assert str(tmp_path / "s") in out
    assert len(list((tmp_path / "s").rglob("image_02/data/*.png"))) == 2


def test_report_is_one_file(run: Path) -> None:
    code, _, err = geossl("report", run)
    assert code == 0, err
    text = (run / "report.html").read_text()
    assert "data:image/png;base64," in text
    assert 'src="http' not in text and "<script" not in text
    assert "supervision: MS" in text


# --- config ----------------------------------------------------------------------------------------------------------


def test_config_prints_what_a_training_would_use(tmp_path: Path) -> None:
    from geossl.config import load_experiment

    code, out, _ = geossl("config", "monodepth2_kitti_m", "train.lr=5e-5")
    assert code == 0
    (tmp_path / "resolved.yaml").write_text(out)
    assert load_experiment(tmp_path / "resolved.yaml") == load_experiment("monodepth2_kitti_m", ["train.lr=5e-5"])


def test_config_lists_every_packaged_config() -> None:
    code, out, _ = geossl("config", "--list")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} == {p.stem for p in (ROOT / "configs").glob("*.yaml")}


def test_schema_has_every_option_with_its_meaning() -> None:
    code, out, _ = geossl("config", "--schema")
    assert code == 0
    for part in (
        "train.lr: float = 0.0001",
        "data.augment.flip",
        "model.supervision: M | S | MS = M",
        "data.train: list of KittiRaw | KittiOdometry | KittiStereo | Sintel | FlyingChairs | Folder | Video = []",
        "kind kitti_raw",
    ):
        assert part in out
    assert "Optimiser steps; overrides `epochs` where given." in out


# --- printing --------------------------------------------------------------------------------------------------------


def test_os_errors_read_as_file_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    fail(FileNotFoundError(2, "No such file or directory", "/data/x.png"))
    fail(OSError(28, "No space left on device"))
    fail(ValueError("a\nb"))
    lines = capsys.readouterr().err
    assert lines == ("error: /data/x.png: No such file or directory\nerror: No space left on device\nerror: a\nb\n")


def test_text_table_aligns_columns() -> None:
    assert text_table([{"a": 1, "bb": 0.123456}, {"a": 100}]) == "  a      bb\n  1  0.1235\n100        "


def test_to_plain_is_json() -> None:
    plain = to_plain({"a": (Path("x"), np.float32(0.5), torch.tensor([1, 2]))})
    assert json.loads(json.dumps(plain)) == {"a": ["x", 0.5, [1, 2]]}
