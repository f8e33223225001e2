"""Writes streets as KITTI raw drives, with label files beside the sensors' data.

    OUT/street.json                          the options
    OUT/README.txt                           what the label files hold
    OUT/2000_01_01/calib_*.txt
    OUT/2000_01_01/2000_01_01_drive_0001_sync/
        image_02/data/0000000000.png         left image, image_03 the right one
        velodyne_points/data/0000000000.bin  64 beams over the field ahead
        oxts/data/0000000000.txt             poses as KITTI gives them
        labels/0000000000.npz                see `FrameLabels`
        labels/poses.txt                     T_world_camera of image_02, KITTI trajectory

Every file is written whole or not at all, a frame's labels last; frames that have labels are not rendered again.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from geossl.data.synthetic.cast import Hits
from geossl.data.synthetic.labels import make_labels, survey
from geossl.data.synthetic.lidar import scan
from geossl.data.synthetic.options import StreetOptions
from geossl.data.synthetic.render import render_frame
from geossl.data.synthetic.rig import LEFT, RIGHT, calibration_texts
from geossl.data.synthetic.world import Street, make_street
from geossl.formats.atomic import write_bytes_atomic, write_text_atomic
from geossl.formats.oxts import Oxts, oxts_from_pose, write_oxts
from geossl.formats.street import write_labels
from geossl.formats.trajectory import write_kitti_trajectory
from geossl.formats.velodyne import write_velodyne

DATE = "2000_01_01"
FRAME_S = 0.1
ORIGIN = (49.0, 8.4, 115.0)  # latitude and longitude in degrees, altitude in metres
VERSION = 1  # of the world's rules: other rules make other data from equal options

Progress = Callable[[int, int], None]

README = """A synthetic street, written by `geossl synth` with the options in street.json, in the layout of KITTI raw.

<date>/<drive>/labels/<frame>.npz holds the exact labels of image_02: depth (H, W) float32 metres along the camera's
axis, 0 for the sky; objects (H, W) uint16, 0 for the background, else the car's number; visible (H, W) uint8, bit 1:
seen in the next frame, 2: in the frame before, 4: in image_03; K, T_right_left, T_next_camera, T_previous_camera,
T_world_camera; cars, car_moves, T_next_cars, T_previous_cars. T_b_a maps points of frame a to frame b, in metres.
Disparity, flow and scene flow follow: geossl.data.synthetic.read_labels(path).flow, .disparity_px, .disparity_px_next,
.scene_flow, .flow_valid_occ, .flow_valid_noc. labels/poses.txt is the path of image_02 (KITTI trajectory).
"""


def drive_name(sequence: int) -> str:
    """Folder of a drive; the first sequence, 0, is drive 1."""
    return f"{DATE}_drive_{sequence + 1:04d}_sync"


def write_street(
    out: str | Path, options: StreetOptions, processes: int | None = None, progress: Progress | None = None
) -> None:
    """Writes (or completes) synthetic drives.

    Args:
        out: Folder; holds a date folder like KITTI raw's root.
        options: What to write. A folder written before is completed; only `sequences` may differ from then.
        processes: Worker processes; None takes one for each processor, 1 renders in this process.
        progress: Called with the number of finished and of all frames, first with those that were there.

    Raises:
        ValueError: If the folder holds a street of other options.
        OSError: If a file cannot be written.
    """
    out = Path(out)
    _claim(out, options)
    frames = [(sequence, frame) for sequence in range(options.sequences) for frame in range(options.frames)]
    missing = [job for job in frames if not label_path(out, *job).is_file()]
    done = len(frames) - len(missing)
    if progress:
        progress(done, len(frames))
    write_text_atomic(out / "README.txt", README)
    for name, text in calibration_texts(options).items():
        write_text_atomic(out / DATE / name, text)
    processes = processes or _processors()
    for _ in _render_all(out, options, missing, min(processes, max(1, len(missing)))):
        done += 1
        if progress:
            progress(done, len(frames))
    for sequence in range(options.sequences):
        _write_timestamps(out, options, sequence)


def label_path(out: str | Path, sequence: int, frame: int) -> Path:
    """Where the labels of a frame lie."""
    return Path(out) / DATE / drive_name(sequence) / "labels" / f"{frame:010d}.npz"


def write_frame(out: str | Path, options: StreetOptions, sequence: int, frame: int) -> None:
    """Renders one frame and writes its images, scan, pose and, last, its labels."""
    street = _street(options, sequence)
    drive, name = Path(out) / DATE / drive_name(sequence), f"{frame:010d}"
    scene = street.at(frame)
    left, right = (
        render_frame(scene, street.T_world_camera(frame, c), street.camera, _hits(street, frame, c))
        for c in (LEFT, RIGHT)
    )
    for folder, view, camera in (("image_02", left, LEFT), ("image_03", right, RIGHT)):
        pixels = sensor_image(view.image, options, sequence, frame, camera)
        ok, png = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not ok:
            raise OSError(f"{drive / folder}: OpenCV could not encode frame {frame} as PNG.")
        write_bytes_atomic(drive / folder / "data" / f"{name}.png", png.tobytes())
    rng = np.random.default_rng((options.seed, sequence, frame, 7))
    points = scan(scene, street.T_world_velo(frame), options.lidar_noise_m, rng)
    write_velodyne(drive / "velodyne_points" / "data" / f"{name}.bin", points)
    write_oxts(drive / "oxts" / "data" / f"{name}.txt", oxts_record(street, frame))
    if frame == 0:
        world = np.linalg.inv(street.T_world_camera(0))
        poses = np.stack([world @ street.T_world_camera(f) for f in range(options.frames)])
        write_kitti_trajectory(drive / "labels" / "poses.txt", poses)
    write_labels(label_path(out, sequence, frame), make_labels(street, frame, _hits))


def sensor_image(
    image: NDArray[np.float32], options: StreetOptions, sequence: int, frame: int, camera: int
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: the picture with the frame's exposure (the same for both cameras) and the sensor's noise."""
    if options.exposure > 0:
        gain = np.random.default_rng((options.seed, sequence, frame, 8)).normal(0, options.exposure)
        image = image * np.float32(np.exp(gain))
    levels = image * np.float32(255)
    if options.noise > 0:
        rng = np.random.default_rng((options.seed, sequence, frame, 9, camera))
        levels = levels + rng.standard_normal(image.shape, np.float32) * np.float32(options.noise)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def oxts_record(street: Street, frame: int) -> Oxts:
    """The IMU's record of a frame: its pose relative to the first frame, and velocities from the frames beside it."""
    first = street.T_world_imu(0)
    T = street.T_world_imu(frame)
    T[:3, 3] -= first[:3, 3]
    velocity = (street.T_world_imu(frame + 1)[:3, 3] - street.T_world_imu(frame - 1)[:3, 3]) / (2 * FRAME_S)
    body = T[:3, :3].T @ velocity
    east, north, _ = (float(v) for v in velocity)
    forward, left, up = (float(v) for v in body)
    record = oxts_from_pose(T, *ORIGIN)
    return dataclasses.replace(
        record, ve=east, vn=north, vf=forward, vl=left, vu=up, pos_accuracy=0.01, vel_accuracy=0.01, numsats=12
    )


