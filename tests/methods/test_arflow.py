from dataclasses import replace
from typing import Any

import pytest
import torch
from flow_pairs import WRONG_FLOWS, street_pair
from on_noise import check_step, random_pair
from torch import Tensor

from geossl.geometry.affine import ARFLOW_SINTEL, draw_affine
from geossl.geometry.transforms import resize_flow
from geossl.geometry.warping import warp_by_flow
from geossl.losses.photometric import l1_map, ssim_map
from geossl.methods import build_method
from geossl.methods.arflow import ARFlow
from geossl.types import Batch, MissingInput, PredictsFlow

SMALL = {"width": 0.125}


def arflow(progress: float = 0.0, **options: Any) -> ARFlow:
    torch.manual_seed(0)
    method = build_method("arflow", SMALL | options)
    assert isinstance(method, ARFlow)
    method.progress = progress
    return method


def with_flow(method: ARFlow, flow: Tensor) -> ARFlow:
    """The method with its network's flow replaced by a constant, at its five levels."""
    h, w = flow.shape[-2:]
    levels = [resize_flow(flow, (h // 2**i, w // 2**i)) for i in range(5)]
    object.__setattr__(method, "flows", lambda *_: levels)
    return method


@pytest.mark.parametrize(("progress", "order"), [(0.0, 2), (0.5, 1)])
def test_one_step_lowers_the_loss_and_reaches_every_parameter(progress: float, order: int) -> None:
    method = arflow(progress, smoothness_order=order, augmentation=0.0)
    batch = random_pair()
    check_step(method, lambda: method(batch).total)


@pytest.mark.parametrize("progress", [0.0, 0.5], ids=["ssim", "census"])
@pytest.mark.parametrize("seed", [0, 2])
def test_photometric_term_prefers_the_true_flow(progress: float, seed: int) -> None:
    batch, flow = street_pair(seed)

    # The same pixels for every flow, as fewer must not look like a better match, and only such as are truly visible.
    visible = arflow(0.5).visible(flow)

    def error(flow: Tensor) -> float:
        method = with_flow(arflow(progress, augmentation=0.0, level_weights=(1, 0, 0, 0, 0)), flow)
        object.__setattr__(method, "visible", lambda _: visible)
        return float(method(batch).terms["photometric"])

    wrong = {name: error(change(flow)) for name, change in WRONG_FLOWS.items()}
    assert error(flow) < min(wrong.values()), wrong


def test_first_stage_is_the_papers_sum() -> None:
    """0.85 SSIM + 0.15 L1 over the range map's visible pixels; the smoothness term is 75 times half the sum of the
    means of |d2 flow| / min(H, W) exp(-10 |dI|)."""
    batch, flow = street_pair(0)
    objective = with_flow(arflow(augmentation=0.0, level_weights=(1, 0, 0, 0, 0)), flow)(batch)
    images = torch.cat([batch.target.image, batch.sources[0].image])
    warped, _ = warp_by_flow(images.flip(0), flow)
    error = 0.85 * ssim_map(images, warped).mean(1) + 0.15 * l1_map(images, warped)[:, 0]
    visible = with_flow(arflow(), flow).visible(flow)[:, 0]
    torch.testing.assert_close(objective.terms["photometric"], error[visible].mean())

    share, edge = flow / 64, lambda d: torch.exp(-10 * d.abs().mean(1, keepdim=True))
    x = (share[..., :-2] - 2 * share[..., 1:-1] + share[..., 2:]).abs() * edge(images[..., 2:] - images[..., 1:-1])
    y = (share[..., :-2, :] - 2 * share[..., 1:-1, :] + share[..., 2:, :]).abs() * edge(
        images[..., 2:, :] - images[..., 1:-1, :]
    )
    torch.testing.assert_close(objective.terms["smoothness"], 75 * (x.mean() + y.mean()) / 2)


def test_stages_follow_the_progress() -> None:
    batch = random_pair(1)
    early, late = arflow(0.049), arflow(0.05)
    assert set(early(batch).terms) == {"photometric", "smoothness"}
    assert set(late(batch).terms) == {"photometric", "smoothness", "augmentation"}
    brighter = replace(batch.target, image=batch.target.image * 0.5 + 0.25)
    same = batch.target.image
    assert float(early.error(same, brighter.image)[0].mean()) > 0.01
    # The census of a changed contrast is not zero, of a changed brightness it is.
    assert float(late.error(same * 0.5, same * 0.5 + 0.25)[0].abs().max()) < 1e-4


def test_hidden_pixels_teach_nothing_and_warn_by_health() -> None:
    batch, flow = street_pair(0)
    away = torch.full_like(flow, 500.0).requires_grad_()
    objective = with_flow(arflow(0.5, augmentation=0.0), away)(batch)
    assert objective.terms["photometric"] == 0 and objective.health["visible"] == 0
    objective.total.backward()
    assert away.grad is not None and away.grad.isfinite().all()


def test_visibility_and_teacher_carry_no_gradient() -> None:
    batch, flow = street_pair(0)
    flow = flow.clone().requires_grad_()
    method = with_flow(arflow(0.5), flow)
    assert not method.visible(flow).requires_grad
    # With one constant flow for both passes, the gradient is the student's alone.
    levels = [torch.zeros_like(flow[:1]).requires_grad_()]
    object.__setattr__(method, "flows", lambda *_: levels)
    term = method.augmentation(batch.target.image, batch.sources[0].image, flow[:1].detach(), method.visible(flow)[:1])
    term.backward()
    assert levels[0].grad is not None and levels[0].grad.abs().sum() > 0 and flow.grad is None


def test_augmentation_asks_for_the_transformed_flow() -> None:
    """A constant flow f of images under x' = A1 x and x' = A2 x becomes A2 (A1^-1 x' + f) - x'."""
    batch, _ = street_pair(0)
    method, f = arflow(0.5, transformation="sintel"), torch.tensor([3.0, -1.0])
    first, second = batch.target.image, batch.sources[0].image
    torch.manual_seed(1)
    A1 = draw_affine(1, (64, 192), ARFLOW_SINTEL.both)[0].double()
    A2 = draw_affine(1, (64, 192), ARFLOW_SINTEL.second)[0].double() @ A1
    v, u = torch.meshgrid(torch.arange(64.0), torch.arange(192.0), indexing="ij")
    places = torch.stack([u, v, torch.ones_like(u)]).flatten(1).double()
    moved = A2 @ (torch.linalg.inv(A1) @ places + torch.tensor([*f, 0.0]).double()[:, None]) - places
    expected = moved[:2].view(1, 2, 64, 192).float()
    seen: list[Tensor] = []

    def distance(answer: Tensor) -> float:
        def student(*images: Tensor) -> list[Tensor]:
            seen.extend(images)
            return [answer]

        object.__setattr__(method, "flows", student)
        torch.manual_seed(1)
        everywhere = torch.ones(1, 1, 64, 192, dtype=torch.bool)
        return float(method.augmentation(first, second, f.view(1, 2, 1, 1).expand(1, 2, 64, 192), everywhere))

    assert distance(expected) < 1e-4
    assert distance(expected + 0.25) == pytest.approx(0.25, rel=1e-3)
    assert all(x.shape == first.shape and x.min() >= 0 and x.max() <= 1 for x in seen)
    assert not torch.equal(seen[0], first)


def test_equal_seeds_give_equal_objectives_and_maps_carry_no_gradient() -> None:
    batch, method = random_pair(), arflow(0.5)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return method(batch).total

    objective = method(batch)
    assert torch.equal(drawn(3), drawn(3)) and not torch.equal(drawn(3), drawn(4))
    assert not any(x.requires_grad for x in (*objective.maps.values(), *objective.health.values()))
    assert all(x.isfinite().all() for x in objective.health.values())
    assert objective.maps["flow"].shape == (2, 2, 64, 96)


def test_bfloat16_networks_leave_losses_in_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        objective = arflow(0.5)(random_pair(1))
    assert objective.total.dtype == torch.float32 and objective.total.isfinite()


def test_predicts_flow_of_any_size() -> None:
    method = arflow().eval()
    assert isinstance(method, PredictsFlow)
    image = torch.rand(3, 3, 45, 83)
    assert method.predict_flows(image, [image.flip(0)]).shape == (3, 1, 2, 45, 83)


def test_missing_source_names_the_remedy() -> None:
    batch: Batch = replace(random_pair(), sources=(), source_offsets=())
    with pytest.raises(MissingInput, match=r"ARFlow needs batch\.sources"):
        arflow()(batch)


@pytest.mark.parametrize("weights", [(0.0,) * 5, (1.0, -1.0, 1.0, 1.0, 0.0)])
def test_level_weights_that_compare_nothing_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"level_weights are \[.*expected none below 0, and one above"):
        arflow(level_weights=weights)
