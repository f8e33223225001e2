import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from geossl.evaluation.score_files import score_trajectory_file
from geossl.evaluation.trajectory import (
    ALIGNMENTS,
    align,
    ape_rpe,
    five_frame_ate,
    five_frame_ate_monodepth2,
    kitti_odometry_errors,
    rebase,
    rotation_angle,
    score_trajectory,
    snippet_error,
    umeyama,
)
from geossl.formats.trajectory import read_indexed_kitti_trajectory, read_kitti_trajectory


def rotation_y(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def drive(count: int, step: float = 1.0, turn: float = 0.004, wobble: float = 0.0, seed: int = 0) -> np.ndarray:
    """A drive along a curve, T_world_camera."""
    rng = np.random.default_rng(seed)
    poses = [np.eye(4)]
    for i in range(count - 1):
        T = np.eye(4)
        T[:3, :3] = rotation_y(turn * math.sin(i / 30) + rng.normal() * wobble)
        T[:3, 3] = [0, 0.05 * math.sin(i / 7), step]
        T[:3, 3] += rng.normal(size=3) * wobble * 10
        poses.append(poses[-1] @ T)
    return np.stack(poses)


def similarity(scale: float, seed: int) -> tuple[float, np.ndarray]:
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    T[:3, :3] *= np.linalg.det(T[:3, :3])
    T[:3, 3] = rng.normal(size=3) * 10
    return scale, T


# --- official figures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimate", "truth", "t_percent", "r_deg_per_100m"),
    [
        ("example_1/09.txt", "gt/09.txt", "2.6068", "0.2877"),
        ("evo/KITTI_00_ORB.txt", "evo/KITTI_00_gt.txt", "0.6997", "0.2534"),
    ],
)
def test_official_devkit_figures(
    shared_data: Path, estimate: str, truth: str, t_percent: str, r_deg_per_100m: str
) -> None:
    """To all digits the devkit prints, whatever rigid alignment is chosen: it does not move relative errors."""
    folder = shared_data / "trajectories"
    for alignment in ("none", "6dof"):
        row = score_trajectory_file(folder / estimate, folder / truth, alignment=alignment)
        assert f"{row['t_err_percent']:.4f}" == t_percent
        assert f"{row['r_err_deg_per_100m']:.4f}" == r_deg_per_100m
        assert row["warnings"] == []


def test_files_that_skip_frames(shared_data: Path) -> None:
    """example_0 starts at frame 2 and has no scale; segments that begin at frame 0 are left out and counted."""
    folder = shared_data / "trajectories"
    frames, poses = read_indexed_kitti_trajectory(folder / "example_0" / "09.txt")
    truth = read_kitti_trajectory(folder / "gt" / "09.txt")
    assert frames[0] == 2 and len(frames) == len(truth) - 2
    row = score_trajectory(poses, truth, frames, alignment="scale")
    assert 2 < row["t_err_percent"] < 4 and row["segments"] == 958 - 8
    assert row["warnings"] == ["8 segments begin or end at frames without an estimate and are left out"]
    with pytest.raises(ValueError, match="1589 poses, the truth 1591"):
        score_trajectory(poses, truth)


def test_dropping_frames_of_a_perfect_estimate_costs_nothing() -> None:
    truth = drive(400)
    frames = np.array([i for i in range(400) if i % 7])
    _, T = similarity(1.0, 3)
    estimate = T @ truth[frames]
    errors = kitti_odometry_errors(estimate, truth, frames)
    assert errors.skipped > 0 and errors.t_percent == pytest.approx(0, abs=1e-9)
    row = score_trajectory(estimate, truth, frames)
    assert row["ape_rmse_m"] == pytest.approx(0, abs=1e-9) and row["rpe_t_rmse_m"] == pytest.approx(0, abs=1e-9)
    assert row["ate5_mean_m"] == pytest.approx(0, abs=1e-9)


# --- KITTI errors ----------------------------------------------------------------------------------------------------


