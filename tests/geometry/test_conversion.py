import pytest
import torch

from geossl.geometry.conversion import (
    depth_to_disparity_px,
    disparity_px_to_depth,
    mean_normalized,
    rigid_flow,
    scene_flow_from_parts,
    scene_flow_to_flow,
    unit_inverse_depth_to_depth,
)

K = torch.tensor([[[700.0, 0, 300.0], [0, 700.0, 100.0], [0, 0, 1]]])


def test_unit_inverse_depth_ends() -> None:
    ends = unit_inverse_depth_to_depth(torch.tensor([0.0, 1.0]), 0.1, 100.0)
    assert ends.tolist() == pytest.approx([100.0, 0.1])


def test_disparity_worked_number_and_round_trip() -> None:
    depth = torch.full((1, 1, 2, 2), 10.0)
    disparity = depth_to_disparity_px(depth, torch.tensor([700.0]), 0.5)
    assert disparity.unique().item() == pytest.approx(35.0)
    assert torch.allclose(disparity_px_to_depth(disparity, torch.tensor([700.0]), 0.5), depth)


def test_disparity_uses_each_samples_own_focal_length() -> None:
    depth = torch.full((2, 1, 1, 1), 10.0)
    disparity = depth_to_disparity_px(depth, torch.tensor([700.0, 350.0]), torch.tensor([0.5, 1.0]))
    assert disparity.flatten().tolist() == pytest.approx([35.0, 35.0])


def test_rigid_flow_of_a_stereo_baseline_is_minus_disparity() -> None:
    depth = torch.rand(1, 1, 3, 4) * 20 + 5
    T = torch.eye(4)[None].clone()
    T[:, 0, 3] = -0.54  # the right camera stands to the right: points move left
    flow, in_front = rigid_flow(depth, K, T)
    assert torch.allclose(flow[:, :1], -depth_to_disparity_px(depth, K[:, 0, 0], 0.54), atol=1e-3)
    assert flow[:, 1].abs().max() < 1e-4 and in_front.all()


def test_rigid_flow_forward_motion_expands_from_the_principal_point() -> None:
    depth = torch.full((1, 1, 201, 601), 10.0)
    T = torch.eye(4)[None].clone()
    T[:, 2, 3] = -1.0  # the camera moves 1 m forward: points come nearer
    flow, _ = rigid_flow(depth, K, T)
    assert flow[0, :, 100, 300].abs().max() < 1e-4
    assert flow[0, 0, 100, 390].item() == pytest.approx(90 * (10 / 9 - 1), abs=1e-3)


def test_scene_flow_of_a_rigid_motion_is_rigid_flow() -> None:
    from geossl.geometry.camera import backproject
    from geossl.geometry.motion import se3_exp, transform

    depth = torch.rand(1, 1, 5, 6) * 20 + 5
    T = se3_exp(torch.tensor([[0.1, 0.0, -0.8, 0.01, -0.02, 0.005]]))
    points = backproject(depth, K)
    flow, _ = scene_flow_to_flow(depth, transform(T, points) - points, K)
    assert torch.allclose(flow, rigid_flow(depth, K, T)[0], atol=1e-3)


@pytest.mark.parametrize("batch", [1, 3])
def test_scene_flow_of_a_moving_plane_in_closed_form(batch: int) -> None:
    """A wall at 10 m moves by (0.5, -0.2, 2) m: u' = f (x + 0.5) / 12 + c, in a second camera with its own f and c."""
    K_b = torch.tensor([[[500.0, 0, 310.0], [0, 600.0, 90.0], [0, 0, 1]]]).expand(batch, 3, 3)
    depth = torch.full((batch, 1, 5, 7), 10.0)
    motion = torch.tensor([0.5, -0.2, 2.0]).view(1, 3, 1, 1).expand(batch, 3, 5, 7)
    flow, in_front = scene_flow_to_flow(depth, motion, K.expand(batch, 3, 3), K_b)
    u, v = torch.arange(7.0), torch.arange(5.0)[:, None]
    expected_u = 500 * ((u - 300) / 70 + 0.5) / 12 + 310 - u
    expected_v = 600 * ((v - 100) / 70 - 0.2) / 12 + 90 - v
    expected = torch.stack([expected_u.expand(5, 7), expected_v.expand(5, 7)]).expand(batch, 2, 5, 7)
    torch.testing.assert_close(flow, expected, atol=1e-3, rtol=1e-4)
    assert in_front.all()
    assert not scene_flow_to_flow(depth, -6 * motion, K.expand(batch, 3, 3))[1].any()  # 2 m behind the camera


