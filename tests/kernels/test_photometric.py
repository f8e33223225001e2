"""The fused photometric objective against the plain functions in float64, over every backend."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geossl import kernels
from geossl.geometry.motion import motion_from_axis_angle
from geossl.kernels import photometric as fused
from geossl.losses.photometric import photometric_map
from geossl.methods import build_method
from geossl.methods.reprojection import Criterion, Reprojection, View, reprojection_errors
from geossl.types import Batch, Frame

CRITERIA = {
    "published": Criterion(),
    "mean": Criterion(minimum=False),
    "ignore": Criterion(outside="ignore"),
    "mean, ignore": Criterion(minimum=False, outside="ignore"),
    "only L1": Criterion(ssim_weight=0.0),
    "only SSIM": Criterion(ssim_weight=1.0),
}


@pytest.fixture
def cpu() -> None:
    if "cpu" not in kernels.available():
        pytest.skip("no cpu kernels here; install geossl with a C compiler")


every_backend = pytest.mark.parametrize("backend", ["plain", "cpu", "gpu"], indirect=True)

Problem = tuple[Frame, list[View], Tensor]


def rand(kind: Callable[..., Tensor], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """The same float64 numbers on every device."""
    on_cpu = kind(shape, generator=generator, dtype=torch.float64, device="cpu")
    return on_cpu.to(torch.get_default_device())


def smooth(shape: tuple[int, ...], generator: torch.Generator, size: tuple[int, int]) -> Tensor:
    coarse = rand(torch.rand, shape, generator)
    return F.interpolate(coarse, size, mode="bicubic", align_corners=True).clamp(0, 1)


def problem(b: int, h: int, w: int, views: int, seed: int = 0) -> Problem:
    """Smooth images, a waved depth and motions that carry some pixels out of view, in float64."""
    g = torch.Generator("cpu").manual_seed(seed)
    K = torch.tensor([[0.6 * w, 0, w / 2], [0, 1.5 * h, h / 2], [0, 0, 1]], dtype=torch.float64).expand(b, 3, 3)
    frames = [Frame(i, i, K) for i in (smooth((b, 3, 3 + h // 8, 3 + w // 8), g, (h, w)) for _ in range(views + 1))]
    depth = 2 + 3 * smooth((b, 1, 4, 4), g, (h, w))
    pairs = [rand(torch.randn, (2, b, 3), g) for _ in range(views)]
    motions = [motion_from_axis_angle(0.02 * angle, 0.3 * move) for angle, move in pairs]
    return frames[0], list(zip(frames[1:], motions, strict=True)), depth


def as_float32(given: Problem) -> Problem:
    target, views, depth = given
    return target.map(Tensor.float), [(frame.map(Tensor.float), T.float()) for frame, T in views], depth.float()


def solve(given: Problem, backend: str, criterion: Criterion, may_stand_still: int) -> dict[str, Tensor]:
    """Loss, maps and gradients."""
    target, views, depth = given
    depth = depth.detach().requires_grad_()
    views = [(frame, T.detach().requires_grad_()) for frame, T in views]
    with kernels.use(backend):
        found = Reprojection(target, views, criterion, may_stand_still)(depth, maps=True)
    (3 * found.loss).backward()
    motions = torch.stack([T.grad for _, T in views])  # type: ignore[misc]
    assert depth.grad is not None
    return {
        "loss": found.loss.detach(),
        "best": found.best,
        "explained": found.explained,
        **found.maps,
        "to depth": depth.grad,
        "to motions": motions,
    }


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12))


def assert_close(found: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    """float32's own rounding in SSIM's variances moves gradients by 2e-5, and pixels between ties."""
    bounds = {
        "loss": 5e-6,
        "best": 5e-6,
        "explained": 5e-6,
        "error": 5e-5,
        "warped": 5e-6,
        "to depth": 1e-4,
        "to motions": 1e-4,
    }
    for name, bound in bounds.items():
        assert distance(found[name], truth[name]) < bound, name
    assert (found["moving"] != truth["moving"]).float().mean() < 2e-3


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("automask", [True, False])
@pytest.mark.parametrize(("b", "h", "w", "views"), [(1, 17, 23, 1), (3, 24, 41, 2), (2, 33, 64, 3)])
def test_equals_plain_in_float64(backend: str, name: str, automask: bool, b: int, h: int, w: int, views: int) -> None:
    given = problem(b, h, w, views)
    still = views if automask else 0
    truth = solve(given, "plain", CRITERIA[name], still)
    assert_close(solve(as_float32(given), backend, CRITERIA[name], still), truth)


@pytest.mark.parametrize("backend", ["gpu"], indirect=True)
@pytest.mark.parametrize(
    ("name", "automask", "b", "h", "w", "views"),
    [
        ("published", True, 3, 9, 14, 2),
        ("mean", True, 1, 17, 23, 3),
        ("ignore", False, 1, 16, 21, 2),
        ("mean, ignore", True, 1, 15, 22, 2),
        ("only L1", True, 1, 14, 27, 1),
        ("only SSIM", False, 1, 13, 28, 1),
    ],
)
def test_gpu_equals_plain_in_float64(
    backend: str, name: str, automask: bool, b: int, h: int, w: int, views: int
) -> None:
    test_equals_plain_in_float64(backend, name, automask, b, h, w, views)


@pytest.mark.parametrize("backend", ["gpu"], indirect=True)
def test_tiles_are_the_whole(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from geossl.kernels.gpu import launch

    given = as_float32(problem(1, 6, 11, 1))
    whole = solve(given, backend, Criterion(), 1)
    for name, size in (("TILE_Y", 4), ("TILE_X", 8)):
        monkeypatch.setitem(launch.TILE, name, size)
    for name, value in solve(given, backend, Criterion(), 1).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-9, msg=name)


@every_backend
@pytest.mark.parametrize(("h", "w"), [(2, 2), (2, 3), (3, 2), (3, 3), (2, 9), (5, 2), (4, 4)])
def test_smallest_images_mirror_their_borders(backend: str, h: int, w: int) -> None:
    given = problem(1, h, w, 2, seed=3)
    assert_close(
        solve(as_float32(given), backend, Criterion(), 0),
        solve(given, "plain", Criterion(), 0),
    )


@every_backend
def test_any_strides(backend: str) -> None:
    given = as_float32(problem(2, 20, 30, 2))
    target, views, depth = given
    usual = solve(given, backend, Criterion(), 2)

    def strided(frame: Frame) -> Frame:
        image = frame.image.contiguous(memory_format=torch.channels_last)
        return Frame(image, image, frame.K)

    wide = torch.stack([depth, depth], -1)[..., 0]
    apart = [(strided(frame), T.mT.contiguous().mT) for frame, T in views]
    assert not wide.is_contiguous()
    for name, value in solve((strided(target), apart, wide), backend, Criterion(), 2).items():
        assert torch.equal(value, usual[name]), name


def test_rows_in_parts_are_the_rows_of_the_whole(cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    given = as_float32(problem(1, 37, 40, 2))
    whole = solve(given, "cpu", Criterion(outside="ignore"), 2)
    parts = [(0, a, b) for a, b in ((0, 1), (1, 2), (2, 5), (5, 20), (20, 36), (36, 37))]
    monkeypatch.setattr(fused, "bands", lambda batch, height: parts)
    for name, value in solve(given, "cpu", Criterion(outside="ignore"), 2).items():
        assert torch.allclose(value, whole[name], rtol=1e-5, atol=1e-9), name


@every_backend
def test_points_behind_the_camera(backend: str) -> None:
    given = problem(1, 20, 31, 2)
    target, views, depth = given
    T = views[1][1].clone()
    T[:, 2, 3] = -3  # half of the points pass the second camera
    given = (target, [views[0], (views[1][0], T)], depth)
    for criterion in (Criterion(), Criterion(outside="ignore")):
        assert_close(solve(as_float32(given), backend, criterion, 2), solve(given, "plain", criterion, 2))


@every_backend
def test_nothing_visible_gives_no_error_and_no_gradient(backend: str) -> None:
    target, views, depth = as_float32(problem(1, 12, 18, 2))
    away = [(frame, T.clone()) for frame, T in views]
    for _, T in away:
        T[:, 2, 3] = -100
    found = solve((target, away, depth), backend, Criterion(outside="ignore"), 0)
    assert found["loss"] == 0
    assert not found["moving"].any()
    assert found["to depth"].count_nonzero() == 0
    assert found["to motions"].count_nonzero() == 0
    assert found["best"].isnan()


@every_backend
def test_equal_errors_share_the_gradient(backend: str) -> None:
    target, views, depth = as_float32(problem(1, 20, 30, 1))
    one = solve((target, views, depth), backend, Criterion(), 0)
    two = solve((target, [*views, *views], depth), backend, Criterion(), 0)
    assert distance(two["to depth"], one["to depth"]) < 1e-5
    assert distance(two["to motions"], one["to motions"].repeat(2, 1, 1, 1) / 2) < 1e-5


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # Triton's interpreter uses numpy
@pytest.mark.parametrize("backend", ["cpu", "gpu"], indirect=True)
def test_non_finite_depth_reads_no_foreign_memory(backend: str) -> None:
    target, views, depth = as_float32(problem(1, 12, 18, 2))
    depth = depth.clone()
    depth[0, 0, 3, 4:8] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])
    found = solve((target, views, depth), backend, Criterion(), 0)
    assert 0 < float(found["loss"]) < 1


@every_backend
def test_only_the_first_views_may_stand_still(backend: str) -> None:
    given = problem(1, 20, 30, 3)
    assert_close(solve(as_float32(given), backend, Criterion(), 1), solve(given, "plain", Criterion(), 1))


@pytest.mark.parametrize("backend", ["cpu", "gpu"], indirect=True)
@pytest.mark.parametrize("ssim_weight", [0.85, 0.0])
@pytest.mark.parametrize(("h", "w"), [(2, 2), (17, 23), (20, 64)])
def test_unwarped_errors(backend: str, h: int, w: int, ssim_weight: float) -> None:
    torch.manual_seed(0)
    target, *sources = torch.rand(3, 2, 3, h, w)
    with kernels.use(backend):
        views = fused.prepare(target, [source.contiguous(memory_format=torch.channels_last) for source in sources])
    assert views is not None and views.on_gpu == (backend == "gpu")
    expected = torch.cat([photometric_map(s.double(), target.double(), ssim_weight) for s in sources], 1)
    assert torch.allclose(fused.unwarped_errors(views, ssim_weight).double(), expected, atol=2e-6)


@pytest.mark.parametrize("backend", ["cpu", "gpu"], indirect=True)
def test_second_derivative_is_refused(backend: str) -> None:
    target, views, depth = as_float32(problem(1, 12, 18, 1))
    depth.requires_grad_()
    with kernels.use(backend):
        loss = Reprojection(target, views)(depth).loss
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, depth, create_graph=True)


def test_what_the_kernel_does_not_cover_runs_plain(cpu: None) -> None:
    target, views, depth = problem(1, 12, 18, 1)
    single, single_views, _ = as_float32((target, views, depth))
    image = single.image
    assert fused.prepare(image, [view.image for view, _ in single_views]) is not None
    assert fused.prepare(target.image, [view.image for view, _ in views]) is None  # float64
    assert fused.prepare(image, [image[..., 1:]]) is None
    assert fused.prepare(image[:, :1], [image[:, :1]]) is None
    assert fused.prepare(image, [image.clone().requires_grad_()]) is None
    assert fused.prepare(image, [image] * (fused.MAX_VIEWS + 1)) is None
    with kernels.use("plain"):
        assert fused.prepare(image, [image]) is None


@pytest.mark.parametrize("minimum", [True, False])
def test_weights_of_ignored_errors_get_no_gradient(minimum: bool) -> None:
    """Each view sees a part of the target; where it does not, its weight changes nothing."""
    target, views, depth = problem(1, 12, 18, 2)
    moved = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1, 1)
    moved[:, :, 0, 3] = torch.tensor([[2.0], [-2.0]])
    views = [(frame, T) for (frame, _), T in zip(views, moved, strict=True)]
    weight = torch.full((1, 2, 12, 18), 0.5, dtype=torch.float64, requires_grad=True)
    explain = Reprojection(target, views, Criterion(minimum=minimum, outside="ignore"))
    _, errors = reprojection_errors(target, depth, views, explain.criterion)
    loss = explain(depth, weight).loss
    loss.backward()
    ignored = errors.isinf()
    assert ignored.any() and not ignored.all()
    assert loss.item() == pytest.approx(explain(depth).loss.item() / 2)
    assert weight.grad is not None and weight.grad.isfinite().all()
    assert not weight.grad[ignored].any() and weight.grad.any()


@pytest.mark.parametrize(
    "options", [{}, {"minimum_reprojection": False, "outside": "ignore"}, {"full_resolution": False}]
)
def test_training_step_of_monodepth2_is_the_same(cpu: None, options: dict[str, object]) -> None:
    small = {"encoder": "compact", "encoder_weights": None, "pose": "posecnn", "decoder_channels": [8, 8, 8, 8, 16]}
    batch = street(2, 64, 96)
    found = {}
    for backend in ("plain", "cpu"):
        torch.manual_seed(0)
        method = build_method("monodepth2", {**small, **options})
        with kernels.use(backend):
            objective = method(batch)
        objective.total.backward()
        gradients = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
        found[backend] = objective, gradients
    (plain, of_plain), (cpu_, of_cpu) = found["plain"], found["cpu"]
    assert plain.maps.keys() == cpu_.maps.keys()
    assert plain.health.keys() == cpu_.health.keys()
    for name, value in (plain.terms | plain.health).items():
        assert torch.allclose(
            (cpu_.terms | cpu_.health)[name], value, rtol=1e-4, atol=1e-3 if name == "automasked" else 1e-6
        ), name
    assert distance(of_cpu, of_plain) < 1e-3


def street(b: int, h: int, w: int) -> Batch:
    target, views, _ = as_float32(problem(b, h, w, 2))
    batch = Batch(target=target, sources=tuple(frame for frame, _ in views), source_offsets=(-1, 1))
    return replace(batch, index=torch.arange(b), names=tuple(map(str, range(b))))
