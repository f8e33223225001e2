import pytest
import torch

from geossl.geometry.camera import backproject, project, reproject
from geossl.geometry.motion import invert, se3_exp, transform
from geossl.geometry.pixels import pixel_grid
from geossl.geometry.visibility import forward_backward_check, in_view, range_map
from geossl.geometry.warping import (
    splat,
    synthesize_target,
    warp_by_disparity,
    warp_by_flow,
    warp_by_scene_flow,
)
from geossl.types import Frame

K = torch.tensor([[[60.0, 0, 31.3], [0, 58.0, 11.7], [0, 0, 1]]])


def frame(batch: int = 1, height: int = 24, width: int = 65, dtype: torch.dtype = torch.float32) -> Frame:
    image = torch.rand(batch, 3, height, width, dtype=dtype)
    return Frame(image, image, K.to(dtype).expand(batch, 3, 3))


@pytest.mark.parametrize("batch", [1, 3])
def test_identity_warp_is_exact(batch: int) -> None:
    source = frame(batch)
    depth = torch.rand(batch, 1, 24, 65) * 80 + 0.5
    image, visible = synthesize_target(source, depth, source.K, torch.eye(4).expand(batch, 4, 4))
    assert (image - source.image).abs().max() < 1e-5
    assert visible.all()


def test_reproject_equals_the_three_steps() -> None:
    depth = torch.rand(2, 1, 24, 65, dtype=torch.float64) * 30 + 2
    K2 = K.double().expand(2, 3, 3)
    T = se3_exp(torch.randn(2, 6, dtype=torch.float64) * 0.1)
    K_source = K2 * torch.tensor([1.1, 0.9, 1.0]).double()[:, None]
    expected, _, _ = project(transform(T, backproject(depth, K2)), K_source)
    assert torch.allclose(reproject(depth, K2, T, K_source)[0], expected, atol=1e-9)


def test_synthesize_target_agrees_with_kornia() -> None:
    from kornia.geometry.depth import warp_frame_depth

    source = frame()
    depth = torch.rand(1, 1, 24, 65) * 5 + 10
    T = se3_exp(torch.tensor([[0.2, -0.05, 0.3, 0.01, 0.02, -0.01]]))
    ours, visible = synthesize_target(source, depth, source.K, T)
    theirs = warp_frame_depth(source.image, depth, T, source.K)
    assert visible.any()
    assert ((ours - theirs).abs() * visible).max() < 1e-4


def test_points_behind_the_camera_are_invisible() -> None:
    T = torch.eye(4)[None].clone()
    T[:, 2, 3] = -20.0
    _, visible = synthesize_target(frame(), torch.full((1, 1, 24, 65), 10.0), K, T)
    assert not visible.any()


def test_synthesize_target_passes_gradients_to_depth_motion_and_image() -> None:
    source = frame(height=5, width=6, dtype=torch.float64)
    depth = (torch.rand(1, 1, 5, 6, dtype=torch.float64) + 4).requires_grad_()
    twist = (torch.randn(1, 6, dtype=torch.float64) * 0.01).requires_grad_()
    image = source.image.clone().requires_grad_()

    def warp(image: torch.Tensor, depth: torch.Tensor, twist: torch.Tensor) -> torch.Tensor:
        return synthesize_target(Frame(image, image, source.K), depth, source.K, se3_exp(twist))[0]

    assert torch.autograd.gradcheck(warp, (image, depth, twist), atol=1e-4)


def test_synthesize_target_names_a_wrong_depth_shape() -> None:
    with pytest.raises(ValueError, match=r"depth has shape \(1, 24, 65\); expected \(B, 1, H, W\)"):
        synthesize_target(frame(), torch.ones(1, 24, 65), K, torch.eye(4)[None])


@pytest.mark.parametrize(("side", "shift"), [("left", -3), ("right", 3)])
def test_warp_by_disparity_looks_to_the_right_side(side: str, shift: int) -> None:
    other = torch.rand(1, 3, 4, 20)
    warped, in_view_ = warp_by_disparity(other, torch.full((1, 1, 4, 20), 3.0), side)  # type: ignore[arg-type]
    for u in range(20):
        inside = 0 <= u + shift < 20
        assert in_view_[0, 0, 0, u].item() is inside
        if inside:
            assert torch.allclose(warped[..., u], other[..., u + shift], atol=1e-5)


