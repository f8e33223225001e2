"""How the camera's car and the other cars move along a road.

Every pose is a function of the way travelled, so a car that stands keeps exactly its pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.options import StreetOptions
from geossl.data.synthetic.road import Road
from geossl.formats.oxts import rotation_from_roll_pitch_yaw

Array = NDArray[np.float64]

LANE_M = 3.3
MARGIN = 2  # frames before the first and after the last that have poses, for flow at a drive's ends
IMU_HEIGHT_M = 0.93


@dataclass(frozen=True)
class Motion:
    """Ways travelled in metres along the road, for frames -MARGIN to frames + MARGIN - 1.

    Attributes:
        ego: (frames + 2 MARGIN,) of the camera's car.
        cars: (cars, frames + 2 MARGIN) of the moving cars.
        oncoming: (cars,) bool, True for cars in the other lane.
        wobble: (4, 3) amplitude, wavelength in metres and phase of the car's offset, pitch, roll and heave.
    """

    ego: Array
    cars: Array
    oncoming: NDArray[np.bool_]
    wobble: Array

    def T_world_imu(self, road: Road, frame: int) -> Array:
        """(4, 4) pose of the camera's car at a frame: x forward, y left, z up."""
        s = float(self.ego[frame + MARGIN])
        waves = self.wobble[:, 0] * np.sin(2 * np.pi * s / self.wobble[:, 1] + self.wobble[:, 2])
        offset, pitch, roll, heave = waves
        amplitude, wavelength, phase = self.wobble[0]
        slope = amplitude * 2 * np.pi / wavelength * np.cos(2 * np.pi * s / wavelength + phase)
        _, _, heading = road.centre(s)
        T = np.eye(4)
        T[:3, :3] = rotation_from_roll_pitch_yaw(float(roll), float(pitch), float(heading + np.arctan(slope)))
        T[:2, 3] = road.point(s, -LANE_M / 2 + offset)
        T[2, 3] = IMU_HEIGHT_M + heave
        return T

    def T_world_car(self, road: Road, car: int, frame: int) -> Array:
        """(4, 4) pose of a moving car at a frame, its origin on the ground."""
        oncoming = bool(self.oncoming[car])
        d = LANE_M / 2 if oncoming else -LANE_M / 2
        return pose_on_road(road, float(self.cars[car, frame + MARGIN]), d, turned=oncoming)


def pose_on_road(road: Road, s: float, d: float, turned: bool = False, angle: float = 0.0) -> Array:
    """(4, 4) pose on the ground at (s, d), looking along the road (or against it), turned further by `angle`."""
    _, _, heading = road.centre(s)
    T = np.eye(4)
    T[:3, :3] = rotation_from_roll_pitch_yaw(0.0, 0.0, float(heading) + np.pi * turned + angle)
    T[:2, 3] = road.point(s, d)
    return T


def make_motion(rng: np.random.Generator, options: StreetOptions) -> Motion:
    """Draws speeds, stops and the other cars."""
    count = options.frames + 2 * MARGIN
    time = np.arange(count)
    speed = rng.uniform(0.65, 0.95) + 0.18 * np.sin(2 * np.pi * time / rng.uniform(70, 130) + rng.uniform(0, 6.3))
    speed = options.speed * np.clip(speed + 0.05 * np.sin(2 * np.pi * time / 23 + rng.uniform(0, 6.3)), 0.5, 1.1)
    speed *= _stops(rng, options, count)
    ego = np.concatenate([[0.0], np.cumsum(speed)])[:count]
    cars, oncoming = [], []
    if options.moving_cars > 0 and rng.random() < 0.85:
        swing = np.sin(2 * np.pi * time / rng.uniform(60, 120) + rng.uniform(0, 6.3))
        gap = rng.uniform(13, 24) + rng.uniform(2, 5) * swing
        # a car ahead never reverses: it waits until its gap asks it on
        cars.append(np.maximum.accumulate(ego + gap))
        oncoming.append(False)
    rest = options.moving_cars - len(cars)
    if rest > 0:
        pace = options.speed * rng.uniform(0.7, 1.1)
        every = max(14.0, 85.0 / (pace + float(speed.mean()) + 0.1) / rest)  # frames: `rest` of them within 85 m
        meet = float(rng.uniform(-0.3, 1.0)) * every
        while meet < count + 130 / pace:
            s_meet = float(np.interp(meet, time, ego)) + float(np.maximum(meet - time[-1], 0) * speed[-1])
            cars.append(s_meet + pace * (meet - time))
            oncoming.append(True)
            meet += every * float(rng.uniform(0.8, 1.4))
    ways = np.array(cars).reshape(len(cars), count)
    wobble = np.stack(
        [
            np.array([0.12, 0.006, 0.004, 0.015]) * rng.uniform(0.5, 1.2, 4),
            np.array([47.0, 9.0, 13.0, 6.0]) * rng.uniform(0.8, 1.3, 4),
            rng.uniform(0, 2 * np.pi, 4),
        ],
        1,
    )
    return Motion(ego, ways, np.array(oncoming, bool), wobble)


def _stops(rng: np.random.Generator, options: StreetOptions, count: int) -> Array:
    """(count,) factor on the speed: 0 while standing, with braking and starting around it."""
    standing = round(options.standing * options.frames)
    gate = np.ones(count)
    if standing == 0:
        return gate
    stops = max(1, round(options.frames / 200))
    length = np.diff(np.linspace(0, standing, stops + 1).round().astype(int))
    room = options.frames / stops
    for stop, still in enumerate(length):
        if still == 0:
            continue
        first = MARGIN + round(stop * room + rng.uniform(0.1, 0.9) * max(0.0, room - still))
        frame = np.arange(count)
        away = np.maximum(np.maximum(first - frame, frame - (first + still - 1)), 0)
        part = np.clip(away / 10, 0, 1)
        gate *= part * part * (3 - 2 * part)
    return gate
