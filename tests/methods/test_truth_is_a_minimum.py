"""On the synthetic street the true depth and motion beat every wrong one, for every objective.

The networks are replaced by constants, so that exactly the method's own objective is asked. Smoothness, the mask's
pull and left-right consistency are priors, not evidence; what must prefer the truth is the photometric part.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geossl.data.synthetic.example import StreetExample, street_example
from geossl.geometry.motion import invert
from geossl.methods import build_method
from geossl.methods.monodepth2 import Monodepth2, scale_translation
from geossl.types import Frame


class Constant(nn.Module):
    """A network that returns what it was given."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, *_: Any) -> Any:
        return self.value


@pytest.fixture(scope="module", params=[0, 1])
def example(request: pytest.FixtureRequest) -> StreetExample:
    return street_example(width=192, height=64, seed=request.param)


Change = Callable[[Tensor], Tensor]


def unchanged(x: Tensor) -> Tensor:
    return x


DEPTHS: dict[str, Change] = {
    "nearer by 2 %": lambda d: d * 0.98,
    "farther by 2 %": lambda d: d * 1.02,
    "nearer by 10 %": lambda d: d * 0.9,
    "farther by 10 %": lambda d: d * 1.1,
    "flat": lambda d: torch.full_like(d, float(d.median())),
}
MOTIONS: dict[str, Change] = {
    "identity": lambda T: torch.eye(4).expand_as(T),
    "inverse": invert,
    "longer by 5 %": lambda T: scale_translation(T, 1.05),
    "shorter by 5 %": lambda T: scale_translation(T, 0.95),
}


def monodepth2_error(example: StreetExample, options: dict[str, Any], depth: Change, motion: Change) -> float:
    """The photometric term of Monodepth2 at a changed truth."""
    method = build_method(
        "monodepth2",
        {
            "encoder": "compact",
            "encoder_weights": None,
            "pose": "posecnn",
            "num_scales": 1,
            "automask": False,
            **options,
        },
    )
    assert isinstance(method, Monodepth2)
    unit = method.unit_m
    near, far = 1 / method.options.min_depth, 1 / method.options.max_depth
    unit_inverse_depth = ((unit / depth(example.depth) - far) / (near - far)).clamp(0, 1)
    method.depth_decoder = Constant([unit_inverse_depth])  # type: ignore[assignment]
    # The pose network sees (earlier, later): the inverse of T_source_target for the source before.
    answers = iter([invert(motion(example.T_source_target[0])), motion(example.T_source_target[1])])
    object.__setattr__(method, "pose_between", lambda *_: scale_translation(next(answers), 1 / unit))
    return method(example.batch).terms["photometric"].item()


@pytest.mark.parametrize(
    "options",
    [
        {"supervision": "M"},
        {"supervision": "S"},
        {"supervision": "MS"},
        {"supervision": "M", "minimum_reprojection": False, "outside": "ignore"},
        {"supervision": "MS", "ssim_weight": 0.0},
    ],
    ids=str,
)
def test_monodepth2_prefers_the_true_depth(example: StreetExample, options: dict[str, Any]) -> None:
    truth = monodepth2_error(example, options, unchanged, unchanged)
    wrong = {name: monodepth2_error(example, options, change, unchanged) for name, change in DEPTHS.items()}
    assert truth < min(wrong.values()), wrong


@pytest.mark.parametrize("supervision", ["M", "MS"])
def test_monodepth2_prefers_the_true_motion(example: StreetExample, supervision: str) -> None:
    options = {"supervision": supervision}
    truth = monodepth2_error(example, options, unchanged, unchanged)
    wrong = {name: monodepth2_error(example, options, unchanged, change) for name, change in MOTIONS.items()}
    assert truth < min(wrong.values()), wrong


def test_monodepth2_prefers_the_unshifted_image(example: StreetExample) -> None:
    """Half a pixel of shift, which published warps suffer silently, costs more than the truth."""

    def shifted(frame: Frame) -> Frame:
        K = frame.K.clone()
        K[:, 0, 2] += 0.5
        return Frame(frame.image, frame.jittered, K)

    wrong = replace(example.batch, sources=tuple(shifted(f) for f in example.batch.sources))
    truth = monodepth2_error(example, {}, unchanged, unchanged)
    moved = replace(example, batch=wrong)
    assert truth < monodepth2_error(moved, {}, unchanged, unchanged)


def monodepth_error(example: StreetExample, sampling: str, left: Change, right: Change = unchanged) -> float:
    method = build_method("monodepth", {"sampling": sampling, "network": "compact"})
    fx, width = example.batch.target.K[0, 0, 0], example.batch.target.width
    baseline = example.T_stereo_target[0, :3, 3].norm()
    both = torch.cat([left(example.depth), right(example.stereo_depth)], 1)
    fraction = fx * baseline / both / width
    object.__setattr__(method, "disparities", lambda _: [fraction])
    return method(example.batch).terms["appearance"].item()


@pytest.mark.parametrize("sampling", ["naive", "no_lr", "lr"])
def test_monodepth_prefers_the_true_disparity(example: StreetExample, sampling: str) -> None:
    truth = monodepth_error(example, sampling, unchanged)
    right_only = sampling == "naive"
    wrong = {
        name: monodepth_error(example, sampling, *((unchanged, change) if right_only else (change, unchanged)))
        for name, change in DEPTHS.items()
    }
    assert truth < min(wrong.values()), wrong


def test_monodepth_consistency_prefers_agreeing_views(example: StreetExample) -> None:
    method = build_method("monodepth", {"network": "compact"})
    fx, width = example.batch.target.K[0, 0, 0], example.batch.target.width
    fraction = (
        fx * example.T_stereo_target[0, :3, 3].norm() / torch.cat([example.depth, example.stereo_depth], 1) / width
    )

    def consistency(left_factor: float) -> float:
        maps = torch.cat([fraction[:, :1] * left_factor, fraction[:, 1:]], 1)
        object.__setattr__(method, "disparities", lambda _: [maps])
        return method(example.batch).terms["consistency"].item()

    assert consistency(1.0) < min(consistency(0.95), consistency(1.05))


def sfmlearner_error(example: StreetExample, depth: Change, motion: Change) -> float:
    method = build_method("sfmlearner", {"explainability": 0.0})
    method.depth_network = Constant([1 / depth(example.depth)])  # type: ignore[assignment]
    T = torch.stack([motion(t) for t in example.T_source_target], 1)
    object.__setattr__(method, "motions", lambda *_: (T, []))
    return method(example.batch).terms["photometric"].item()


def test_sfmlearner_prefers_the_truth(example: StreetExample) -> None:
    truth = sfmlearner_error(example, unchanged, unchanged)
    wrong = {name: sfmlearner_error(example, change, unchanged) for name, change in DEPTHS.items()}
    wrong |= {name: sfmlearner_error(example, unchanged, change) for name, change in MOTIONS.items()}
    assert truth < min(wrong.values()), wrong