def test_warp_by_disparity_equals_stereo_synthesis() -> None:
    right = frame()
    depth = torch.rand(1, 1, 24, 65) * 20 + 5
    T = torch.eye(4)[None].clone()
    T[:, 0, 3] = -0.54
    by_motion, _ = synthesize_target(right, depth, K, T)
    by_disparity, _ = warp_by_disparity(right.image, K[0, 0, 0] * 0.54 / depth, "left")
    assert torch.allclose(by_motion, by_disparity, atol=1e-4)


def test_warp_by_scene_flow_of_still_points_is_the_identity() -> None:
    image = torch.rand(1, 3, 24, 65)
    warped, visible = warp_by_scene_flow(image, torch.full((1, 1, 24, 65), 9.0), torch.zeros(1, 3, 24, 65), K)
    assert torch.allclose(warped, image, atol=1e-4) and visible.all()


def test_warp_by_scene_flow_of_a_sideways_plane_is_a_shift() -> None:
    """Its docstring's number: f 100 px, 10 m ahead, 0.3 m to the right is 3 columns."""
    image, camera = (
        torch.rand(3, 2, 9, 21),
        torch.tensor([[100.0, 0, 8.0], [0, 100.0, 4.0], [0, 0, 1]]).repeat(3, 1, 1),
    )
    motion = torch.tensor([0.3, 0.0, 0.0]).view(1, 3, 1, 1).expand(3, 3, 9, 21)
    warped, visible = warp_by_scene_flow(image, torch.full((3, 1, 9, 21), 10.0), motion, camera)
    assert torch.allclose(warped[..., :18], image[..., 3:], atol=1e-4)
    assert visible[..., :18].all() and not visible[..., 18:].any()
    # A second camera whose centre lies 3 columns further left sees no shift.
    other = camera - 3 * torch.tensor([[0.0, 0, 1], [0, 0, 0], [0, 0, 0]])
    warped, visible = warp_by_scene_flow(image, torch.full((3, 1, 9, 21), 10.0), motion, camera, other)
    assert torch.allclose(warped, image, atol=1e-4) and visible.all()


def test_warp_by_scene_flow_hides_points_behind_the_camera() -> None:
    motion = torch.tensor([0.0, 0.0, -20.0]).view(1, 3, 1, 1).expand(1, 3, 24, 65)
    warped, visible = warp_by_scene_flow(torch.rand(1, 3, 24, 65), torch.full((1, 1, 24, 65), 9.0), motion, K)
    assert not visible.any() and warped.isfinite().all()


def test_warp_by_flow_float32_under_bfloat16_autocast() -> None:
    image, flow = torch.rand(1, 3, 8, 320), torch.full((1, 2, 8, 320), 0.25)
    expected, _ = warp_by_flow(image, flow)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, _ = warp_by_flow(image, flow)
    assert actual.dtype == torch.float32 and torch.equal(actual, expected)


def test_warp_by_integer_flow_is_exactly_the_shift() -> None:
    image = torch.rand(3, 2, 7, 11, dtype=torch.float64)
    flow = torch.tensor([2.0, -1.0], dtype=torch.float64).view(1, 2, 1, 1).expand(3, 2, 7, 11)
    warped, in_view_ = warp_by_flow(image, flow)
    assert torch.allclose(warped[..., 1:, :9], image[..., :-1, 2:], atol=1e-12)
    assert in_view_[..., 1:, :9].all() and in_view_.sum() == 3 * 6 * 9  # the last row and column count


