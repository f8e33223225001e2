"""A street: its road, everything that stands along it, and the cars that move on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic import models
from geossl.data.synthetic.options import StreetOptions
from geossl.data.synthetic.rig import LEFT, Camera, make_calibration, make_camera
from geossl.data.synthetic.road import Road, make_road
from geossl.data.synthetic.solids import Faces, Solid, SolidTable
from geossl.data.synthetic.textures import Texture, TextureSet, make_textures
from geossl.data.synthetic.trajectory import Motion, make_motion, pose_on_road
from geossl.formats.calibration import Calibration

Array = NDArray[np.float64]

KERB_HEIGHT_M = 0.13
SIDES = (1.0, -1.0)
AHEAD_M = 330.0  # things stand up to here beyond the way driven
BEHIND_M = 40.0
CELL_M = 0.5
GROUND_ROWS = 4
ROAD, KERB, PAVEMENT, GRASS = range(GROUND_ROWS)


@dataclass(frozen=True)
class Style:
    """Measures and colours of one street.

    Attributes:
        kerb_m: Distance of the kerbs from the centre line.
        pavement_m: Width of the pavements.
        to_sun: (3,) unit vector in the world.
        sun, ambient: (3,) light colours.
        sky, horizon: (3,) colours.
        clouds: Weight of the clouds.
        leaf: (3,) colour of the leaves.
        dash_m: Length and period of the centre line's dashes.
        crossings: (N,) positions of zebra crossings.
        paved: (2, cells) distance from the centre line up to which each side is paved, left first.
        shade_front, shade_height: (2, cells) distance and height of what casts shadows on each side.
        patches: (cells of 6 m, 5) repaired asphalt: s0, s1, d0, d1 inside the cell, brightness.
        covers: (cells of 6 m, 2) manhole covers: s inside the cell, d.
    """

    kerb_m: float
    pavement_m: float
    to_sun: Array
    sun: Array
    ambient: Array
    sky: Array
    horizon: Array
    clouds: float
    leaf: Array
    dash_m: tuple[float, float]
    crossings: Array
    paved: NDArray[np.float32]
    shade_front: NDArray[np.float32]
    shade_height: NDArray[np.float32]
    patches: NDArray[np.float32]
    covers: NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """What there is at one time: solids in the world and the table of their faces.

    Attributes:
        street: Road, textures and light.
        solids: All solids, moving cars included.
        faces: The face table: four rows of ground, then each solid's rows.
        first_face: (S,) row of each solid's first face.
        corners: (S, 8, 3) bounding boxes.
        table: The solids' shapes in arrays.
        car_poses: (cars, 4, 4) T_world_car of every car, parked ones first.
    """

    street: Street
    solids: tuple[Solid, ...]
    faces: Faces
    first_face: NDArray[np.int32]
    corners: Array
    table: SolidTable
    car_poses: Array


@dataclass(frozen=True, eq=False)
class Street:
    """One drive's world.

    Attributes:
        moving: Solids of each moving car in its own frame.
        parked: (cars, 4, 4) T_world_car of the parked cars, which have the numbers 1, 2, ...
    """

    options: StreetOptions
    sequence: int
    road: Road
    motion: Motion
    style: Style
    textures: TextureSet
    standing: tuple[Solid, ...]
    moving: tuple[tuple[Solid, ...], ...]
    parked: Array
    calibration: Calibration

    @property
    def camera(self) -> Camera:
        return make_camera(self.calibration, self.options)

    def T_world_imu(self, frame: int) -> Array:
        return self.motion.T_world_imu(self.road, frame)

    def T_world_camera(self, frame: int, camera: int = LEFT) -> Array:
        return self.T_world_imu(frame) @ np.linalg.inv(self.calibration.T_camera_imu(camera))

    def T_world_velo(self, frame: int) -> Array:
        return self.T_world_camera(frame) @ self.calibration.T_camera_velo(LEFT)

    def T_world_car(self, number: int, frame: int) -> Array:
        """Pose of a car by its number in object maps."""
        if number <= len(self.parked):
            return self.parked[number - 1]
        return self.motion.T_world_car(self.road, number - 1 - len(self.parked), frame)

    def is_moving(self, number: int) -> bool:
        """Whether a car is one of those with their own motion (it may wait at times)."""
        return number > len(self.parked)

    def at(self, frame: int) -> Scene:
        """The scene at a frame; frames -MARGIN to frames + MARGIN - 1 exist."""
        return _scene(self, frame)

    def _build(self, frame: int) -> Scene:
        count = len(self.parked)
        poses = [self.T_world_car(count + 1 + i, frame) for i in range(len(self.moving))]
        cars = [solid.moved(T) for solids, T in zip(self.moving, poses, strict=True) for solid in solids]
        faces, first, corners, table = self._standing_tables
        if cars:
            start = len(faces) + np.cumsum([0] + [len(car.faces) for car in cars[:-1]])
            faces = Faces.concatenate([faces, *(car.faces for car in cars)])
            first = np.concatenate([first, start.astype(np.int32)])
            corners = np.concatenate([corners, np.stack([car.corners for car in cars])])
            table = table.joined(SolidTable.of(cars))
        car_poses = np.concatenate([self.parked, np.array(poses).reshape(len(poses), 4, 4)])
        return Scene(self, (*self.standing, *cars), faces, first, corners, table, car_poses)

    @cached_property
    def _standing_tables(self) -> tuple[Faces, NDArray[np.int32], Array, SolidTable]:
        textures = [Texture.ASPHALT, Texture.ASPHALT, Texture.PAVEMENT, Texture.GRASS]
        tiles = np.array([8.0, 5.0, 5.12, 9.0])
        axes = np.tile(np.eye(3)[:2], (4, 1, 1)) / tiles[:, None, None]
        tints = np.stack([self.tints[name] for name in ("road", "kerb", "pavement", "grass")])
        up = np.tile([0.0, 0, 1], (4, 1))
        ground = Faces(np.array(textures, np.int32), axes, np.zeros((4, 2)), up, tints)
        first = GROUND_ROWS + np.cumsum([0] + [len(solid.faces) for solid in self.standing[:-1]])
        faces = Faces.concatenate([ground, *(solid.faces for solid in self.standing)])
        corners = np.stack([solid.corners for solid in self.standing])
        return faces, first.astype(np.int32), corners, SolidTable.of(self.standing)

    @cached_property
    def tints(self) -> dict[str, Array]:
        """Colours of the ground."""
        rng = np.random.default_rng((self.options.seed, self.sequence, 4))
        return {
            "road": models.vary(rng, np.full(3, rng.uniform(0.40, 0.62)), 0.06),
            "kerb": models.vary(rng, np.full(3, 0.85), 0.08),
            "pavement": models.vary(rng, np.array([0.72, 0.68, 0.64]), 0.12),
            "grass": models.vary(rng, np.array([0.42, 0.52, 0.22]), 0.15),
        }


@lru_cache(maxsize=4)
def _scene(street: Street, frame: int) -> Scene:
    return street._build(frame)


def make_street(options: StreetOptions, sequence: int) -> Street:
    """Builds the world of one drive; the same for the same options and number."""

    def stream(part: int) -> np.random.Generator:
        return np.random.default_rng((options.seed, sequence, part))

    motion = make_motion(stream(0), options)
    road = make_road(stream(1), float(motion.ego[-1]), options.curves)
    rng = stream(2)
    # Parked cars stand 2.5 to 3.5 m beside the camera's path: nearer ones would fill a third of the picture.
    kerb, pavement = float(rng.uniform(6.2, 6.9)), float(rng.uniform(2.0, 3.2))
    summer, autumn = np.array([0.36, 0.46, 0.18]), np.array([0.62, 0.45, 0.16])
    leaf = models.vary(rng, summer if rng.random() < 0.75 else autumn, 0.15)
    builder = _Builder(rng, road, kerb, pavement, leaf)
    for side in SIDES:
        builder.line(side)
    cells = int((road.length_m + BEHIND_M + AHEAD_M) / 6) + 1
    patch = rng.uniform(0, 1, (cells, 5)) * [2.5, 3, 1, 1, 1]
    d0 = rng.uniform(-kerb, kerb - 2, cells)
    patch[:, 1] = patch[:, 0] + 0.8 + patch[:, 1] * 0.8
    patch[:, 2], patch[:, 3] = d0, d0 + rng.uniform(0.7, 2.5, cells)
    patch[:, 4] = np.where(rng.random(cells) < 0.6, rng.uniform(0.68, 1.22, cells), 1.0)
    covers = np.stack([rng.uniform(0.6, 5.4, cells), rng.uniform(-kerb + 1, kerb - 1, cells)], 1)
    covers[rng.random(cells) < 0.45] = 1e4
    overcast = rng.random() < 0.3
    elevation, around = np.radians(rng.uniform(28, 60)), rng.uniform(0, 2 * np.pi)
    warm = rng.uniform(-0.06, 0.08)
    sun = (0.4 if overcast else 0.98) * np.array([1 + warm, 1.0, 1 - warm])
    ambient = (0.95 if overcast else 0.6) * np.array([0.96, 1.0, 1.06])
    crossings = np.cumsum(rng.uniform(45, 130, max(1, int(road.length_m / 60) + 4))) - 30
    dash = ((3.0, 9.0), (4.0, 8.0), (6.0, 12.0))[rng.integers(3)]
    style = Style(
        kerb,
        pavement,
        np.array([np.cos(elevation) * np.cos(around), np.cos(elevation) * np.sin(around), np.sin(elevation)]),
        sun,
        ambient,
        models.vary(rng, np.array([0.70, 0.76, 0.82]) if overcast else np.array([0.36, 0.56, 0.86]), 0.08),
        models.vary(rng, np.array([0.85, 0.89, 0.93]), 0.04),
        1.0 if overcast else float(rng.uniform(0.3, 0.9)),
        leaf,
        dash,
        crossings,
        builder.paved,
        builder.shade_front,
        builder.shade_height,
        patch.astype(np.float32),
        covers.astype(np.float32),
    )
    rng = stream(5)
    numbers = range(len(builder.parked) + 1, len(builder.parked) + 1 + len(motion.cars))
    moving = tuple(tuple(models.car(rng, number)) for number in numbers)
    parked = np.array(builder.parked).reshape(len(builder.parked), 4, 4)
    calibration = make_calibration(options)
    textures = make_textures(stream(3))
    return Street(options, sequence, road, motion, style, textures, tuple(builder.solids), moving, parked, calibration)


class _Builder:
    """Places things along both sides of a road."""

    def __init__(self, rng: np.random.Generator, road: Road, kerb: float, pavement: float, leaf: Array) -> None:
        self.rng, self.road, self.kerb, self.pavement, self.leaf = rng, road, kerb, pavement, leaf
        self.solids: list[Solid] = []
        self.parked: list[Array] = []
        cells = int((road.length_m + BEHIND_M + AHEAD_M) / CELL_M) + 1
        self.paved = np.full((2, cells), kerb + pavement, np.float32)
        self.shade_front = np.full((2, cells), 1e4, np.float32)
        self.shade_height = np.zeros((2, cells), np.float32)

    def put(self, solids: list[Solid], s: float, side: float, d: float, angle: float = 0.0) -> None:
        self.solids += models.moved(solids, pose_on_road(self.road, s, side * d, angle=angle))

    def line(self, side: float) -> None:
        """One side of the road, from behind the first frame to far beyond the last."""
        rng, s, end = self.rng, -BEHIND_M, self.road.length_m + AHEAD_M
        weights = rng.dirichlet([3.0, 2.5, 1.0])
        while s < end:
            length = float(rng.uniform(25, 60))
            kind = rng.choice(3, p=weights)
            s = (self._town, self._gardens, self._park)[kind](s, min(s + length, end), side)
        self._parked_cars(side)
        self._furniture(side)
        for s in np.arange(-BEHIND_M, end, 24):  # what shows through the gaps
            height = float(rng.uniform(6, 12))
            where, d = s + float(rng.uniform(0, 6)), float(rng.uniform(28, 44))
            far = rng.random() < 0.5
            thing = models.house(rng, 17, 9, height, side, False) if far else models.tree(rng, height + 2, self.leaf)
            self.put(thing, where, side, d)

    def _cells(self, s0: float, s1: float) -> slice:
        return slice(max(0, int((s0 + BEHIND_M) / CELL_M)), max(0, int((s1 + BEHIND_M) / CELL_M)))

    def _mark(self, s0: float, s1: float, side: float, front: float, height: float) -> None:
        row = 0 if side > 0 else 1
        self.shade_front[row, self._cells(s0, s1)] = front
        self.shade_height[row, self._cells(s0, s1)] = height

    def _town(self, s: float, end: float, side: float) -> float:
        """Houses in a closed row at the pavement's edge; returns where the last one ends."""
        rng = self.rng
        front = self.kerb + self.pavement
        self.paved[0 if side > 0 else 1, self._cells(s, end)] = front + 6
        while s < end:
            width = float(min(rng.uniform(9, 17), max(end - s, 6.0)))
            height, line = float(rng.uniform(7, 15)), front + float(rng.uniform(0.3, 0.9))
            self.put(models.house(rng, width, 10, height, side, rng.random() < 0.55), s + width / 2, side, line)
            self._mark(s, s + width, side, line, height)
            s += width
            if rng.random() < 0.2:
                s += float(rng.uniform(2, 5))
        return s

    def _gardens(self, s: float, end: float, side: float) -> float:
        """Houses behind hedges or walls."""
        rng = self.rng
        front = self.kerb + self.pavement
        while s < end:
            width, set_back = float(rng.uniform(8, 12)), float(rng.uniform(4, 7))
            height = float(rng.uniform(4.5, 7.5))
            middle = s + width / 2 + 1.5
            self.put(models.house(rng, width, 9, height, side, False), middle, side, front + set_back)
            self._mark(middle - width / 2, middle + width / 2, side, front + set_back, height)
            fence = width + float(rng.uniform(0, 2))
            tall = float(rng.uniform(0.8, 1.6))
            thing = models.hedge(rng, fence, tall, self.leaf) if rng.random() < 0.65 else models.wall(rng, fence, tall)
            self.put(thing, middle, side, front + 0.6)
            if rng.random() < 0.7:
                where = middle + rng.uniform(-0.5, 0.5) * width
                tree = models.tree(rng, float(rng.uniform(4.5, 8)), self.leaf)
                self.put(tree, where, side, front + rng.uniform(2, 3.5))
            s += width + float(rng.uniform(2.5, 6))
        return s

    def _park(self, s: float, end: float, side: float) -> float:
        """Grass, bushes and trees."""
        rng = self.rng
        front = self.kerb + self.pavement
        if rng.random() < 0.5:
            hedge = models.hedge(rng, end - s, float(rng.uniform(0.6, 1.1)), self.leaf)
            self.put(hedge, (s + end) / 2, side, front + 1.0)
        while s < end:
            for d, low, high in ((front + rng.uniform(2, 5), 6, 10), (front + rng.uniform(9, 16), 8, 13)):
                self.put(models.tree(rng, float(rng.uniform(low, high)), self.leaf), s + rng.uniform(0, 5), side, d)
            if rng.random() < 0.6:
                bush = models.bush(rng, float(rng.uniform(0.5, 1.2)), self.leaf)
                self.put(bush, s + 2, side, front + rng.uniform(1.8, 4))
            s += float(rng.uniform(5, 9))
        return s

    def _parked_cars(self, side: float) -> None:
        rng, end = self.rng, self.road.length_m + AHEAD_M - 120
        s, share = -BEHIND_M, 0.5
        while s < end:
            if rng.random() < 0.12:
                share = float(rng.choice([0.0, 0.3, 0.7, 0.9]))
            if rng.random() < share:
                # parked cars look the way their lane runs; a few do not
                turned = (side > 0) != (rng.random() < 0.1)
                d = side * (self.kerb - 1.08)
                T = pose_on_road(self.road, s + float(rng.uniform(-0.4, 0.4)), d, turned, float(rng.normal(0, 0.02)))
                self.parked.append(T)
                self.solids += models.moved(models.car(rng, len(self.parked)), T)
            s += 6.0

    def _furniture(self, side: float) -> None:
        rng, end = self.rng, self.road.length_m + AHEAD_M
        near = self.kerb + 0.5
        s = -BEHIND_M + float(rng.uniform(0, 12))
        trees = bool(rng.random() < 0.6)
        while s < end:
            kind = rng.random()
            if trees and kind < 0.5:
                self.put(models.tree(rng, float(rng.uniform(5, 8)), self.leaf), s, side, near + 0.5)
            elif kind < 0.72:
                self.put(models.lamp(rng, side), s, side, near)
            elif kind < 0.85:
                self.put(models.sign(rng), s, side, near + 0.2)
            else:
                for i in range(int(rng.integers(2, 6))):
                    self.put(models.bollard(rng), s + 1.6 * i, side, near - 0.1)
            s += float(rng.uniform(9, 16))