def test_kitti_errors_of_a_scaled_straight_drive() -> None:
    """A 3 % longer straight drive of 1 m steps: a segment of 100 m ends at 101 m, so t = 0.03 * 101 / 100."""
    truth = drive(450, turn=0)
    truth[:, 1, 3] = 0
    estimate = truth.copy()
    estimate[:, :3, 3] *= 1.03
    errors = kitti_odometry_errors(estimate, truth)
    lengths = errors.segments[:, 1]
    np.testing.assert_allclose(errors.segments[:, 2], 0.03 * (lengths + 1) / lengths, rtol=1e-4)
    assert set(lengths) == {100, 200, 300, 400}
    assert errors.r_deg_per_100m == 0
    # starts every 10 frames while the first frame over 100 m ahead exists: 0, 10, ..., 340 (340 + 101 = 441 < 450)
    assert (errors.segments[:, 1] == 100).sum() == 35


def test_kitti_errors_of_a_constant_turn() -> None:
    """A camera that believes it turns 0.01 deg per metre: 1 deg / 100 m, up to the overshoot of one frame."""
    truth = drive(350, turn=0)
    truth[:, 1, 3] = 0
    estimate = truth.copy()
    for i in range(len(truth)):
        estimate[i, :3, :3] = rotation_y(math.radians(0.01 * i))
    errors = kitti_odometry_errors(estimate, truth, lengths_m=(100.0,))
    assert errors.r_deg_per_100m == pytest.approx(1.01, rel=1e-3)


def test_kitti_errors_equal_slow_loops() -> None:
    truth, estimate = drive(330, step=1.7), drive(330, step=1.7, wobble=0.003)
    distance = [0.0]
    for a, b in pairwise(truth):
        distance.append(distance[-1] + float(np.linalg.norm(b[:3, 3] - a[:3, 3])))
    t, r = [], []
    for first in range(0, 330, 10):
        for length in range(100, 900, 100):
            last = next((i for i in range(330) if distance[i] > distance[first] + length), None)
            if last is None:
                continue
            delta_p = np.linalg.inv(estimate[first]) @ estimate[last]
            delta_g = np.linalg.inv(truth[first]) @ truth[last]
            error = np.linalg.inv(delta_p) @ delta_g
            t.append(np.linalg.norm(error[:3, 3]) / length)
            r.append(math.acos(max(-1, min(1, (np.trace(error[:3, :3]) - 1) / 2))) / length)
    errors = kitti_odometry_errors(estimate, truth)
    assert errors.t_percent == pytest.approx(100 * np.mean(t), rel=1e-6)
    assert errors.r_deg_per_100m == pytest.approx(100 * np.degrees(np.mean(r)), rel=1e-3)  # single precision angles


def test_short_paths_have_no_kitti_errors_and_say_so() -> None:
    row = score_trajectory(drive(40), drive(40))
    assert math.isnan(row["t_err_percent"]) and "too short" in row["warnings"][0]
    assert row["ape_rmse_m"] == pytest.approx(0, abs=1e-12)


# --- alignment -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_umeyama_recovers_a_similarity(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(20, 3))
    scale, T = similarity(2.7, seed)
    target = (T[:3, :3] @ (scale * points).T).T + T[:3, 3]
    found_scale, found = umeyama(points, target, with_scale=True)
    assert found_scale == pytest.approx(scale)
    np.testing.assert_allclose(found, T, atol=1e-9)


def test_umeyama_never_mirrors() -> None:
    points = np.random.default_rng(0).normal(size=(20, 3))
    _, T = umeyama(points, points * [1, 1, -1], with_scale=False)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)


def test_umeyama_equals_scipy() -> None:
    rotation_class = pytest.importorskip("scipy.spatial.transform").Rotation
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(15, 3)), rng.normal(size=(15, 3))
    oracle, _ = rotation_class.align_vectors(target - target.mean(axis=0), source - source.mean(axis=0))
    np.testing.assert_allclose(umeyama(source, target, with_scale=False)[1][:3, :3], oracle.as_matrix(), atol=1e-6)


