"""The synthetic street's labels: each is proven by an independent computation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geossl.data.synthetic import StreetOptions, make_street, render_frame, street_example
from geossl.data.synthetic.cast import SKY, cast, image_rays, pixel_rays
from geossl.data.synthetic.labels import make_labels, survey
from geossl.data.synthetic.lidar import scan
from geossl.data.synthetic.render import Rendering
from geossl.data.synthetic.rig import LEFT, RIGHT
from geossl.data.synthetic.road import make_road
from geossl.data.synthetic.solids import intersect
from geossl.data.synthetic.world import Street
from geossl.formats.errors import FormatError
from geossl.formats.street import FrameLabels, read_labels, write_labels

OPTIONS = StreetOptions(sequences=1, frames=40, width=320, height=96, seed=7, noise=0, moving_cars=4, standing=0.2)
FRAME = 30


@pytest.fixture(scope="module")
def street() -> Street:
    return make_street(OPTIONS, 0)


@pytest.fixture(scope="module")
def views(street: Street) -> dict[tuple[int, int], Rendering]:
    """Left and right images of the frame, the left ones of its neighbours."""
    places = [(FRAME, LEFT), (FRAME, RIGHT), (FRAME - 1, LEFT), (FRAME + 1, LEFT)]
    return {
        (frame, camera): render_frame(street.at(frame), street.T_world_camera(frame, camera), street.camera)
        for frame, camera in places
    }


@pytest.fixture(scope="module")
def labels(street: Street) -> FrameLabels:
    return make_labels(street, FRAME)


def bilinear(image: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Values of (H, W, ...) at positions inside it."""
    x, y = np.minimum(u.astype(int), image.shape[1] - 2), np.minimum(v.astype(int), image.shape[0] - 2)
    shape = (*u.shape, *(1,) * (image.ndim - 2))
    fx, fy = (u - x).reshape(shape), (v - y).reshape(shape)
    top = image[y, x] * (1 - fx) + image[y, x + 1] * fx
    return top * (1 - fy) + (image[y + 1, x] * (1 - fx) + image[y + 1, x + 1] * fx) * fy


def grid(labels: FrameLabels) -> tuple[np.ndarray, np.ndarray]:
    v, u = np.mgrid[0 : labels.depth.shape[0], 0 : labels.depth.shape[1]].astype(float)
    return u, v


def warp_error(
    labels: FrameLabels, here: Rendering, there: Rendering, shift: np.ndarray, seen: np.ndarray
) -> tuple[float, float]:
    """Mean error of `there` sampled at this view's pixels plus `shift`, where seen, and that of no shift."""
    u, v = grid(labels)
    at = (u + shift[0])[seen].clip(0, u.max()), (v + shift[1])[seen].clip(0, v.max())
    error = np.abs(bilinear(there.image, *at) - here.image[seen]).mean()
    return float(error), float(np.abs(there.image[seen] - here.image[seen]).mean())


def test_disparity_reconstructs_the_left_image(labels: FrameLabels, views: dict) -> None:
    shift = np.stack([-labels.disparity_px, np.zeros_like(labels.disparity_px)])
    error, unwarped = warp_error(labels, views[FRAME, LEFT], views[FRAME, RIGHT], shift, labels.visible_right)
    assert labels.visible_right.mean() > 0.7
    assert error < 0.012 and error < 0.15 * unwarped


@pytest.mark.parametrize("offset", [-1, 1])
def test_flow_reconstructs_the_image(labels: FrameLabels, views: dict, offset: int) -> None:
    flow, seen = (labels.flow, labels.visible_next) if offset > 0 else (labels.flow_previous, labels.visible_previous)
    error, unwarped = warp_error(labels, views[FRAME, LEFT], views[FRAME + offset, LEFT], flow, seen)
    assert seen.mean() > 0.6
    # a bilinear look at a view of another scale: edges and thin markings blur
    assert error < 0.025 and error < 0.3 * unwarped


