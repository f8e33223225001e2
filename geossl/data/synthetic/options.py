"""What a synthetic street looks like, in one frozen record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class StreetOptions:
    """Everything that determines the written data. Equal options give equal files, whatever the processes.

    Attributes:
        sequences: Drives to write; each is another street with its own layout, textures, colours and light.
        frames: Frames a drive, at 10 Hz.
        width: Image width in pixels.
        height: Image height in pixels.
        seed: Key of all random numbers, together with the drive's number.
        noise: Standard deviation of the sensor noise in 8-bit levels; 0 for none.
        exposure: Standard deviation of the logarithm of each frame's gain; 0 for constant exposure.
        moving_cars: About how many cars with their own motion are near the camera at a time; 0 for none.
        standing: Share of the frames in which the camera stands still.
        curves: Strength of the road's curves: 0 straight, 1 radii down to about 50 m.
        speed: Factor on the camera's speed, which is 0.5 to 1.1 m a frame at 1.
        lidar_noise_m: Standard deviation of the LiDAR's range in metres; 0 for exact points.
    """

    sequences: int = 4
    frames: int = 100
    width: int = 640
    height: int = 192
    seed: int = 0
    noise: float = 1.5
    exposure: float = 0.0
    moving_cars: int = 3
    standing: float = 0.08
    curves: float = 1.0
    speed: float = 1.0
    lidar_noise_m: float = 0.0

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ValueError: Naming every field that does not fit.
        """
        lowest = {"sequences": 1, "frames": 1, "width": 32, "height": 32, "seed": 0, "moving_cars": 0}
        errors = [
            f"{name} is {getattr(self, name)!r}; expected a whole number of at least {low}"
            for name, low in lowest.items()
            if not isinstance(getattr(self, name), int) or getattr(self, name) < low
        ]
        ranges = {"noise": (0, 64), "exposure": (0, 1), "standing": (0, 0.9), "curves": (0, 1.5), "speed": (0.1, 3)}
        ranges["lidar_noise_m"] = (0, 1)
        errors += [
            f"{name} is {getattr(self, name)!r}; expected a number from {low} to {high}"
            for name, (low, high) in ranges.items()
            if not low <= getattr(self, name) <= high
        ]
        if errors:
            raise ValueError("street options: " + "; ".join(errors) + ".")

    def as_dict(self) -> dict[str, int | float]:
        return dataclasses.asdict(self)