def test_each_alignment_removes_what_it_should() -> None:
    truth = drive(120)
    _, T = similarity(0.4, 1)
    similar = truth.copy()
    similar[:, :3, 3] *= 0.4
    similar = T @ similar
    rigid = T @ truth
    noisy = drive(120, wobble=0.002)

    def error(estimate: np.ndarray, alignment: str) -> float:
        return ape_rpe(align(estimate, truth, alignment), truth)["ape_rmse_m"]

    assert error(rigid, "none") == pytest.approx(0, abs=1e-9)  # both are seen from their first pose
    assert error(similar, "none") > 1
    for alignment in ("scale", "7dof"):
        assert error(similar, alignment) == pytest.approx(0, abs=1e-9)
    assert error(noisy, "7dof") <= error(noisy, "6dof") <= error(noisy, "none")
    assert error(noisy, "scale") <= error(noisy, "none")


def test_scale_is_the_least_squares_factor() -> None:
    truth, noisy = drive(60), drive(60, wobble=0.01)
    aligned = align(noisy, truth, "scale")
    best = ape_rpe(aligned, truth)["ape_rmse_m"]
    for factor in (0.999, 1.001):
        moved = aligned.copy()
        moved[:, :3, 3] *= factor
        assert ape_rpe(moved, truth)["ape_rmse_m"] > best


def test_alignment_keeps_rotations_and_inputs() -> None:
    truth, estimate = drive(30), drive(30, wobble=0.01)
    before = estimate.copy()
    for alignment in ALIGNMENTS:
        aligned = align(estimate, truth, alignment)
        products = aligned[:, :3, :3] @ np.swapaxes(aligned[:, :3, :3], 1, 2)
        np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-9)
    np.testing.assert_array_equal(estimate, before)


def test_align_refuses_a_standing_trajectory_and_unknown_names() -> None:
    standing = np.tile(np.eye(4), (30, 1, 1))
    with pytest.raises(ValueError, match="stands still"):
        align(standing, drive(30), "7dof")
    with pytest.raises(ValueError, match="should be one of none, scale, 6dof, 7dof"):
        align(drive(30), drive(30), "8dof")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="30 poses, the truth 31"):
        align(drive(30), drive(31))


# --- snippets --------------------------------------------------------------------------------------------------------


def test_snippet_error_is_the_published_one_not_a_root_mean_square() -> None:
    """p = g + (0, e, 0) at one of five points, e orthogonal to the path: scale = |g|^2 / (|g|^2 + e^2)."""
    g = np.column_stack([np.zeros(5), np.zeros(5), np.arange(5.0)])
    p = g.copy()
    p[2, 1] = 0.3
    scale = 30 / (30 + 0.09)
    expected = math.sqrt(((scale * p - g) ** 2).sum()) / 5
    assert snippet_error(p, g) == pytest.approx(expected)
    assert expected == pytest.approx(math.sqrt(((scale * p - g) ** 2).sum() / 5) / math.sqrt(5))


def test_snippet_error_ignores_scale_and_a_standing_estimate_is_as_wrong_as_it_is() -> None:
    g = np.column_stack([np.zeros(5), np.zeros(5), np.arange(5.0)])
    assert snippet_error(17 * g, g) == pytest.approx(0, abs=1e-12)
    assert snippet_error(0 * g, g) == pytest.approx(math.sqrt(30) / 5)


def test_five_frame_ate_equals_slow_loops() -> None:
    truth, estimate = drive(40), drive(40, wobble=0.01)
    values = []
    for i in range(36):
        p, g = ((np.linalg.inv(poses[i]) @ poses[i : i + 5])[:, :3, 3] for poses in (estimate, truth))
        s = (g * p).sum() / (p * p).sum()
        values.append(math.sqrt(sum(((s * a - b) ** 2).sum() for a, b in zip(p, g, strict=True))) / 5)
    ate = five_frame_ate(estimate, truth)
    np.testing.assert_allclose(ate.errors, values)
    assert (ate.mean, ate.std) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values)))


