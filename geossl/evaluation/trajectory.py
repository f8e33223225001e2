"""Scores trajectories: KITTI's t_err and r_err, SfMLearner's five-frame ATE, APE and RPE.

A trajectory is (N, 4, 4) T_world_camera in frame order. Files that skip frames (KITTI files of 13 columns) come with
`frames` (N,), each pose's index in the truth. Truth is that of camera 0 on KITTI; estimates of image_2 are scored
against it as everybody does, 6 cm beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

Alignment = Literal["none", "scale", "6dof", "7dof"]
ALIGNMENTS: tuple[Alignment, ...] = ("none", "scale", "6dof", "7dof")
KITTI_LENGTHS_M = (100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0)
KITTI_STEP = 10  # frames between the starts of segments


# --- alignment -------------------------------------------------------------------------------------------------------


def rebase(poses: np.ndarray) -> np.ndarray:
    """(N, 4, 4) T_first_camera: the same trajectory seen from its first pose."""
    return np.linalg.inv(poses[0]) @ poses


def align(estimate: np.ndarray, truth: np.ndarray, alignment: Alignment = "none") -> np.ndarray:
    """Brings an estimated trajectory to a true one.

    Args:
        estimate: (N, 4, 4) T_world_camera.
        truth: (N, 4, 4) at the same frames.
        alignment: After both are seen from their first pose: "none" stops there; "scale" multiplies the positions
            by the least-squares factor sum(g . p) / sum(p . p); "6dof" finds the rigid motion and "7dof" the
            similarity that minimise the positions' squared distances (Umeyama 1991).

    Returns:
        (N, 4, 4) the estimate in the frame of `rebase(truth)`.

    Raises:
        ValueError: If shapes differ, the alignment is unknown, or a scale is asked of a trajectory that stands still.
    """
    _check(estimate, truth)
    aligned, target = rebase(estimate), rebase(truth)
    positions, targets = aligned[:, :3, 3], target[:, :3, 3]
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment '{alignment}' should be one of {', '.join(ALIGNMENTS)}.")
    if alignment in ("scale", "7dof") and not np.ptp(positions, axis=0).any():
        raise ValueError("the estimated trajectory stands still; no scale can be found. Use alignment none or 6dof.")
    if alignment == "scale":
        aligned[:, :3, 3] *= (targets * positions).sum() / (positions**2).sum()
    elif alignment != "none":
        scale, T = umeyama(positions, targets, with_scale=alignment == "7dof")
        aligned[:, :3, 3] *= scale
        aligned = T @ aligned
    return aligned


def umeyama(source: np.ndarray, target: np.ndarray, *, with_scale: bool) -> tuple[float, np.ndarray]:
    """The similarity target = R (scale * source) + t of least squared distance.

    Args:
        source: (N, 3).
        target: (N, 3).
        with_scale: Find the scale too, otherwise it is 1.

    Returns:
        scale, and T_target_source (4, 4) with R and t, to be applied after the scale.

    Source: Umeyama, PAMI 1991, eq. 40-42. If the points lie on a line, the turn about it is not determined; one is
    taken.
    """
    mean_source, mean_target = source.mean(axis=0), target.mean(axis=0)
    centred_source, centred_target = source - mean_source, target - mean_target
    U, D, Vt = np.linalg.svd(centred_target.T @ centred_source / len(source))
    S = np.ones(3)
    if np.linalg.det(U) * np.linalg.det(Vt) < 0:
        S[2] = -1  # no mirror image
    R = U @ np.diag(S) @ Vt
    scale = float((D * S).sum() / (centred_source**2).sum(axis=1).mean()) if with_scale else 1.0
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = mean_target - scale * R @ mean_source
    return scale, T


# --- KITTI odometry --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KittiErrors:
    """Errors over all segments of all lengths.

    Attributes:
        t_percent: Mean translation error as a share of the segment's length, in percent.
        r_deg_per_100m: Mean rotation error per length, in degrees per 100 m.
        segments: (S, 4) float64: first frame, length in metres, translation error (share), rotation error (rad/m).
        skipped: Segments left out because their first or last frame is not in the estimate.
    """

    t_percent: float
    r_deg_per_100m: float
    segments: np.ndarray
    skipped: int = 0


def path_distances(truth: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """(N,) metres travelled up to each pose, summed in `dtype`."""
    steps = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0).astype(dtype), axis=1)
    return np.concatenate([np.zeros(1, dtype), np.cumsum(steps, dtype=dtype)])


def kitti_odometry_errors(
    estimate: np.ndarray,
    truth: np.ndarray,
    frames: np.ndarray | None = None,
    *,
    lengths_m: Sequence[float] = KITTI_LENGTHS_M,
    step: int = KITTI_STEP,
) -> KittiErrors:
    """KITTI's relative errors, averaged over all segments as the official devkit does.

    A segment starts at every `step`-th frame of the truth and ends at the first frame that lies more than its length
    along the true path. Its error is inv(estimated motion) @ true motion. A segment whose first or last frame is not
    in the estimate is left out and counted.

    Args:
        estimate: (N, 4, 4) T_world_camera, aligned as wanted.
        truth: (M, 4, 4) T_world_camera of all frames.
        frames: (N,) index in `truth` of each estimated pose; None if there is one for each.
        lengths_m: Lengths of segments.
        step: Frames between starts.

    Returns:
        The errors; NaN means if the path is too short for any segment.

    Distances and angles are taken in single precision, as in the devkit: on KITTI 00 (3.7 km) the distances' rounding
    moves ends of segments by a frame, and with it the fourth digit.
    Source: KITTI odometry development kit, evaluate_odometry.cpp.
    """
    frames = _frames(estimate, truth, frames)
    where = np.full(len(truth), -1)
    where[frames] = np.arange(len(frames))
    distances = path_distances(truth, np.float32)
    segments, skipped = [], 0
    for first in range(0, len(truth), step):
        for length in lengths_m:
            last = int(np.searchsorted(distances, distances[first] + np.float32(length), side="right"))
            if last >= len(truth):
                continue
            if where[first] < 0 or where[last] < 0:
                skipped += 1
                continue
            estimated = _relative(estimate[where[first]], estimate[where[last]])
            error = _relative(estimated, _relative(truth[first], truth[last]))
            angle = _devkit_angle(error[:3, :3])
            segments.append((first, length, np.linalg.norm(error[:3, 3]) / length, angle / length))
    if not segments:
        return KittiErrors(float("nan"), float("nan"), np.empty((0, 4)), skipped)
    table = np.array(segments, np.float64)
    t_share, r_rad_per_m = (float(mean) for mean in table[:, 2:].mean(axis=0))
    return KittiErrors(100 * t_share, 100 * math.degrees(r_rad_per_m), table, skipped)


def _devkit_angle(rotation: np.ndarray) -> float:
    """Angle of a (3, 3) rotation in radians, in the devkit's single precision."""
    a, b, c = np.diagonal(rotation).astype(np.float32)
    cosine = np.float32(0.5 * (float(a + b + c) - 1))
    return float(np.arccos(np.clip(cosine, np.float32(-1), np.float32(1))))


