"""Monodepth2 with flow consistency: what moves by itself is left out of the other times' images, and of them only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from geossl.config import Strict
from geossl.data.synthetic.example import StreetExample, street_example
from geossl.geometry.motion import invert
from geossl.geometry.rigidity import moves_by_itself, rigidity_residual
from geossl.methods import build_method, method_options
from geossl.methods.dynamic import FlowConsistency
from geossl.methods.method import Method
from geossl.methods.monodepth2 import Monodepth2, scale_translation
from geossl.methods.reprojection import Criterion, Reprojection
from geossl.types import Batch, MissingInput, Objective

SMALL = {"encoder": "compact", "encoder_weights": None, "pose": "posecnn", "num_scales": 2, "dynamic_from": 0.0}


class TrueFlowOptions(Strict):
    flow_offsets: tuple[int, ...] = (1,)


class TrueFlow(Method):
    """Knows the flow of each image pair; the pairs are recognised by their sources."""

    Options = TrueFlowOptions
    truth: ClassVar[list[tuple[Tensor, Tensor]]] = []  # source image and flow to it

    def __init__(self, options: TrueFlowOptions) -> None:
        super().__init__(options)
        self.flow_offsets = options.flow_offsets
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> Objective:
        raise NotImplementedError

    def predict_flows(self, target: Tensor, sources: Sequence[Tensor]) -> Tensor:
        def known(image: Tensor) -> Tensor:
            return next(flow for source, flow in self.truth if torch.equal(source, image))

        return torch.stack([torch.cat([known(image[None]) for image in source]) for source in sources], 1)


class Blind(TrueFlow):
    predict_flows = None  # type: ignore[assignment]


class Constant(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, *_: Any) -> Any:
        return self.value


@pytest.fixture(scope="module")
def street() -> StreetExample:
    return street_example(width=192, height=64, seed=4, moving_cars=6)


@pytest.fixture
def flow_model(tmp_path: Path, street: StreetExample, monkeypatch: pytest.MonkeyPatch) -> Path:
    truth = [(s.image[:1], f) for s, f in zip(street.batch.sources, street.flow, strict=True)]
    monkeypatch.setattr(TrueFlow, "truth", truth)
    return run_folder(tmp_path / "flow", "TrueFlow")


def run_folder(folder: Path, method: str, **options: Any) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": f"{__name__}:{method}", "model": options}))
    save_file({"model/bias": torch.zeros(1)}, folder / "checkpoints" / "last.safetensors")
    return folder


def with_truth(method: Monodepth2, street: StreetExample) -> nn.Parameter:
    """Lets the depth decoder answer with the true depth (a parameter), and the pose network with the true motion."""
    unit, options = method.unit_m, method.options
    near, far = 1 / options.min_depth, 1 / options.max_depth
    sigma = nn.Parameter(((unit / street.depth - far) / (near - far)).clamp(1e-4, 1))
    method.depth_decoder = Constant([sigma])  # type: ignore[assignment]
    method.scales = (0,)
    answers = [invert(street.T_source_target[0]), street.T_source_target[1]]
    calls = iter(answers * 3)
    object.__setattr__(method, "pose_between", lambda *_: scale_translation(next(calls), 1 / unit))
    return sigma


def consistent(flow_model: Path, **options: Any) -> Monodepth2:
    values = {**SMALL, "dynamic": "flow_consistency", "flow_model": str(flow_model), **options}
    method = build_method("monodepth2", values)
    assert isinstance(method, Monodepth2)
    return method


def true_moving(street: StreetExample) -> list[Tensor]:
    """What the rule says of each source with the true flow, depth and motion."""
    found = []
    for flow, T in zip(street.flow, street.T_source_target, strict=True):
        found.append(moves_by_itself(rigidity_residual(flow, street.depth, street.batch.target.K, T), flow))
    return found


@pytest.mark.parametrize("minimum", [True, False])
@pytest.mark.parametrize("automask", [True, False])
def test_no_gradient_where_everything_else_moves(
    street: StreetExample, flow_model: Path, minimum: bool, automask: bool
) -> None:
    """Learning from video: the depth of a pixel that moves in both sources gets no photometric gradient."""
    options = {"smoothness": 0.0, "ssim_weight": 0.0, "minimum_reprojection": minimum, "automask": automask}
    method = consistent(flow_model, supervision="M", **options)
    sigma = with_truth(method, street)
    objective = method(street.batch)
    objective.total.backward()
    assert sigma.grad is not None
    before, after = true_moving(street)
    assert before.sum() > 1000
    learned = sigma.grad != 0
    assert not learned[before & after].any()
    assert learned[~before & ~after & street.valid].float().mean() > 0.3
    near = street.depth < 90  # the depth network reaches to 100
    assert torch.equal(objective.maps["moves by itself"][near], (before | after).float()[near])
    assert objective.health["dynamic"] > (before & near).float().mean() / 2


def test_stereo_still_teaches_what_moves(street: StreetExample, flow_model: Path) -> None:
    """Also where the car stands still in the image: its unwarped sources do not count either."""
    method = consistent(flow_model, supervision="MS", smoothness=0.0, ssim_weight=0.0, automask_stereo=False)
    sigma = with_truth(method, street)
    method(street.batch).total.backward()
    before, after = true_moving(street)
    in_view = street.visible_stereo & before & after
    assert sigma.grad is not None and in_view.sum() > 500
    assert (sigma.grad[in_view] != 0).float().mean() > 0.9


def test_left_out_is_the_loss_without_these_errors(street: StreetExample) -> None:
    """Against numpy's loop over the pixels."""
    batch, depth = street.batch, street.depth
    views = list(zip(batch.sources, street.T_source_target, strict=True))
    everything = Reprojection(batch.target, [*views, (batch.stereo, street.T_stereo_target)])  # type: ignore[list-item]
    g = torch.Generator().manual_seed(0)
    left_out = torch.rand(1, 2, 64, 192, generator=g) < 0.5
    single = [
        Reprojection(batch.target, [view], Criterion())(depth, maps=True).maps["error"][0, 0].numpy()
        for view in everything.views
    ]
    found = Reprojection(batch.target, everything.views, Criterion(), left_out=left_out)(depth, maps=True)
    total = 0.0
    for v in range(64):
        for u in range(192):
            kept = [single[i][v, u] for i in range(3) if i == 2 or not left_out[0, i, v, u]]
            total += min(kept)
    assert found.loss.item() == pytest.approx(total / (64 * 192), rel=1e-5)
    nothing = Reprojection(batch.target, views, Criterion(), 2, torch.ones(1, 2, 64, 192, dtype=torch.bool))
    assert nothing(depth).loss == 0


