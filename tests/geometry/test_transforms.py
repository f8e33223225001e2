import pytest
import torch

from geossl.geometry.camera import backproject, project
from geossl.geometry.motion import se3_exp, transform
from geossl.geometry.transforms import (
    area_mean,
    area_reduced,
    crop_batch,
    crop_K,
    flip_batch,
    flip_flow,
    flip_K,
    flip_T,
    resize_batch,
    resize_flow,
    resize_image,
    resize_K,
)
from geossl.geometry.warping import synthesize_target, warp_by_flow
from geossl.types import Batch, Frame

K = torch.tensor([[[721.5, 0, 609.56], [0, 721.5, 172.85], [0, 0, 1]]], dtype=torch.float64)


def project_point(point: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    return project(point.view(1, 3, 1, 1), K)[0].flatten()


def batch_of(size: tuple[int, int] = (12, 20), samples: int = 2) -> Batch:
    def frame() -> Frame:
        image = torch.rand(samples, 3, *size)
        return Frame(image, image, torch.tensor([[15.0, 0, 9.2], [0, 15.0, 5.1], [0, 0, 1]]).repeat(samples, 1, 1))

    T = torch.eye(4).repeat(samples, 1, 1)
    T[:, 0, 3] = -0.5
    return Batch(frame(), (frame(),), (1,), frame(), T, (), torch.arange(samples), ("a", "b")[:samples])


def test_resize_K_worked_number() -> None:
    assert resize_K(K, (375, 1242), (192, 640))[0, 0, 2].item() == pytest.approx(610.06 * 640 / 1242 - 0.5)


def test_resize_K_keeps_a_point_on_its_picture_element() -> None:
    point = torch.tensor([1.3, -0.4, 9.0], dtype=torch.float64)
    u, v = project_point(point, K)
    u2, v2 = project_point(point, resize_K(K, (375, 1242), (192, 640)))
    # Positions measured from the image's corner, at -0.5, scale with the size.
    assert (u2 + 0.5).item() == pytest.approx(((u + 0.5) * 640 / 1242).item())
    assert (v2 + 0.5).item() == pytest.approx(((v + 0.5) * 192 / 375).item())


def test_resize_K_and_back_is_the_identity() -> None:
    assert torch.allclose(resize_K(resize_K(K, (375, 1242), (96, 320)), (96, 320), (375, 1242)), K)


def test_intrinsics_are_not_touched_by_autocast() -> None:
    """In bfloat16 the centre of 610 columns would lie up to 2 pixels away."""
    exact, image = K.float(), torch.rand(1, 3, 8, 12)
    with torch.autocast("cpu", torch.bfloat16):
        resized, cropped = resize_K(exact, (375, 1242), (192, 640)), crop_K(exact, 7, 11)
        reduced = area_reduced(Frame(image, image, exact), (4, 6)).K
    assert torch.allclose(resized.double(), resize_K(K, (375, 1242), (192, 640)))
    assert torch.allclose(cropped.double(), crop_K(K, 7, 11))
    assert torch.allclose(reduced.double(), resize_K(K, (8, 12), (4, 6)))


def test_resize_image_agrees_with_the_projection() -> None:
    """A wide blob drawn at a projected point is found, after resizing, where the resized camera projects it."""
    u, v = 30.3, 20.7
    columns, rows = torch.arange(64.0), torch.arange(48.0)
    blob = torch.exp(-((columns[None] - u) ** 2 + (rows[:, None] - v) ** 2) / 50)[None, None]
    small = resize_image(blob, (24, 32))[0, 0]
    found = (small.sum(0) * torch.arange(32.0)).sum() / small.sum()
    assert found.item() == pytest.approx((u + 0.5) / 2 - 0.5, abs=0.02)


def test_flip_K_mirrors_the_projection() -> None:
    point = torch.tensor([1.3, -0.4, 9.0], dtype=torch.float64)
    mirrored = point * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    u, v = project_point(point, K)
    u2, v2 = project_point(mirrored, flip_K(K, 1242))
    assert (u2.item(), v2.item()) == pytest.approx((1241 - u.item(), v.item()))


def test_flip_T_mirrors_the_motion() -> None:
    T = se3_exp(torch.randn(1, 6, dtype=torch.float64))
    points = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    mirror = torch.tensor([-1.0, 1, 1], dtype=torch.float64).view(1, 3, 1, 1)
    assert torch.allclose(transform(flip_T(T), points * mirror), transform(T, points) * mirror)


def test_flipping_twice_changes_nothing() -> None:
    batch = batch_of()
    twice = flip_batch(flip_batch(batch))
    assert torch.equal(twice.target.image, batch.target.image)
    assert torch.allclose(twice.target.K, batch.target.K)
    assert twice.T_stereo_target is not None and batch.T_stereo_target is not None
    assert torch.equal(twice.T_stereo_target, batch.T_stereo_target)


def test_flip_batch_flips_only_the_chosen_samples() -> None:
    batch = batch_of()
    flipped = flip_batch(batch, torch.tensor([False, True]))
    assert torch.equal(flipped.target.image[0], batch.target.image[0])
    assert torch.equal(flipped.sources[0].image[1], batch.sources[0].image[1].flip(-1))
    assert flipped.T_stereo_target is not None
    assert flipped.T_stereo_target[:, 0, 3].tolist() == [-0.5, 0.5]


def test_flipped_batch_synthesizes_the_flipped_target() -> None:
    batch = batch_of()
    depth = torch.rand(2, 1, 12, 20) * 3 + 4
    assert batch.stereo is not None and batch.T_stereo_target is not None
    warped, visible = synthesize_target(batch.stereo, depth, batch.target.K, batch.T_stereo_target)
    mirror = flip_batch(batch)
    assert mirror.stereo is not None and mirror.T_stereo_target is not None
    again, seen = synthesize_target(mirror.stereo, depth.flip(-1), mirror.target.K, mirror.T_stereo_target)
    assert torch.allclose(again.flip(-1), warped, atol=1e-5)
    assert torch.equal(seen.flip(-1), visible)


def test_crop_commutes_with_projection() -> None:
    batch = batch_of()
    cropped = crop_batch(batch, 3, 5, (8, 12))
    depth = torch.rand(2, 1, 12, 20) + 5
    points = backproject(depth, batch.target.K)[..., 3:11, 5:17]
    assert torch.allclose(backproject(depth[..., 3:11, 5:17], cropped.target.K), points, atol=1e-5)


def test_crop_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="reaches outside the 20x12 image"):
        crop_batch(batch_of(), 0, 10, (12, 12))


