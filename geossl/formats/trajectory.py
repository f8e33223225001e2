"""Camera trajectories: KITTI's 12 numbers a line and TUM's time, position, quaternion.

A pose is T_world_camera: it maps camera points to the world, and its last column is the camera's position.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geossl.formats.atomic import write_text_atomic
from geossl.formats.errors import FormatError


def read_kitti_trajectory(path: str | Path) -> np.ndarray:
    """Reads a trajectory of consecutive frames: (N, 4, 4) float64 T_world_camera.

    Raises:
        FormatError: If a line has not 12 numbers (or 13 with its frame index first), or frames are missing; read
            such a file with `read_indexed_kitti_trajectory`.
        OSError: If the file cannot be opened.
    """
    return _consecutive(path, *read_indexed_kitti_trajectory(path))


def parse_kitti_trajectory(text: str, where: str) -> np.ndarray:
    """As `read_kitti_trajectory`, from the text of a file; `where` names it in messages."""
    return _consecutive(where, *_indexed(text, where))


def read_indexed_kitti_trajectory(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a trajectory that may skip frames.

    Returns:
        frames: (N,) int64 increasing frame numbers: the first of 13 columns, or 0, 1, 2, ... for 12 columns.
        poses: (N, 4, 4) float64 T_world_camera.

    Raises:
        FormatError: If a line has neither 12 nor 13 numbers, or the frame numbers do not increase.
        OSError: If the file cannot be opened.
    """
    return _indexed(_read_text(path), path)


def write_kitti_trajectory(path: str | Path, poses: np.ndarray, frames: np.ndarray | None = None) -> None:
    """Writes (N, 4, 4) or (N, 3, 4) T_world_camera, 12 numbers a line; with `frames` (N,) the index comes first."""
    poses = _checked(poses)
    lines = []
    for i, pose in enumerate(poses):
        index = "" if frames is None else f"{int(frames[i])} "
        lines.append(index + " ".join(repr(float(value)) for value in pose[:3].reshape(-1)))
    write_text_atomic(path, "\n".join(lines) + "\n")


def read_tum_trajectory(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads `time tx ty tz qx qy qz qw` lines; `#` starts a comment.

    Returns:
        timestamps: (N,) float64 seconds.
        poses: (N, 4, 4) float64 T_world_camera.

    Raises:
        FormatError: If a line has not 8 numbers or a quaternion is zero.
        OSError: If the file cannot be opened.
    """
    rows = _parse_numbers(_read_text(path), path, columns=(8,))
    norms = np.linalg.norm(rows[:, 4:], axis=1)
    if not (norms > 1e-6).all():
        raise FormatError(path, f"has a zero quaternion at pose {int(np.argmin(norms))}; expected qx qy qz qw.")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3] = rotation_from_quaternion(rows[:, 4:] / norms[:, None])
    poses[:, :3, 3] = rows[:, 1:4]
    return rows[:, 0], poses


def write_tum_trajectory(path: str | Path, timestamps: np.ndarray, poses: np.ndarray) -> None:
    """Writes timestamps (N,) in seconds and T_world_camera (N, 4, 4) as `time tx ty tz qx qy qz qw` lines."""
    poses = _checked(poses)
    if len(timestamps) != len(poses):
        raise ValueError(f"{len(timestamps)} timestamps and {len(poses)} poses; expected as many of each.")
    quaternions = quaternion_from_rotation(poses[:, :3, :3])
    rows = np.column_stack([np.asarray(timestamps, np.float64), poses[:, :3, 3], quaternions])
    write_text_atomic(path, "".join(" ".join(repr(float(v)) for v in row) + "\n" for row in rows))


def rotation_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """(N, 4) unit quaternions x, y, z, w -> (N, 3, 3) rotations."""
    x, y, z, w = np.moveaxis(quaternion, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations -> (N, 4) unit quaternions x, y, z, w with w >= 0.

    The largest of the four components is found first and the others divided by it, so no sign or digit is lost
    near half turns (Shepperd 1978).
    """
    R = np.asarray(rotation, np.float64)
    trace = np.trace(R, axis1=-2, axis2=-1)
    d0, d1, d2 = R[:, 0, 0], R[:, 1, 1], R[:, 2, 2]
    four_q_q = np.empty((len(R), 4, 4))  # 4 q q^T, of which any row is a multiple of q
    four_q_q[:, range(4), range(4)] = 1 + np.stack([2 * d0 - trace, 2 * d1 - trace, 2 * d2 - trace, trace], axis=-1)
    pairs = {(0, 1): R[:, 0, 1] + R[:, 1, 0], (0, 2): R[:, 0, 2] + R[:, 2, 0], (1, 2): R[:, 1, 2] + R[:, 2, 1]}
    pairs |= {(0, 3): R[:, 2, 1] - R[:, 1, 2], (1, 3): R[:, 0, 2] - R[:, 2, 0], (2, 3): R[:, 1, 0] - R[:, 0, 1]}
    for (i, j), value in pairs.items():
        four_q_q[:, i, j] = four_q_q[:, j, i] = value
    largest = np.argmax(four_q_q[:, range(4), range(4)], axis=-1)
    quaternion = four_q_q[np.arange(len(R)), largest]
    quaternion = quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)
    return np.where(quaternion[:, 3:] < 0, -quaternion, quaternion)