# --- SfMLearner's snippets -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SnippetAte:
    """Absolute trajectory error of short snippets.

    Attributes:
        mean: Mean over the snippets, in metres.
        std: Standard deviation over them.
        errors: Each snippet's.
    """

    mean: float
    std: float
    errors: np.ndarray


def snippet_error(estimate: np.ndarray, truth: np.ndarray) -> float:
    """SfMLearner's error of one snippet's positions, metres.

    The estimate is moved to the truth's first position and scaled by sum(g . p) / sum(p . p); the error is
    sqrt(sum |s p - g|^2) / N. This is not a root mean square: it is sqrt(N) smaller (2.24 times for five frames).

    Args:
        estimate: (N, 3) positions in the first camera's frame.
        truth: (N, 3).

    Source: SfMLearner, kitti_eval/pose_evaluation_utils.py, compute_ate.
    """
    p, g = estimate + (truth[0] - estimate[0]), truth
    energy = (p**2).sum()
    scale = (g * p).sum() / energy if energy > 0 else 0.0
    return float(np.sqrt(((scale * p - g) ** 2).sum()) / len(g))


def five_frame_ate(
    estimate: np.ndarray, truth: np.ndarray, frames: np.ndarray | None = None, *, length: int = 5
) -> SnippetAte:
    """SfMLearner's ATE: every window of five consecutive frames, seen from its first.

    Args:
        estimate: (N, 4, 4) T_world_camera.
        truth: (M, 4, 4) of all frames.
        frames: (N,) index in `truth` of each estimated pose; windows with a missing frame are left out.
        length: Frames of a window.

    Raises:
        ValueError: If there is no complete window.
    """
    frames = _frames(estimate, truth, frames)
    errors = []
    for i in range(len(frames) - length + 1):
        window = frames[i : i + length]
        if window[-1] - window[0] == length - 1:
            errors.append(snippet_error(_positions(estimate[i : i + length]), _positions(truth[window])))
    return _snippets(errors, length)


