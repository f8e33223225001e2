"""The synthetic street's label files: depth, object map, visibility and rigid motions, from which the rest follows.

A street is rigid except for its cars, so disparity, flow and scene flow are functions of depth and motions. A label
file holds only those, losslessly; `FrameLabels` derives the others in double precision.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geossl.formats.atomic import atomic_write
from geossl.formats.errors import FormatError

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]
Bools = NDArray[np.bool_]

_BITS = ("visible_next", "visible_previous", "visible_right")


@dataclass(frozen=True)
class FrameLabels:
    """Exact labels of one left image (`image_02`); "next" is the frame after it, "right" its `image_03`.

    A drive's first and last frame have labels to the frames before and after it too, though those are not written.

    Attributes:
        depth: (H, W) float32 z-depth in metres through the pixel centres; 0 for the sky.
        objects: (H, W) uint16: 0 background, else the number of a car.
        visible_next: (H, W) bool, True where the surface point is inside the next image and not hidden there.
        visible_previous: (H, W) bool, likewise in the frame before.
        visible_right: (H, W) bool, likewise in the right image.
        K: (3, 3) float64 pixels.
        T_right_left: (4, 4) metres.
        T_next_camera: (4, 4) maps points that stand still from this camera to the next frame's.
        T_previous_camera: (4, 4) likewise to the frame before.
        T_world_camera: (4, 4), the world being the drive's first camera.
        cars: (N,) numbers of the cars in view.
        car_moves: (N,) bool, True for those with their own motion, False for parked ones.
        T_next_cars: (N, 4, 4) maps each car's points from this camera to the next frame's.
        T_previous_cars: (N, 4, 4) likewise to the frame before.
    """

    depth: Array32
    objects: NDArray[np.uint16]
    visible_next: Bools
    visible_previous: Bools
    visible_right: Bools
    K: Array
    T_right_left: Array
    T_next_camera: Array
    T_previous_camera: Array
    T_world_camera: Array
    cars: NDArray[np.uint16]
    car_moves: Bools
    T_next_cars: Array
    T_previous_cars: Array

    @property
    def valid(self) -> Bools:
        """(H, W) bool, True on surfaces, False in the sky."""
        return self.depth > 0

    @property
    def static(self) -> Bools:
        """(H, W) bool, False on cars with their own motion."""
        return ~np.isin(self.objects, self.cars[self.car_moves])

    @property
    def baseline_m(self) -> float:
        return float(-self.T_right_left[0, 3])

    @cached_property
    def disparity_px(self) -> Array32:
        """(H, W) u_left - u_right of this frame; 0 for the sky."""
        return self._disparity(self.depth.astype(np.float64))

    @cached_property
    def disparity_px_next(self) -> Array32:
        """(H, W) disparity in the next frame of the points seen at this frame's pixels; 0 for the sky."""
        return self._disparity(self._next[2])

    @cached_property
    def flow(self) -> Array32:
        """(2, H, W) pixels to the next frame, occluded points included; in the sky that of the camera's rotation."""
        return self._flow(self._next)

    @cached_property
    def flow_previous(self) -> Array32:
        """(2, H, W) pixels to the frame before."""
        return self._flow(self._previous)

    @cached_property
    def scene_flow(self) -> Array32:
        """(3, H, W) metres: the point in the next camera's frame minus the point in this one's; 0 in the sky."""
        points = lift(self.depth, self.K)
        return np.where(self.valid, self._next - points, 0).astype(np.float32)

    @property
    def flow_valid_occ(self) -> Bools:
        """(H, W) bool, pixels whose flow is known: on surfaces that stay in front, hidden or not (as flow_occ)."""
        return self.valid & (self._next[2] > 0)

    @property
    def flow_valid_noc(self) -> Bools:
        """(H, W) bool, pixels whose point is also seen in the next frame (KITTI's flow_noc)."""
        return self.valid & self.visible_next

    def _disparity(self, z: Array) -> Array32:
        with np.errstate(divide="ignore"):
            return np.where(self.valid & (z > 0), self.K[0, 0] * self.baseline_m / z, 0).astype(np.float32)

    def _flow(self, points: Array) -> Array32:
        h, w = self.depth.shape
        v, u = np.mgrid[0:h, 0:w]
        return (project(points, self.K) - np.stack([u, v])).astype(np.float32)

    @cached_property
    def _next(self) -> Array:
        cars = dict(zip(self.cars, self.T_next_cars, strict=True))
        return move(self.depth, self.objects, self.K, self.T_next_camera, cars)

    @cached_property
    def _previous(self) -> Array:
        cars = dict(zip(self.cars, self.T_previous_cars, strict=True))
        return move(self.depth, self.objects, self.K, self.T_previous_camera, cars)


def lift(depth: Array32, K: Array) -> Array:
    """(3, H, W) float64 points of the pixel centres; in the sky their directions, of z 1."""
    h, w = depth.shape
    z = np.where(depth > 0, depth, 1).astype(np.float64)
    return np.stack([(np.arange(w) - K[0, 2]) / K[0, 0] * z, ((np.arange(h) - K[1, 2]) / K[1, 1])[:, None] * z, z])


def project(points: Array, K: Array) -> Array:
    """(2, ...) pixels of (3, ...) points; NaN behind the camera."""
    z = np.where(points[2] > 0, points[2], np.nan)
    return np.stack([K[0, 0] * points[0] / z + K[0, 2], K[1, 1] * points[1] / z + K[1, 2]])


def move(depth: Array32, objects: NDArray[np.uint16], K: Array, T_b_a: Array, T_cars: Mapping[int, Array]) -> Array:
    """(3, H, W) where the surface points of camera a are in camera b; the sky only turns."""
    points = lift(depth, K)
    ground = depth > 0
    moved = np.stack([T[0] * points[0] + T[1] * points[1] + T[2] * points[2] + T[3] * ground for T in T_b_a[:3]])
    for number, T in T_cars.items():
        if not np.array_equal(T, T_b_a):
            on_car = np.flatnonzero(objects == number)
            moved.reshape(3, -1)[:, on_car] = T[:3, :3] @ points.reshape(3, -1)[:, on_car] + T[:3, 3:]
    return moved


def write_labels(path: str | Path, labels: FrameLabels) -> None:
    """Writes a compressed .npz, one array a field; the three visibilities share the bits 1, 2, 4 of `visible`."""
    arrays = {field.name: getattr(labels, field.name) for field in fields(labels)}
    arrays["visible"] = sum(arrays.pop(name).astype(np.uint8) << bit for bit, name in enumerate(_BITS))
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.asarray(array), allow_pickle=False)
            # a fixed date: equal labels make equal files
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), data.getvalue(), zipfile.ZIP_DEFLATED, 1)


def read_labels(path: str | Path) -> FrameLabels:
    """Reads a label file of the synthetic street.

    Raises:
        FormatError: If it is not one.
        OSError: If it cannot be opened.
    """
    return decode_labels(Path(path).read_bytes(), str(path))


def decode_labels(data: bytes, where: str) -> FrameLabels:
    """As `read_labels`, from the bytes of a file; `where` names it in messages."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            names = file.namelist()
            arrays = {name.removesuffix(".npy"): np.load(io.BytesIO(file.read(name))) for name in names}
        visible = arrays.pop("visible")
        seen = {name: (visible >> bit & 1).astype(bool) for bit, name in enumerate(_BITS)}
        return FrameLabels(**arrays, **seen)
    except (ValueError, KeyError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(where, f"is not a label file of the synthetic street: {error}") from None
