import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from flow_pairs import WRONG_FLOWS, street_pair
from on_noise import check_step, random_pair
from torch import Tensor

from geossl.geometry.transforms import resize_flow
from geossl.geometry.warping import warp_by_flow
from geossl.losses.census import census_map
from geossl.losses.robust import power_l1
from geossl.methods import build_method
from geossl.methods import smurf as module
from geossl.methods.self_supervision import crop_at
from geossl.methods.smurf import SMURF, agreement
from geossl.types import MissingInput, PredictsFlow

SMALL = {"network": "tiny", "iterations": 2, "crop": None, "student_margin": 16}
CALM = {"asymmetric": 0.0, "erased": 0.0, "self_supervision": 0.0}
ORIGIN, CROP = torch.tensor([[32, 9]]), (48, 112)


def smurf(progress: float = 0.0, **options: Any) -> SMURF:
    torch.manual_seed(0)
    method = build_method("smurf", SMALL | options)
    assert isinstance(method, SMURF)
    method.progress = progress
    return method


def with_flows(method: SMURF, *flows: Tensor) -> SMURF:
    """The method with its network's flows, the last iteration first, replaced by constants."""
    object.__setattr__(method, "flows", lambda *_: list(flows))
    return method


@pytest.fixture
def fixed_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "draw_origins", lambda *_: ORIGIN)


@pytest.mark.parametrize(("progress", "order"), [(0.0, 1), (0.6, 2)])
def test_one_step_lowers_the_loss_and_reaches_every_parameter(progress: float, order: int) -> None:
    method = smurf(progress, smoothness_order=order)
    batch = random_pair(1)

    def loss() -> Tensor:
        torch.manual_seed(1)
        return method(batch).total

    check_step(method, loss)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("crop", [None, CROP])
@pytest.mark.parametrize("options", [{}, {"scales": 4, "census_from": 1.0}])
def test_photometric_term_prefers_the_true_flow(
    seed: int, crop: Any, options: dict[str, Any], fixed_crop: None
) -> None:
    batch, flow = street_pair(seed)
    origins, size = (ORIGIN, CROP) if crop else (torch.zeros(1, 2, dtype=torch.int64), (64, 192))

    def error(flow: Tensor) -> float:
        images = crop_at(torch.cat([batch.target.image, batch.sources[0].image]), origins, size)
        wholes = torch.cat([batch.sources[0].image, batch.target.image])
        return float(smurf(**options).photometric(images, wholes, origins, crop_at(flow, origins, size)))

    wrong = {name: error(change(flow)) for name, change in WRONG_FLOWS.items()}
    assert error(flow) < min(wrong.values()), wrong


def test_a_crop_is_compared_alike_at_every_scale() -> None:
    """Of an image that is bent in neither direction, the means over squares are what the warp finds between them."""
    v, u = torch.meshgrid(torch.arange(64.0), torch.arange(192.0), indexing="ij")
    whole = (0.001 * (2 * u + 3 * v)).expand(2, 3, 64, 192)
    flow = torch.tensor([2.5, -1.25]).view(1, 2, 1, 1).expand(2, 2, *CROP)
    images = crop_at(whole, ORIGIN, CROP) + 0.001 * (2 * 2.5 - 3 * 1.25)
    for scales in (1, 3):
        error = smurf(scales=scales, census_from=1.0).photometric(images, whole, ORIGIN, flow)
        assert float(error) == pytest.approx(0.01**0.4, rel=1e-3)  # of no difference


def test_colours_give_way_to_the_census() -> None:
    image, other = torch.rand(2, 1, 3, 16, 16)
    brighter, defined = smurf(0.2, census_from=0.5).error(image, image + 0.1)
    assert defined.all() and brighter.mean().item() == pytest.approx((49 * 0.1 + 0.01) ** 0.4)
    distance, complete = smurf(0.5, census_from=0.5).error(image, other)
    expected, inside = census_map(image, other)
    assert torch.equal(distance, power_l1(expected)) and torch.equal(complete, inside)


def test_what_leaves_the_crop_is_found_in_the_whole_image() -> None:
    batch, flow = street_pair(0)
    pair = torch.cat([batch.target.image, batch.sources[0].image])
    wholes, images, cropped = pair.flip(0), crop_at(pair, ORIGIN, CROP), crop_at(flow, ORIGIN, CROP)
    warped, _, visible = smurf(0.5).compare(images, wholes, ORIGIN, cropped)
    torch.testing.assert_close(warped, crop_at(warp_by_flow(wholes, flow)[0], ORIGIN, CROP))
    _, in_crop = warp_by_flow(images, cropped)
    assert (visible & ~in_crop).sum() > 50 and visible.dtype == torch.bool


def test_iterations_weigh_by_powers_of_the_decay() -> None:
    batch, flow = street_pair(0)
    zero = torch.zeros_like(flow)
    single = [with_flows(smurf(**CALM), f)(batch).terms for f in (flow, zero)]
    three = with_flows(smurf(**CALM), flow, zero, zero)(batch).terms
    for name in ("photometric", "smoothness"):
        expected = single[0][name] + (0.8 + 0.64) * single[1][name]
        torch.testing.assert_close(three[name], expected)


