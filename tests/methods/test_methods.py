"""What holds for every depth method: one optimisation step, missing inputs, prediction, determinism."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from on_noise import check_step, random_batch
from torch import Tensor

from geossl.config import ConfigError
from geossl.methods import METHODS, build_method, method_class
from geossl.methods.method import Method
from geossl.types import MissingInput, PredictsDepth, PredictsMotion

SMALL = {"encoder_weights": None, "decoder_channels": (4, 4, 8, 8, 8)}
M2 = {**SMALL, "pose": "posecnn"}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("monodepth2", {**M2, "supervision": "M"}),
    ("monodepth2", {**M2, "supervision": "S"}),
    ("monodepth2", {**M2, "supervision": "MS"}),
    ("monodepth2", {**SMALL, "supervision": "M", "pose": "shared"}),
    ("monodepth2", {**SMALL, "supervision": "M", "pose": "separate", "pose_scale": 0.5}),
    ("monodepth2", {**M2, "minimum_reprojection": False}),
    ("monodepth2", {**M2, "automask": False}),
    ("monodepth2", {**M2, "supervision": "MS", "automask_stereo": False}),
    ("monodepth2", {**M2, "full_resolution": False}),
    ("monodepth2", {**M2, "full_resolution": False, "finest_scale": 1, "num_scales": 2}),
    ("monodepth2", {**M2, "predictive_mask": True}),
    ("monodepth2", {**M2, "ssim_weight": 0.0}),
    ("monodepth2", {**M2, "supervision": "MS", "outside": "ignore", "minimum_reprojection": False}),
    ("monodepth", {"network": "resnet18", "sampling": "naive"}),
    ("monodepth", {"network": "resnet18", "sampling": "no_lr"}),
    ("monodepth", {"network": "resnet18", "sampling": "lr"}),
    ("sfmlearner", {}),
    ("sfmlearner", {"explainability": 0.0}),
]


@pytest.fixture(
    params=VARIANTS, ids=lambda v: f"{v[0]}-{'-'.join(f'{k}={x}' for k, x in v[1].items() if k not in SMALL)}"
)
def method(request: pytest.FixtureRequest) -> Iterator[Method]:
    torch.manual_seed(0)
    name, options = request.param
    yield build_method(name, options)


def test_one_step_lowers_the_loss_and_reaches_every_parameter(method: Method) -> None:
    batch = random_batch()
    check_step(method, lambda: method(batch).total)


def test_objective_is_deterministic_and_maps_carry_no_gradient(method: Method) -> None:
    batch = random_batch()
    method.eval()
    a, b = method(batch), method(batch)
    assert torch.equal(a.total, b.total)
    assert not any(value.requires_grad for value in (*a.maps.values(), *a.health.values()))
    assert all(value.isfinite().all() for value in a.health.values())


def test_loss_of_a_batch_is_the_mean_of_its_samples(method: Method) -> None:
    """What two processes with half a batch each compute is what one computes."""
    method.eval()
    whole = method(random_batch())
    one, two = (random_batch().map(lambda x, i=i: x[i : i + 1]) for i in range(2))
    halves = (method(one).total + method(two).total) / 2
    assert torch.allclose(whole.total, halves, rtol=1e-5)


def test_bfloat16_networks_leave_losses_in_float32(method: Method) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        objective = method(random_batch(1))
    assert objective.total.dtype == torch.float32 and objective.total.isfinite()


def test_predicts_what_it_says(method: Method) -> None:
    method.eval()
    batch = random_batch()
    assert isinstance(method, PredictsDepth)
    if hasattr(method, "baseline_m"):
        method.train()(batch)
        method.eval()
    depth = method.predict_depth(batch.target.image, batch.target.K)
    assert depth.shape == (2, 1, 64, 96) and (depth > 0).all() and depth.isfinite().all()
    if isinstance(method, PredictsMotion) and getattr(method, "video", True):
        T = method.predict_motions(batch.target.image, [f.image for f in batch.sources][: len(method.pose_offsets)])
        assert T.shape == (2, len(method.pose_offsets), 4, 4)
        assert torch.allclose(T[..., :3, :3] @ T[..., :3, :3].mT, torch.eye(3), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "lacking", "message"),
    [
        ("monodepth2", {**M2, "supervision": "M"}, "sources", r"Monodepth2 needs batch.sources"),
        ("monodepth2", {**M2, "supervision": "MS"}, "stereo", r"Monodepth2 needs batch.stereo.*stereo=true"),
        ("monodepth", {"network": "resnet18"}, "stereo", r"Monodepth needs batch.stereo"),
        ("sfmlearner", {}, "sources", r"SfMLearner needs batch.sources"),
    ],
)
def test_missing_input_names_method_and_remedy(name: str, options: dict[str, Any], lacking: str, message: str) -> None:
    batch = random_batch()
    batch = replace(batch, stereo=None) if lacking == "stereo" else replace(batch, sources=(), source_offsets=())
    with pytest.raises(MissingInput, match=message):
        build_method(name, options)(batch)


def test_partial_monodepth2_uses_what_a_batch_carries() -> None:
    method = build_method("monodepth2", {**M2, "supervision": "MS", "partial": True})
    batch = random_batch()
    assert len(method.views(batch)) == 3  # type: ignore[operator]
    assert len(method.views(replace(batch, stereo=None))) == 2  # type: ignore[operator]
    assert len(method.views(replace(batch, sources=(), source_offsets=()))) == 1  # type: ignore[operator]
    with pytest.raises(MissingInput):
        method(replace(batch, sources=(), source_offsets=(), stereo=None))


@pytest.mark.parametrize(("sources", "stereo", "channels"), [(2, True, [0, 1, 2]), (2, False, [0, 1]), (0, True, [2])])
def test_each_view_has_its_own_channel_of_the_predictive_mask(sources: int, stereo: bool, channels: list[int]) -> None:
    """Of one network's mask: the times before and after, and the other camera."""
    method: Any = build_method("monodepth2", {**M2, "supervision": "MS", "partial": True, "predictive_mask": True})
    masks: list[Tensor] = []
    method.mask_decoder.register_forward_hook(lambda _, inputs, output: masks.extend(output))
    batch = random_batch()
    batch = replace(batch, sources=batch.sources[:sources], source_offsets=batch.source_offsets[:sources])
    (gradient,) = torch.autograd.grad(method(batch if stereo else replace(batch, stereo=None)).total, masks[0])
    assert gradient.abs().amax((0, 2, 3)).nonzero().flatten().tolist() == channels