def test_warp_by_flow_of_crops_reaches_the_whole_image() -> None:
    """Each sample's crop lies elsewhere; its warp is the crop of the whole image's warp, beyond its own border."""
    full, full_flow = torch.rand(3, 3, 13, 18, dtype=torch.float64), torch.randn(3, 2, 13, 18, dtype=torch.float64) * 3
    expected, expected_in_view = warp_by_flow(full, full_flow)
    origin = torch.tensor([[0, 0], [5, 3], [8, 6]])
    windows = [(slice(v, v + 7), slice(u, u + 10)) for u, v in origin.tolist()]
    flow = torch.stack([full_flow[n][:, rows, columns] for n, (rows, columns) in enumerate(windows)])
    warped, in_view_ = warp_by_flow(full, flow, origin=origin)
    for n, (rows, columns) in enumerate(windows):
        assert torch.allclose(warped[n], expected[n][:, rows, columns], atol=1e-12)
        assert torch.equal(in_view_[n], expected_in_view[n][:, rows, columns])
    assert in_view_.sum() > in_view(flow).sum()


def test_warp_by_flow_names_an_origin_of_the_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"origin has shape \(2,\); expected \(3, 2\)"):
        warp_by_flow(torch.rand(3, 1, 4, 5), torch.zeros(3, 2, 4, 5), origin=torch.zeros(2))


def splat_by_loops(values: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    b, _, h, w = values.shape
    out = torch.zeros_like(values)
    for n in range(b):
        for y in range(h):
            for x in range(w):
                u, v = x + flow[n, 0, y, x].item(), y + flow[n, 1, y, x].item()
                for row in range(h):
                    for column in range(w):
                        weight = max(0, 1 - abs(u - column)) * max(0, 1 - abs(v - row))
                        out[n, :, row, column] += weight * values[n, :, y, x]
    return out


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (5, 7)])
def test_splat_equals_loops(height: int, width: int) -> None:
    values = torch.rand(2, 3, height, width, dtype=torch.float64)
    flow = torch.randn(2, 2, height, width, dtype=torch.float64) * 2
    assert torch.allclose(splat(values, flow), splat_by_loops(values, flow), atol=1e-12)


def test_splat_keeps_the_sum_and_the_last_row_and_column() -> None:
    values = torch.rand(1, 1, 6, 6)
    assert torch.equal(splat(values, torch.zeros(1, 2, 6, 6)), values)
    inward = 2.5 - pixel_grid(6, 6)[None]
    assert splat(values, inward * 0.3).sum().item() == pytest.approx(values.sum().item(), rel=1e-5)


def test_splat_is_the_adjoint_of_the_warp() -> None:
    a, b = torch.rand(2, 1, 1, 7, 9, dtype=torch.float64)
    flow = torch.randn(1, 2, 7, 9, dtype=torch.float64)
    gathered, _ = warp_by_flow(b, flow, padding="zeros")
    assert (splat(a, flow) * b).sum().item() == pytest.approx((a * gathered).sum().item())


def test_splat_gradients() -> None:
    values = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    flow = (torch.rand(1, 2, 3, 4, dtype=torch.float64) * 0.6 + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(splat, (values, flow))


def test_forward_backward_check_of_a_constant_shift() -> None:
    flow = torch.zeros(1, 2, 4, 10)
    flow[:, 0] = 3
    visible = forward_backward_check(flow, -flow)
    assert visible[..., :7].all() and not visible[..., 7:].any()
    assert not visible.requires_grad
    assert not forward_backward_check(flow, flow)[..., :7].any()
    assert torch.equal(in_view(flow), visible)


def test_range_map_is_zero_where_nothing_lands() -> None:
    backward = torch.zeros(1, 2, 2, 8)
    backward[:, 0] = -2  # the second view's columns 2..7 land on 0..5
    assert range_map(backward)[0, 0, 0].tolist() == [1, 1, 1, 1, 1, 1, 0, 0]


def test_inverse_motion_undoes_the_warp_of_coordinates() -> None:
    depth = torch.full((1, 1, 24, 65), 8.0, dtype=torch.float64)
    T = se3_exp(torch.tensor([[0.3, 0.1, 0.2, 0.0, 0.05, 0.02]], dtype=torch.float64))
    points = backproject(depth, K.double())
    assert torch.allclose(transform(invert(T), transform(T, points)), points, atol=1e-12)