def test_smoothness_is_the_papers() -> None:
    """One bend of 3 px in a flat image: sqrt(9 + 1e-6) at the bend and its neighbour, sqrt(1e-6) elsewhere."""
    flow = torch.zeros(2, 2, 8, 10)
    flow[:, :1, :, 5:] = 3
    grey = torch.full((2, 3, 8, 10), 0.5)
    second = smurf().roughness(grey, flow)
    along_x = (2 * 3 + 14 * 0.001) / 16  # du bends twice among 8 places, dv nowhere
    assert float(second) == pytest.approx((along_x + 0.001) / 2, rel=1e-4)
    first = smurf(smoothness_order=1).roughness(grey, flow)
    assert float(first) == pytest.approx(((3 + 17 * 0.001) / 18 + 0.001) / 2, rel=1e-4)


def test_agreement_is_a_gaussian_of_the_residual_and_zero_out_of_view() -> None:
    flow = torch.zeros(2, 2, 6, 8)
    flow[0, 0], flow[1, 0] = 3.0, -2.9
    found = agreement(flow, 0.03)
    inside = math.exp(-(0.1**2) / (0.03**2 * (6**2 + 8**2)))
    torch.testing.assert_close(found[0, 0, :, :5], torch.full((6, 5), inside))
    assert torch.equal(found[0, 0, :, 5:], torch.zeros(6, 3)) and not found.requires_grad


def test_student_learns_the_teachers_middle_where_it_disagrees_with_itself() -> None:
    method, clean = smurf(0.6), [torch.rand(1, 3, 64, 96) for _ in range(2)]
    teacher = torch.cat([torch.full((1, 2, 64, 96), 1.0), torch.full((1, 2, 64, 96), -1.0)])
    middle = resize_flow(teacher[..., 16:-16, 16:-16], (64, 96))  # du 1.5, dv 2
    student = torch.zeros(2, 2, 64, 96).requires_grad_()
    answers = iter([[teacher.requires_grad_()], [student]])
    seen = []

    def flows(*images: Tensor) -> list[Tensor]:
        seen.append(images[0])
        return next(answers)

    object.__setattr__(method, "flows", flows)
    (term,) = method.self_supervision(clean, [x * 0.5 for x in clean])
    # The student agrees with itself everywhere, so that it is taught nowhere; its images are the middle ones.
    assert term == 0
    assert torch.equal(seen[0][:1], clean[0]) and seen[1].shape == (2, 3, 64, 96)

    student = torch.full((2, 2, 64, 96), 40.0).requires_grad_()  # out of view: everything is to be learned
    answers = iter([[teacher], [student]])
    (term,) = method.self_supervision(clean, clean)
    distance = (middle - student).abs()
    known = agreement(teacher.detach(), 0.003)[..., 16:-16, 16:-16]  # 1 but for what leaves the whole image
    assert known.min() == 1
    assert term.item() == pytest.approx(distance.mean().item(), rel=1e-4)
    term.backward()
    assert student.grad is not None and student.grad.abs().sum() > 0 and teacher.grad is None


def test_self_supervision_ramps_up() -> None:
    batch = random_pair(1)

    def weight(progress: float) -> float:
        method = smurf(progress)
        object.__setattr__(method, "self_supervision", lambda *_: [torch.ones(()), torch.ones(())])
        term = method(batch).terms.get("self_supervision")
        return 0.0 if term is None else float(term) / 1.8

    assert weight(0.41) == 0.0 and "self_supervision" not in smurf(0.41)(batch).terms
    assert weight((31250 + 3125) / 75000) == pytest.approx(0.15) and weight(0.9) == pytest.approx(0.3)


def test_a_margin_that_leaves_nothing_is_refused_at_the_first_step() -> None:
    with pytest.raises(ValueError, match="student_margin=32 leaves nothing of 96x64"):
        smurf(0.0, student_margin=32)(random_pair(1))
    smurf(0.0, student_margin=32, self_supervision=0.0)(random_pair(1))


def test_every_sample_has_a_crop_of_its_own_and_equal_seeds_give_equal_objectives() -> None:
    method, batch = smurf(0.6, crop=(56, 72), student_margin=8), random_pair(3)

    def drawn(seed: int) -> Any:
        torch.manual_seed(seed)
        return method(batch)

    objective = drawn(0)
    assert torch.equal(objective.total, drawn(0).total) and not torch.equal(objective.total, drawn(1).total)
    assert objective.maps["target"].shape == (3, 3, 56, 72) and objective.maps["flow"].shape == (3, 2, 56, 72)
    assert not any(x.requires_grad for x in (*objective.maps.values(), *objective.health.values()))
    assert all(x.isfinite().all() for x in objective.health.values())


def test_soft_visibility_and_bfloat16_networks() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        objective = smurf(0.0, visibility="soft_range_map", visibility_from=0.0)(random_pair(1))
    assert objective.total.dtype == torch.float32 and objective.total.isfinite()


def test_predicts_flow_of_any_size_and_names_a_missing_source() -> None:
    method = smurf().eval()
    assert isinstance(method, PredictsFlow)
    image = torch.rand(3, 3, 45, 83)
    assert method.predict_flows(image, [image.flip(0)]).shape == (3, 1, 2, 45, 83)
    with pytest.raises(MissingInput, match=r"SMURF needs batch\.sources"):
        method(replace(random_pair(), sources=(), source_offsets=()))
