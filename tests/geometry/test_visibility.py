"""Visibility by name; the forward-backward check and the range map alone are in test_warping.py."""

import numpy as np
import pytest
import torch
from torch import Tensor

from geossl.geometry.pixels import pixel_grid
from geossl.geometry.transforms import resize_flow
from geossl.geometry.visibility import (
    all_visible,
    forward_backward_check,
    in_view,
    range_map,
    visible_pair,
)

KINDS = ("none", "forward_backward", "range_map", "soft_range_map")


def shift(du: float, batch: int = 1, height: int = 4, width: int = 10) -> Tensor:
    return torch.tensor([du, 0.0]).view(1, 2, 1, 1).repeat(batch, 1, height, width)


@pytest.mark.parametrize("kind", KINDS)
def test_visible_pair_has_no_gradient_and_keeps_the_shape(kind: str) -> None:
    flow, backward = torch.randn(2, 3, 2, 5, 7, requires_grad=True)
    for visible in visible_pair(kind, flow, backward):  # type: ignore[arg-type]
        assert visible.shape == (3, 1, 5, 7) and not visible.requires_grad and visible.grad_fn is None
        assert visible.dtype == (torch.float32 if kind == "soft_range_map" else torch.bool)
        assert visible.float().min() >= 0 and visible.float().max() <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outside_hidden", [True, False])
def test_visible_pair_of_a_shift_hides_what_leaves_only_if_told(kind: str, outside_hidden: bool) -> None:
    first, second = visible_pair(kind, shift(3), shift(-3), outside_hidden=outside_hidden)  # type: ignore[arg-type]
    assert first[..., :7].float().min() == 1 and second[..., 3:].float().min() == 1
    assert bool(first[..., 7:].any()) is bool(second[..., :3].any()) is not outside_hidden


def occluding_step() -> tuple[Tensor, Tensor, Tensor]:
    """A wall whose column 5 moves 2 px to the right and hides column 7; in the second image it uncovers column 5."""
    flow, backward = shift(0), shift(0)
    flow[:, 0, :, 5] = 2
    backward[:, 0, :, 7] = -2
    hidden = pixel_grid(4, 10)[:1][None] == 7
    return flow, backward, hidden


@pytest.mark.parametrize("kind", KINDS[1:])
def test_visible_pair_finds_what_a_nearer_surface_hides(kind: str) -> None:
    flow, backward, hidden = occluding_step()
    first, second = visible_pair(kind, flow, backward)  # type: ignore[arg-type]
    assert torch.equal(first < 0.5, hidden)
    assert torch.equal(second < 0.5, pixel_grid(4, 10)[:1][None] == 5)  # nothing of the first image lands there


def test_visible_pair_exchanges_the_images_with_the_flows() -> None:
    flow, backward = torch.randn(2, 1, 2, 6, 9)
    for kind in KINDS:
        first, second = visible_pair(kind, flow, backward)  # type: ignore[arg-type]
        swapped = visible_pair(kind, backward, flow)  # type: ignore[arg-type]
        assert torch.equal(first, swapped[1]) and torch.equal(second, swapped[0])


def test_range_map_visibility_soft_and_thresholded() -> None:
    backward = shift(0)
    backward[:, 0, :, 4] = -0.7  # 0.3 of column 4's pixel stays, 0.7 more lands on column 3
    assert range_map(backward)[0, 0, 0, 3:5].tolist() == pytest.approx([1.7, 0.3])
    soft, _ = visible_pair("soft_range_map", shift(0), backward)
    assert soft[0, 0, 0, 3:5].tolist() == pytest.approx([1.0, 0.3])
    for threshold, seen in ((0.2, True), (0.5, False)):
        visible, _ = visible_pair("range_map", shift(0), backward, range_threshold=threshold)
        assert visible[0, 0, 0, 4].item() is seen


def test_none_sees_everything_while_noise_hides_everything_from_the_check() -> None:
    noise, other = torch.randn(2, 2, 2, 16, 21) * 20
    assert visible_pair("none", noise, other, outside_hidden=False)[0].all()
    assert torch.equal(visible_pair("none", noise, other)[0], in_view(noise))
    assert visible_pair("forward_backward", noise, other)[0].float().mean() < 0.02
    assert all_visible(noise).all() and all_visible(noise).shape == (2, 1, 16, 21)


def test_forward_backward_check_equals_loops() -> None:
    flow, backward = (torch.randint(-2, 3, (1, 2, 5, 7)).double() for _ in range(2))  # integers: exact lookups
    expected = np.zeros((5, 7), dtype=bool)
    for y in range(5):
        for x in range(7):
            f = flow[0, :, y, x].numpy()
            u, v = int(x + f[0]), int(y + f[1])
            if 0 <= u < 7 and 0 <= v < 5:
                b = backward[0, :, v, u].numpy()
                expected[y, x] = ((f + b) ** 2).sum() <= 0.01 * ((f**2).sum() + (b**2).sum()) + 0.5
    assert np.array_equal(forward_backward_check(flow, backward)[0, 0].numpy(), expected)


def test_forward_backward_check_is_in_pixels_of_its_level() -> None:
    """A disagreement of 1.2 px is too much at full size; at a quarter of it, it is 0.3 px of that level."""
    flow, backward = shift(4, height=8, width=24), shift(-2.8, height=8, width=24)
    assert not forward_backward_check(flow, backward).any()
    coarse, coarse_backward = resize_flow(flow, (2, 6)), resize_flow(backward, (2, 6))
    assert forward_backward_check(coarse, coarse_backward)[..., :5].all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (5, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_visible_pair_of_still_images_is_all_of_them_at_any_size(kind: str, height: int, width: int) -> None:
    still = torch.zeros(1, 2, height, width)
    for visible in visible_pair(kind, still, still):  # type: ignore[arg-type]
        assert visible.float().min() == 1  # the last row and column included


def test_visible_pair_names_wrong_input() -> None:
    with pytest.raises(ValueError, match="visibility is 'occ'; expected none, forward_backward"):
        visible_pair("occ", shift(1), shift(1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="they differ"):
        visible_pair("none", shift(1), shift(1, batch=3))
