import numpy as np
import pytest
import torch
from torch import Tensor

from geossl.geometry.pixels import pixel_grid
from geossl.geometry.warping import warp_by_flow
from geossl.losses.census import census_map, half_offsets
from geossl.losses.reduction import masked_mean


def census_by_loops(a: np.ndarray, b: np.ndarray, radius: int) -> np.ndarray:
    """Summed distance of two (3, H, W) images, 0 in the border, from the definition."""
    grey_a, grey_b = (255 * (0.2989 * x[0] + 0.5870 * x[1] + 0.1140 * x[2]) for x in (a, b))
    h, w = grey_a.shape
    out = np.zeros((h, w))
    for y in range(radius, h - radius):
        for x in range(radius, w - radius):
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    signs = []
                    for grey in (grey_a, grey_b):
                        d = grey[y + dy, x + dx] - grey[y, x]
                        signs.append(d / np.sqrt(0.81 + d * d))
                    square = (signs[0] - signs[1]) ** 2
                    out[y, x] += square / (0.1 + square)
    return out


def images(*size: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    a, b = torch.rand(2, size[0], 3, *size[1:], dtype=torch.float64) * scale
    return a, b


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 7, 10), (3, 9, 8)])
@pytest.mark.parametrize("radius", [1, 2, 3])
def test_census_map_equals_loops(batch: int, height: int, width: int, radius: int) -> None:
    a, b = images(batch, height, width, scale=0.02)  # differences of a few grey levels, where the soft sign bends
    distance, valid = census_map(a, b, radius)
    assert distance.shape == valid.shape == (batch, 1, height, width)
    for n in range(batch):
        assert np.allclose(distance[n, 0].numpy(), census_by_loops(a[n].numpy(), b[n].numpy(), radius))


def test_census_map_worked_number() -> None:
    """One neighbour 9 grey levels brighter in one image and 9 darker in the other: t = +-9 / sqrt(81.81)."""
    a, b = torch.full((2, 1, 3, 3, 3), 0.5, dtype=torch.float64)
    a, b = a.clone(), b.clone()
    a[..., 0, 1] += 9 / 255 / 0.9999  # the weights of grey sum to 0.9999
    b[..., 0, 1] -= 9 / 255 / 0.9999
    gap = 2 * 9 / np.sqrt(0.81 + 81)
    expected = gap**2 / (0.1 + gap**2)
    assert expected == pytest.approx(0.975, abs=5e-4)
    assert census_map(a, b, 1)[0][0, 0, 1, 1].item() == pytest.approx(expected)
    assert census_map(a, b, 1, "mean")[0][0, 0, 1, 1].item() == pytest.approx(expected / 9)


@pytest.mark.parametrize("radius", [1, 3])
def test_census_map_of_a_constant_brightness_change_is_zero(radius: int) -> None:
    a = torch.rand(3, 3, 11, 14) * 0.6
    distance, valid = census_map(a, a + 0.3, radius)
    assert valid.any() and distance.max() < 1e-4
    other, _ = census_map(a, torch.rand(3, 3, 11, 14), radius)
    assert masked_mean(other, valid) > 1000 * distance.max()


def test_census_map_scales_grey_to_255() -> None:
    """At differences of 0.03 of the range the sign is saturated; without the factor 255 it would be 0.03."""
    a, b = images(1, 5, 6, scale=0.03)
    assert census_map(a, b, 1)[0].max() > 10 * census_map(a / 255, b / 255, 1)[0].max()


def test_census_map_valid_leaves_out_the_border_ring() -> None:
    a, b = torch.rand(2, 1, 3, 8, 11)
    distance, valid = census_map(a, b, 3)
    expected = torch.zeros(8, 11, dtype=torch.bool)
    expected[3:5, 3:8] = True
    assert torch.equal(valid[0, 0], expected) and valid.dtype == torch.bool
    assert distance[~valid].abs().max() == 0 and distance[valid].min() > 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (4, 4), (9, 2)])
def test_census_map_smaller_than_the_patch_has_nothing_valid(height: int, width: int) -> None:
    a, b = torch.rand(2, 2, 3, height, width)
    distance, valid = census_map(a.requires_grad_(), b, 3)
    loss = masked_mean(distance, valid)
    loss.backward()
    assert not valid.any() and loss.item() == 0 and a.grad is not None and a.grad.abs().max() == 0


@pytest.mark.parametrize("radius", [1, 3])
def test_census_map_gradients_of_both_images(radius: int) -> None:
    a, b = images(1, 7, 8, scale=0.02)
    assert torch.autograd.gradcheck(lambda a, b: census_map(a, b, radius)[0], (a.requires_grad_(), b.requires_grad_()))


def test_census_map_gradient_ignores_what_is_masked_and_the_border() -> None:
    a, b = images(1, 9, 10, scale=0.02)
    a.requires_grad_()
    distance, valid = census_map(a, b, 1)
    keep = valid.clone()
    keep[..., 5:] = False
    masked_mean(distance, keep).backward()
    assert a.grad is not None and a.grad[..., :6].abs().max() > 0
    assert a.grad[..., 6:].abs().max() == 0  # more than the radius away from the last kept column


def test_census_map_is_not_touched_by_autocast() -> None:
    a, b = torch.rand(2, 1, 3, 9, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = census_map(a, b)
    assert inside.dtype == torch.float32 and torch.equal(inside, census_map(a, b)[0])
    assert census_map(a.half(), b.half())[0].dtype == torch.float32


def test_census_map_masked_after_the_comparison_sees_no_edge_of_the_mask() -> None:
    """Equal images, half of them hidden: the distance stays 0. A mask on one image before it draws an edge."""
    image = torch.rand(1, 3, 9, 20)
    visible = pixel_grid(9, 20)[None, :1] < 10
    distance, valid = census_map(image, image, 1)
    assert masked_mean(distance, valid & visible).item() == 0
    early, _ = census_map(image, image * visible, 1)
    assert masked_mean(early, valid & visible).item() > 0


def test_census_map_of_the_true_shift_is_a_minimum() -> None:
    second = torch.rand(2, 3, 16, 21)
    errors = {}
    for du in (2.0, 3.0, 3.5, 4.0):
        flow = torch.tensor([du, 0.0]).view(1, 2, 1, 1).expand(2, 2, 16, 21)
        warped, in_view = warp_by_flow(second, flow)
        distance, valid = census_map(second.roll(-3, 3), warped, 1)
        errors[du] = masked_mean(distance, valid & in_view & (pixel_grid(16, 21)[:1] < 16)).item()
    assert errors[3.0] < 1e-3 < min(errors[2.0], errors[3.5], errors[4.0])


def test_census_map_leaves_its_inputs_alone() -> None:
    a, b = images(1, 6, 7, scale=0.02)
    before = a.clone(), b.clone()
    distance, valid = census_map(a.requires_grad_(), b, 1)
    upstream = torch.rand_like(distance)
    copy = upstream.clone()
    distance.backward(upstream)
    assert torch.equal(a, before[0]) and torch.equal(b, before[1]) and torch.equal(upstream, copy)
    again = valid.clone()
    masked_mean(distance.detach(), valid)
    assert torch.equal(valid, again)


def test_half_offsets_and_their_opposites_are_the_patch() -> None:
    half = list(half_offsets(2))
    assert len(half) == 12
    whole = {*half, *((-dy, -dx) for dy, dx in half), (0, 0)}
    assert whole == {(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}


def test_census_map_names_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"shapes \(1, 3, 8, 8\) and \(1, 1, 8, 8\)"):
        census_map(torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="radius is 0; expected at least 1"):
        census_map(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), 0)
