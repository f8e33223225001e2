"""Correspondences from every source of geometry agree, and hidden places are left out."""

from math import pi

import pytest
import torch

from geossl.data.synthetic.example import street_example
from geossl.geometry.affine import affine_image
from geossl.geometry.pixels import pixel_grid_like, sample_at_pixels
from geossl.geometry.transforms import flip_batch, flip_flow, resize_pixels
from geossl.pretrain.correspond import (
    from_depth_and_motion,
    from_disparity,
    from_flow,
    from_warp,
    identity,
)
from geossl.pretrain.pairs import moments, moves
from geossl.pretrain.views import Views, draw_crop, draw_view, recoloured

EXAMPLE = street_example(160, 64)


def test_disparity_and_depth_agree_on_the_street() -> None:
    batch = EXAMPLE.batch
    assert batch.stereo is not None and batch.T_stereo_target is not None
    by_disparity, valid = from_disparity(EXAMPLE.disparity_px)
    by_depth, seen = from_depth_and_motion(EXAMPLE.depth, batch.target.K, batch.T_stereo_target)
    both = valid & seen
    assert both.float().mean() > 0.3
    assert (by_disparity - by_depth).abs().amax(1, keepdim=True)[both].max() < 1e-3


@pytest.mark.parametrize("source", [0, 1])
def test_flow_and_depth_agree_on_what_stands(source: int) -> None:
    flow = EXAMPLE.flow[source]
    by_depth, seen = from_depth_and_motion(EXAMPLE.depth, EXAMPLE.batch.target.K, EXAMPLE.T_source_target[source])
    by_flow, _ = from_flow(flow, -flow)
    both = seen & EXAMPLE.static & EXAMPLE.valid
    assert both.float().mean() > 0.3
    assert (by_flow - by_depth).abs().amax(1, keepdim=True)[both].max() < 1e-3


def test_hidden_places_are_found() -> None:
    batch, visible = EXAMPLE.batch, EXAMPLE.visible_stereo & EXAMPLE.valid
    assert batch.stereo is not None and batch.T_stereo_target is not None
    _, valid = from_depth_and_motion(
        EXAMPLE.depth, batch.target.K, batch.T_stereo_target, batch.stereo.K, EXAMPLE.stereo_depth
    )
    assert (valid == visible)[EXAMPLE.valid].float().mean() > 0.95
    fx, baseline = batch.target.K[:, 0, 0].view(-1, 1, 1, 1), batch.T_stereo_target[:, 0, 3].abs().view(-1, 1, 1, 1)
    other = fx * baseline / EXAMPLE.stereo_depth
    _, valid = from_disparity(EXAMPLE.disparity_px, "left", other)
    assert (valid == visible)[EXAMPLE.valid].float().mean() > 0.95


def test_flip_with_swapped_roles_comes_back() -> None:
    batch = flip_batch(EXAMPLE.batch)
    assert batch.T_stereo_target is not None
    depth = EXAMPLE.depth.flip(-1)
    mirrored, _ = from_depth_and_motion(depth, batch.target.K, batch.T_stereo_target)
    # Mirrored, the left camera stands on the right.
    by_disparity, _ = from_disparity(EXAMPLE.disparity_px.flip(-1), "right")
    known = EXAMPLE.valid.flip(-1)
    assert (mirrored - by_disparity).abs().amax(1, keepdim=True)[known].max() < 1e-3
    back = flip_flow(mirrored - pixel_grid_like(mirrored))
    straight, _ = from_disparity(EXAMPLE.disparity_px)
    there = straight - pixel_grid_like(straight)
    assert (back - there).abs().amax(1, keepdim=True)[EXAMPLE.valid].max() < 1e-3
    twice = flip_batch(batch)
    assert torch.allclose(twice.T_stereo_target, EXAMPLE.batch.T_stereo_target)  # type: ignore[arg-type]


def test_disparity_convention() -> None:
    xy, valid = from_disparity(torch.full((1, 1, 1, 16), 3.0))
    assert xy[0, :, 0, 10].tolist() == [7.0, 0.0]
    assert valid[0, 0, 0].tolist() == [False] * 3 + [True] * 13
    assert not from_disparity(torch.zeros(1, 1, 2, 3))[1].any()


