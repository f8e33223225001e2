"""SelFlow: its windows, both stages against closed forms, and that its objective prefers the true flow."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_pairs import WRONG_FLOWS, Change, street_pair
from on_noise import random_pair
from safetensors.torch import save_file
from torch import Tensor, nn

from geossl.config import ConfigError, parse_experiment
from geossl.data.synthetic.example import street_example
from geossl.methods import build_method
from geossl.methods.selflow import THREE_FRAME_WINDOW, SelFlow, pair_flows, pairs
from geossl.types import Batch, Frame, MissingInput, PredictsFlow

TINY: dict[str, Any] = {"width": 0.1}
STAGE_2 = {**TINY, "stage": 2, "weights": None, "hide": 0.0}


class Constant(nn.Module):
    """A network that returns what it was given."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, *_: Any) -> Any:
        return self.value


def selflow(options: dict[str, Any]) -> SelFlow:
    torch.manual_seed(0)
    method = build_method("selflow", options)
    assert isinstance(method, SelFlow)
    return method


def random_window(frames: int, samples: int = 2, height: int = 64, width: int = 96) -> Batch:
    if frames == 2:
        return random_pair(samples, height, width)
    images = [random_pair(samples, height, width, seed).target for seed in range(5)]
    return replace(random_pair(samples, height, width), sources=tuple(images[1:]), source_offsets=THREE_FRAME_WINDOW)


# --- windows ---------------------------------------------------------------------------------------------------------


def plain(value: float, samples: int = 2) -> Tensor:
    return torch.full((samples, 3, 4, 5), value)


class Differences(nn.Module):
    """A network whose flow says from which image it leads to which: their values, (from, to)."""

    def forward(self, target: Tensor, *sources: Tensor) -> Any:
        flows = [[torch.cat([target[:, :1], source[:, :1]], 1)] for source in sources]
        return flows[0] if len(flows) == 1 else flows


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(2, [(0, 11), (1, 10)]), (5, [(1, 12), (2, 13), (2, 11), (3, 12)])],
)
def test_flows_lead_from_the_clean_image_to_the_changed_one(frames: int, expected: list[tuple[int, int]]) -> None:
    starts, ends = [plain(i) for i in range(frames)], [plain(10 + i) for i in range(frames)]
    first, second = pairs(starts, ends)
    flow = pair_flows(Differences(), starts, ends)
    assert [(int(a), int(b)) for a, b in zip(first[::2, 0, 0, 0], second[::2, 0, 0, 0], strict=True)] == expected
    assert [tuple(x.int().tolist()) for x in flow[::2, :, 0, 0]] == expected


def test_three_frames_need_five_in_order() -> None:
    method = selflow({**TINY, "frames": 3})
    with pytest.raises(
        ValueError, match=r"sources at \(-2, -1, 1, 2\), but pair has them at \(1,\).*model.frames to 2"
    ):
        method(random_pair())
    with pytest.raises(MissingInput, match=r"SelFlow needs batch\.sources"):
        method(replace(random_pair(), sources=(), source_offsets=()))
    batch = random_window(3)
    assert method.window(batch)[2] is batch.target and method.window(batch)[0] is batch.sources[0]


@pytest.mark.parametrize(("frames", "offsets"), [(2, (1,)), (3, (-1, 1))])
def test_predicts_a_flow_for_each_neighbour_at_any_size(frames: int, offsets: tuple[int, ...]) -> None:
    method = selflow({**TINY, "frames": frames}).eval()
    assert isinstance(method, PredictsFlow) and method.flow_offsets == offsets
    images = [torch.rand(1, 3, 37, 75) for _ in range(frames)]
    flows = method.predict_flows(images[0], images[1:])
    assert flows.shape == (1, len(offsets), 2, 37, 75)
    if frames == 3:  # the roles of the neighbours are each other's mirror image
        swapped = method.predict_flows(images[0], images[:0:-1])
        assert torch.allclose(swapped, flows.flip(1), atol=1e-4)


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [TINY, STAGE_2, {**STAGE_2, "teacher": "ema"}], ids=["1", "2", "2 ema"])
@pytest.mark.parametrize("frames", [2, 3])
def test_a_step_reaches_every_parameter_that_learns(frames: int, options: dict[str, Any]) -> None:
    method = selflow({**options, "frames": frames})
    objective = method(random_window(frames))
    objective.total.backward()
    learning = {name for name, p in method.named_parameters() if p.requires_grad}
    assert learning == {name for name, _ in method.named_parameters() if name.startswith("network.")}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.network.parameters())
    assert not any(value.requires_grad for value in (*objective.maps.values(), *objective.health.values()))
    assert all(value.isfinite().all() for value in objective.health.values())


