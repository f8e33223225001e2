"""Self-Mono-SF: its sums written out, the truth as a minimum, visibility, roles of mirrored samples, prediction."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from on_noise import check_step, random_video
from torch import Tensor

import geossl.methods.self_mono_sf as module
from geossl.config import load_experiment
from geossl.data.synthetic.example import street_example
from geossl.geometry.camera import backproject
from geossl.geometry.motion import transform
from geossl.geometry.transforms import flip_batch, flip_K
from geossl.geometry.warping import warp_by_disparity, warp_by_scene_flow
from geossl.losses.photometric import l1_map, ssim_map
from geossl.methods import build_method
from geossl.methods.self_mono_sf import SelfMonoSF, weighted_sum
from geossl.networks.scene_flow import SceneFlowEstimate
from geossl.types import Frame, MissingInput, PredictsDepth, PredictsSceneFlow

Change = Callable[[Tensor], Tensor]


def method_of(**options: Any) -> SelfMonoSF:
    torch.manual_seed(0)
    method = build_method("self_mono_sf", {"width": 0.125, **options})
    assert isinstance(method, SelfMonoSF)
    return method


class Truth:
    """Stereo video of the street and what is true of it, both times along the batch."""

    def __init__(self, seed: int) -> None:
        first, second = (street_example(192, 64, seed, frame=n) for n in (5, 6))
        video = {"sources": first.batch.sources[1:], "stereo_sources": first.batch.stereo_sources[1:]}
        self.batch = replace(first.batch, source_offsets=(1,), **video)
        self.depth = torch.cat([first.depth, second.depth]).clamp(max=80)
        self.right_depth = torch.cat([first.stereo_depth, second.stereo_depth]).clamp(max=80)
        self.K = self.batch.target.K.repeat(2, 1, 1)
        self.baseline = float(first.T_stereo_target[0, 0, 3].abs())
        points = backproject(self.depth, self.K)
        self.scene_flow = transform(torch.cat([first.T_source_target[1], second.T_source_target[0]]), points) - points

    def fraction(self, depth: Tensor) -> Tensor:
        return self.K[:, :1, :1, None] * self.baseline / (depth * 192)


@cache
def truth_of(seed: int) -> Truth:
    return Truth(seed)


def with_estimates(method: SelfMonoSF, left: SceneFlowEstimate, right_fraction: Tensor) -> SelfMonoSF:
    """The method with its network's answers replaced: of the left views, then of the mirrored right ones."""
    right = SceneFlowEstimate(torch.zeros_like(left.scene_flow), right_fraction.flip(-1))
    coarse = [SceneFlowEstimate(torch.zeros(2, 3, 4, 12), torch.full((2, 1, 4, 12), 0.1))] * 4
    answers = iter([[left, *coarse], [right, *coarse]])
    object.__setattr__(method, "network", lambda *_: next(answers))
    return method


FINEST = {"scale_weights": (1, 0, 0, 0, 0), "zoom": 0.0, "recolour": 0.0}


def unchanged(x: Tensor) -> Tensor:
    return x


WRONG: dict[str, tuple[Change, Change]] = {
    "nearer by 2 %": (lambda d: d * 0.98, unchanged),
    "farther by 2 %": (lambda d: d * 1.02, unchanged),
    "flat": (lambda d: torch.full_like(d, float(d.median())), unchanged),
    "zero motion": (unchanged, torch.zeros_like),
    "negated motion": (unchanged, lambda s: -s),
    "longer by 5 %": (unchanged, lambda s: s * 1.05),
    "shorter by 5 %": (unchanged, lambda s: s * 0.95),
    "to the right by 10 cm": (unchanged, lambda s: s + torch.tensor([0.1, 0, 0]).view(1, 3, 1, 1)),
}


def test_motion_teaches_depth_only_after_its_time_apart() -> None:
    truth = truth_of(0)
    moving = ("photometric", "point", "smoothness")
    found = {}
    for progress in (0.4, 0.6):
        fraction = truth.fraction(truth.depth * 1.1).requires_grad_()
        scene_flow = (truth.scene_flow * 0.9).requires_grad_()
        method = with_estimates(
            method_of(depth_apart=0.5, **FINEST), SceneFlowEstimate(scene_flow, fraction), fraction.detach()
        )
        method.progress = progress
        terms = method(truth.batch).terms
        loss = torch.stack([terms[name] for name in moving]).sum()
        found[progress] = torch.autograd.grad(loss, (fraction, scene_flow), allow_unused=True)
    assert found[0.4][0] is None and found[0.6][0] is not None and found[0.6][0].abs().max() > 0
    assert found[0.4][1] is not None and torch.equal(found[0.4][1], found[0.6][1])


