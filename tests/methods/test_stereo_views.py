from typing import Any

import pytest
import torch
from on_noise import stereo_motion
from torch import nn

from geossl.config import Strict
from geossl.geometry.transforms import flip_batch
from geossl.methods import build_method
from geossl.methods.stereo import MetricByBaseline, baseline_of, left_right
from geossl.types import Batch, Frame, Objective

METRIC = {
    "monodepth": {"network": "compact", "decoder_channels": (4, 4, 8, 8, 8)},
    "self_mono_sf": {"width": 1 / 8},
}


class OnlyBaseline(MetricByBaseline):
    Options = Strict

    def forward(self, batch: Batch) -> Objective:
        assert batch.T_stereo_target is not None
        self.follow_baseline(baseline_of(batch.T_stereo_target))
        return Objective({})


def learned_from(*baselines_m: float) -> OnlyBaseline:
    """One batch of two samples after the other."""
    method = OnlyBaseline(Strict())
    images = torch.zeros(2, 3, 4, 6)
    for baseline_m in baselines_m:
        frame = Frame(images, images, torch.eye(3).repeat(2, 1, 1))
        method(Batch(frame, stereo=frame, T_stereo_target=stereo_motion(torch.full((2,), baseline_m))))
    return method


def test_roles_and_baseline_follow_the_geometry() -> None:
    """Of two samples the second is mirrored: its stereo image is then the left one."""
    frames = [Frame(x, x, torch.eye(3).repeat(2, 1, 1)) for x in torch.rand(2, 2, 3, 4, 6)]
    T = torch.eye(4).repeat(2, 1, 1)
    T[:, 0, 3] = torch.tensor([-0.5, -0.6])
    batch = flip_batch(Batch(frames[0], stereo=frames[1], T_stereo_target=T), torch.tensor([False, True]))
    assert batch.stereo is not None and batch.T_stereo_target is not None
    left, right = left_right(batch.target, batch.stereo, batch.T_stereo_target)
    assert torch.equal(left.image[0], frames[0].image[0]) and torch.equal(right.image[0], frames[1].image[0])
    assert torch.equal(left.image[1], frames[1].image[1].flip(-1))
    assert torch.equal(right.jittered[1], frames[0].image[1].flip(-1))
    torch.testing.assert_close(baseline_of(batch.T_stereo_target), torch.tensor([0.5, 0.6]))


def test_one_batch_does_not_set_the_scale() -> None:
    """Nine batches at 0.1 m and one at 0.5 m: 0.1 + 0.01 * 0.4."""
    assert float(learned_from(*[0.1] * 9, 0.5).baseline_m) == pytest.approx(0.104)


def test_one_baseline_stays_what_it_is() -> None:
    assert torch.equal(learned_from(*[0.54] * 200).baseline_m, torch.tensor(0.54))


def test_two_baselines_in_turn_give_their_mean() -> None:
    assert float(learned_from(*[0.1, 0.5] * 500).baseline_m) == pytest.approx(0.3, abs=2e-3)


def test_a_resumed_training_goes_on_with_the_baseline() -> None:
    whole, begun = learned_from(0.1, 0.2, 0.5, 0.3), learned_from(0.1, 0.2)
    resumed = learned_from()
    resumed.load_state_dict(begun.state_dict())
    for baseline_m in (0.5, 0.3):
        resumed.follow_baseline(torch.full((2,), baseline_m))
    assert torch.equal(resumed.baseline_m, whole.baseline_m)


@pytest.mark.parametrize("name", METRIC)
def test_an_untrained_model_says_why_it_predicts_no_metres(name: str) -> None:
    method: Any = build_method(name, METRIC[name])
    with pytest.raises(ValueError, match=r"has not learned from a stereo pair yet.*train it"):
        method.predict_depth(torch.rand(1, 3, 64, 64), torch.eye(3)[None])


def test_a_models_depth_can_be_exported() -> None:
    class Depth(nn.Module):
        def __init__(self, method: Any) -> None:
            super().__init__()
            self.method = method

        def forward(self, image: torch.Tensor, K: torch.Tensor) -> Any:
            return self.method.predict_depth(image, K)

    method: Any = build_method("monodepth", METRIC["monodepth"]).eval()
    method.follow_baseline(torch.tensor([0.54]))
    given = torch.rand(1, 3, 64, 64), torch.tensor([[[50.0, 0, 32], [0, 50, 32], [0, 0, 1]]])
    with torch.no_grad():
        exported = torch.export.export(Depth(method), given).module()
        torch.testing.assert_close(exported(*given), method.predict_depth(*given), rtol=1e-3, atol=1e-3)
