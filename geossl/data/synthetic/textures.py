"""Procedural textures and their antialiased lookup.

A texture is a square tile of four channels: `base` RGB and a `paint` coefficient. A surface with colour `tint` shows
`base + paint * tint`, so that one tile serves walls or cars of any colour and filtering stays linear. Tiles are kept
as mip pyramids and sampled with several taps along the longer axis of the pixel's footprint: what a pixel shows is
the average of the surface under it, and two views of a surface agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.columns import columns

Array = NDArray[np.float32]

TILE = 512
LEVELS = 10
STRIP = 536  # rows of the atlas for each texture
BLOCK = 16384  # lookups at a time; OpenCV takes less than 32768


class Texture(IntEnum):
    """Rows of the texture set."""

    ASPHALT = 0
    PAVEMENT = 1
    GRASS = 2
    FOLIAGE = 3
    PLASTER = 4
    BRICK = 5
    FACADE_A = 6
    FACADE_B = 7
    FACADE_C = 8
    SHOPS = 9
    CAR = 10
    VAN = 11
    BARK = 12
    ROOF = 13
    CLOUDS = 14


@dataclass(frozen=True)
class TextureSet:
    """All tiles of a street as mip pyramids in one image, whose lookup OpenCV does.

    Attributes:
        atlas: (STRIP * textures, 3/2 TILE + 4, 4) uint16 base RGB and paint. Each texture has a strip of rows with the
            full tile at the left and the smaller levels below each other at its right; two more columns and rows
            behind each level repeat its first ones.
    """

    atlas: NDArray[np.uint16]

    def sample(self, texture: NDArray[np.int32], uv: Array, jacobian: Array) -> Array:
        """Averages each texture over the parallelogram that a pixel covers on it.

        Args:
            texture: (N,) rows.
            uv: (2, N) position in tiles; any real number, tiles repeat.
            jacobian: (2, 2, N) derivative of uv by the pixel's column ([:, 0]) and row ([:, 1]).

        Returns:
            (4, N) base RGB and paint in [0, 1].
        """
        major, axis, minor = _footprint(jacobian)
        ratio = major / np.maximum(minor, np.float32(1e-9))
        taps_of = np.where(ratio < 1.5, 1, np.where(ratio < 3, 2, 4))
        result = np.empty((texture.size, 4), np.float32)
        for taps in (1, 2, 4):
            index = np.flatnonzero(taps_of == taps)
            for block in range(0, index.size, BLOCK):
                at = index[block : block + BLOCK]
                side = major[at]
                level = np.log2(np.maximum(TILE * np.maximum(minor[at], side / taps), np.float32(1)))
                step = columns(axis, at) * (side / np.float32(taps))
                first = columns(uv, at) - step * np.float32(0.5 * (taps - 1))
                level = np.minimum(level, np.float32(LEVELS - 1))
                result[at] = self._average(texture[at], first, step, taps, level)
        return np.ascontiguousarray(result.T)

    def _average(self, texture: NDArray[np.int32], first: Array, step: Array, taps: int, level: Array) -> Array:
        """(N, 4) mean of `taps` positions, linear in u, v and pyramid level."""
        lower = level.astype(np.int32)
        blend = level - lower
        result = np.zeros((level.size, 4), np.float32)
        strip = (texture * np.int32(STRIP)).astype(np.float32)
        for which, weight in ((lower, 1 - blend), (np.minimum(lower + 1, LEVELS - 1), blend)):
            size, left, top = _SIZES[which], _LEFTS[which], _TOPS[which] + strip
            at = first - np.float32(0.5) / size  # relative to the first texel's centre
            total = np.zeros((level.size, 4), np.float32)
            for _ in range(taps):
                u, v = at - np.floor(at)
                total += cv2.remap(self.atlas, (u * size + left)[None], (v * size + top)[None], cv2.INTER_LINEAR)[0]
                at = at + step
            result += total * np.repeat(weight * np.float32(1 / (65535 * taps)), 4).reshape(-1, 4)
        return result


_SIZES = TILE / np.float32(2) ** np.arange(LEVELS, dtype=np.float32)
_LEFTS = np.where(_SIZES == TILE, 0, TILE + 2).astype(np.float32)
_TOPS = np.concatenate([[0, 0], np.cumsum(_SIZES[1:-1] + 2)]).astype(np.float32)


def _footprint(jacobian: Array) -> tuple[Array, Array, Array]:
    """Longer side (N,), its unit direction (2, N) and shorter side (N,) of the ellipse J maps the unit circle to."""
    (a, c), (b, d) = jacobian
    p, q, r = a * a + c * c, b * b + d * d, a * b + c * d  # J J^T
    root = np.sqrt((p - q) ** 2 + 4 * r * r)
    largest = 0.5 * (p + q + root)
    major = np.sqrt(largest)
    minor = np.abs(a * d - b * c) / np.maximum(major, np.float32(1e-12))
    tall = q > p
    axis = np.stack([np.where(tall, r, largest - q), np.where(tall, largest - p, r)])
    length = np.sqrt((axis * axis).sum(0))
    axis = np.where(length > 0, axis / np.maximum(length, np.float32(1e-20)), np.float32(0.70710678))
    return major, axis, minor


def make_textures(rng: np.random.Generator) -> TextureSet:
    """Paints every tile of a street."""
    tiles: dict[Texture, Array] = {
        Texture.ASPHALT: _plain(rng, slope=1.0, contrast=0.13, grain=0.10),
        Texture.PAVEMENT: _pavement(rng),
        Texture.GRASS: _tinted(rng, slope=1.1, contrast=0.28),
        Texture.FOLIAGE: _tinted(rng, slope=1.3, contrast=0.42),
        Texture.PLASTER: _plain(rng, slope=1.5, contrast=0.13, grain=0.04),
        Texture.BRICK: _brick(rng),
        Texture.FACADE_A: _facade(rng, columns=4, wall=_plain(rng, slope=1.5, contrast=0.13, grain=0.04)),
        Texture.FACADE_B: _facade(rng, columns=3, wall=_brick(rng)),
        Texture.FACADE_C: _facade(rng, columns=5, wall=_plain(rng, slope=1.7, contrast=0.16, grain=0.03)),
        Texture.SHOPS: _shops(rng),
        Texture.CAR: _car(rng, roof=1.45, nose=2.1, van=False),
        Texture.VAN: _car(rng, roof=2.1, nose=2.5, van=True),
        Texture.BARK: _plain(rng, slope=1.2, contrast=0.25, grain=0.05, stretch=6),
        Texture.ROOF: _roof(rng),
        Texture.CLOUDS: _clouds(rng),
    }
    atlas = np.zeros((STRIP * len(Texture), TILE + TILE // 2 + 4, 4), np.uint16)
    for name, tile in tiles.items():
        _fill_strip(atlas[STRIP * name : STRIP * (name + 1)], tile)
    return TextureSet(atlas)


def spectral_noise(rng: np.random.Generator, slope: float, stretch: float = 1.0) -> Array:
    """(TILE, TILE) tileable Gaussian noise, amplitude ~ 1 / frequency**slope, mean 0, standard deviation 1."""
    amplitude = _amplitude(slope, stretch)
    white = rng.standard_normal((*amplitude.shape, 2), np.float32).view(np.complex64)[..., 0]
    white *= amplitude
    noise = np.asarray(np.fft.irfft2(white, s=(TILE, TILE)), np.float32)
    noise -= noise.mean()
    noise /= noise.std()
    return noise


@cache
def _amplitude(slope: float, stretch: float) -> Array:
    """(TILE, TILE / 2 + 1) of each wave of `spectral_noise`."""
    fx = np.fft.rfftfreq(TILE).astype(np.float32)[None] * TILE
    fy = np.fft.fftfreq(TILE).astype(np.float32)[:, None] * (TILE / stretch)
    frequency = np.maximum(np.sqrt(fx * fx + fy * fy), 1)
    # the largest waves would make repetition visible, the smallest would alias under linear interpolation
    return frequency**-slope * np.exp(-((frequency / (0.36 * TILE)) ** 4)) * (frequency > 3)


def _fill_strip(strip: NDArray[np.uint16], tile: Array) -> None:
    """Writes a tile's pyramid into its (STRIP, 3/2 TILE + 4, 4) of the atlas; see `TextureSet`."""
    for level in range(LEVELS):
        texels = cv2.copyMakeBorder(tile, 0, 2, 0, 2, cv2.BORDER_WRAP)
        np.clip(texels, 0, 1, out=texels)
        texels *= 65535
        top, left = int(_TOPS[level]), int(_LEFTS[level])
        strip[top : top + len(texels), left : left + len(texels)] = np.rint(texels, out=texels)
        if level < LEVELS - 1:
            half = (len(tile) // 2, len(tile) // 2)
            tile = np.asarray(cv2.resize(tile, half, interpolation=cv2.INTER_AREA), np.float32)  # means of 2 x 2


def _rgba(base: Array | float, paint: Array) -> Array:
    tile = np.zeros((TILE, TILE, 4), np.float32)
    tile[..., :3] = base
    tile[..., 3] = paint
    return tile


def _plain(rng: np.random.Generator, slope: float, contrast: float, grain: float, stretch: float = 1.0) -> Array:
    noise = contrast * spectral_noise(rng, slope, stretch) + grain * spectral_noise(rng, 0.0)
    return _rgba(0.0, np.clip(0.66 * (1 + noise), 0.08, 1))


def _tinted(rng: np.random.Generator, slope: float, contrast: float) -> Array:
    """Grass and leaves: brightness and hue vary apart from each other."""
    light = spectral_noise(rng, slope) * contrast
    hue = spectral_noise(rng, slope)[..., None] * np.array([0.035, 0.012, -0.01], np.float32)
    return _rgba(np.clip(hue + 0.02, 0, 1), np.clip(0.6 * np.exp(light) * 0.95, 0.05, 1))


def _grid(period_x: float, period_y: float, shift: float) -> tuple[Array, Array, NDArray[np.int64], NDArray[np.int64]]:
    """Position inside a brick, and the brick's column and course; each broadcasts to (TILE, TILE)."""
    x, y = np.arange(TILE, dtype=np.float32), np.arange(TILE, dtype=np.float32)[:, None]
    row = np.floor(y / period_y).astype(np.int64)
    # every second row begins with the part of a brick
    moved = x + shift * period_x * np.arange(2, dtype=np.float32)[:, None]
    column = np.floor(moved / period_x).astype(np.int64) % max(1, round(TILE / period_x))
    odd = row[:, 0] % 2
    return (moved % period_x)[odd], y % period_y, column[odd], row


def _stones(rng: np.random.Generator, px: float, py: float, shift: float, joint: float, contrast: float) -> Array:
    x, y, column, row = _grid(px, py, shift)
    shade = rng.normal(0, contrast, (round(TILE / py) + 1, round(TILE / px) + 1)).astype(np.float32)[row, column]
    paint = 0.68 * (1 + shade + 0.08 * spectral_noise(rng, 1.2) + 0.05 * spectral_noise(rng, 0.2))
    return np.where((x < joint) | (y < joint), 0.62 * paint, paint)


def _pavement(rng: np.random.Generator) -> Array:
    size = float(rng.choice([16, 32]))
    return _rgba(0.0, np.clip(_stones(rng, size, size, 0.5, 2, 0.09), 0.1, 1))


def _brick(rng: np.random.Generator) -> Array:
    return _rgba(0.0, np.clip(_stones(rng, 16, 8, 0.5, 2, 0.13), 0.1, 1))


def _roof(rng: np.random.Generator) -> Array:
    return _rgba(0.0, np.clip(_stones(rng, 16, 16, 0.5, 3, 0.12), 0.1, 1))


def _put(tile: Array, x: float, y: float, w: float, h: float, colour: Array | float, paint: Array | float) -> None:
    """Paints a rectangle in place, in texels."""
    rows, columns = slice(max(0, round(y)), round(y + h)), slice(max(0, round(x)), round(x + w))
    tile[rows, columns, :3] = colour
    tile[rows, columns, 3] = paint


def _near_grey(rng: np.random.Generator, low: float, high: float) -> Array:
    """(3,) a brightness in the range, moderately coloured."""
    return np.clip(rng.uniform(low, high) + rng.uniform(-0.15, 0.15, 3), 0, 1).astype(np.float32)


def _window(rng: np.random.Generator, tile: Array, x: float, y: float, w: float, h: float) -> None:
    frame = float(rng.uniform(0.35, 0.85))
    _put(tile, x - 4, y - 4, w + 8, h + 8, 0.0, float(rng.uniform(0.3, 0.9)))
    _put(tile, x - 5, y + h + 2, w + 10, 4, 0.55, 0.2)
    _put(tile, x, y, w, h, frame, 0.0)
    glass = rng.uniform(0.06, 0.24) + np.array([0.0, 0.02, 0.04], np.float32)
    sheen = np.linspace(float(rng.uniform(1.0, 1.9)), 0.8, max(1, round(h) - 6), dtype=np.float32)[:, None, None]
    panes = int(rng.integers(1, 4))
    for pane in range(panes):
        left = x + 3 + pane * (w - 3) / panes
        right = x + (pane + 1) * (w - 3) / panes
        rows, columns = slice(round(y) + 3, round(y) + 3 + len(sheen)), slice(round(left), round(right))
        tile[rows, columns, :3] = glass * sheen
        tile[rows, columns, 3] = 0
    if rng.random() < 0.35:  # a curtain or blind
        cloth = _near_grey(rng, 0.3, 0.7)
        _put(tile, x + 3, y + 3, w - 6, float(rng.uniform(0.2, 0.7)) * h, cloth, 0.0)


def _facade(rng: np.random.Generator, columns: int, wall: Array) -> Array:
    """Three storeys of windows, 10.24 m wide and high at 2 cm a texel."""
    tile = wall.copy()
    storey = TILE / 3
    width, height = TILE / columns * rng.uniform(0.4, 0.6), storey * rng.uniform(0.45, 0.6)
    for floor in range(3):
        _put(tile, 0, floor * storey, TILE, 5, 0.0, 0.45 + 0.1 * spectral_noise(rng, 1.0)[:5])
        for column in range(columns):
            x = (column + 0.5) * TILE / columns - width / 2
            _window(rng, tile, x, floor * storey + storey * 0.25, width, height)
            if rng.random() < 0.15:  # a balcony or flower box
                _put(
                    tile,
                    x - 8,
                    floor * storey + storey * 0.72,
                    width + 16,
                    22,
                    rng.uniform(0.1, 0.5, 3).astype("f4"),
                    0.2,
                )
    streaks = 1 + 0.05 * spectral_noise(rng, 1.4, stretch=5)
    tile *= np.clip(streaks, 0.8, 1.2)[..., None]
    return tile


def _shops(rng: np.random.Generator) -> Array:
    """Ground floors: shop windows, doors and signs in the lower 3.4 m of the tile."""
    tile = _plain(rng, slope=1.4, contrast=0.14, grain=0.05)
    top = TILE - 170
    for column in range(4):
        x, width = column * 128 + 8, float(rng.uniform(70, 112))
        if rng.random() < 0.35:  # a door
            _put(tile, x + 20, top + 50, 50, 120, rng.uniform(0.05, 0.4, 3).astype("f4"), 0.15)
            _window(rng, tile, x + 28, top + 60, 34, 50)
        else:
            _window(rng, tile, x, top + 56, width, 86)
            for _ in range(14):  # wares and posters
                bx, by = x + rng.uniform(4, width - 16), top + rng.uniform(60, 130)
                colour = _near_grey(rng, 0.1, 0.7)
                _put(tile, bx, by, rng.uniform(5, 16), rng.uniform(5, 14), colour, 0.0)
        if rng.random() < 0.7:  # a sign
            colour = _near_grey(rng, 0.2, 0.7)
            _put(tile, x, top + 18, 112, 28, colour, 0.0)
            for letter in range(int(rng.integers(4, 9))):
                _put(tile, x + 8 + letter * 12, top + 25, rng.uniform(4, 9), 14, 1 - colour, 0.0)
    return tile


def _car(rng: np.random.Generator, roof: float, nose: float, van: bool) -> Array:
    """Views of a car at 1 cm a texel: side in rows 0..170 (250 for a van), front from 1/2, rear from 3/4.

    Heights count from the bottom of each view's band: z = 0 lies at row 230 of the side view and at rows 370 and 500
    of front and rear; column 256 is the middle.
    """
    reflection = 0.80 + 0.07 * spectral_noise(rng, 1.4, stretch=0.3) + 0.02 * spectral_noise(rng, 0.3)
    tile = _rgba(0.0, np.clip(reflection, 0.2, 1))
    belt = 90 if not van else 125
    for ground, half in ((230, 100 * nose), (370, 88), (500, 88)):
        band = slice(ground - 20, ground + 1)
        tile[band, :, :3], tile[band, :, 3] = 0.03, 0.02  # sill and shadow
        _put(tile, 256 - half, ground - belt, 2 * half, 3, 0.02, 0.35)
        _put(tile, 256 - half, ground - 45, 2 * half, 4, 0.02, 0.45)
    # side: wheels, doors, windows
    yy, xx = np.mgrid[0:TILE, 0:TILE].astype(np.float32)
    for x in (256 - 62 * nose, 256 + 64 * nose):
        radius = np.hypot(xx - x, yy - (230 - 31))
        tile[radius < 36] = (0.02, 0.02, 0.02, 0.02)
        tile[radius < 20] = (0.42, 0.42, 0.44, 0.0)
        tile[(radius < 20) & (np.sin(np.arctan2(yy - 199, xx - x) * 5) > 0.3) & (radius > 6)] = (0.1, 0.1, 0.1, 0.0)
    glass = np.array([0.09, 0.11, 0.13], np.float32)
    for x, w in ((-95, 62), (-28, 62), (40, 52)) if not van else ((110, 60), (45, 60)):
        _put(tile, 256 + x, 230 - 100 * roof + 10, w, 100 * roof - belt - 12, glass * rng.uniform(0.7, 1.8), 0.03)
    for x in (-98, -30, 38, 102):
        _put(tile, 256 + x, 230 - belt, 2, belt - 22, 0.0, 0.35)
        _put(tile, 256 + x + 8, 230 - belt + 12, 12, 4, 0.3, 0.2)
    # front and rear: windscreen, lights, plate, bumper
    for ground, lamp in ((370, (0.85, 0.85, 0.8)), (500, (0.6, 0.05, 0.04))):
        _put(tile, 256 - 66, ground - 100 * roof + 8, 132, 100 * min(roof, 1.6) - 92, glass * 1.3, 0.03)
        _put(tile, 256 - 86, ground - 78, 30, 16, np.array(lamp, np.float32), 0.0)
        _put(tile, 256 + 56, ground - 78, 30, 16, np.array(lamp, np.float32), 0.0)
        _put(tile, 256 - 26, ground - 54, 52, 11, 0.8, 0.0)
        _put(tile, 256 - 40, ground - 74, 80, 12, 0.06, 0.1 if ground == 370 else 0.6)
        _put(tile, 256 - 86, ground - 36, 172, 12, 0.05, 0.15)
    return tile


def _clouds(rng: np.random.Generator) -> Array:
    clouds = cv2.GaussianBlur(spectral_noise(rng, 1.9), (0, 0), 1.2)
    return _rgba(np.clip(0.5 + 0.22 * clouds, 0, 1)[..., None], np.clip(0.5 + 0.2 * spectral_noise(rng, 1.2), 0, 1))
