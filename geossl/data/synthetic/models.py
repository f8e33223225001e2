"""Cars, houses, trees and street furniture, each in its own frame as a list of solids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.solids import (
    LEAF_WAVES,
    Solid,
    box,
    ellipsoid,
    face_axes,
    polyhedron,
    prism,
)
from geossl.data.synthetic.textures import Texture

Array = NDArray[np.float64]
Planes = list[tuple[tuple[float, float, float], float]]

CAR_COLOURS = np.array(
    [
        [0.75, 0.77, 0.80],
        [0.90, 0.90, 0.88],
        [0.12, 0.12, 0.14],
        [0.32, 0.34, 0.37],
        [0.55, 0.08, 0.07],
        [0.10, 0.20, 0.48],
        [0.14, 0.33, 0.22],
        [0.70, 0.55, 0.22],
        [0.42, 0.30, 0.22],
        [0.45, 0.60, 0.75],
    ]
)
WALL_COLOURS = np.array(
    [
        [0.92, 0.85, 0.70],
        [0.88, 0.88, 0.86],
        [0.82, 0.66, 0.50],
        [0.70, 0.42, 0.33],
        [0.78, 0.80, 0.70],
        [0.66, 0.70, 0.78],
        [0.93, 0.78, 0.55],
        [0.60, 0.56, 0.52],
    ]
)


def vary(rng: np.random.Generator, colour: Array, spread: float) -> Array:
    """A colour near the given one."""
    return np.clip(colour * np.exp(rng.normal(0, spread)) + rng.normal(0, 0.15 * spread, 3), 0.03, 1.0)


def car(rng: np.random.Generator, number: int) -> list[Solid]:
    """A saloon or a van, its middle at the origin, looking along x."""
    van = bool(rng.random() < 0.18)
    length, width = (5.0, 1.95) if van else (4.2 + rng.uniform(-0.35, 0.35), 1.76)
    tint = vary(rng, CAR_COLOURS[rng.integers(len(CAR_COLOURS))], 0.15)
    skin = Texture.VAN if van else Texture.CAR
    nose, half = length / 2, width / 2
    if van:
        planes: Planes = [((1, 0, 0.0), nose), ((1, 0, 0.55), nose + 0.55 * 1.0), ((-1, 0, 0.04), nose)]
        planes += [((0, 1, 0.03), half), ((0, -1, 0.03), half), ((0, 0, 1), 2.1), ((0, 0, -1), 0.0)]
        return [_car_part(planes, np.array([-nose, -half, 0]), np.array([nose, half, 2.1]), skin, nose, tint, number)]
    belt, roof = 0.90, 1.45 + rng.uniform(-0.06, 0.08)
    body: Planes = [((1, 0, 0.06), nose), ((0.3, 0, 1), 0.3 * nose + 0.70)]
    body += [((-1, 0, 0.06), nose), ((-0.25, 0, 1), 0.25 * nose + 0.76)]
    body += [((0, 1, 0.05), half), ((0, -1, 0.05), half), ((0, 0, 1), belt), ((0, 0, -1), 0.0)]
    estate = bool(rng.random() < 0.5)
    back, slope = (nose - 0.15, 0.25) if estate else (nose - 0.55, 0.75)
    flank = half - 0.04 + 0.28 * belt
    cabin: Planes = [((1, 0, 1.3), 0.9 + 1.3 * belt), ((-1, 0, slope), back + slope * belt)]
    cabin += [((0, 1, 0.28), flank), ((0, -1, 0.28), flank), ((0, 0, 1), roof), ((0, 0, -1), -belt + 0.15)]
    low, high = np.array([-nose, -half, 0.0]), np.array([nose, half, belt])
    return [
        _car_part(body, low, high, skin, nose, tint, number),
        _car_part(cabin, np.array([-back, -half, belt - 0.15]), np.array([1.2, half, roof]), skin, nose, tint, number),
    ]


def _car_part(planes: Planes, low: Array, high: Array, skin: int, nose: float, tint: Array, number: int) -> Solid:
    normals = np.array([n for n, _ in planes], np.float64)
    paint = []
    for n in normals / np.linalg.norm(normals, axis=1, keepdims=True):
        if abs(n[1]) > 0.7:  # side view: front to the right of the skin
            axes, origin = np.array([[1.0, 0, 0], [0, 0, -1.0]]), np.array([2.56, 2.30])
        elif n[2] > 0.9:  # roof and bonnet: plain paint from the skin's upper band
            axes, origin = np.array([[0.6, 0, 0], [0, 0.1, 0]]), np.array([2.56, 0.30])
        elif abs(n[0]) > 0.3:
            axes, origin = np.array([[0, 1.0, 0], [0, 0, -1.0]]), np.array([2.56, 3.70 if n[0] > 0 else 5.00])
        else:
            axes, origin = np.array([[0.6, 0, 0], [0, 0.1, 0]]), np.array([2.56, 0.30])
        paint.append((int(skin), axes / 5.12, origin / 5.12, tint))
    return polyhedron(normals, np.array([o for _, o in planes]), low, high, paint, number)


def house(rng: np.random.Generator, width: float, depth: float, height: float, side: float, shop: bool) -> list[Solid]:
    """A building whose front is the line y = 0, |x| <= width / 2; it reaches to y = side * depth.

    Its frame's x axis runs along the road, whichever side it stands on.
    """
    tint = vary(rng, WALL_COLOURS[rng.integers(len(WALL_COLOURS))], 0.12)
    roof_tint = vary(rng, np.array([0.45, 0.25, 0.2]) if rng.random() < 0.6 else np.array([0.3, 0.3, 0.33]), 0.15)
    skin = int(rng.choice([Texture.FACADE_A, Texture.FACADE_B, Texture.FACADE_C]))
    low = np.array([-width / 2, min(0.0, side * depth), 0.0])
    high = np.array([width / 2, max(0.0, side * depth), height])
    shift = (float(rng.random()), float(-rng.integers(3) / 3))
    solids = [box(low, high, skin, Texture.ROOF, tint, 10.24, roof_tint, shift)]
    if shop:
        front = -0.12 * side
        shop_low = np.array([-width / 2 + 0.02, min(front, 0.5 * side), 0.0])
        shop_high = np.array([width / 2 - 0.02, max(front, 0.5 * side), 3.4])
        colour = vary(rng, np.array([0.6, 0.58, 0.55]), 0.25)
        solids.append(box(shop_low, shop_high, Texture.SHOPS, Texture.ROOF, colour, shift=(shift[0], 0.0)))
    elif rng.random() < 0.75:
        solids.append(_gable(low, high, float(rng.uniform(0.5, 0.9)), roof_tint, tint))
    return solids


def _gable(low: Array, high: Array, steepness: float, roof_tint: Array, wall_tint: Array) -> Solid:
    """A pitched roof on a box, its ridge along x, with eaves of 0.3 m."""
    middle, half = 0.5 * (low[1] + high[1]), 0.5 * (high[1] - low[1]) + 0.3
    normals = np.array([[0, steepness, 1], [0, -steepness, 1], [1, 0, 0], [-1, 0, 0], [0, 0, -1]])
    eaves, ridge = high[2], high[2] + steepness * half
    offsets = np.array([ridge + steepness * middle, ridge - steepness * middle, high[0], -low[0], -eaves])
    tiles = (int(Texture.ROOF), np.array([[1.0, 0, 0], [0, 1.0, 0]]) / 5.12, np.zeros(2), roof_tint)
    ends = [(int(Texture.PLASTER), face_axes(n, 5.12), np.zeros(2), wall_tint) for n in normals[2:]]
    corners = np.array([low[0], middle - half, eaves]), np.array([high[0], middle + half, ridge])
    return polyhedron(normals, offsets, *corners, [tiles, tiles, *ends])


def tree(rng: np.random.Generator, height: float, tint: Array) -> list[Solid]:
    """A trunk and a crown of three or four leafy ellipsoids."""
    radius = height * rng.uniform(0.2, 0.28)
    bark = vary(rng, np.array([0.42, 0.34, 0.27]), 0.2)
    solids = [prism(0, 0, 0.03 * height**0.8, 0.0, 0.6 * height, Texture.BARK, bark)]
    for _ in range(int(rng.integers(3, 5))):
        radii = radius * rng.uniform(0.65, 1.0, 3)
        away = rng.uniform(-0.55, 0.55, 2) * radius
        z = height * rng.uniform(0.55, 0.85)
        solids.append(_crown(rng, np.array([*away, z]), radii, vary(rng, tint, 0.15)))
    return solids


def bush(rng: np.random.Generator, size: float, tint: Array) -> list[Solid]:
    radii = size * rng.uniform(0.8, 1.2, 3)
    return [_crown(rng, np.array([0, 0, 0.6 * radii[2]]), radii, tint)]


def _crown(rng: np.random.Generator, centre: Array, radii: Array, tint: Array) -> Solid:
    direction = rng.standard_normal((LEAF_WAVES, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wavelength = rng.uniform(0.5, 1.1, (LEAF_WAVES, 1))
    waves = 2 * np.pi * direction / wavelength * radii  # in the unit sphere
    leaves = np.concatenate([waves, rng.uniform(0, 2 * np.pi, (LEAF_WAVES, 1))], 1).astype(np.float32)
    return ellipsoid(centre, radii, Texture.FOLIAGE, 4.0, tint, leaves)


def hedge(rng: np.random.Generator, length: float, height: float, tint: Array) -> list[Solid]:
    low, high = np.array([-length / 2, -0.4, 0]), np.array([length / 2, 0.4, height])
    shift = tuple(rng.random(2))
    return [box(low, high, Texture.FOLIAGE, Texture.FOLIAGE, tint, 3.5, None, (float(shift[0]), float(shift[1])))]


def wall(rng: np.random.Generator, length: float, height: float) -> list[Solid]:
    texture = Texture.BRICK if rng.random() < 0.5 else Texture.PLASTER
    tint = vary(rng, WALL_COLOURS[rng.integers(len(WALL_COLOURS))], 0.2)
    low, high = np.array([-length / 2, -0.15, 0]), np.array([length / 2, 0.15, height])
    return [box(low, high, texture, Texture.PLASTER, tint, 7.0, None, (float(rng.random()), 0.0))]


def lamp(rng: np.random.Generator, side: float) -> list[Solid]:
    """A street lamp with an arm over the road."""
    tint = np.full(3, rng.uniform(0.25, 0.6))
    height = rng.uniform(6, 8)
    y = -side * 1.6
    bar = np.array([-0.06, min(0, y), height - 0.12]), np.array([0.06, max(0, y), height])
    arm = box(*bar, Texture.PLASTER, Texture.PLASTER, tint)
    head = np.array([-0.15, y - 0.35, height - 0.2]), np.array([0.15, y + 0.35, height - 0.02])
    bulb = box(*head, Texture.PLASTER, Texture.PLASTER, np.array([0.9, 0.9, 0.85]))
    return [prism(0, 0, 0.09, 0, height, Texture.PLASTER, tint), arm, bulb]


def sign(rng: np.random.Generator) -> list[Solid]:
    """A traffic sign that faces along the road."""
    colour = np.array([[0.8, 0.1, 0.1], [0.1, 0.25, 0.7], [0.9, 0.75, 0.1], [0.9, 0.9, 0.9]])[rng.integers(4)]
    half, z = rng.uniform(0.28, 0.4), rng.uniform(2.1, 2.6)
    plate = np.array([-0.06, -half, z - half]), np.array([-0.02, half, z + half])
    return [
        prism(0, 0, 0.045, 0, z + half, Texture.PLASTER, np.full(3, 0.55)),
        box(*plate, Texture.PAVEMENT, Texture.PLASTER, colour, 2.0, None, (float(rng.random()), float(rng.random()))),
    ]


def bollard(rng: np.random.Generator) -> list[Solid]:
    return [prism(0, 0, 0.08, 0, rng.uniform(0.8, 1.0), Texture.PLASTER, np.full(3, rng.uniform(0.3, 0.9)))]


def moved(solids: list[Solid], T_b_a: Array) -> list[Solid]:
    """The solids in frame b."""
    return [solid.moved(T_b_a) for solid in solids]