def _consecutive(where: str | Path, frames: np.ndarray, poses: np.ndarray) -> np.ndarray:
    if not np.array_equal(frames, np.arange(len(frames))):
        raise FormatError(
            where,
            f"holds {len(frames)} poses of frames {frames[0]} to {frames[-1]}: its index column skips frames. "
            "Read it with read_indexed_kitti_trajectory.",
        )
    return poses


def _indexed(text: str, where: str | Path) -> tuple[np.ndarray, np.ndarray]:
    rows = _parse_numbers(text, where, columns=(12, 13))
    frames = np.arange(len(rows))
    if rows.shape[1] == 13:
        frames = rows[:, 0].astype(np.int64)
        if (frames != rows[:, 0]).any() or (np.diff(frames) <= 0).any() or frames[0] < 0:
            raise FormatError(where, "has 13 columns, but the first does not hold increasing frame numbers.")
    return frames, _from_3x4(rows[:, -12:])


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise FormatError(path, "is not a text file; a trajectory has the numbers of one pose a line.") from None


def _parse_numbers(text: str, where: str | Path, columns: tuple[int, ...]) -> np.ndarray:
    wanted = " or ".join(str(c) for c in columns)
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].replace(",", " ").split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            raise FormatError(where, f"line {number} holds a word that is no number: {line[:60]!r}") from None
        if len(row) not in columns or (rows and len(row) != len(rows[0])):
            raise FormatError(
                where, f"line {number} has {len(row)} numbers; expected {wanted}, the same on every line."
            )
        rows.append(row)
    values = np.array(rows, np.float64)
    if not len(values):
        raise FormatError(where, f"holds no poses; expected {wanted} numbers a line.")
    if not np.isfinite(values).all():
        raise FormatError(
            where, f"pose {int(np.argmin(np.isfinite(values).all(axis=1)))} has a value that is not finite."
        )
    return values


def _from_3x4(rows: np.ndarray) -> np.ndarray:
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    return poses


def _checked(poses: np.ndarray) -> np.ndarray:
    poses = np.asarray(poses, np.float64)
    if poses.ndim != 3 or poses.shape[1:] not in ((4, 4), (3, 4)) or not len(poses):
        raise ValueError(f"poses has shape {poses.shape}; expected (N, 4, 4) with N > 0.")
    if not np.isfinite(poses).all():
        raise ValueError("poses holds values that are not finite; the trajectory is not written.")
    return poses
