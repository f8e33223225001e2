import math

import pytest
import torch
from torch import Tensor

from geossl.geometry.affine import (
    ARFLOW_KITTI,
    ARFLOW_SINTEL,
    AffineRange,
    affine_flow,
    affine_image,
    affine_K,
    affine_pixels,
    affine_visible,
    draw_affine,
    draw_affine_pair,
    draw_zoom,
    similarity,
)
from geossl.geometry.pixels import pixel_grid
from geossl.geometry.transforms import flip_flow
from geossl.geometry.warping import warp_by_flow


def matrix(*rows: tuple[float, float, float], batch: int = 1) -> Tensor:
    return torch.tensor([*rows, (0.0, 0.0, 1.0)], dtype=torch.float64).repeat(batch, 1, 1)


def smooth(batch: int = 1, height: int = 40, width: int = 61) -> Tensor:
    """(B, 1, H, W) image whose second differences are small, so that bilinear sampling is nearly exact."""
    u, v = pixel_grid(height, width, dtype=torch.float64)
    waves = torch.stack([torch.sin(u / 9 + n) + torch.cos(v / 7 - n) + torch.sin((u + v) / 11) for n in range(batch)])
    return waves[:, None]


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 1, 7), (3, 9, 14)])
def test_identity_map_changes_nothing(batch: int, height: int, width: int) -> None:
    identity = torch.eye(3).repeat(batch, 1, 1)
    image, flow = torch.rand(batch, 3, height, width), torch.randn(batch, 2, height, width)
    mapped, inside = affine_image(image, identity)
    assert torch.allclose(mapped, image, atol=1e-5) and inside.all()
    assert torch.allclose(affine_flow(flow, identity, identity), flow, atol=1e-5)
    visible = torch.rand(batch, 1, height, width) > 0.5
    assert torch.equal(affine_visible(visible, identity), visible)


def test_affine_image_of_an_integer_shift_is_the_shift() -> None:
    image = torch.rand(1, 3, 6, 9)
    mapped, inside = affine_image(image, matrix((1, 0, 2), (0, 1, -1)))  # 2 to the right, 1 up
    assert torch.allclose(mapped[..., :-1, 2:], image[..., 1:, :-2], atol=1e-5)
    expected = torch.zeros(6, 9, dtype=torch.bool)
    expected[:-1, 2:] = True
    assert torch.equal(inside[0, 0], expected)


def test_affine_flow_worked_number() -> None:
    zoom = matrix((2, 0, -10), (0, 2, 0))  # by 2 about pixel (10, 0)
    moved = matrix((2, 0, -9), (0, 2, 0))
    flow = torch.tensor([3.0, 0.0], dtype=torch.float64).view(1, 2, 1, 1).repeat(1, 1, 4, 21)
    assert torch.allclose(affine_flow(flow, zoom, zoom)[0, :, 0, 10], torch.tensor([6.0, 0.0], dtype=torch.float64))
    assert torch.allclose(affine_flow(flow, zoom, moved)[0, :, 0, 10], torch.tensor([7.0, 0.0], dtype=torch.float64))


def test_affine_flow_of_an_affine_flow_closed_form() -> None:
    """f(x) = M x + c - x between images mapped by A1, A2 becomes A2 M A1^-1 x' - x': matrices compose."""
    size = (17, 23)
    second = matrix((1.02, 0.01, 0.7), (-0.02, 0.99, 0.3))  # the pair's own motion
    A1 = similarity(*torch.tensor([[1.2], [1.1], [0.05]]).double(), torch.tensor([[1.0, -2.0]]).double(), size)
    A2 = similarity(*torch.tensor([[1.3], [1.2], [-0.02]]).double(), torch.tensor([[0.5, 1.0]]).double(), size)
    grid = pixel_grid(*size, dtype=torch.float64)[None]
    flow = affine_pixels(second, grid) - grid
    _, inside = affine_image(grid, A1)
    expected = affine_pixels(A2 @ second @ torch.linalg.inv(A1), grid) - grid
    error = (affine_flow(flow, A1, A2) - expected).abs()
    assert inside.float().mean() > 0.8 and error.masked_fill(~inside, 0).max() < 1e-9


