"""Health checks warn once, when they should."""

from __future__ import annotations

import math

import pytest
from engine_tiny import Tiny, TinyOptions

from geossl.engine.health import CHECKS, Health, depth_bounds

SOUND = {
    "automasked": 0.3,
    "dynamic": 0.1,
    "photometric": 0.1,
    "identity_photometric": 0.2,
    "median_depth": 12.0,
    "disparity_spread": 0.6,
    "translation": 0.9,
    "rotation_deg": 0.2,
    "visible": 0.9,
    "flow_px": 7.0,
    "flow_of_width": 0.02,
}
COLLAPSED = {
    "all_masked": {"automasked": 0.99},
    "all_dynamic": {"dynamic": 0.7},
    "no_better_than_identity": {"photometric": 0.21},
    "depth_at_nearest": {"median_depth": 0.15},
    "depth_at_farthest": {"median_depth": 95.0},
    "flat_disparity": {"disparity_spread": 0.001},
    "no_translation": {"translation": 1e-5},
    "wild_motion": {"rotation_deg": 90.0},
    "all_hidden": {"visible": 0.03},
    "zero_flow": {"flow_px": 0.001, "flow_of_width": 1e-6, "photometric": 0.2},
    "exploding_flow": {"flow_px": 500.0, "flow_of_width": 0.6},
}


def fresh() -> Health:
    return Health(total_steps=1000, bounds=(0.1, 100.0))


def test_sound_training_is_silent() -> None:
    health = fresh()
    assert all(health.update(step, SOUND, 20)[1] == [] for step in range(20, 1001, 20))


@pytest.mark.parametrize("name", [check.name for check in CHECKS])
def test_each_collapse_warns_once_and_alone(name: str) -> None:
    health = fresh()
    said = [line for step in range(20, 1001, 20) for line in health.update(step, SOUND | COLLAPSED[name], 20)[1]]
    assert len(said) == 1
    assert f"[{name}, step 220]" in said[0] and "\n" not in said[0]


def test_small_flow_that_explains_the_pair_is_sound() -> None:
    still = SOUND | {"flow_px": 0.04, "photometric": 0.1}
    assert all(fresh().update(step, still, 20)[1] == [] for step in range(220, 1001, 20))


@pytest.mark.parametrize("name", ["all_hidden", "zero_flow", "exploding_flow"])
def test_flow_collapse_says_the_figure_and_a_remedy(name: str) -> None:
    (line,) = fresh().update(300, SOUND | COLLAPSED[name], 300)[1]
    figure = {"all_hidden": "3.0%", "zero_flow": "0.001 px", "exploding_flow": "500 px, 60%"}[name]
    remedy = {"all_hidden": "train longer", "zero_flow": "smoothness weight", "exploding_flow": "learning rate"}[name]
    assert figure in line and remedy in line


def test_grace_time_is_silent() -> None:
    health = fresh()
    bad = SOUND | COLLAPSED["flat_disparity"]
    assert health.update(200, bad, 20) == ({}, [])
    assert len(health.update(220, bad, 20)[1]) == 1


def test_absent_figures_are_not_checked() -> None:
    health = Health(total_steps=1000)
    assert health.update(900, {"median_depth": 1e-9}, 1)[1] == []  # no bounds known
    assert health.update(901, {}, 1)[1] == []


def test_a_mean_over_no_pixel_says_nothing() -> None:
    health = fresh()
    health.update(20, {"photometric": 0.1}, 20)
    health.update(40, {"photometric": math.nan}, 20)
    assert health.means == {"photometric": 0.1}


def test_moving_mean_forgets_over_the_window() -> None:
    health = fresh()
    health.update(20, {"automasked": 1.0}, 20)
    health.update(120, {"automasked": 0.0}, 100)
    assert health.means["automasked"] == pytest.approx(math.exp(-1))


def test_drift_is_the_log_of_depth_against_the_first() -> None:
    health = fresh()
    assert health.update(300, {"median_depth": 10.0}, 300)[0] == {"median_depth_drift": 0.0}
    derived, _ = health.update(10**7, {"median_depth": 20.0}, 10**7)
    assert derived["median_depth_drift"] == pytest.approx(math.log(2))


def test_restored_health_goes_on_the_same() -> None:
    one, other = fresh(), fresh()
    bad = SOUND | COLLAPSED["flat_disparity"]
    for step in (160, 200, 240):
        one.update(step, bad, 40)
    other.restore(one.state())
    assert one.update(280, SOUND, 40) == other.update(280, SOUND, 40)
    assert other.warned == ["flat_disparity"]


def test_depth_bounds_are_the_methods_in_metres() -> None:
    method = Tiny(TinyOptions())
    assert depth_bounds(method) == (0.1, 100.0)
    method.unit_m = 5.4  # type: ignore[assignment]
    assert depth_bounds(method) == pytest.approx((0.54, 540.0))
    assert depth_bounds(object()) is None