def test_points_count_from_their_time_on() -> None:
    truth = truth_of(0)
    for progress in (0.2, 0.3):
        fraction = truth.fraction(truth.depth)
        method = with_estimates(
            method_of(point_from=0.3, **FINEST), SceneFlowEstimate(truth.scene_flow, fraction), fraction
        )
        method.progress = progress
        assert ("point" in method(truth.batch).terms) == (progress >= 0.3)


@pytest.mark.parametrize(("seed", "reduction"), [(0, "sum_rgb"), (1, "sum_rgb"), (0, "mean")])
def test_whole_objective_prefers_the_truth(seed: int, reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all priors at the paper's weights, and the visibility that each estimate gives itself; the balance, which
    makes the two halves equal, aside."""
    monkeypatch.setattr(module, "equal_factors", lambda *losses: [torch.ones(())] * len(losses))
    truth = truth_of(seed)

    def loss(depth: Change, motion: Change) -> float:
        left = SceneFlowEstimate(motion(truth.scene_flow), truth.fraction(depth(truth.depth)))
        method = with_estimates(
            method_of(photometric_reduction=reduction, **FINEST), left, truth.fraction(depth(truth.right_depth))
        )
        return float(method(truth.batch).total)

    wrong = {name: loss(*changes) for name, changes in WRONG.items()}
    assert loss(unchanged, unchanged) < min(wrong.values()), wrong


def test_terms_are_the_papers_sums() -> None:
    """Everything visible: means over all pixels of 0.85 SSIM + 0.15 times the colours' sum, 0.2 points, and so on."""
    torch.manual_seed(1)
    truth = truth_of(0)
    left = SceneFlowEstimate(truth.scene_flow * 1.1, truth.fraction(truth.depth) * 0.9)
    method = with_estimates(method_of(visibility=False, **FINEST), left, truth.fraction(truth.right_depth))
    terms = method(truth.batch).terms

    def error(a: Tensor, b: Tensor) -> Tensor:
        return (0.85 * ssim_map(a, b).mean(1) + 0.15 * (a - b).abs().sum(1)).mean()

    batch = truth.batch
    assert batch.stereo is not None
    images = torch.cat([batch.target.image, batch.sources[0].image])
    rights = torch.cat([batch.stereo.image, batch.stereo_sources[0].image])
    disparity = error(images, warp_by_disparity(rights, left.disparity_fraction * 192)[0])
    depth = (truth.K[:, :1, :1, None] * truth.baseline / (left.disparity_fraction * 192)).clamp(1e-3, 80)
    others = images.flip(0)
    photometric = error(images, warp_by_scene_flow(others, depth, left.scene_flow, truth.K)[0])
    points = backproject(depth, truth.K)
    found = warp_by_scene_flow(points.flip(0), depth, left.scene_flow, truth.K)[0]
    point = 0.2 * ((points + left.scene_flow - found).norm(dim=1) / points.norm(dim=1)).mean()

    def bends(x: Tensor, scale: Tensor) -> Tensor:
        edge = [(-10 * (images.diff(dim=d).abs().mean(1, keepdim=True))).exp() for d in (-1, -2)]
        along_x = x.diff(n=2, dim=-1).abs() * edge[0][..., 1:] / scale[..., 1:-1]
        along_y = x.diff(n=2, dim=-2).abs() * edge[1][..., 1:, :] / scale[..., 1:-1, :]
        return along_x.mean() + along_y.mean()

    disparity_smoothness = 0.1 * (192 / 832) ** 2 * bends(left.disparity_fraction, torch.ones_like(depth))
    smoothness = 200 * (192 / 832) ** 2 * bends(left.scene_flow, points.norm(dim=1, keepdim=True))
    of_disparity, of_motion = disparity + disparity_smoothness, photometric + point + smoothness
    most = torch.maximum(of_disparity, of_motion)
    expected = {
        "disparity": disparity * most / of_disparity,
        "disparity_smoothness": disparity_smoothness * most / of_disparity,
        "photometric": photometric * most / of_motion,
        "point": point * most / of_motion,
        "smoothness": smoothness * most / of_motion,
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-7, msg=name)


def test_coarser_scales_count_by_their_weights_and_smooth_by_the_size_of_their_pixels() -> None:
    """A map seen at scale 3 belongs to an image 8 times as wide, at which bends of its pixels weigh 8^2 / 2^3."""
    parts = [{"a": torch.tensor(1.0)}, {"a": torch.tensor(10.0)}, {"a": torch.tensor(100.0)}]
    assert weighted_sum(parts, (4, 2, 1))["a"].item() == 4 + 20 + 100
    method, truth = method_of(), truth_of(0)
    view = Frame(images := torch.cat([truth.batch.target.image, truth.batch.sources[0].image]), images, truth.K)
    estimate = SceneFlowEstimate(truth.scene_flow, truth.fraction(truth.depth))
    baseline, visible = torch.full((2,), truth.baseline), torch.ones(2, 1, 64, 192, dtype=torch.bool)
    fine, coarse = (method.motion_terms(view, estimate, baseline, visible, scale)[0] for scale in (0, 3))
    torch.testing.assert_close(8 * fine["smoothness"], coarse["smoothness"])
    torch.testing.assert_close(fine["photometric"], coarse["photometric"])


def test_mean_reduction_differs_by_the_colours_sum() -> None:
    a, b = torch.rand(2, 2, 3, 8, 9)
    difference = method_of().error(a, b) - method_of(photometric_reduction="mean").error(a, b)
    torch.testing.assert_close(difference, 0.15 * 2 * l1_map(a, b))


def test_visible_is_covered_and_in_view_unless_most_is_hidden() -> None:
    """Ten columns; backward flow 0.6 px to the left: the last column receives 0.4 of a pixel."""
    method = method_of()
    still, back = torch.zeros(2, 2, 3, 10), torch.zeros(2, 2, 3, 10)
    back[:, 0] = -0.6
    visible = method.visible(still, back)
    assert visible[..., :9].all() and not visible[..., 9].any()
    away = still.clone()
    away[0, 0, :, :4], away[1, 0, :, :6] = 100.0, 100.0  # of the second image more than half is hidden
    visible = method.visible(away, still)
    assert not visible[0, :, :, :4].any() and visible[0, :, :, 4:].all() and visible[1].all()
    assert method_of(visibility=False).visible(away, back).all()


def test_visibility_carries_no_gradient() -> None:
    truth = truth_of(0)
    fraction = truth.fraction(truth.right_depth).requires_grad_()
    left = SceneFlowEstimate(truth.scene_flow.clone().requires_grad_(), truth.fraction(truth.depth).requires_grad_())
    method = with_estimates(method_of(**FINEST), left, fraction)
    method(truth.batch).total.backward()
    assert fraction.grad is None
    assert left.scene_flow.grad is not None and left.scene_flow.grad.isfinite().all()
    flow = torch.zeros(1, 2, 4, 5, requires_grad=True)
    assert not method.visible(flow, flow).requires_grad


def test_hidden_photometric_error_teaches_nothing() -> None:
    """The gradient of the scene flow's photometric term is zero where the true motion is hidden."""
    truth = truth_of(0)
    scene_flow = truth.scene_flow.clone().requires_grad_()
    left = SceneFlowEstimate(scene_flow, truth.fraction(truth.depth))
    objective = with_estimates(method_of(**FINEST), left, truth.fraction(truth.right_depth))(truth.batch)
    (gradient,) = torch.autograd.grad(objective.terms["photometric"], scene_flow)
    visible = objective.maps["visible"] > 0
    alone = torch.nn.functional.max_pool2d(visible.float(), 3, 1, 1) == 0  # out of reach of SSIM's windows
    assert alone.sum() > 100 and not gradient[:1][alone.expand_as(gradient[:1])].any()


def test_a_mirrored_sample_has_the_mirrored_objective() -> None:
    """What the loss sees of a mirrored batch is the mirrored left view of the mirrored world: the right one."""
    batch = random_video()
    method = method_of(zoom=0.0, recolour=0.0)
    left, right, baseline = method.stereo_video(flip_batch(batch))
    assert batch.stereo is not None
    assert torch.equal(left.image, torch.cat([batch.stereo.image, batch.stereo_sources[0].image]).flip(-1))
    assert torch.equal(right.image, torch.cat([batch.target.image, batch.sources[0].image]).flip(-1))
    assert torch.equal(left.K, flip_K(batch.target.K, 96).repeat(2, 1, 1))
    assert torch.equal(baseline, torch.tensor([0.25, 0.5, 0.25, 0.5]))


def test_right_disparity_is_of_the_right_image() -> None:
    """A network whose disparity is the red channel, on mirrored images, gives the right image's red channel."""
    method, batch = method_of(), random_video()
    _, right, baseline = method.stereo_video(batch)

    def red(first: Tensor, *_: Tensor) -> list[SceneFlowEstimate]:
        return [SceneFlowEstimate(first, first[:, :1])]

    object.__setattr__(method, "network", red)
    assert torch.equal(method.right_fractions(right, baseline)[0], right.image[:, :1])


def test_training_varies_all_frames_alike_and_their_cameras_follow() -> None:
    """A point keeps its colour: where it appears in every varied frame, there is what was there before."""
    truth = truth_of(0)
    torch.manual_seed(3)
    varied = method_of(recolour=0.0).varied(truth.batch)
    A = varied.target.K @ torch.linalg.inv(truth.batch.target.K)
    zoom = float(A[0, 0, 0])
    assert 1 < zoom <= 1 / 0.93 and varied.target.jittered is not None
    for before, after in zip(truth.batch.frames, varied.frames, strict=True):
        torch.testing.assert_close(after.K, A @ before.K)
    u, v = 100, 30
    x, y, _ = torch.linalg.solve(A[0], torch.tensor([float(u), float(v), 1.0])).tolist()
    column, row = int(x), int(y)
    window = truth.batch.target.image[0, :, row : row + 2, column : column + 2].flatten(1)
    seen = varied.target.image[0, :, v, u]
    assert (seen >= window.amin(1) - 1e-4).all() and (seen <= window.amax(1) + 1e-4).all()


@pytest.mark.parametrize("options", [{}, {"normalize_costs": True, "photometric_reduction": "mean"}], ids=str)
def test_one_step_lowers_the_loss_and_reaches_every_parameter(options: dict[str, Any]) -> None:
    method, batch = method_of(zoom=0.0, recolour=0.0, **options), random_video()
    objective = method(batch)
    assert not any(value.requires_grad for value in (*objective.maps.values(), *objective.health.values()))
    assert all(value.isfinite().all() for value in objective.health.values())
    check_step(method, lambda: method(batch).total)


def test_evaluation_draws_nothing_and_training_draws_from_the_global_generator() -> None:
    method, batch = method_of(), random_video()
    state = torch.get_rng_state()
    trained = [float(method(batch).total.detach()) for _ in range(2)]
    torch.set_rng_state(state)
    assert float(method(batch).total.detach()) == trained[0] != trained[1]
    method.eval()
    state = torch.get_rng_state()
    assert torch.equal(method(batch).total, method(batch).total) and torch.equal(torch.get_rng_state(), state)


def test_bfloat16_networks_leave_losses_in_float32() -> None:
    method, batch = method_of(), random_video(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        objective, varied = method(batch), method.varied(batch)
    assert objective.total.dtype == torch.float32 and objective.total.isfinite()
    assert all(frame.K.dtype == torch.float32 for frame in varied.frames)


def test_frames_that_are_not_jittered_stay_one_image() -> None:
    varied = method_of().varied(random_video())
    left, right, _ = method_of().stereo_video(varied)
    assert all(frame.jittered is frame.image for frame in (*varied.frames, left, right))


def test_predicts_metric_depth_and_scene_flow_of_any_size() -> None:
    method, batch = method_of(), random_video()
    method.train()(batch)
    method.eval()
    assert isinstance(method, PredictsSceneFlow) and isinstance(method, PredictsDepth) and method.is_metric
    assert float(method.baseline_m) == pytest.approx(0.375)  # the mean of 0.25 m and 0.5 m
    K = batch.target.K
    images = batch.target.image[..., :51, :77], batch.sources[0].image[..., :51, :77]
    depth, scene_flow = method.predict_scene_flow(*images, K)
    assert depth.shape == (2, 1, 51, 77) and scene_flow.shape == (2, 3, 51, 77)
    assert (depth > 0).all() and (depth <= 80).all() and scene_flow.isfinite().all()
    same = method.predict_scene_flow(*images, K, K)
    assert torch.equal(same[0], depth) and torch.equal(same[1], scene_flow)
    assert method.predict_depth(images[0], K).shape == (2, 1, 51, 77)


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ({"sources": (), "source_offsets": ()}, "SelfMonoSF needs batch.sources"),
        ({"stereo": None}, "SelfMonoSF needs batch.stereo"),
        ({"stereo_sources": ()}, "SelfMonoSF needs batch.stereo_sources.*data.stereo_sources=true"),
    ],
)
def test_missing_input_names_method_and_remedy(lacking: dict[str, Any], message: str) -> None:
    with pytest.raises(MissingInput, match=message):
        method_of()(replace(random_video(), **lacking))


def test_presets_leave_out_what_scene_flow_is_tested_on_unless_depth_is_the_aim() -> None:
    assert [load_experiment(f"self_mono_sf_{name}").data.train[0].exclude for name in ("kitti", "kitti_eigen")] == [
        "benchmarks",
        "none",
    ]