def _claim(out: Path, options: StreetOptions) -> None:
    """Writes the options, or compares them with those of an earlier run."""
    path = out / "street.json"
    wanted = {"version": VERSION, **options.as_dict()}
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            names = (wanted.keys() | found.keys()) - {"sequences"}
            differing = sorted(name for name in names if wanted.get(name) != found.get(name))
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path} is not readable ({error}); remove the folder {out} or choose another.") from None
        if differing:
            changes = ", ".join(f"{name} {found.get(name)!r} there, {wanted.get(name)!r} asked" for name in differing)
            raise ValueError(f"{out} holds a street of other options: {changes}. Choose another folder, or remove it.")
        wanted["sequences"] = max(int(found.get("sequences", 0)), options.sequences)
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no street.json of an earlier run. Choose another folder.")
    write_text_atomic(path, json.dumps(wanted, indent=2) + "\n")


def _write_timestamps(out: Path, options: StreetOptions, sequence: int) -> None:
    start = datetime(2000, 1, 1, 12) + timedelta(hours=sequence)
    times = [start + timedelta(seconds=FRAME_S * frame) for frame in range(options.frames)]
    text = "".join(f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond * 1000:09d}\n" for time in times)
    for sensor in ("image_02", "image_03", "velodyne_points", "oxts"):
        write_text_atomic(out / DATE / drive_name(sequence) / sensor / "timestamps.txt", text)


@lru_cache(maxsize=2)
def _street(options: StreetOptions, sequence: int) -> Street:
    return make_street(options, sequence)


@lru_cache(maxsize=8)
def _hits(street: Street, frame: int, camera: int) -> Hits:
    return survey(street, frame, camera)


def _job(arguments: tuple[str, StreetOptions, int, int]) -> None:
    write_frame(*arguments)


def _render_all(out: Path, options: StreetOptions, jobs: list[tuple[int, int]], processes: int) -> Iterator[None]:
    arguments = [(str(out), options, sequence, frame) for sequence, frame in jobs]
    if processes == 1:
        for argument in arguments:
            _job(argument)
            yield
        return
    # consecutive frames to one worker: it keeps the world it built
    chunk = max(1, min(16, -(-len(arguments) // (4 * processes))))
    with (
        _single_threaded_children(),
        ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_worker) as pool,
    ):
        try:
            yield from pool.map(_job, arguments, chunksize=chunk)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _start_worker() -> None:
    cv2.setNumThreads(1)


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Workers share the processors; their numeric libraries read these variables when they start."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
