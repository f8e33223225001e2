"""Normals against planes and a sphere in closed form, and what has none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geossl.data.synthetic.example import street_example
from geossl.geometry.camera import backproject, rays
from geossl.geometry.normals import depth_to_normals

K = torch.tensor([[90.0, 0, 15.0], [0, 110.0, 9.5], [0, 0, 1]], dtype=torch.float64)
H, W = 21, 33


def everywhere(depth: Tensor) -> Tensor:
    return torch.ones_like(depth, dtype=torch.bool)


def plane_depth(normals: Tensor, distance: float, K: Tensor = K, size: tuple[int, int] = (H, W)) -> Tensor:
    """(N, 3) unit normals towards the camera -> (N, 1, H, W) depth of the planes n . p = -distance."""
    cosine = (normals.view(-1, 3, 1, 1) * rays(K[None], *size)).sum(1, keepdim=True)
    return -distance / cosine


def inner(x: Tensor) -> Tensor:
    return x[..., 1:-1, 1:-1]


def test_planes_of_any_slant_are_exact() -> None:
    """Also seen at 85 degrees from their normals."""
    normals = torch.tensor([[0, 0, -1], [1, 0, -1], [0.3, -0.8, -0.4], [4, 0, -1], [-1, 2, -0.6]], dtype=torch.float64)
    normals = F.normalize(normals, dim=1)
    depth = plane_depth(normals, 3.0)
    assert (depth > 0).all()
    found, known = depth_to_normals(depth, K.expand(5, 3, 3), everywhere(depth))
    assert inner(known).all() and known.sum() == 5 * (H - 2) * (W - 2)
    assert torch.allclose(inner(found), normals.view(5, 3, 1, 1).expand_as(inner(found)), atol=1e-9)
    assert (found[~known.expand_as(found)] == 0).all()


def test_road_faces_up_in_float32() -> None:
    """A camera 1.5 m above the road, 700 pixels wide in focal length, up to 70 m."""
    big = torch.tensor([[[700.0, 0, 20], [0, 700.0, -15], [0, 0, 1]]])
    depth = plane_depth(torch.tensor([[0.0, -1, 0]]), 1.5, big[0], (41, 40))
    assert depth.max() == pytest.approx(70)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
            found, known = depth_to_normals(depth, big, everywhere(depth))
        assert inner(known).all() and found.dtype == torch.float32
        assert torch.allclose(inner(found), torch.tensor([0.0, -1, 0]).view(1, 3, 1, 1), atol=1e-3)


def test_normals_do_not_know_the_unit() -> None:
    depth = 2 + torch.rand(3, 1, 9, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    metres, known = depth_to_normals(depth, K.expand(3, 3, 3), everywhere(depth), bend=50.0)
    other, same = depth_to_normals(100 * depth, K.expand(3, 3, 3), everywhere(depth), bend=50.0)
    assert known.any() and torch.equal(known, same) and torch.allclose(metres, other)
    assert ((metres * backproject(depth, K[None])).sum(1, keepdim=True) <= 0).all()  # however rough, towards us


def test_sphere_faces_away_from_its_centre() -> None:
    """|t r - c| = R: the nearer root t of each ray r."""
    K = torch.tensor([[300.0, 0, 40.0], [0, 300.0, 30.0], [0, 0, 1]], dtype=torch.float64)
    centre, radius = torch.tensor([0.1, -0.2, 5.0], dtype=torch.float64), 0.6
    r = rays(K[None], 61, 81)
    a, b = r.square().sum(1, keepdim=True), (r * centre.view(1, 3, 1, 1)).sum(1, keepdim=True)
    inside = b.square() - a * (centre.square().sum() - radius**2)
    depth = (b - inside.clamp_min(0).sqrt()) / a
    found, known = depth_to_normals(depth, K[None], inside > 0)
    true = (backproject(depth, K[None]) - centre.view(1, 3, 1, 1)) / radius
    angle = torch.rad2deg((found * true).sum(1, keepdim=True).clamp(-1, 1).acos())
    assert known.sum() > 0.5 * (inside > 0).sum() and angle[known].max() < 2
    facing = known & (true[:, 2:] < -0.8)
    assert angle[facing].max() < 0.1


def test_edges_creases_and_unknown_neighbours_have_no_normals() -> None:
    wall = torch.full((1, 1, 7, 12), 10.0)
    step = wall.clone()
    step[..., 6:] = 10.1
    found, known = depth_to_normals(step, K[None].float(), everywhere(wall))
    assert known[0, 0, 3].tolist() == [False, *[True] * 4, False, False, *[True] * 4, False]
    assert torch.allclose(found[0, :, 3, 4], torch.tensor([0.0, 0, -1]))
    valid = everywhere(wall)
    valid[0, 0, 3, 5] = False
    wall[0, 0, 3, 5] = torch.nan
    found, known = depth_to_normals(wall, K[None].float(), valid)
    gone = (~inner(known)[0, 0]).nonzero() + 1
    assert gone.tolist() == [[2, 5], [3, 4], [3, 5], [3, 6], [4, 5]] and found.isfinite().all()

    u = torch.arange(30.0, dtype=torch.float64)
    inverse = torch.stack([0.1 + 0.0 * u, 0.1 + 0.01 * (u - 14)]).amax(0)  # a wall across, and one along the road
    crease = (1 / inverse).expand(1, 1, 5, 30)
    _, known = depth_to_normals(crease, K[None], everywhere(crease))
    assert (~known[0, 0, 2, 1:-1]).nonzero().flatten().add(1).tolist() == [14]


def test_images_without_neighbours_have_no_normals() -> None:
    found, known = depth_to_normals(torch.ones(2, 1, 2, 5), K.float().expand(2, 3, 3), torch.ones(2, 1, 2, 5).bool())
    assert found.shape == (2, 3, 2, 5) and not known.any()


def test_agrees_with_kornia_on_a_smooth_surface() -> None:
    """Its normals come of Sobel gradients, and point away from the camera."""
    from kornia.geometry.depth import depth_to_normals as kornia_normals

    u, v = torch.arange(W, dtype=torch.float64), torch.arange(H, dtype=torch.float64)
    depth = (5 + 0.3 * torch.sin(u / 12) + 0.2 * torch.cos(v[:, None] / 9)).expand(1, 1, H, W)
    found, known = depth_to_normals(depth, K[None], everywhere(depth), bend=1.0)
    theirs = kornia_normals(depth, K[None])
    assert inner(known).all()
    assert (inner(found) + inner(theirs)).norm(dim=1).max() < 0.02


def test_street_has_a_road_that_faces_up() -> None:
    """Beside it in the lowest rows stands a car."""
    example = street_example(160, 64)
    found, known = depth_to_normals(example.depth, example.batch.target.K, example.valid)
    assert known.float().mean() > 0.3
    lowest = known[:, 0, 58:63]
    assert lowest.any() and found[:, 1, 58:63][lowest].median() < -0.999