def test_monodepth2_ate_has_short_windows_at_the_end() -> None:
    truth, estimate = drive(20), drive(20, wobble=0.01)
    ate = five_frame_ate_monodepth2(estimate, truth)
    assert len(ate.errors) == 19
    assert five_frame_ate_monodepth2(truth, truth).mean == pytest.approx(0, abs=1e-12)
    # the last window is one step: p = T_next_previous, error sqrt(|s p - g|^2) / 2
    p, g = ((np.linalg.inv(poses[19]) @ poses[18])[:3, 3] for poses in (estimate, truth))
    assert ate.errors[-1] == pytest.approx(np.linalg.norm((p @ g) / (p @ p) * p - g) / 2)


def test_five_frame_ate_needs_five_frames_in_a_row() -> None:
    with pytest.raises(ValueError, match="no 5 consecutive frames"):
        five_frame_ate(drive(4), drive(4))
    truth = drive(20)
    assert len(five_frame_ate(truth[[0, 1, 2, 3, 4, 6, 7]], truth, np.array([0, 1, 2, 3, 4, 6, 7])).errors) == 1


# --- APE and RPE -----------------------------------------------------------------------------------------------------


def test_ape_rpe_closed_form() -> None:
    truth = np.tile(np.eye(4), (3, 1, 1))
    truth[:, 2, 3] = [0, 1, 2]
    estimate = truth.copy()
    estimate[:, 0, 3] = [0, 3, 4]  # off by 0, 3, 4 m: rms sqrt(25 / 3); steps off by 3 and 1 m
    estimate[2, :3, :3] = rotation_y(math.radians(10))
    errors = ape_rpe(estimate, truth)
    assert errors["ape_rmse_m"] == pytest.approx(math.sqrt(25 / 3))
    assert (errors["ape_mean_m"], errors["ape_median_m"], errors["ape_max_m"]) == pytest.approx((7 / 3, 3, 4))
    assert errors["rpe_t_rmse_m"] == pytest.approx(math.sqrt(5)) and errors["rpe_t_mean_m"] == pytest.approx(2)
    assert errors["rpe_r_rmse_deg"] == pytest.approx(math.sqrt(50)) and errors["rpe_r_mean_deg"] == pytest.approx(5)


def test_rpe_pairs_frames_that_are_delta_apart() -> None:
    truth = drive(30)
    frames = np.array([0, 1, 5, 9])
    assert math.isnan(ape_rpe(rebase(truth[frames]), truth, frames, delta=3)["rpe_t_rmse_m"])
    assert ape_rpe(rebase(truth[frames]), truth, frames, delta=4)["rpe_t_rmse_m"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, math.pi - 1e-6, math.pi])
def test_rotation_angle_is_exact_at_the_ends(angle: float) -> None:
    assert rotation_angle(rotation_y(angle)) == pytest.approx(angle, rel=1e-6, abs=1e-15)


# --- rows ------------------------------------------------------------------------------------------------------------


def test_row_warns_of_a_scale_that_is_not_there() -> None:
    truth = drive(40)
    for alignment, warned in (("none", True), ("6dof", True), ("7dof", False), ("scale", False)):
        row = score_trajectory(truth, truth, alignment=alignment, up_to_scale=True)
        assert any("no metric scale" in warning for warning in row["warnings"]) == warned


def test_row_says_the_share_of_the_path() -> None:
    truth, estimate = drive(60), drive(60, wobble=0.005)
    row = score_trajectory(estimate, truth, alignment="7dof", name="06")
    assert row["ape_rmse_percent_of_path"] == pytest.approx(100 * row["ape_rmse_m"] / row["path_m"])
    assert row["path_m"] == pytest.approx(59, rel=0.01)
    assert (row["sequence"], row["frames"], row["alignment"]) == ("06", 60, "7dof")


def test_score_trajectory_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(ValueError, match=r"short.txt: the estimate has 1 poses, the truth 40"):
        score_trajectory_file(tmp_path / "short.txt", drive(40))
    with pytest.raises(FileNotFoundError, match=r"none.txt"):
        score_trajectory_file(tmp_path / "none.txt", drive(40))