def test_affine_flow_by_a_mirror_is_flip_flow() -> None:
    flow = torch.randn(3, 2, 5, 8, dtype=torch.float64)
    mirror = matrix((-1, 0, 7), (0, 1, 0), batch=3)
    assert torch.allclose(affine_flow(flow, mirror, mirror), flip_flow(flow), atol=1e-9)


def test_mapped_flow_warps_mapped_images_onto_each_other() -> None:
    """The defining property: if f takes image 2 to image 1, then f' takes mapped image 2 to mapped image 1."""
    second = smooth(batch=3)
    u, v = pixel_grid(40, 61, dtype=torch.float64)
    flow = torch.stack([2 + torch.sin(v / 9), 1 + torch.cos(u / 12)])[None].repeat(3, 1, 1, 1)
    first, in_view = warp_by_flow(second, flow)
    generator = torch.Generator().manual_seed(3)
    A1 = draw_affine(3, (40, 61), ARFLOW_SINTEL.both, generator).double()
    A2 = draw_affine(3, (40, 61), ARFLOW_SINTEL.second, generator).double() @ A1
    mapped_first, _ = affine_image(first, A1)
    mapped_second, inside_second = affine_image(second, A2)
    mapped_flow = affine_flow(flow, A1, A2)
    warped, mapped_in_view = warp_by_flow(mapped_second, mapped_flow)
    seen_second, _ = warp_by_flow(inside_second.double(), mapped_flow)
    keep = affine_visible(in_view, A1) & mapped_in_view & (seen_second > 0.999)
    assert keep.float().mean() > 0.4
    error = (warped - mapped_first).abs()
    assert error[keep].max() < 0.02
    still, _ = warp_by_flow(mapped_second, torch.zeros_like(mapped_flow))
    assert (still - mapped_first).abs()[keep].mean() > 20 * error[keep].mean()


def test_affine_visible_needs_all_the_pixels_it_is_sampled_from() -> None:
    visible = torch.ones(1, 1, 3, 8, dtype=torch.bool)
    visible[..., 4] = False
    half = affine_visible(visible, matrix((1, 0, 0.5), (0, 1, 0)))  # column u shows the mean of u - 1 and u
    assert half[0, 0, 0].tolist() == [False, True, True, True, False, False, True, True]
    assert half.dtype == torch.bool and not half.requires_grad


def test_similarity_turns_from_right_to_down_about_the_centre() -> None:
    quarter = similarity(*torch.tensor([[1.0], [1.0], [math.pi / 2]]).double(), torch.zeros(1, 2).double(), (5, 9))
    grid = pixel_grid(5, 9, dtype=torch.float64)[None]
    moved = affine_pixels(quarter, grid)
    assert torch.allclose(moved[0, :, 2, 4], torch.tensor([4.0, 2.0]).double())  # the centre stays
    assert torch.allclose(moved[0, :, 2, 6], torch.tensor([4.0, 4.0]).double())  # 2 right becomes 2 down


def test_draw_affine_stays_within_its_limits() -> None:
    limits = AffineRange(zoom=(1.1, 1.5), translation=0.1, rotation=0.2, squeeze=(0.9, 1.2))
    A = draw_affine(500, (40, 60), limits, torch.Generator().manual_seed(0)).double()
    linear = A[:, :2, :2]
    zoom = torch.linalg.det(linear).sqrt()  # squeeze keeps the area
    assert 1.1 <= zoom.min() < 1.12 and 1.48 < zoom.max() <= 1.5 + 1e-6
    squeeze = (linear[:, :, 0].norm(dim=1) / linear[:, :, 1].norm(dim=1)).sqrt()
    assert squeeze.min() >= 0.9 - 1e-6 and squeeze.max() <= 1.2 + 1e-6
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])
    assert 0.18 < angle.max() <= 0.2 + 1e-6 and -0.2 - 1e-6 <= angle.min() < -0.18
    centre = torch.tensor([29.5, 19.5]).double()
    shift = linear @ centre + A[:, :2, 2] - centre
    assert 5.5 < shift[:, 0].max() <= 6 + 1e-5 and 3.6 < shift[:, 1].max() <= 4 + 1e-5


