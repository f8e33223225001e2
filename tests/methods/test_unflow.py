import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_pairs import WRONG_FLOWS, street_pair
from on_noise import check_step, random_pair
from torch import Tensor

from geossl.engine.checkpoint import write_safetensors
from geossl.engine.model_folder import without_pretrained
from geossl.geometry.transforms import resize_flow
from geossl.methods import build_method
from geossl.methods.unflow import UnFlow, inside_rim
from geossl.types import Batch, Frame, MissingInput, PredictsFlow

LEVEL_WEIGHTS = (12.7, 4.35, 3.9, 3.4, 1.1)


def unflow(progress: float = 0.0, **options: Any) -> UnFlow:
    torch.manual_seed(0)
    method = build_method("unflow", {"width": 0.0625} | options)
    assert isinstance(method, UnFlow)
    method.progress = progress
    return method


def with_flow(method: UnFlow, flow: Tensor, finest: int = 4) -> UnFlow:
    """The method with its network's flow, (2B, 2, H, W) forward and backward, replaced by a constant.

    Args:
        finest: How many times smaller than the image the finest of the five flows is; FlowNet's is a quarter.
    """
    h, w = flow.shape[-2:]
    levels = [resize_flow(flow, (h // (finest << i), w // (finest << i))) for i in range(5)]
    object.__setattr__(method, "flows", lambda *_: levels)
    return method


def with_level_flows(method: UnFlow, pixels: tuple[float, float], height: int, width: int) -> UnFlow:
    """The same number of each level's own pixels forward, zero backward, for a batch of one."""
    flow = torch.tensor([pixels, (0.0, 0.0)])[:, :, None, None]
    levels = [flow.expand(2, 2, height // 2**i, width // 2**i) for i in range(2, 7)]
    object.__setattr__(method, "flows", lambda *_: levels)
    return method


def penalty(x: float) -> float:
    return float((x**2 + 0.001**2) ** 0.45)


# --- the objective ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finest", [1, 4])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("options", [{}, {"visibility": "none", "border": 0}], ids=str)
def test_unflow_prefers_the_true_flow(seed: int, options: dict[str, Any], finest: int) -> None:
    """A flow that nothing confirms is hidden rather than compared, so the cost of hidden pixels is part of eq. 2.

    At a quarter of this small size 2 % of the flow are a hundredth of a pixel, which is not asked for.
    """
    batch, truth = street_pair(seed)

    def evidence(flow: Tensor) -> float:
        terms = with_flow(unflow(**options), flow, finest)(batch).terms
        return sum(terms[name].item() for name in ("census", "occlusion") if name in terms)

    wrong = {name: evidence(change(truth)) for name, change in WRONG_FLOWS.items() if finest == 1 or "%" not in name}
    assert evidence(truth) < min(wrong.values()), wrong


def test_terms_of_flat_images_are_the_published_sums() -> None:
    """Every penalty is known where images do not differ and forward and backward flow disagree by half a pixel."""
    height, width = 64, 192
    batch = flat_pair(height, width)
    terms = with_level_flows(unflow(border=0.1), (0.5, 0.0), height, width)(batch).terms
    expected = dict.fromkeys(terms, 0.0)
    for level, (weight, radius) in enumerate(zip(LEVEL_WEIGHTS, (3, 2, 2, 1, 1), strict=True), start=2):
        h, w = height >> level, width >> level
        rim = math.ceil(0.1 * h)
        seen = max(h - 2 * rim, 0) * (w - 2 * rim) / (h * w)  # half a pixel is visible: 0.25 < 0.01 * 0.25 + 0.5
        compared = max(h - 2 * max(rim, radius), 0) * max(w - 2 * max(rim, radius), 0) / (h * w)
        lines = h * max(w - 2, 0) + max(h - 2, 0) * w + 2 * max(h - 2, 0) * max(w - 2, 0)
        expected["census"] += weight * 2 * compared * penalty(0)
        expected["smoothness"] += weight * 3.0 * 2 * 2 * lines / (4 * h * w) * penalty(0)
        expected["consistency"] += weight * 0.2 * 2 * seen * (penalty(0.5) + penalty(0)) / 2
        expected["occlusion"] += weight * 12.4 * 2 * (1 - seen)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-4)


def flat_pair(height: int, width: int) -> Batch:
    image = torch.full((1, 3, height, width), 0.5)
    frame = Frame(image, image, torch.eye(3)[None])
    return Batch(frame, (frame,), (1,))


def test_both_directions_count_alike() -> None:
    method, batch = unflow(), random_pair(3, 64, 96)
    exchanged = replace(batch, target=batch.sources[0], sources=(batch.target,))
    torch.testing.assert_close(method(batch).total, method(exchanged).total)


def test_networks_see_jittered_images_and_losses_clean_ones() -> None:
    batch, flow = street_pair(0)
    dark = batch.map_frames(lambda frame: replace(frame, jittered=frame.image * 0.5))
    method = unflow()
    assert not torch.equal(method(batch).total, method(dark).total)
    method = with_flow(method, flow)
    assert torch.equal(method(batch).total, method(dark).total)


def test_a_hidden_pixel_has_a_constant_cost_or_a_soft_one() -> None:
    height, width = 64, 192
    batch = flat_pair(height, width)

    def term(soft: float | None) -> Tensor:
        method = unflow(border=0.0, soft_occlusion=soft)
        method = with_level_flows(method, (0.9, 0.0), height, width)  # 0.81 > 0.01 * 0.81 + 0.5: hidden
        flows = [flow.clone().requires_grad_() for flow in method.flows(*[torch.empty(0)] * 2)]
        object.__setattr__(method, "flows", lambda *_: flows)
        return method(batch).terms["occlusion"]

    everywhere = 12.4 * 2 * sum(LEVEL_WEIGHTS)
    count, soft, sharp = term(None), term(0.1), term(1e-4)
    assert not count.requires_grad and soft.requires_grad
    assert count.item() == pytest.approx(everywhere, rel=1e-6)
    assert sharp.item() == pytest.approx(everywhere, rel=1e-3)
    assert soft.item() == pytest.approx(everywhere / (1 + math.exp(-(0.81 * 0.99 - 0.5) / 0.1)), rel=1e-3)


def test_visibility_and_consistency_set_in_where_asked() -> None:
    batch, flow = random_pair(), 20 * torch.randn(4, 2, 64, 96)
    early, late = (with_flow(unflow(progress, visibility_from=0.5), flow)(batch) for progress in (0.49, 0.5))
    assert set(early.terms) == {"census", "smoothness"}
    assert set(late.terms) == {"census", "smoothness", "consistency", "occlusion"}
    assert late.health["visible"] < early.health["visible"]
    assert set(unflow(1.0, visibility="none")(batch).terms) == {"census", "smoothness"}


@pytest.mark.parametrize(
    ("visibility", "samples", "height", "width"),
    [("none", 3, 64, 97), ("forward_backward", 1, 65, 130), ("range_map", 1, 64, 64), ("soft_range_map", 1, 64, 64)],
)
def test_one_step_lowers_the_loss_and_reaches_every_parameter(
    visibility: str, samples: int, height: int, width: int
) -> None:
    method = unflow(visibility=visibility, consistency=0.0, occlusion=0.0)
    batch = random_pair(samples, height, width)
    check_step(method, lambda: method(batch).total)


def test_maps_and_health_tell_what_was_learned() -> None:
    batch, truth = street_pair(0)
    objective = with_flow(unflow(), truth)(batch)
    assert objective.maps["flow"].shape == (1, 2, 64, 192)
    assert objective.health["photometric"] < objective.health["identity_photometric"]
    assert objective.health["flow_px"].item() == pytest.approx(truth[:1].norm(dim=1).mean().item(), rel=0.05)
    standing = with_flow(unflow(), torch.zeros_like(truth))(batch)
    torch.testing.assert_close(standing.health["photometric"], standing.health["identity_photometric"])


def test_inside_rim_counts_from_the_shorter_side() -> None:
    inside = inside_rim(torch.zeros(2, 1, 21, 40), 0.1)
    assert inside.shape == (1, 1, 21, 40)
    assert inside.sum() == (21 - 6) * (40 - 6)  # 2.1 pixels are rounded up to 3
    assert inside_rim(torch.zeros(1, 1, 5, 1), 0.0).all()


def test_unflow_needs_a_source() -> None:
    with pytest.raises(MissingInput, match=r"UnFlow needs batch\.sources"):
        unflow()(replace(random_pair(), sources=(), source_offsets=()))


# --- stages ----------------------------------------------------------------------------------------------------------


def test_a_stack_starts_from_the_stage_before_and_trains_its_last_net(tmp_path: Path) -> None:
    first = unflow()
    write_safetensors(tmp_path / "model.safetensors", first.state_dict(), {})
    stacked = unflow(stack="CS", weights=str(tmp_path))
    stacked(random_pair()).total.backward()
    for name, parameter in stacked.network.nets[0].named_parameters():
        assert torch.equal(parameter, first.network.nets[0].get_parameter(name))
        assert not parameter.requires_grad and parameter.grad is None
    assert all(p.grad is not None for p in stacked.network.nets[1].parameters())


def test_weights_may_be_a_checkpoint_and_go_on_at_the_same_stage(tmp_path: Path) -> None:
    first = unflow()
    state = {f"model/{name}": tensor for name, tensor in first.state_dict().items()}
    moments = {"optimizer/network.nets.0.conv1.0.weight/step": torch.zeros(())}
    write_safetensors(tmp_path / "checkpoints" / "last.safetensors", state | moments, {})
    again = unflow(weights=str(tmp_path))
    assert all(p.requires_grad for p in again.parameters())
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, first.state_dict()[name])


@pytest.mark.parametrize(
    ("trained", "built", "message"),
    [
        ({"stack": "CS"}, {"stack": "C"}, "unknown, the first '1"),
        ({"stack": "S"}, {"stack": "CS"}, "conv_redir"),
        ({"width": 0.125}, {}, "of another shape"),
    ],
)
def test_weights_of_another_method_are_refused(
    tmp_path: Path, trained: dict[str, Any], built: dict[str, Any], message: str
) -> None:
    file = tmp_path / "model.safetensors"
    write_safetensors(file, unflow(**trained).state_dict(), {})
    with pytest.raises(ValueError, match=f"{file} does not fit .*UnFlow.*{message}"):
        unflow(weights=str(file), **built)


def test_a_trained_stack_does_without_the_stage_before() -> None:
    options = {"stack": "CS", "weights": "runs/deleted"}
    assert without_pretrained("unflow", options) == {"stack": "CS", "weights": None, "encoder_weights": None}


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no trained method"):
        unflow(weights=str(tmp_path))


def test_unflow_predicts_flow_of_any_size() -> None:
    method = unflow()
    assert isinstance(method, PredictsFlow)
    with torch.no_grad():
        flows = method.predict_flows(torch.rand(1, 3, 70, 131), [torch.rand(1, 3, 70, 131)])
    assert flows.shape == (1, 1, 2, 70, 131)