def test_one_step_reaches_every_parameter_at_three_samples(flow_model: Path, street: StreetExample) -> None:
    torch.manual_seed(0)
    method = consistent(flow_model, full_resolution=False)
    batch = street.batch.map(lambda x: x.repeat(3, *[1] * (x.dim() - 1)))
    method(batch).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert not any("bias" in name and "consistency" in name for name in method.state_dict())


def test_sets_in_when_asked(flow_model: Path, street: StreetExample) -> None:
    method, plain = consistent(flow_model, dynamic_from=0.5), build_method("monodepth2", SMALL)
    plain.load_state_dict(method.state_dict())
    method.eval(), plain.eval()
    method.progress = 0.4
    early = method(street.batch)
    assert "dynamic" not in early.health and torch.equal(early.total, plain(street.batch).total)
    method.progress = 0.5
    assert "dynamic" in method(street.batch).health


def test_a_model_of_three_frames_sees_both_sources_at_once(
    tmp_path: Path, flow_model: Path, street: StreetExample
) -> None:
    three = FlowConsistency(str(run_folder(tmp_path / "three", "TrueFlow", flow_offsets=[1, -1])))
    for found in (three.flows(street.batch), FlowConsistency(str(flow_model)).flows(street.batch)):
        assert [torch.equal(a, b) for a, b in zip(found, street.flow, strict=True)] == [True, True]
    four = FlowConsistency(str(run_folder(tmp_path / "four", "TrueFlow", flow_offsets=[-2, -1, 1, 2])))
    with pytest.raises(MissingInput, match=r"\[-2, -1, 1, 2\] at once.*source_offsets is \[-1, 1\]"):
        four.flows(street.batch)


def test_wrong_flow_models_are_refused_at_the_first_step(tmp_path: Path, street: StreetExample) -> None:
    for folder, error, message in (
        (tmp_path / "nowhere", FileNotFoundError, "nowhere"),
        (run_folder(tmp_path / "blind", "Blind"), MissingInput, "Blind, which predicts no optical flow"),
    ):
        with pytest.raises(error, match=message):
            consistent(folder, dynamic_from=0.9)(street.batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dynamic": "flow_consistency"}, "needs `flow_model`"),
        ({"dynamic": "flow_consistency", "flow_model": "x", "supervision": "S"}, "is for video"),
        ({"flow_model": "x"}, "used with `dynamic: flow_consistency` only"),
        ({"dynamic": "flow"}, "flow_consistency"),
    ],
)
def test_config_errors_say_what_to_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method_options("monodepth2").model_validate(options)


def test_config_command_names_the_missing_flow_model() -> None:
    from geossl.cli import app

    result = CliRunner().invoke(app, ["config", "monodepth2_kitti_m", "model.dynamic=flow_consistency"])
    assert result.exit_code == 1 and "needs `flow_model`" in result.output