def test_hidden_pixels_are_not_reconstructed(labels: FrameLabels, views: dict) -> None:
    u, _ = grid(labels)
    inside = u - labels.disparity_px >= 0
    hidden = labels.valid & ~labels.visible_right & inside
    shift = np.stack([-labels.disparity_px, np.zeros_like(labels.disparity_px)])
    seen_error, _ = warp_error(labels, views[FRAME, LEFT], views[FRAME, RIGHT], shift, labels.visible_right)
    hidden_error, _ = warp_error(labels, views[FRAME, LEFT], views[FRAME, RIGHT], shift, hidden)
    assert hidden.sum() > 100
    assert hidden_error > 4 * seen_error


def test_depth_equals_lidar(street: Street, labels: FrameLabels) -> None:
    points = scan(street.at(FRAME), street.T_world_velo(FRAME), 0.0, np.random.default_rng(0))[:, :3].astype(float)
    T = street.calibration.T_camera_velo(LEFT)
    in_camera = points @ T[:3, :3].T + T[:3, 3]
    K = street.camera.K
    u, v = (K[i, i] * in_camera[:, i] / in_camera[:, 2] + K[i, 2] for i in range(2))
    inside = (u > 0) & (u < OPTIONS.width - 1) & (v > 0) & (v < OPTIONS.height - 1) & (in_camera[:, 2] > 0)
    assert inside.sum() > 5000
    # the camera's own ray to where the LiDAR's point appears; the LiDAR sees some points that the camera does not
    pixels = np.stack([u[inside], v[inside]]).astype(np.float32)
    hits = cast(street.at(FRAME), pixel_rays(K, street.T_world_camera(FRAME), pixels))
    z = in_camera[inside, 2]
    same = np.abs(hits.depth - z) < 1e-3 * z + 1e-3
    assert same.mean() > 0.95
    assert (hits.depth[~same] < z[~same]).mean() > 0.95  # the others are hidden, not wrong
    # and the map of depth, linear in inverse depth between pixel centres of one surface
    depth = labels.depth
    x, y = pixels.astype(int)
    around = np.stack([depth[y + j, x + i] for i in (0, 1) for j in (0, 1)])
    smooth = same & (around.min(0) > 0) & (around.max(0) < 1.03 * around.min(0))
    between = 1 / bilinear(1 / np.where(depth > 0, depth, 1e9), *pixels.astype(float))
    assert smooth.mean() > 0.3
    assert np.percentile(np.abs(between / z - 1)[smooth], 98) < 0.02
    assert np.median(np.abs(between / z - 1)[smooth]) < 1e-5


def test_flow_equals_projected_motion_on_the_background(labels: FrameLabels) -> None:
    u, v = grid(labels)
    (fx, cx), (fy, cy) = ((labels.K[i, i], labels.K[i, 2]) for i in range(2))
    points = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)]) * labels.depth
    moved = np.einsum("ij,jhw->ihw", labels.T_next_camera[:3, :3], points) + labels.T_next_camera[:3, 3, None, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        flow = np.stack([fx * moved[0] / moved[2] + cx - u, fy * moved[1] / moved[2] + cy - v])
    background = labels.valid & labels.static & (moved[2] > 0.5)
    assert np.abs(flow - labels.flow)[:, background].max() < 1e-3
    moving = labels.valid & ~labels.static
    assert moving.sum() > 50
    assert np.median(np.abs(flow - labels.flow)[:, moving].max(0)) > 0.3


def test_scene_flow_agrees_with_flow_and_disparities(labels: FrameLabels) -> None:
    u, v = grid(labels)
    seen = labels.flow_valid_noc
    fx, fy, cx, cy = labels.K[0, 0], labels.K[1, 1], labels.K[0, 2], labels.K[1, 2]

    def lift(u: np.ndarray, v: np.ndarray, disparity: np.ndarray) -> np.ndarray:
        z = fx * labels.baseline_m / disparity
        return np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z])

    first = lift(u[seen], v[seen], labels.disparity_px[seen].astype(float))
    second = lift((u + labels.flow[0])[seen], (v + labels.flow[1])[seen], labels.disparity_px_next[seen].astype(float))
    assert np.abs(second - first - labels.scene_flow[:, seen]).max() < 1e-3


