import pytest
import torch

from geossl.geometry.conversion import (
    depth_to_disparity_px,
    disparity_px_to_depth,
    mean_normalized,
    rigid_flow,
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


def test_mean_normalized_ignores_scale() -> None:
    x = torch.rand(2, 1, 3, 3) + 0.1
    assert torch.allclose(mean_normalized(x), mean_normalized(7 * x), atol=1e-5)
    assert torch.allclose(mean_normalized(x).mean((1, 2, 3)), torch.ones(2), atol=1e-5)