def test_mean_normalized_ignores_scale() -> None:
    x = torch.rand(2, 1, 3, 3) + 0.1
    assert torch.allclose(mean_normalized(x), mean_normalized(7 * x), atol=1e-5)
    assert torch.allclose(mean_normalized(x).mean((1, 2, 3)), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_scene_flow_from_parts_equals_the_loops(batch: int) -> None:
    torch.manual_seed(0)
    h, w = 7, 11
    camera = torch.tensor([[9.0, 0, 5.2], [0, 8.0, 3.1], [0, 0, 1]]).repeat(batch, 1, 1)
    depth, inverse = torch.rand(batch, 1, h, w) * 20 + 5, torch.rand(batch, 1, h, w) * 0.1 + 0.05
    flow, visible = torch.randn(batch, 2, h, w), torch.rand(batch, 1, h, w) < 0.7
    T = torch.eye(4).repeat(batch, 1, 1)
    T[:, :3, 3] = torch.randn(batch, 3)
    with_motion = scene_flow_from_parts(depth, 1 / inverse, flow, visible, camera, T)
    without = scene_flow_from_parts(depth, 1 / inverse, flow, visible, camera)
    for b in range(batch):
        for v in range(h):
            for u in range(w):
                z = depth[b, 0, v, u].item()
                point = torch.tensor([(u - 5.2) / 9 * z, (v - 3.1) / 8 * z, z])
                x, y = u + flow[b, 0, v, u].item(), v + flow[b, 1, v, u].item()
                still = T[b, :3, 3]
                if visible[b, 0, v, u]:
                    left, top = min(max(x, 0.0), w - 1.0), min(max(y, 0.0), h - 1.0)
                    i, j = min(int(left), w - 2), min(int(top), h - 2)
                    du, dv = left - i, top - j
                    q = inverse[b, 0, j : j + 2, i : i + 2]
                    z = 1 / (torch.tensor([1 - dv, dv]) @ q @ torch.tensor([1 - du, du])).item()
                moved = torch.tensor([(x - 5.2) / 9 * z, (y - 3.1) / 8 * z, z]) - point
                assert torch.allclose(without[b, :, v, u], moved, atol=1e-4, rtol=1e-4)
                expected = moved if visible[b, 0, v, u] else still
                assert torch.allclose(with_motion[b, :, v, u], expected, atol=1e-4, rtol=1e-4)


def test_scene_flow_from_parts_projects_back_to_its_flow() -> None:
    torch.manual_seed(1)
    depth, later = (torch.rand(2, 1, 5, 8) * 20 + 5 for _ in range(2))
    flow, visible = torch.randn(2, 2, 5, 8) * 3, torch.rand(2, 1, 5, 8) < 0.5
    camera = K.repeat(2, 1, 1)
    found, in_front = scene_flow_to_flow(depth, scene_flow_from_parts(depth, later, flow, visible, camera), camera)
    assert in_front.all() and torch.allclose(found, flow, atol=1e-3)


def test_scene_flow_from_parts_worked_number() -> None:
    depth, nothing = torch.full((1, 1, 1, 1), 10.0), torch.zeros(1, 2, 1, 1)
    camera = torch.tensor([[[700.0, 0, 0], [0, 700, 0], [0, 0, 1]]])
    seen = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    assert scene_flow_from_parts(depth, 0.7 * depth, nothing, seen, camera).flatten().tolist() == pytest.approx(
        [0, 0, -3], abs=1e-5
    )