def test_resize_batch_moves_images_and_K() -> None:
    resized = resize_batch(batch_of(), (6, 10))
    assert resized.target.image.shape[-2:] == (6, 10)
    assert resized.target.K[0, 0].tolist() == pytest.approx([7.5, 0, (9.2 + 0.5) / 2 - 0.5])


@pytest.mark.parametrize(
    ("size", "to"), [((12, 20), (6, 10)), ((16, 24), (4, 6)), ((7, 9), (3, 5)), ((12, 18), (4, 6)), ((8, 8), (4, 2))]
)
def test_area_mean_is_the_mean_over_areas(size: tuple[int, int], to: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    upstream = torch.rand(2, 3, *to, dtype=torch.float64)
    found, expected = area_mean(image, to), torch.nn.functional.adaptive_avg_pool2d(image, to)
    torch.testing.assert_close(found, expected)
    for made, wanted in zip(*(torch.autograd.grad(x, image, upstream) for x in (found, expected)), strict=True):
        torch.testing.assert_close(made, wanted)


def test_area_reduced_is_the_block_mean() -> None:
    frame = batch_of().target
    small = area_reduced(frame, (6, 10))
    assert torch.allclose(small.image[..., 0, 0], frame.image[..., :2, :2].mean((-1, -2)))
    assert torch.equal(small.K, resize_K(frame.K, (12, 20), (6, 10)))


def test_resize_flow_scales_each_component_by_its_ratio() -> None:
    flow = torch.ones(1, 2, 10, 40)
    resized = resize_flow(flow, (20, 20))
    assert resized[0, :, 5, 5].tolist() == [0.5, 2.0]


def test_flip_flow_mirrors_the_warp() -> None:
    image, flow = torch.rand(1, 3, 9, 14), torch.randn(1, 2, 9, 14)
    warped, _ = warp_by_flow(image, flow)
    mirrored, _ = warp_by_flow(image.flip(-1), flip_flow(flow))
    assert torch.allclose(mirrored.flip(-1), warped, atol=1e-5)