def test_visibility_counts_from_its_share_of_the_training_on() -> None:
    method = selflow({**TINY, "frames": 2, "unmasked": 0.3})
    flow = torch.zeros(4, 2, 64, 96)
    flow[:, 0] = 5  # to the right both ways: nothing returns
    method.network = Constant([flow])
    shares = {}
    for method.progress in (0.0, 0.29, 0.3, 1.0):
        objective = method(random_pair())
        shares[method.progress] = float(objective.health["visible"])
    in_view = (96 - 5) / 96
    assert shares == pytest.approx({0.0: in_view, 0.29: in_view, 0.3: 0, 1.0: 0})
    assert objective.total == 0  # the term is skipped, not divided by nothing


def test_brightness_first_is_brightness_and_then_census() -> None:
    losses = {}
    for measure in ("brightness", "brightness_first", "census"):
        method = selflow({**TINY, "frames": 2, "measure": measure, "unmasked": 0.5}).eval()
        for method.progress in (0.0, 0.6):
            losses[measure, method.progress] = method(random_pair()).total.item()
    assert losses["brightness_first", 0.0] == losses["brightness", 0.0] != losses["census", 0.0]
    assert losses["brightness_first", 0.6] == losses["census", 0.6] != losses["brightness", 0.6]


def test_brightness_loss_of_plain_images_by_hand() -> None:
    """Every channel differs by 0.25: (0.26)^0.4 three times, over twice the pixels, for each direction."""
    method = selflow({**TINY, "frames": 2, "measure": "brightness"})
    method.network = Constant([torch.zeros(2, 2, 9, 11)])
    images = [torch.full((1, 3, 9, 11), value) for value in (0.25, 0.5)]
    target, source = (Frame(image, image, torch.eye(3)[None]) for image in images)
    objective = method(Batch(target, (source,), (1,)))
    assert objective.total.item() == pytest.approx(2 * 3 / 2 * 0.26**0.4, rel=1e-5)
    assert objective.health["photometric"].item() == pytest.approx(0.26**0.4, rel=1e-5)


# --- stage 2 ---------------------------------------------------------------------------------------------------------


class FlowOf(nn.Module):
    """Moves the first half of a batch by (u, 0) and the second half by (back, 0)."""

    def __init__(self, u: float, back: float) -> None:
        super().__init__()
        self.flows = u, back

    def forward(self, first: Tensor, _: Tensor) -> list[Tensor]:
        b, _, h, w = first.shape
        u = torch.tensor(self.flows).repeat_interleave(b // 2)
        return [torch.stack([u, torch.zeros(b)], 1)[:, :, None, None].expand(b, 2, h, w)]


def test_the_student_learns_from_the_teacher_what_only_the_teacher_saw_by_hand() -> None:
    method = selflow({**STAGE_2, "frames": 2})
    method.teacher.network = FlowOf(3, -3)
    method.network = FlowOf(5, 5)
    objective = method(random_pair(3))
    still = 0.01**0.4
    forth, back = ((2.01**0.4 + still) / 2, (8.01**0.4 + still) / 2)
    assert objective.terms["taught"].item() == pytest.approx((forth + back) / 2, rel=1e-5)
    assert objective.terms["photometric"] == 0  # nothing is visible to the student
    assert 0.9 < objective.health["lost"] <= 1  # all but what the teacher's flow leads out of the image
    assert objective.maps["target"].shape == (3, 3, 51, 69)  # 0.8 of 64, 5/7 of 96


def test_what_the_student_sees_is_not_taught() -> None:
    method = selflow({**STAGE_2, "frames": 2, "crop": (1.0, 1.0)})
    method.teacher.network, method.network = FlowOf(3, -3), FlowOf(2, -2)
    objective = method(random_pair())
    assert objective.health["lost"] == 0 and objective.terms["taught"] == 0 and objective.terms["photometric"] > 0


def test_what_leaves_the_crop_but_not_the_image_is_taught() -> None:
    """With the right flow, all that is lost is what crosses the crop's edge, and its error is none."""
    method = selflow({**STAGE_2, "frames": 2, "crop": (1.0, 0.5)})
    method.teacher.network = method.network = FlowOf(3, -3)
    torch.manual_seed(0)
    lost = method(random_pair(1)).maps["lost"]
    assert lost[..., -3:].all() and not lost[..., :-3].any()
    assert method(random_pair(1)).terms["taught"].item() == pytest.approx(0.01**0.4)


def test_hidden_superpixels_are_in_the_other_image_only() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    method = selflow({**STAGE_2, "frames": 2, "crop": (1.0, 1.0), "hide": 0.3})
    batch = random_pair(1)
    plain_batch = batch.map_frames(lambda f: replace(f, image=f.image * 0 + 0.5, jittered=f.image * 0 + 0.25))
    seen: list[Tensor] = []
    method.network.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    maps = method(plain_batch).maps
    first, second = seen
    noisy = (second != 0.25).any(1, keepdim=True)
    assert (first == 0.25).all() and 0.1 < noisy.float().mean() < 0.6
    assert torch.equal(maps["source"] != 0.5, (second[:1] != 0.25).expand_as(maps["source"]))
    assert torch.equal(maps["target"], plain_batch.target.image)


def test_crops_alone_need_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    assert selflow({**STAGE_2, "frames": 2})(random_pair()).total.isfinite()
    with pytest.raises(ModuleNotFoundError, match="superpixels"):
        selflow({**STAGE_2, "frames": 2, "hide": 0.1})(random_pair())


def test_ema_teacher_follows_after_each_step() -> None:
    method = selflow({**STAGE_2, "frames": 2, "teacher": "ema", "teacher_decay": 0.5})
    with torch.no_grad():
        for p in method.network.parameters():
            p.add_(0.01)
    name = "context.convs.0.0.weight"
    before = method.teacher.network.state_dict()[name].clone()
    method(random_pair())
    assert torch.equal(method.teacher.network.state_dict()[name], before)
    method.after_step()
    assert torch.allclose(method.teacher.network.state_dict()[name], before + 0.005, atol=1e-7)


def test_stage_2_starts_from_stage_1(tmp_path: Path) -> None:
    first = selflow(TINY)
    (tmp_path / "checkpoints").mkdir()
    save_file({f"model/{k}": v for k, v in first.state_dict().items()}, tmp_path / "checkpoints" / "last.safetensors")
    torch.manual_seed(7)
    second = build_method("selflow", {**STAGE_2, "weights": str(tmp_path)})
    assert isinstance(second, SelFlow)
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value)
        assert torch.equal(second.teacher.network.state_dict()[name], value)
    with pytest.raises(ValueError, match="does not fit PWC of SelFlow with these options"):
        build_method("selflow", {**STAGE_2, "frames": 2, "weights": str(tmp_path)})


