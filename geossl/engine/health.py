"""Is the training sound? Moving figures of what a method reports, and one warning when they say collapse.

A method puts what it can into `Objective.health`; every figure is optional, and a check whose figures are absent is
not made:

    automasked            share of pixels that auto-masking ignores
    dynamic               share of pixels left out because they move by themselves
    photometric           photometric error of the warped sources
    identity_photometric  photometric error of the unwarped sources
    median_depth          median of the predicted depth
    disparity_spread      std / mean of inverse depth within an image
    translation           mean length of the predicted camera motion, in the unit of median_depth
    rotation_deg          its mean angle
    visible               share of pixels that the flow's losses count as seen in the other image
    flow_px               mean length of the predicted flow, pixels
    flow_of_width         the same as a share of the image's width
    scene_flow_m          mean length of the predicted 3-D motion, metres

The photometric errors of a flow method are its own (census, say); only their order matters.

`CHECKS` is the table of what counts as collapse. A check looks at moving means over about 100 steps, is silent during
the first tenth of a training (but at least 200 and at most 500 steps), and warns once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

WINDOW = 100  # steps over which the moving means forget
GRACE_SHARE, GRACE_LEAST, GRACE_MOST = 0.1, 200, 500  # no check before this share of the training, within these steps

NO_FLOW_PX = 0.05  # a mean flow below is taken for none
WILD_DEG = 45.0  # a mean rotation above is no camera's
MOSTLY_MOVING = 0.35  # a share of moving pixels above is hardly a street's
NO_GAIN = 0.98  # a photometric error above this part of the identity's is not lower

Figures = Mapping[str, float]


def _stands_still(figures: Figures) -> bool:
    """Whether the method predicts flow, and it is zero."""
    return figures.get("flow_px", math.inf) < NO_FLOW_PX


@dataclass(frozen=True)
class Check:
    """One sign of collapse: the figures it needs, when it is bad, and what to say (formatted with the figures)."""

    name: str
    needs: tuple[str, ...]
    bad: Callable[[Figures], bool]
    message: str


# name, figures, threshold, and the line. `nearest` and `farthest` are the method's depth limits.
CHECKS = (
    Check(
        "all_masked",
        ("automasked",),
        lambda f: f["automasked"] > 0.95,
        "auto-masking ignores {automasked:.0%} of the pixels, so little is learned: the frames may hardly move "
        "(raise the frame distance, leave standing frames out) or depth and motion have collapsed",
    ),
    Check(
        "all_dynamic",
        ("dynamic",),
        lambda f: f["dynamic"] > MOSTLY_MOVING,
        "flow consistency leaves out {dynamic:.0%} of the pixels as moving by themselves, and most of a street stands "
        "still: depth and motion are not ready to be compared (raise model.dynamic_from), or the flow model is wrong "
        "on these images",
    ),
    Check(
        "no_better_than_identity",
        ("photometric", "identity_photometric"),
        lambda f: f["photometric"] >= f["identity_photometric"] and not _stands_still(f),
        "the warped sources fit no better than unwarped ones (photometric error {photometric:.4f} against "
        "{identity_photometric:.4f}): check the frame order, the learning rate and, for depth, the intrinsics and the "
        "baseline's sign",
    ),
    Check(
        "depth_at_nearest",
        ("median_depth", "nearest"),
        lambda f: f["median_depth"] < 1.5 * f["nearest"],
        "the median depth has drifted to {median_depth:.3g}, at the nearest possible depth {nearest:.3g}",
    ),
    Check(
        "depth_at_farthest",
        ("median_depth", "farthest"),
        lambda f: f["median_depth"] > 0.7 * f["farthest"],
        "the median depth has drifted to {median_depth:.3g}, at the farthest possible depth {farthest:.3g}",
    ),
    Check(
        "flat_disparity",
        ("disparity_spread",),
        lambda f: f["disparity_spread"] < 0.02,
        "the predicted disparity is flat (spread {disparity_spread:.4f} of its mean): the depth network has "
        "collapsed; lower the smoothness weight or the learning rate",
    ),
    Check(
        "no_translation",
        ("translation", "median_depth", "identity_photometric"),
        lambda f: f["translation"] < 1e-3 * f["median_depth"] and f["identity_photometric"] > 0.02,
        "the predicted translation is zero ({translation:.2g} against a median depth of {median_depth:.3g}) while the "
        "frames differ (identity error {identity_photometric:.3f}): the pose network has collapsed",
    ),
    Check(
        "wild_motion",
        ("rotation_deg",),
        lambda f: f["rotation_deg"] > WILD_DEG,
        "the predicted camera turns by {rotation_deg:.0f} degrees from frame to frame, so it sees nothing of the "
        "target and learns no more: start again with a lower learning rate, a longer warm-up, or a pose network with "
        "batch norm",
    ),
    Check(
        "all_hidden",
        ("visible",),
        lambda f: f["visible"] < 0.05,
        "only {visible:.1%} of the pixels count as visible, so the photometric terms teach next to nothing (and are "
        "skipped where there are fewer still): the forward-backward check rejects flows that are still noise; train "
        "longer without visibility, or with a range map, before it sets in, or lower the learning rate",
    ),
    Check(
        "zero_flow",
        ("flow_px", "photometric", "identity_photometric"),
        lambda f: _stands_still(f) and f["photometric"] >= NO_GAIN * f["identity_photometric"],
        "the predicted flow is zero (mean {flow_px:.2g} px) and explains nothing (photometric error {photometric:.4f} "
        "against {identity_photometric:.4f} unwarped): lower the smoothness weight, start from a model trained on "
        "rendered pairs, or leave out pairs that do not move",
    ),
    Check(
        "exploding_flow",
        ("flow_of_width", "flow_px"),
        lambda f: f["flow_of_width"] > 0.5,
        "the predicted flow has exploded (mean {flow_px:.4g} px, {flow_of_width:.0%} of the image's width): lower the "
        "learning rate, clip the gradient's norm, or raise the smoothness weight",
    ),
)


@dataclass
class Health:
    """The moving means of a training's health figures.

    Attributes:
        total_steps: Length of the training.
        bounds: Nearest and farthest depth the method can predict, in the unit of `median_depth`; None if unknown.
        means: Moving mean of each figure.
        first_depth: Moving mean of the median depth at the end of the grace time.
        warned: Checks that have warned.
    """

    total_steps: int
    bounds: tuple[float, float] | None = None
    means: dict[str, float] = field(default_factory=dict)
    first_depth: float | None = None
    warned: list[str] = field(default_factory=list)

    def update(self, step: int, figures: Figures, steps: int) -> tuple[dict[str, float], list[str]]:
        """Takes in the means over the last `steps` steps.

        Returns:
            Derived figures (median_depth_drift: log of the median depth against its first value), and one line for
            each check that says collapse for the first time.
        """
        keep = math.exp(-steps / WINDOW)
        for name, value in figures.items():
            if not math.isfinite(value):  # a mean over no pixel at all
                continue
            self.means[name] = keep * self.means.get(name, value) + (1 - keep) * value
        if step <= min(max(GRACE_SHARE * self.total_steps, GRACE_LEAST), GRACE_MOST):
            return {}, []
        derived = self._drift()
        known = dict(self.means)
        if self.bounds is not None:
            known |= {"nearest": self.bounds[0], "farthest": self.bounds[1]}
        warnings = []
        for check in CHECKS:
            ready = check.name not in self.warned and all(name in known for name in check.needs)
            if ready and check.bad(known):
                self.warned.append(check.name)
                warnings.append(f"{check.message.format(**known)} [{check.name}, step {step}]")
        return derived, warnings

    def _drift(self) -> dict[str, float]:
        depth = self.means.get("median_depth", 0.0)
        if not depth > 0:
            return {}
        if self.first_depth is None:
            self.first_depth = depth
        return {"median_depth_drift": math.log(depth / self.first_depth)}

    def state(self) -> dict[str, Any]:
        """JSON values that `restore` takes."""
        return {"means": dict(self.means), "first_depth": self.first_depth, "warned": list(self.warned)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint's state."""
        self.means = dict(state["means"])
        self.first_depth = state["first_depth"]
        self.warned = list(state["warned"])


def depth_bounds(method: Any) -> tuple[float, float] | None:
    """The depths a method can predict, from its options `min_depth` and `max_depth` (times its `unit_m`, if any)."""
    options = getattr(method, "options", None)
    nearest, farthest = getattr(options, "min_depth", None), getattr(options, "max_depth", None)
    if nearest is None or farthest is None:
        return None
    unit_m = float(getattr(method, "unit_m", 1.0))
    return float(nearest) * unit_m, float(farthest) * unit_m
