"""Figures of features against closed forms, and matching on images whose correspondence is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from geossl.evaluation.encoder import (
    angle_figures,
    effective_rank,
    linear_classification_accuracy,
    linear_regression,
    linear_regression_r2,
    retrieval,
    spread,
)
from geossl.evaluation.encoder_matching import (
    Places,
    descriptors,
    matched,
    patch_descriptors,
    places_of,
    share_within,
    viewpoint,
)
from geossl.geometry.transforms import resize_pixels


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_retrieval_counts_nearest_neighbours() -> None:
    angles = torch.tensor([0.0, 0.1, 0.25, 2.0, 2.1])  # nearest: 1, 0, 1, 4, 3
    features = torch.stack([angles.cos(), angles.sin()], 1) * torch.arange(1.0, 6)[:, None]
    same = torch.tensor([0, 0, 1, 1, 2])[:, None] == torch.tensor([0, 0, 1, 1, 2])
    assert retrieval(features, same) == pytest.approx(2 / 4)  # the last one has no other of its own
    assert math.isnan(retrieval(features, torch.eye(5, dtype=torch.bool)))


def test_spread_and_rank_of_known_directions() -> None:
    axes = torch.cat([torch.eye(4), -torch.eye(4)])
    assert spread(axes) == pytest.approx(1.0) and effective_rank(axes) == pytest.approx(4.0)
    assert spread(torch.ones(5, 3)) == pytest.approx(0.0, abs=1e-6)
    line = torch.linspace(-1, 1, 9)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-3)


def test_linear_regression_explains_what_is_linear() -> None:
    x = random(200, 5).double()
    y = x @ torch.arange(5.0, dtype=torch.float64) + 3
    assert linear_regression_r2(x[:100], y[:100], x[100:], y[100:]) == pytest.approx(1.0, abs=1e-4)
    noise = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert linear_regression_r2(x[:100], noise[:100], x[100:], noise[100:]) < 0.1
    constant = torch.ones(100, 2)  # a feature that says nothing is no error
    assert linear_regression_r2(constant, y[:100], constant, y[:100]) == pytest.approx(0.0, abs=1e-6)


def test_linear_regression_of_several_quantities_is_one_of_each() -> None:
    x, y = random(60, 4), random(60, 3, seed=1)
    found = linear_regression(x[:40], y[:40], x[40:], penalty=0.1)
    alone = [linear_regression(x[:40], y[:40, k : k + 1], x[40:], penalty=0.1) for k in range(3)]
    assert torch.allclose(found, torch.cat(alone, 1))
    # Ridge regression with a free constant: the stationary point of the penalised mean square.
    scaled = (x[:40].double() - x[:40].double().mean(0)) / x[:40].double().std(0, correction=0)
    weights, constant = torch.zeros(4, 3, dtype=torch.float64), y[:40].double().mean(0)
    for _ in range(2000):
        weights = weights - 0.2 * (scaled.T @ (scaled @ weights + constant - y[:40]) / 40 + 0.1 * weights)
    assert torch.allclose(linear_regression(x[:40], y[:40], x[:40], penalty=0.1), scaled @ weights + constant)


def test_angle_figures_of_known_angles() -> None:
    degrees = torch.tensor([0.0, 10.0, 20.0, 25.0, 90.0]).double()
    angle = torch.deg2rad(degrees)
    estimated = torch.stack([angle.sin(), torch.zeros(5), angle.cos()], 1) * torch.arange(1.0, 6)[:, None]
    found = angle_figures(estimated, torch.tensor([[0.0, 0.0, 2.0]]).expand(5, 3))
    assert found == pytest.approx(
        {"mean_deg": 29, "median_deg": 20, "within_11.25_deg": 0.4, "within_22.5_deg": 0.6, "within_30_deg": 0.8}
    )
    opposite = angle_figures(torch.tensor([[0.0, -1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
    assert opposite["mean_deg"] == pytest.approx(180)


def test_linear_classification_separates_what_is_separable() -> None:
    label = torch.arange(3).repeat(30)
    x = torch.eye(3)[label] + 0.1 * random(90, 3)
    assert linear_classification_accuracy(x[:45], label[:45], x[45:], label[45:]) == 1.0
    assert linear_classification_accuracy(torch.zeros(90, 2), label, torch.zeros(90, 2), label) == pytest.approx(1 / 3)


def test_rescaled_aligns_areas() -> None:
    found = resize_pixels(torch.tensor([[0.0, 3.0]]), (4, 8), (8, 4))
    assert found.tolist() == [[-0.25, 6.5]]
    assert torch.allclose(resize_pixels(found, (8, 4), (4, 8)), torch.tensor([[0.0, 3.0]]))


def test_places_leave_out_what_goes_outside() -> None:
    flow = torch.zeros(2, 1, 4)
    flow[0] = torch.tensor([[1.0, 3.0, -2.0, -2.0]])
    places = places_of(flow, torch.tensor([[True, True, False, True]]), (1, 2))
    assert places.here.tolist() == [[-0.25, 0.0], [1.25, 0.0]] and places.there.tolist() == [[0.25, 0.0], [0.25, 0.0]]
    thinned = places.thinned(1, torch.Generator().manual_seed(0))
    assert len(thinned.here) == len(thinned.there) == 1


def test_descriptors_are_unit_vectors_of_all_features() -> None:
    features = [random(2, 3, 9, 13), random(2, 0, 5, 7), random(2, 4, 5, 7)]
    found = descriptors(features, 2)
    assert found.shape == (2, 7, 5, 7) and torch.allclose(found.norm(dim=1), torch.ones(2, 5, 7), atol=1e-5)
    assert torch.allclose(descriptors([f * 3 + 1 for f in features], 2), found, atol=1e-4)  # neither scale nor offset


@pytest.mark.parametrize("along_row", [True, False])
def test_shifted_image_is_found_exactly(along_row: bool) -> None:
    first = patch_descriptors(random(1, 3, 32, 48), 5, 1)[0]
    shift = (0, 6) if along_row else (3, 6)
    second = first.roll(shift, (1, 2))
    here = torch.tensor([[10.0, 4.0], [3.0, 20.0], [30.0, 11.0]])
    found = matched(first, second, here, (32, 48), along_row)
    there = here + torch.tensor([6.0, shift[0]])
    assert torch.allclose(found, there, atol=1e-4) and share_within(found, there, 0.1) == 1.0
    assert share_within(found + torch.tensor([0.0, 2.0]), there, 1.9) == 0.0
    assert math.isnan(share_within(found[:0], there[:0], 1.0))


def test_coarse_maps_find_to_half_a_cell() -> None:
    image = random(1, 3, 64, 96)
    first, second = (patch_descriptors(x, 7, 4)[0] for x in (image, image.roll((8, 4), (2, 3))))
    here = torch.tensor([[41.0, 22.0], [20.0, 30.0]])
    found = matched(first, second, here, (64, 96), False)
    assert (found - here - torch.tensor([4.0, 8.0])).abs().max() <= 2.0


def test_patches_ignore_brightness_and_contrast() -> None:
    image = random(1, 3, 16, 24)
    assert torch.allclose(patch_descriptors(image, 3, 4), patch_descriptors(0.5 * image + 0.2, 3, 4), atol=1e-5)
    assert patch_descriptors(image, 3, 4).shape == (1, 9, 4, 6)


def test_viewpoint_zooms_and_turns_about_the_middle() -> None:
    image = random(1, 3, 33, 49)
    seen, places = viewpoint(image)
    assert seen.shape == image.shape
    middle = torch.tensor([24.0, 16.0])
    at = {tuple(here.tolist()): there for here, there in zip(places.here, places.there, strict=True)}
    assert torch.allclose(at[24.0, 16.0], middle, atol=1e-4)
    turn = math.radians(10)
    expected = middle + 1.25 * 8 * torch.tensor([math.cos(turn), math.sin(turn)])
    assert torch.allclose(at[32.0, 16.0], expected, atol=1e-4)
    assert torch.allclose(seen[0, :, 16, 24], 0.7 * image[0, :, 16, 24].sqrt() + 0.2, atol=1e-4)
    assert isinstance(places, Places) and (places.there >= 0).all()