def test_stage_2_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="stage 2 needs `weights`"):
        parse_experiment({"method": "selflow", "model": {"stage": 2}}, where="test")


# --- the truth is a minimum ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "options",
    [{"unmasked": 1.0}, {"unmasked": 0.0}, {"unmasked": 0.0, "scales": 3}, {"measure": "brightness"}],
    ids=str,
)
def test_pairs_prefer_the_true_flow(options: dict[str, Any], seed: int) -> None:
    batch, flow = street_pair(seed)

    def loss(change: Change) -> float:
        method = selflow({**TINY, "frames": 2, **options})
        method.network = Constant([change(flow)])
        return method(batch).terms["photometric"].item()

    truth = loss(lambda flow: flow)
    wrong = {name: loss(change) for name, change in WRONG_FLOWS.items()}
    assert truth < min(wrong.values()), wrong


def test_three_frames_prefer_the_true_flow() -> None:
    examples = [street_example(192, 64, seed=0, frame=frame) for frame in (4, 5, 6)]
    frames = [examples[0].batch.sources[0], *(e.batch.target for e in examples), examples[2].batch.sources[1]]
    sources = (frames[0], frames[1], frames[3], frames[4])
    batch = replace(examples[1].batch, sources=sources, source_offsets=THREE_FRAME_WINDOW)
    flows = [torch.cat([example.flow[i] for example in examples]) for i in range(2)]

    def loss(change: Change) -> float:
        method = selflow({**TINY, "frames": 3})
        method.network = Constant([[change(flow)] for flow in flows])
        return method(batch).terms["photometric"].item()

    truth = loss(lambda flow: flow)
    wrong = {name: loss(change) for name, change in WRONG_FLOWS.items()}
    assert truth < min(wrong.values()), wrong


@pytest.mark.parametrize("crop", [(0.0, 1.0), (1.0, 0.0), (1.0, 1.1), (-0.5, 1.0)])
def test_crop_is_a_share_of_the_image(crop: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"crop\.[01]\n.*should be (greater than 0|less than or equal to 1)"):
        selflow({**STAGE_2, "crop": crop})


def test_encoder_weights_beside_the_weights_of_a_whole_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"give `encoder_weights` to stage 1 without `weights`"):
        selflow({**TINY, "stage": 2, "weights": "runs/stage1", "encoder_weights": "runs/encoder"})