def test_draw_affine_follows_its_generator_and_the_global_one() -> None:
    def drawn(seed: int) -> Tensor:
        return draw_affine(2, (4, 6), ARFLOW_KITTI.both, torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(5), drawn(5)) and not torch.equal(drawn(5), drawn(6))
    torch.manual_seed(5)
    assert torch.equal(draw_affine(2, (4, 6), ARFLOW_KITTI.both), drawn(5))
    assert not torch.equal(drawn(5)[0], drawn(5)[1])  # each sample its own
    assert torch.equal(draw_affine(2, (4, 6), AffineRange()), torch.eye(3).repeat(2, 1, 1))


def test_affine_gradients() -> None:
    A = matrix((1.1, 0.02, -0.31), (-0.03, 1.05, 0.12))
    image = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: affine_image(x, A)[0], image)
    assert torch.autograd.gradcheck(lambda f: affine_flow(f, A, A), image)
    assert torch.autograd.gradcheck(lambda A: affine_image(image.detach(), A)[0], A.requires_grad_())


def test_affine_is_not_touched_by_autocast() -> None:
    image, A = torch.rand(1, 3, 8, 300), matrix((1.1, 0, 0.3), (0, 1, 0.2)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = affine_image(image, A)
        K = affine_K(matrix((180.0, 0, 156.7), (0, 184, 43.9)).float(), A)
    assert inside.dtype == torch.float32 and torch.equal(inside, affine_image(image, A)[0])
    assert K[0, 0, 2].item() == pytest.approx(1.1 * 156.7 + 0.3)


def test_draw_affine_pair_moves_the_second_image_a_little_further() -> None:
    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        first, second = draw_affine_pair(4, (40, 61), ARFLOW_SINTEL, generator())
    assert torch.equal(first, draw_affine(4, (40, 61), ARFLOW_SINTEL.both, generator()))
    between = second.double() @ torch.linalg.inv(first.double())  # the second's own map
    zoom = between[:, :2, :2].det().sqrt()
    assert ((zoom > 0.985 - 1e-5) & (zoom < 1.015 + 1e-5)).all() and zoom.std() > 1e-3


def test_affine_names_a_map_of_the_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"A has shape \(2, 3\); expected \(1, 3, 3\), a map for each sample"):
        affine_image(torch.rand(1, 3, 4, 5), torch.rand(2, 3))
    with pytest.raises(ValueError, match=r"A has shape \(1, 3, 3\); expected \(3, 3, 3\)"):
        affine_flow(torch.rand(3, 2, 4, 5), torch.eye(3).repeat(3, 1, 1), torch.eye(3)[None])


def test_zoom_shows_only_the_inside_and_varies_as_rejected_draws_do() -> None:
    """Against the rejection it replaces: s uniform, shifts uniform, drawn again until the window is inside."""
    size, most, count = (21, 40), 0.07, 4000
    A = draw_zoom(count, size, most, torch.Generator().manual_seed(0))
    corners = torch.tensor([[0.0, size[1] - 1], [0.0, size[0] - 1]])
    sampled = (corners.T[None] - A[:, :2, 2][:, None]) / A[:, [0, 1], [0, 1]][:, None]  # (B, corners, 2) in the image
    assert (sampled > -1e-4).all() and (sampled < torch.tensor([size[1] - 1, size[0] - 1]) + 1e-4).all()
    share = 1 / A[:, 0, 0]
    assert (share >= 1 - most - 1e-6).all() and (share <= 1).all()
    generator = torch.Generator().manual_seed(1)
    s, x, y = torch.rand(3, 400_000, generator=generator)
    s, x, y = 1 - most * s, most * (x - 0.5), most * (y - 0.5)
    kept = s[(x.abs() <= (1 - s) / 2) & (y.abs() <= (1 - s) / 2)]
    levels = torch.tensor([0.1, 0.5, 0.9])
    assert torch.allclose(share.quantile(levels), kept[:40_000].quantile(levels), atol=2e-3)


def test_no_zoom_is_the_identity() -> None:
    assert torch.equal(draw_zoom(3, (9, 14), 0.0), torch.eye(3).repeat(3, 1, 1))
