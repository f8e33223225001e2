"""Rigid motions: exponential maps, SfMLearner's Euler angles, and the algebra of `T_b_a`.

`T_b_a` is (..., 4, 4) and maps points from frame a to frame b: p_b = T_b_a @ p_a, T_c_a = T_c_b @ T_b_a.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.geometry.precision import float32_island


def skew(w: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3) with skew(w) @ p = w x p."""
    x, y, z = w.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).unflatten(-1, (3, 3))


def _sine_ratios(angle_squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sin(a)/a, (1-cos(a))/a^2 and (a-sin(a))/a^3 of a^2, exact to rounding and smooth at a = 0."""
    small = angle_squared < 1e-2
    safe = torch.where(small, torch.ones_like(angle_squared), angle_squared)
    angle = safe.sqrt()
    a2 = torch.where(small, angle_squared, torch.zeros_like(angle_squared))
    # Taylor to a^8: the first term left out is below 1e-17 for a^2 < 1e-2.
    first = 1 - a2 / 6 * (1 - a2 / 20 * (1 - a2 / 42 * (1 - a2 / 72)))
    second = (1 - a2 / 12 * (1 - a2 / 30 * (1 - a2 / 56 * (1 - a2 / 90)))) / 2
    third = (1 - a2 / 20 * (1 - a2 / 42 * (1 - a2 / 72 * (1 - a2 / 110)))) / 6
    half_sine = torch.sin(angle / 2)
    return (
        torch.where(small, first, torch.sin(angle) / angle),
        torch.where(small, second, 2 * half_sine * half_sine / safe),  # 1 - cos without cancellation
        torch.where(small, third, (angle - torch.sin(angle)) / (safe * angle)),
    )


@float32_island
def so3_exp(axis_angle: Tensor) -> Tensor:
    """(..., 3) rotation vectors in radians -> (..., 3, 3) rotations. Safe at zero, gradients included.

    Source: Rodrigues' formula, R = I + sin(a)/a W + (1-cos(a))/a^2 W^2.
    """
    a2 = axis_angle.square().sum(-1)[..., None, None]
    W = skew(axis_angle)
    s, c, _ = _sine_ratios(a2)
    eye = torch.eye(3, dtype=W.dtype, device=W.device)
    return eye + s * W + c * (W @ W)


@float32_island
def so3_log(R: Tensor) -> Tensor:
    """(..., 3, 3) rotations -> (..., 3) rotation vectors with angle in [0, pi].

    Goes through the unit quaternion, choosing its largest component first, so that it holds at 0 and at pi.
    """
    m = R
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    diagonal = torch.stack([trace, m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]], dim=-1)
    # Row k is the quaternion (w, x, y, z) times 4 q_k.
    antisymmetric = torch.stack(
        [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], dim=-1
    )
    symmetric = torch.stack(
        [m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]], dim=-1
    )
    a, s = antisymmetric.unbind(-1), symmetric.unbind(-1)
    d = [1 + trace, *(1 + 2 * m[..., i, i] - trace for i in range(3))]
    rows = [
        torch.stack([d[0], a[0], a[1], a[2]], -1),
        torch.stack([a[0], d[1], s[0], s[1]], -1),
        torch.stack([a[1], s[0], d[2], s[2]], -1),
        torch.stack([a[2], s[1], s[2], d[3]], -1),
    ]
    largest = diagonal.argmax(-1)[..., None, None].expand(*m.shape[:-2], 1, 4)
    q = torch.stack(rows, -2).gather(-2, largest).squeeze(-2)
    q = q / q.norm(dim=-1, keepdim=True)
    q = torch.where(q[..., :1] < 0, -q, q)
    w, v = q[..., 0], q[..., 1:]
    v2 = v.square().sum(-1)
    tiny = v2 < 1e-12
    sine = torch.where(tiny, torch.ones_like(v2), v2).sqrt()
    # 2 atan2(|v|, w) / |v|; at |v| -> 0 with w = 1 the ratio is 2.
    ratio = torch.where(tiny, torch.full_like(w, 2.0), 2 * torch.atan2(sine, w) / sine)
    return ratio[..., None] * v


@float32_island
def se3_exp(twist: Tensor) -> Tensor:
    """(..., 6) twists [translation part, rotation vector] -> (..., 4, 4). Safe at zero, gradients included."""
    rho, w = twist[..., :3], twist[..., 3:]
    W = skew(w)
    s, c, k = _sine_ratios(w.square().sum(-1)[..., None, None])
    eye = torch.eye(3, dtype=W.dtype, device=W.device)
    W2 = W @ W
    V = eye + c * W + k * W2
    return rigid(eye + s * W + c * W2, (V @ rho[..., None]).squeeze(-1))


def rigid(R: Tensor, t: Tensor) -> Tensor:
    """(..., 3, 3) rotation and (..., 3) translation -> (..., 4, 4)."""
    top = torch.cat([R, t[..., None]], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([top, bottom], dim=-2)


def motion_from_axis_angle(axis_angle: Tensor, translation: Tensor) -> Tensor:
    """(..., 3) rotation vectors and (..., 3) translations -> (..., 4, 4), [R | t] (Monodepth2's parameters)."""
    R = so3_exp(axis_angle)
    return rigid(R, translation.to(R.dtype))


@float32_island
def euler_to_rotation(angles: Tensor) -> Tensor:
    """(..., 3) angles about x, y, z in radians -> R = Rx Ry Rz.

    Source: the order of Zhou et al., CVPR 2017, as released.
    """
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    o, i = torch.zeros_like(cx), torch.ones_like(cx)
    Rx = torch.stack([i, o, o, o, cx, -sx, o, sx, cx], -1).unflatten(-1, (3, 3))
    Ry = torch.stack([cy, o, sy, o, i, o, -sy, o, cy], -1).unflatten(-1, (3, 3))
    Rz = torch.stack([cz, -sz, o, sz, cz, o, o, o, i], -1).unflatten(-1, (3, 3))
    return Rx @ Ry @ Rz


def motion_from_euler(translation: Tensor, angles: Tensor) -> Tensor:
    """(..., 3) translations and (..., 3) Euler angles -> (..., 4, 4) (SfMLearner's parameters, in its order)."""
    R = euler_to_rotation(angles)
    return rigid(R, translation.to(R.dtype))


@float32_island
def invert(T_b_a: Tensor) -> Tensor:
    """T_a_b, by the transpose of the rotation (exact for rigid motions)."""
    R_a_b = T_b_a[..., :3, :3].transpose(-1, -2)
    return rigid(R_a_b, -(R_a_b @ T_b_a[..., :3, 3:]).squeeze(-1))


@float32_island
def relative(T_world_a: Tensor, T_world_b: Tensor) -> Tensor:
    """T_b_a of two camera poses, e.g. `relative(pose_target, pose_source)` is T_source_target."""
    return invert(T_world_b) @ T_world_a


@float32_island
def transform(T_b_a: Tensor, points: Tensor) -> Tensor:
    """Maps (B, 3, H, W) points of frame a to frame b by (B, 4, 4)."""
    moved = T_b_a[:, :3, :3] @ points.flatten(2) + T_b_a[:, :3, 3:]  # (B, 3, H*W)
    return moved.view_as(points)


@float32_island
def rotation_angle(T: Tensor) -> Tensor:
    """(..., 4, 4) or (..., 3, 3) -> (...) angle in radians, accurate for small angles."""
    R = T[..., :3, :3]
    vee = torch.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1)
    return torch.atan2(vee.norm(dim=-1) / 2, (R.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2)