def test_next_disparity_is_that_of_the_next_frame(street: Street, labels: FrameLabels) -> None:
    u, v = grid(labels)
    seen = labels.visible_next
    after = make_labels(street, FRAME + 1)
    found = bilinear(after.disparity_px, (u + labels.flow[0])[seen], (v + labels.flow[1])[seen])
    assert np.median(np.abs(found - labels.disparity_px_next[seen])) < 1e-3
    assert (np.abs(found - labels.disparity_px_next[seen]) < 0.5).mean() > 0.95


def test_visibility_equals_rays_to_the_points(street: Street, labels: FrameLabels) -> None:
    """The quick decision by the other view's pixels against a ray for every pixel."""
    u, v = grid(labels)
    target = np.stack([u - labels.disparity_px, v]).astype(np.float32)
    inside = labels.valid & (target[0] >= 0)
    hits = cast(street.at(FRAME), pixel_rays(labels.K, street.T_world_camera(FRAME, RIGHT), target[:, inside]))
    seen = hits.depth > labels.depth[inside] * 0.998 - 0.01
    assert (seen == labels.visible_right[inside]).mean() > 0.9995


def test_object_map_names_the_cars(street: Street, labels: FrameLabels) -> None:
    assert set(np.unique(labels.objects)) - {0} == set(labels.cars)
    assert labels.car_moves.any() and not labels.car_moves.all()
    for number in labels.cars:
        u, v = grid(labels)
        on = labels.objects == number
        (fx, cx), (fy, cy) = ((labels.K[i, i], labels.K[i, 2]) for i in range(2))
        points = (
            np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u), 1 / np.where(on, labels.depth, 1)]) * labels.depth
        )
        T_car_camera = np.linalg.inv(street.T_world_car(int(number), FRAME)) @ street.T_world_camera(FRAME)
        local = T_car_camera @ points[:, on]
        assert (np.abs(local[:3]) < np.array([[2.6], [1.1], [2.2]])).all()  # inside the car's bounding box


def test_static_pixels_do_not_move_while_standing(street: Street) -> None:
    still = [f for f in range(OPTIONS.frames - 1) if np.array_equal(street.T_world_imu(f), street.T_world_imu(f + 1))]
    assert len(still) == round(OPTIONS.standing * OPTIONS.frames)
    labels = make_labels(street, still[0])
    assert np.abs(labels.flow[:, labels.static]).max() < 1e-4
    assert labels.visible_next[labels.static & labels.valid].mean() > 0.9


def test_rows_of_solids_at_once_equal_one_by_one(street: Street) -> None:
    """The batched intersection against the plain one, on every solid in view."""
    scene = street.at(FRAME)
    rays = image_rays(street.camera, street.T_world_camera(FRAME))
    some = np.random.default_rng(1).choice(rays.pixels.shape[1], 400, replace=False)
    directions = rays.directions[:, some]
    near = np.flatnonzero(np.linalg.norm(scene.corners.mean(1) - rays.origin, axis=1) < 60)
    for solid in near:
        t, face = intersect(scene.solids[solid], rays.origin, directions)
        at_once = scene.table.intersect(np.full(some.size, solid), rays.origin, directions)
        np.testing.assert_allclose(at_once[0], t, rtol=1e-4)
        hit = np.isfinite(t)
        assert (at_once[1][hit] == face[hit]).mean() > 0.98 if hit.any() else True


def test_cast_equals_a_loop_over_solids(street: Street) -> None:
    scene = street.at(FRAME)
    rays = image_rays(street.camera, street.T_world_camera(FRAME))
    hits = cast(scene, rays)
    some = np.random.default_rng(2).choice(rays.pixels.shape[1], 300, replace=False)
    nearest = np.full(some.size, np.inf, np.float32)
    for solid in scene.solids:
        nearest = np.minimum(nearest, intersect(solid, rays.origin, rays.directions[:, some])[0])
    # the road is the plane z = 0, kerbs and pavements are up to 0.13 m higher
    down = -rays.directions[2, some]
    ground = np.where(down > 0, rays.origin[2] / np.maximum(down, 1e-6), np.inf)
    on_solid = hits.solid[some] >= 0
    np.testing.assert_allclose(hits.depth[some][on_solid], nearest[on_solid], rtol=1e-4)
    assert (hits.depth[some] <= np.minimum(nearest, ground) * 1.0001 + 1e-3)[hits.row[some] != SKY].all()
    scattered = cast(scene, pixel_rays(rays.K, street.T_world_camera(FRAME), rays.pixels[:, some]))
    np.testing.assert_array_equal(scattered.row, hits.row[some])


