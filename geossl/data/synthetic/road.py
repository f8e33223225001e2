"""The road's centre line and coordinates along and across it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.columns import columns

STEP_M = 0.25
BEFORE_M = 60.0
AFTER_M = 460.0
BLOCK = 8192  # points at a time: what fits the cache is twice as fast


@dataclass(frozen=True)
class Road:
    """A smooth centre line in the ground plane, tabulated every STEP_M metres from s = -BEFORE_M.

    Its heading stays within a right angle of the x axis, so it never crosses itself.

    Convention: `s` metres along the line, `d` metres to the left of it, heading counter-clockwise from x.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    heading: NDArray[np.float64]
    s_of_x: NDArray[np.int32]

    @property
    def length_m(self) -> float:
        """Drivable length from s = 0; the line goes on AFTER_M metres for the view ahead."""
        return (len(self.x) - 1) * STEP_M - BEFORE_M - AFTER_M

    def centre(self, s: NDArray[np.float64] | float) -> tuple[NDArray[np.float64], ...]:
        """x, y and heading at s."""
        at = (np.asarray(s, np.float64) + BEFORE_M) / STEP_M
        index = np.arange(len(self.x))
        return np.interp(at, index, self.x), np.interp(at, index, self.y), np.interp(at, index, self.heading)

    def point(self, s: NDArray[np.float64] | float, d: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """(..., 2) position of (s, d)."""
        x, y, heading = self.centre(s)
        return np.stack([x - d * np.sin(heading), y + d * np.cos(heading)], -1)

    def locate(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """(s, d, heading) of (N,) ground points, float32; exact near the road, a rough value far from it."""
        blocks = range(0, max(1, x.size), BLOCK)
        parts = [self._locate(x[i : i + BLOCK], y[i : i + BLOCK]) for i in blocks]
        s, d, heading = (np.concatenate(part) for part in zip(*parts, strict=True))
        return s, d, heading

    def _locate(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        last = len(self.x) - 1
        column = np.clip((x - np.float32(self.x[0])) * np.float32(1 / STEP_M), 0, len(self.s_of_x) - 1)
        nearest = self.s_of_x[column.astype(np.int32)]
        for iteration in range(4):
            # the line is an arc around its nearest tabulated point
            px, py, cos, sin, heading, curvature = columns(self._table, nearest)
            dx, dy = x - px, y - py
            along, d = dx * cos + dy * sin, dy * cos - dx * sin
            # far from the road the curvature term must not fold over
            way = along / np.maximum(1 - curvature * d, np.float32(0.4))
            if iteration < 3:
                step = np.rint(way * np.float32(1 / STEP_M)).astype(np.int32)
                nearest = np.clip(nearest + step, 0, last)
        s = nearest.astype(np.float32) * np.float32(STEP_M) - np.float32(BEFORE_M)
        # second order in the way from the tabulated point, which is below STEP_M / 2
        inside = np.clip(way, -STEP_M, STEP_M)
        return s + inside, d + 0.5 * curvature * inside * inside * (curvature * d - 1), heading + curvature * inside

    @cached_property
    def _table(self) -> NDArray[np.float32]:
        """(6, N) x, y, cosine and sine of the heading, heading, curvature."""
        curvature = np.gradient(self.heading, STEP_M)
        rows = (self.x, self.y, np.cos(self.heading), np.sin(self.heading), self.heading, curvature)
        return np.stack(rows).astype(np.float32)


def make_road(rng: np.random.Generator, length_m: float, curves: float) -> Road:
    """A winding road of the given drivable length; heading = a sum of three slow waves."""
    s = np.arange(-BEFORE_M, length_m + AFTER_M + STEP_M, STEP_M)
    heading = np.zeros_like(s)
    for wavelength, share in ((rng.uniform(320, 480), 0.6), (rng.uniform(150, 210), 0.3), (rng.uniform(80, 110), 0.1)):
        amplitude = 1.0 * curves * share * rng.uniform(0.5, 1.0)
        heading += amplitude * np.sin(2 * np.pi * s / wavelength + rng.uniform(0, 2 * np.pi))
    heading = np.clip(heading, -1.3, 1.3)
    x = np.concatenate([[0], np.cumsum(np.cos(0.5 * (heading[1:] + heading[:-1])))]) * STEP_M
    y = np.concatenate([[0], np.cumsum(np.sin(0.5 * (heading[1:] + heading[:-1])))]) * STEP_M
    start = round(BEFORE_M / STEP_M)
    x, y = x - x[start], y - y[start]
    at = np.arange(x[0], x[-1], STEP_M)
    return Road(x, y, heading, np.rint(np.interp(at, x, np.arange(len(x)))).astype(np.int32))
