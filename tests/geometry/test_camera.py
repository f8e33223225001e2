import torch

from geossl.geometry.camera import backproject, project
from geossl.geometry.pixels import pixel_grid

K = torch.tensor([[[100.0, 0, 50.0], [0, 120.0, 20.0], [0, 0, 1]]])


def test_project_worked_number() -> None:
    point = torch.tensor([1.0, -0.5, 10.0]).view(1, 3, 1, 1)
    pixels, z, in_front = project(point, K)
    assert pixels.flatten().tolist() == [60.0, 14.0]  # 100 * 1/10 + 50, 120 * -0.5/10 + 20
    assert z.item() == 10 and in_front.all()


def test_project_of_backproject_is_every_pixel() -> None:
    depth = torch.rand(1, 1, 7, 11) * 50 + 1
    pixels, z, _ = project(backproject(depth, K), K)
    assert torch.allclose(pixels[0], pixel_grid(7, 11), atol=1e-4)
    assert torch.allclose(z, depth)


def test_points_behind_the_camera_are_not_in_front_and_stay_finite() -> None:
    points = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [-5.0, 0.0, 1e-9]]).view(1, 3, 1, 3).requires_grad_()
    pixels, _, in_front = project(points, K)
    assert not in_front.any()
    pixels.sum().backward()
    assert pixels.isfinite().all() and points.grad is not None and points.grad.isfinite().all()


def test_project_rounding_under_autocast() -> None:
    points = backproject(torch.full((1, 1, 4, 400), 7.3), K)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pixels, _, _ = project(points, K)
    assert (pixels[0] - pixel_grid(4, 400)).abs().max() < 1e-3  # bfloat16 would round 399 to 400


def test_backproject_agrees_with_kornia() -> None:
    from kornia.geometry.depth import depth_to_3d_v2

    depth = torch.rand(1, 1, 6, 9) + 0.5
    ours = backproject(depth, K).permute(0, 2, 3, 1)
    theirs = depth_to_3d_v2(depth[:, 0], K, normalize_points=False)
    assert torch.allclose(ours, theirs.reshape(ours.shape), atol=1e-5)
