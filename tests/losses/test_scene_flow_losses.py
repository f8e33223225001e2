import pytest
import torch

from geossl.geometry.camera import backproject
from geossl.geometry.pixels import pixel_grid
from geossl.losses.scene_flow import equal_factors, length, point_distance, scene_flow_roughness

K = torch.tensor([[[60.0, 0, 5.0], [0, 60.0, 3.0], [0, 0, 1]]])


@pytest.mark.parametrize("batch", [1, 3])
def test_point_distance_of_true_motion_is_zero(batch: int) -> None:
    """A wall 10 m ahead comes 2 m nearer and moves right by 0.8 m, 6 columns of the nearer wall."""
    far, near = (backproject(torch.full((batch, 1, 7, 11), z), K.expand(batch, 3, 3)) for z in (10.0, 8.0))
    scene_flow = torch.tensor([0.8, 0.0, -2.0]).view(1, 3, 1, 1).expand_as(far)
    pixels = (far + scene_flow)[:, :2] * 60 / 8 + torch.tensor([5.0, 3.0]).view(1, 2, 1, 1)
    inside = (pixels[:, :1] >= 0) & (pixels[:, :1] <= 10) & (pixels[:, 1:] >= 0) & (pixels[:, 1:] <= 6)
    error = point_distance(far, scene_flow, near, pixels)
    assert inside.sum() > 10 and error[inside].max() < 1e-5


def test_point_distance_is_a_share_of_the_distance() -> None:
    """One metre off at 10 m on the axis is 0.1."""
    points = backproject(torch.full((1, 1, 7, 11), 10.0), K)
    off = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand_as(points)
    error = point_distance(points, off, points, pixel_grid(7, 11)[None])
    assert error[0, 0, 3, 5].item() == pytest.approx(0.1, abs=1e-6)
    expected = 1 / points.norm(dim=1, keepdim=True)
    torch.testing.assert_close(error, expected)


def test_roughness_equals_numpy_loops() -> None:
    torch.manual_seed(0)
    scene_flow, points, image = torch.randn(2, 3, 5, 6), torch.randn(2, 3, 5, 6) + 3, torch.rand(2, 3, 5, 6)
    along_x, along_y = scene_flow_roughness(scene_flow, points, image, edge=10.0)
    assert along_x.shape == (2, 3, 5, 4) and along_y.shape == (2, 3, 3, 6)
    s, p, i = scene_flow.double().numpy(), points.double().numpy(), image.double().numpy()
    for b in range(2):
        for c in range(3):
            for y in range(5):
                for x in range(1, 5):
                    bend = abs(s[b, c, y, x - 1] - 2 * s[b, c, y, x] + s[b, c, y, x + 1])
                    edge = 2.718281828459045 ** (-10 * abs(i[b, :, y, x + 1] - i[b, :, y, x]).mean())
                    expected = bend * edge / (p[b, :, y, x] ** 2).sum() ** 0.5
                    assert along_x[b, c, y, x - 1].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
            for y in range(1, 4):
                for x in range(6):
                    bend = abs(s[b, c, y - 1, x] - 2 * s[b, c, y, x] + s[b, c, y + 1, x])
                    edge = 2.718281828459045 ** (-10 * abs(i[b, :, y + 1, x] - i[b, :, y, x]).mean())
                    expected = bend * edge / (p[b, :, y, x] ** 2).sum() ** 0.5
                    assert along_y[b, c, y - 1, x].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_length_is_the_norm_and_has_a_gradient_at_zero() -> None:
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(length(x), x.norm(dim=1, keepdim=True))
    zero = torch.zeros(1, 3, 1, 1, requires_grad=True)
    length(zero).sum().backward()
    assert zero.grad is not None and torch.equal(zero.grad, torch.zeros_like(zero))


def test_losses_pass_gradcheck() -> None:
    torch.manual_seed(0)
    points = (torch.rand(1, 3, 4, 5, dtype=torch.float64) + 2).requires_grad_()
    other = (torch.rand(1, 3, 4, 5, dtype=torch.float64) + 2).requires_grad_()
    scene_flow = torch.randn(1, 3, 4, 5, dtype=torch.float64).requires_grad_()
    pixels = (pixel_grid(4, 5, dtype=torch.float64)[None] * 0.8 + 0.13).requires_grad_()
    image = torch.rand(1, 3, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(point_distance, (points, scene_flow, other, pixels))
    assert torch.autograd.gradcheck(lambda s, p: scene_flow_roughness(s, p, image), (scene_flow, points))


def test_equal_factors_worked_number() -> None:
    """Losses 0.5 and 2 count 2 each."""
    losses = torch.tensor([0.5, 2.0], requires_grad=True)
    factors = equal_factors(*losses)
    assert [f.item() for f in factors] == pytest.approx([4, 1])
    assert not any(f.requires_grad for f in factors)
    assert torch.stack(equal_factors(torch.zeros(()), torch.ones(()))).isfinite().all()