def test_equal_seeds_give_equal_streets_and_others_differ() -> None:
    small = replace(OPTIONS, width=96, height=48, frames=4)

    def image(options: StreetOptions, sequence: int) -> np.ndarray:
        street = make_street(options, sequence)
        return render_frame(street.at(1), street.T_world_camera(1), street.camera).image

    first = image(small, 0)
    np.testing.assert_array_equal(first, image(small, 0))
    assert np.abs(first - image(small, 1)).mean() > 0.05
    assert np.abs(first - image(replace(small, seed=8), 0)).mean() > 0.05


def test_images_have_texture_on_all_surfaces(views: dict) -> None:
    """Photometric learning needs gradients: few patches of surfaces may be flat."""
    view = views[FRAME, LEFT]
    grey = view.image.mean(2)
    patches = grey.reshape(12, 8, 40, 8).std((1, 3))
    on_surface = (view.depth > 0).reshape(12, 8, 40, 8).all((1, 3))
    assert np.percentile(patches[on_surface], 5) > 0.006
    assert 0.2 < grey.mean() < 0.7


def test_road_coordinates_invert_points() -> None:
    road = make_road(np.random.default_rng(5), 300.0, 1.0)
    rng = np.random.default_rng(6)
    s, d = rng.uniform(0, 300, 2000), rng.uniform(-12, 12, 2000)
    x, y = road.point(s, d).astype(np.float32).T
    found_s, found_d, heading = road.locate(x, y)
    assert np.abs(found_s - s).max() < 2e-3
    assert np.abs(found_d - d).max() < 2e-3
    assert np.abs(heading - road.centre(s)[2]).max() < 1e-3


def test_labels_survive_a_file(labels: FrameLabels, tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "labels" / "0000000012.npz"
    write_labels(path, labels)
    again = read_labels(path)
    for name, value in vars(labels).items():
        if not name.startswith("_") and isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(again, name), value)
    np.testing.assert_array_equal(again.scene_flow, labels.scene_flow)
    broken = tmp_path / "broken.npz"
    broken.write_bytes(path.read_bytes()[:500])
    with pytest.raises(FormatError, match=r"broken.npz.*not a label file"):
        read_labels(broken)


def test_survey_and_rendering_agree(street: Street, views: dict) -> None:
    hits = survey(street, FRAME, LEFT)
    depth = np.where(hits.row == SKY, 0, hits.depth).reshape(views[FRAME, LEFT].depth.shape)
    np.testing.assert_array_equal(depth, views[FRAME, LEFT].depth)


def test_street_example_is_consistent() -> None:
    example = street_example(width=160, height=64, seed=1, moving_cars=3)
    batch = example.batch
    assert batch.source_offsets == (-1, 1) and batch.target.image.shape == (1, 3, 64, 160)
    K = batch.target.K[0]
    disparity = K[0, 0] * -example.T_stereo_target[0, 0, 3] / example.depth
    valid = example.valid
    np.testing.assert_allclose(disparity[valid], example.disparity_px[valid], rtol=1e-4)
    assert -example.T_stereo_target[0, 0, 3] == pytest.approx(0.532, abs=1e-4)
    for i, source in enumerate(batch.sources):
        seen = example.visible[i][0, 0].numpy()
        u, v = np.meshgrid(np.arange(160.0), np.arange(64.0))
        at = (u + example.flow[i][0, 0].numpy())[seen], (v + example.flow[i][0, 1].numpy())[seen]
        warped = bilinear(source.image[0].permute(1, 2, 0).numpy(), *at)
        target = batch.target.image[0].permute(1, 2, 0).numpy()
        error = np.abs(warped - target[seen]).mean()
        assert error < 0.5 * np.abs(source.image[0].permute(1, 2, 0).numpy()[seen] - target[seen]).mean()


def test_options_name_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"frames is 0.*noise is -1"):
        StreetOptions(frames=0, noise=-1)
