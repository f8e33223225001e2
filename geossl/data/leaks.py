"""Does a training set contain what a test set tests?

KITTI's benchmarks share recordings: odometry 09 and 10 lie inside the Eigen-Zhou training set, Eigen's test drives
contain odometry 00, 04, 05 and 07, and 142 of the 200 images of KITTI 2015 come from published drives. Frames are
compared by recording and number, whatever the camera, with odometry and KITTI 2012/2015 traced back to their drives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from geossl.data.samples import Sample

NEAR_FRAMES = 10  # at 10 Hz a second: still the same place and the same cars
LISTED = 5  # recordings that a message names


@dataclass(frozen=True)
class Leaks:
    """What training and test samples share.

    Attributes:
        tested: Number of distinct test frames (targets).
        frames: Test frames that training uses, as (recording, frame).
        near: Test frames within 10 frames of one that training uses, the former included.
        recordings: Number of test frames by recording, of the recordings that training uses too.
    """

    tested: int
    frames: tuple[tuple[str, int], ...]
    near: tuple[tuple[str, int], ...]
    recordings: dict[str, int]

    @property
    def clean(self) -> bool:
        """Whether no test frame, nor one within a second of it, is trained on."""
        return not self.near

    def __str__(self) -> str:
        if not self.recordings:
            return f"no leak: training uses none of the recordings of the {self.tested} test frames"
        named = [f"{name} ({count})" for name, count in sorted(self.recordings.items())]
        listed = ", ".join(named[:LISTED]) + (f" and {len(named) - LISTED} more" if len(named) > LISTED else "")
        return (
            f"training uses {len(self.frames)} of {self.tested} test frames, {len(self.near)} within "
            f"{NEAR_FRAMES} frames, {sum(self.recordings.values())} from its own recordings: {listed}"
        )


def leaks(train: Iterable[Sample], test: Iterable[Sample]) -> Leaks:
    """Compares every view of the training samples with the targets of the test samples."""
    trained = {(view.recording, view.frame) for sample in train for view in sample.views}
    tested = {(sample.target.recording, sample.target.frame) for sample in test}
    recordings = {recording for recording, _ in trained}
    reach = range(-NEAR_FRAMES, NEAR_FRAMES + 1)
    return Leaks(
        tested=len(tested),
        frames=tuple(sorted(tested & trained)),
        near=tuple(sorted((r, f) for r, f in tested if any((r, f + step) in trained for step in reach))),
        recordings=dict(Counter(r for r, _ in tested if r in recordings)),
    )
