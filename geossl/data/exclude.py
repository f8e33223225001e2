"""Leaving out of a training what the benchmarks of optical flow test.

Published methods train on the multi-view images of KITTI 2012 and 2015 without frames 9 to 12 of each scene (DDFlow,
SelFlow), and on KITTI raw without the ten frames before and after each pair that was taken from it (UnFlow).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from geossl.config import AnySource, KittiOdometry, KittiRaw, KittiStereo
from geossl.data.leaks import NEAR_FRAMES
from geossl.data.samples import DataError, Sample
from geossl.data.splits import kitti_stereo_frames

TESTED = frozenset(range(9, 13))  # of a multi-view scene; the pair itself is 10 and 11
STEREO_RULE = "frames 9 to 12 of a scene, which KITTI 2012 and 2015 test"
RAW_RULE = f"frames within {NEAR_FRAMES} of a pair that KITTI 2012 or 2015 tests"


@dataclass(frozen=True)
class Exclusion:
    """What a source's `exclude: benchmarks` left out.

    Attributes:
        source: Kind and root.
        rule: Which frames.
        left_out: Samples that use one of them, of `total`.
        still_tested: Samples kept although they show an image that is tested in another scene: the published rule
            goes by the numbers within a scene, and KITTI 2015's scenes of one drive overlap.
    """

    source: str
    rule: str
    left_out: int
    total: int
    still_tested: int = 0

    def __str__(self) -> str:
        still = f" {self.still_tested} of the others show an image that another scene tests." * bool(self.still_tested)
        return (
            f"{self.source}: left out {self.left_out} of {self.total} samples, which use {self.rule} "
            f"(exclude: none trains on them too).{still}"
        )


def without_benchmarks(source: AnySource, samples: Sequence[Sample]) -> tuple[list[Sample], Exclusion | None]:
    """The samples without those that its `exclude` leaves out, and what that was; None where nothing was.

    Raises:
        DataError: If none is left.
    """
    if not isinstance(source, KittiRaw | KittiOdometry | KittiStereo) or source.exclude != "benchmarks":
        return list(samples), None
    where, stereo = f"{source.kind}:{source.root}", isinstance(source, KittiStereo)
    kept = [s for s in samples if not (_uses_tested_time(s) if stereo else _is_near_tested(s))]
    if len(kept) == len(samples):
        return kept, None
    still = sum(_shows_tested_image(sample) for sample in kept) if stereo else 0
    exclusion = Exclusion(where, STEREO_RULE if stereo else RAW_RULE, len(samples) - len(kept), len(samples), still)
    if not kept:
        remedy = (
            "Set frames: all to train on the other multi-view images, or" if stereo else "Add other drives, or set"
        )
        raise DataError(
            f"{where}: all {len(samples)} samples use {exclusion.rule}, and exclude: benchmarks leaves them out. "
            f"{remedy} exclude: none to train on them knowingly."
        )
    return kept, exclusion


def _uses_tested_time(sample: Sample) -> bool:
    return not TESTED.isdisjoint(sample.frame + offset for offset in (0, *sample.source_offsets))


def _is_near_tested(sample: Sample) -> bool:
    return any((view.recording, view.frame) in _near_tested() for view in sample.views)


def _shows_tested_image(sample: Sample) -> bool:
    return any((view.recording, view.frame) in _tested() for view in sample.views)


@cache
def _tested() -> frozenset[tuple[str, int]]:
    """(drive, frame) of the images of all pairs of which the drive is known."""
    return frozenset((drive, first + step) for drive, first in kitti_stereo_frames().values() for step in (0, 1))


@cache
def _near_tested() -> frozenset[tuple[str, int]]:
    reach = range(-NEAR_FRAMES, NEAR_FRAMES + 1)
    return frozenset((drive, frame + step) for drive, frame in _tested() for step in reach)