def five_frame_ate_monodepth2(estimate: np.ndarray, truth: np.ndarray, *, length: int = 5) -> SnippetAte:
    """The same measure as Monodepth2's script computes it.

    Differs from `five_frame_ate`: positions are chained from the inverse of each motion (T_next_previous), for
    estimate and truth alike; the last windows are shorter, down to two frames.

    Args:
        estimate: (N, 4, 4) T_world_camera of all frames.
        truth: (N, 4, 4).
        length: Frames of a window.
    """
    _check(estimate, truth)
    errors = []
    for i in range(len(truth) - 1):
        chains = []
        for poses in (estimate[i : i + length], truth[i : i + length]):
            chain = [np.eye(4)]
            for previous, following in pairwise(poses):
                chain.append(chain[-1] @ _relative(following, previous))
            chains.append(np.stack(chain)[:, :3, 3])
        errors.append(snippet_error(*chains))
    return _snippets(errors, 2)


# --- APE and RPE -----------------------------------------------------------------------------------------------------


def ape_rpe(
    estimate: np.ndarray, truth: np.ndarray, frames: np.ndarray | None = None, *, delta: int = 1
) -> dict[str, float]:
    """Absolute and relative pose error, in true root mean squares.

    Args:
        estimate: (N, 4, 4), aligned as wanted and in the frame of `rebase(truth[frames])` (what `align` returns).
        truth: (M, 4, 4) T_world_camera of all frames.
        frames: (N,) index in `truth` of each estimated pose; None if there is one for each.
        delta: Frames between the two poses of a relative error.

    Returns:
        `ape_rmse_m`, `ape_mean_m`, `ape_median_m`, `ape_max_m` of positions; `rpe_t_rmse_m`, `rpe_t_mean_m`,
        `rpe_r_rmse_deg`, `rpe_r_mean_deg` over frames `delta` apart (NaN if there are none). The means are what
        some odometry toolboxes print under the name RPE.
    """
    frames = _frames(estimate, truth, frames)
    target = rebase(truth[frames])
    distance = np.linalg.norm(estimate[:, :3, 3] - target[:, :3, 3], axis=1)
    where = np.full(int(frames[-1]) + delta + 1, -1)
    where[frames] = np.arange(len(frames))
    following = where[frames + delta]
    pair = following >= 0
    first, second = np.flatnonzero(pair), following[pair]
    error = np.linalg.inv(_relative(target[first], target[second])) @ _relative(estimate[first], estimate[second])
    translation = np.linalg.norm(error[:, :3, 3], axis=1)
    rotation = np.degrees(rotation_angle(error[:, :3, :3]))
    return {
        "ape_rmse_m": _rms(distance),
        "ape_mean_m": float(distance.mean()),
        "ape_median_m": float(np.median(distance)),
        "ape_max_m": float(distance.max()),
        "rpe_t_rmse_m": _rms(translation),
        "rpe_t_mean_m": float(translation.mean()) if len(translation) else float("nan"),
        "rpe_r_rmse_deg": _rms(rotation),
        "rpe_r_mean_deg": float(rotation.mean()) if len(rotation) else float("nan"),
    }