@pytest.mark.parametrize("count", [1, 3])
def test_views_show_what_their_correspondence_says(count: int) -> None:
    """A smooth picture, bent twice without recolouring, has the same values at corresponding pixels."""
    torch.manual_seed(count)
    size = (47, 65)
    coarse = torch.rand(count, 3, 5, 6)
    image = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=True)
    first, second = (draw_crop(count, size, (1.0, 1.6), pi / 18) for _ in range(2))
    xy, valid = from_warp(*identity(image), first, second)
    a, b = affine_image(image, first)[0], affine_image(image, second)[0]
    assert 0.2 < valid.float().mean() < 1
    assert (sample_at_pixels(b, xy) - a).abs().amax(1, keepdim=True)[valid].max() < 0.02
    # Each view's own corner, taken through both maps by hand.
    pixel = torch.tensor([30.0, 20.0, 1.0])
    there = second @ first.inverse() @ pixel
    assert torch.allclose(xy[:, :, 20, 30], there[:, :2], atol=1e-3)


def test_warp_of_a_correspondence_moves_both_ends() -> None:
    """Of stereo, zoomed by 2 about the origin in the second image alone, xy doubles."""
    xy, valid = from_disparity(torch.full((1, 1, 5, 9), 2.0))
    eye, zoom = torch.eye(3)[None], torch.diag(torch.tensor([2.0, 2.0, 1.0]))[None]
    moved, seen = from_warp(xy, valid, eye, zoom)
    assert torch.allclose(moved, 2 * xy, atol=1e-5)
    assert torch.equal(seen, valid & (moved[:, :1] <= 8) & (moved[:, 1:] <= 4))


def test_crops_lie_inside_the_image() -> None:
    torch.manual_seed(0)
    A = draw_crop(50, (47, 65), (1.0, 3.0), 0.0)
    corners = torch.tensor([[0.0, 64, 0, 64], [0, 0, 46, 46], [1, 1, 1, 1]])
    u, v, _ = (torch.linalg.inv(A) @ corners).unbind(1)
    assert u.min() > -1e-3 and u.max() < 64.001 and v.min() > -1e-3 and v.max() < 46.001
    zoom = A[:, 0, 0]
    assert zoom.min() >= 1 and zoom.max() <= 3 and zoom.std() > 0.3
    assert (A[:, 1, 0] == 0).all()


def test_views_without_limits_are_the_image() -> None:
    image = torch.rand(2, 3, 9, 11)
    plain = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "grey": 0, "blur_px": 0}
    view = draw_view(image, Views(zoom=(1.0, 1.0), rotation_deg=0, **plain))
    assert torch.allclose(view.image, image, atol=1e-5)
    colourless = recoloured(image, Views(**plain | {"grey": 1.0}))
    assert torch.allclose(colourless, colourless[:, :1].expand_as(image))
    low, high = recoloured(image, Views()).aminmax()
    assert low >= 0 and high <= 1


def test_at_features_aligns_areas() -> None:
    pixels = torch.tensor([7.5, 0.0]).view(1, 2, 1, 1)
    assert resize_pixels(pixels, (8, 16), (2, 4)).flatten().tolist() == [1.5, -0.375]


def test_moments_join_cameras_and_part_drives() -> None:
    names = (
        "2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005",
        "2011_09_26/2011_09_26_drive_0001_sync/image_03/data/0000000007",
        "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000005",
        "training/image_2/000003_10",
        "training/image_2/000004_10",
        "",
    )
    when = moments(names, torch.device("cpu"))
    near = when.near(when, 2)
    expected = torch.eye(6, dtype=torch.bool)
    expected[0, 1] = expected[1, 0] = True
    assert torch.equal(near, expected)
    assert torch.equal(when.near(when, 1), torch.eye(6, dtype=torch.bool))


def test_standing_samples_are_found() -> None:
    xy, valid = identity(torch.zeros(3, 1, 4, 5))
    xy = xy + torch.tensor([0.0, 3.0, 3.0]).view(3, 1, 1, 1)
    valid = valid & torch.tensor([True, True, False]).view(3, 1, 1, 1)
    assert moves(xy, valid, 1.0).flatten().tolist() == [False, True, False]