def test_a_predictive_mask_of_more_than_two_times_is_refused() -> None:
    method = build_method("monodepth2", {**M2, "predictive_mask": True})
    batch = random_batch()
    four = replace(batch, sources=batch.sources * 2, source_offsets=(-2, -1, 1, 2))
    with pytest.raises(ValueError, match=r"predictive_mask.*sample 0 has 4.*data\.source_offsets"):
        method(four)


def test_automasked_counts_what_auto_masking_masks() -> None:
    """Sources equal to the target stand still; what is left out because it moves by itself does not count as such."""
    method: Any = build_method("monodepth2", M2)
    batch = random_batch()
    still = replace(batch, sources=(batch.target, batch.target))
    assert float(method(still).health["automasked"]) == 1
    left_out = torch.zeros(2, 2, 64, 96, dtype=torch.bool)
    left_out[..., :24] = True
    method.moving_by_themselves = lambda *_: left_out
    assert float(method(still).health["automasked"]) == pytest.approx(0.75)


def test_monodepth2_poses_earlier_sources_by_the_inverse_of_the_same_pair() -> None:
    method = build_method("monodepth2", M2).eval()
    batch = random_batch()
    swapped = replace(batch, target=batch.sources[0], sources=(batch.target,), source_offsets=(1,))
    back = replace(batch, sources=(batch.sources[0],), source_offsets=(-1,))
    ((_, forward),) = method.views(swapped)  # type: ignore[operator]
    ((_, backward),) = method.views(back)  # type: ignore[operator]
    assert torch.allclose(forward @ backward, torch.eye(4), atol=1e-5)


def test_monodepth_gives_mirrored_pairs_their_roles() -> None:
    from geossl.geometry.transforms import flip_batch

    method = build_method("monodepth", {"network": "resnet18"})
    batch = random_batch()
    left, right, baseline = method.left_right(flip_batch(batch))  # type: ignore[operator]
    assert batch.stereo is not None
    assert torch.equal(left.image, batch.stereo.image.flip(-1))
    assert torch.equal(right.image, batch.target.image.flip(-1))
    assert torch.allclose(baseline, torch.tensor([0.54, 0.54]))


def test_unknown_network_of_monodepth_names_the_released_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown encoder 'vgg'.* Known: monodepth_resnet50, monodepth_vgg, "):
        build_method("monodepth", {"network": "vgg"})


def test_unknown_method_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'monodepth2'"):
        method_class("monodeph2")
    assert {name for name in METHODS if not issubclass(method_class(name), Method)} == set()