def rotation_angle(rotation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> (...) angle in radians, exact near 0 and near a half turn (unlike arccos of the trace)."""
    R = rotation
    axis = np.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], axis=-1)
    return np.arctan2(np.linalg.norm(axis, axis=-1), np.trace(R, axis1=-2, axis2=-1) - 1)


# --- all of them -----------------------------------------------------------------------------------------------------


def score_trajectory(
    estimate: np.ndarray,
    truth: np.ndarray,
    frames: np.ndarray | None = None,
    *,
    alignment: Alignment = "none",
    name: str = "",
    up_to_scale: bool = False,
) -> dict[str, Any]:
    """All measures of one trajectory as a flat row.

    Args:
        estimate: (N, 4, 4) T_world_camera.
        truth: (M, 4, 4) T_world_camera of all frames.
        frames: (N,) index in `truth` of each estimated pose; None if there is one for each.
        alignment: See `align`; the five-frame ATE always scales each snippet by itself.
        name: Of the sequence.
        up_to_scale: Whether the model has no metres; scoring it without a scale then carries a warning.

    Returns:
        `t_err_percent`, `r_err_deg_per_100m`, `ate5_mean_m`, `ate5_std_m`, the values of `ape_rpe`, `path_m`,
        `ape_rmse_percent_of_path`, and what they depend on.
    """
    frames = _frames(estimate, truth, frames)
    aligned = align(estimate, truth[frames], alignment)
    kitti = kitti_odometry_errors(aligned, truth, frames)
    complete = len(frames) >= 5 and (frames[4:] - frames[:-4] == 4).any()
    ate5 = five_frame_ate(estimate, truth, frames) if complete else SnippetAte(np.nan, np.nan, np.empty(0))
    pose = ape_rpe(aligned, truth, frames)
    travelled = path_distances(truth)
    path_m = float(travelled[frames[-1]] - travelled[frames[0]])
    warnings = []
    if up_to_scale and alignment in ("none", "6dof"):
        warnings.append(f"the model's translation has no metric scale, but alignment '{alignment}' does not find one")
    if not len(kitti.segments):
        warnings.append(f"the path of {path_m:.0f} m is too short for t_err and r_err, which need over 100 m")
    if kitti.skipped:
        warnings.append(f"{kitti.skipped} segments begin or end at frames without an estimate and are left out")
    return {
        "sequence": name,
        "t_err_percent": kitti.t_percent,
        "r_err_deg_per_100m": kitti.r_deg_per_100m,
        "ate5_mean_m": ate5.mean,
        "ate5_std_m": ate5.std,
        **pose,
        "path_m": path_m,
        "ape_rmse_percent_of_path": 100 * pose["ape_rmse_m"] / path_m if path_m > 0 else float("nan"),
        "alignment": alignment,
        "frames": len(frames),
        "frames_of_truth": len(truth),
        "segments": len(kitti.segments),
        "warnings": warnings,
    }


def _relative(T_world_a: np.ndarray, T_world_b: np.ndarray) -> np.ndarray:
    """T_a_b."""
    return np.linalg.inv(T_world_a) @ T_world_b


def _positions(poses: np.ndarray) -> np.ndarray:
    return rebase(poses)[:, :3, 3]


def _snippets(errors: list[float], length: int) -> SnippetAte:
    if not errors:
        raise ValueError(f"the trajectory has no {length} consecutive frames to score.")
    values = np.array(errors)
    return SnippetAte(float(values.mean()), float(values.std()), values)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")


def _check(estimate: np.ndarray, truth: np.ndarray) -> None:
    for name, poses in (("estimate", estimate), ("truth", truth)):
        if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not len(poses) or not np.isfinite(poses).all():
            raise ValueError(f"{name} has shape {poses.shape}; expected (N, 4, 4) finite poses, N > 0.")
    if len(estimate) != len(truth):
        raise ValueError(
            f"the estimate has {len(estimate)} poses, the truth {len(truth)}; give `frames`, or a file with the frame "
            "number first, where frames are missing."
        )


def _frames(estimate: np.ndarray, truth: np.ndarray, frames: np.ndarray | None) -> np.ndarray:
    if frames is None:
        _check(estimate, truth)
        return np.arange(len(truth))
    frames = np.asarray(frames, np.int64)
    if len(frames) != len(estimate):
        raise ValueError(f"frames names {len(frames)} frames, the estimate has {len(estimate)} poses.")
    if not len(frames) or frames[0] < 0 or frames[-1] >= len(truth) or (np.diff(frames) <= 0).any():
        raise ValueError(f"frames should increase within 0 and {len(truth) - 1}, the truth's last frame.")
    _check(estimate, truth[frames])
    return frames
