import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.geometry.motion import (
    euler_to_rotation,
    invert,
    motion_from_axis_angle,
    relative,
    rotation_angle,
    se3_exp,
    skew,
    so3_exp,
    so3_log,
    transform,
)

components = st.floats(-1.8, 1.8)
vectors = st.tuples(components, components, components)


def test_so3_exp_quarter_turn_about_z() -> None:
    R = so3_exp(torch.tensor([0, 0, math.pi / 2]))
    assert torch.allclose(R @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6)


def test_so3_exp_gradient_at_zero_is_the_generator() -> None:
    # Dividing by (angle + 1e-7), as published code does, gives 0 here instead of 1.
    for scale in (0.0, 1e-12, 1e-6, 1e-3):
        w = torch.tensor([scale, 0.0, 0.0], dtype=torch.float64)
        J = torch.autograd.functional.jacobian(so3_exp, w)
        assert torch.allclose(J[..., 1], skew(torch.tensor([0.0, 1, 0], dtype=torch.float64)), atol=scale + 1e-12)


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-4, 0.0999, 0.1001, 1.0, 3.1])
def test_exponential_gradcheck(size: float) -> None:
    w = size * torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64)
    assert torch.autograd.gradcheck(so3_exp, w.requires_grad_())
    twist = torch.cat([torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64), w.detach()]).requires_grad_()
    assert torch.autograd.gradcheck(se3_exp, twist)


@settings(max_examples=60, deadline=None)
@given(vectors)
def test_so3_exp_is_the_matrix_exponential(w: tuple[float, float, float]) -> None:
    vector = torch.tensor(w, dtype=torch.float64)
    assert torch.allclose(so3_exp(vector), torch.linalg.matrix_exp(skew(vector)), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(vectors)
def test_se3_exp_is_the_matrix_exponential(w: tuple[float, float, float]) -> None:
    twist = torch.tensor([0.4, -2.0, 1.0, *w], dtype=torch.float64)
    generator = torch.zeros(4, 4, dtype=torch.float64)
    generator[:3, :3], generator[:3, 3] = skew(twist[3:]), twist[:3]
    assert torch.allclose(se3_exp(twist), torch.linalg.matrix_exp(generator), atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(vectors)
def test_so3_log_undoes_exp(w: tuple[float, float, float]) -> None:
    vector = torch.tensor(w, dtype=torch.float64)
    angle = vector.norm()
    if angle > math.pi - 1e-3:
        vector = vector / angle * (math.pi - 1e-3)
    assert torch.allclose(so3_log(so3_exp(vector)), vector, atol=1e-9)


def test_so3_log_at_half_turns() -> None:
    for axis in torch.eye(3, dtype=torch.float64):
        recovered = so3_log(so3_exp(math.pi * axis))
        assert recovered.norm().item() == pytest.approx(math.pi)
        assert recovered.dot(axis).abs().item() == pytest.approx(math.pi)


def test_euler_to_rotation_is_rx_ry_rz() -> None:
    from scipy.spatial.transform import Rotation

    angles = np.array([0.3, -0.7, 1.1])
    expected = Rotation.from_euler("XYZ", angles).as_matrix()  # intrinsic: Rx Ry Rz
    assert np.allclose(euler_to_rotation(torch.tensor(angles)).numpy(), expected)


def test_axis_angle_agrees_with_kornia() -> None:
    from kornia.geometry.conversions import axis_angle_to_rotation_matrix

    w = torch.randn(5, 3, dtype=torch.float64)
    assert torch.allclose(so3_exp(w), axis_angle_to_rotation_matrix(w), atol=1e-6)


def test_inverse_and_chain() -> None:
    T_b_a, T_c_b = se3_exp(torch.randn(2, 6, dtype=torch.float64))
    assert torch.allclose(T_b_a @ invert(T_b_a), torch.eye(4, dtype=torch.float64), atol=1e-12)
    points = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    in_two = transform(T_c_b[None], transform(T_b_a[None], points))
    assert torch.allclose(in_two, transform((T_c_b @ T_b_a)[None], points), atol=1e-12)


def test_relative_pose_maps_through_the_world() -> None:
    # Camera a stands 2 m ahead of camera b: a's origin is at z = +2 in b.
    T_world_a, T_world_b = torch.eye(4), torch.eye(4)
    T_world_a[2, 3] = 2
    assert relative(T_world_a, T_world_b)[:3, 3].tolist() == [0, 0, 2]


def test_rotation_angle_of_small_rotation() -> None:
    T = motion_from_axis_angle(torch.tensor([[0.0, 1e-4, 0.0]]), torch.zeros(1, 3))
    assert rotation_angle(T).item() == pytest.approx(1e-4, rel=1e-3)
