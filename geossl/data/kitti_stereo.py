"""KITTI 2012 and 2015 stereo and flow images, unpacked or in the official zip files.

    2015: root/training/image_2/000000_10.png, image_3, disp_occ_0, disp_noc_0, obj_map, calib_cam_to_cam/000000.txt
    2012: root/training/image_0 (or colored_0)/000000_10.png, image_1 (colored_1), disp_occ, disp_noc, calib/000000.txt
    both: root/training/image_2/000000_11.png, flow_occ/000000_10.png, flow_noc
    scene flow (2015): the latter and disp_occ_1/000000_10.png, disp_noc_1: disparity of _11 at the pixels of _10

The multi-view extension adds images _00 to _20 beside these. Labels belong to the left image _10, flow leads to _11.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from geossl.config import Data, KittiStereo
from geossl.data.images import IMAGE_SUFFIXES, ImageRef, image_size
from geossl.data.samples import Clip, DataError, Sample, Wanted, clip_samples, make_camera, require_samples
from geossl.data.splits import kitti_stereo_frames
from geossl.formats.calibration import (
    Calibration,
    Camera,
    parse_kitti_raw_calibration,
    parse_odometry_calibration,
)
from geossl.formats.files import FileRef, FileTree
from geossl.formats.truth import FlowTruth, SceneFlowTruth, Truth

REFERENCE = 10


@dataclass(frozen=True)
class Layout:
    """Folder names of one year: pairs of image folders (colour before grey), and the labels'."""

    pairs: tuple[tuple[str, str], ...]
    disparity: str
    visible_disparity: str
    calibration: str


LAYOUTS = {
    2012: Layout((("colored_0", "colored_1"), ("image_0", "image_1")), "disp_occ", "disp_noc", "calib"),
    2015: Layout((("image_2", "image_3"),), "disp_occ_0", "disp_noc_0", "calib_cam_to_cam"),
}
CAMERA_NUMBERS = {"image_0": 0, "image_1": 1, "colored_0": 2, "colored_1": 3, "image_2": 2, "image_3": 3}

# The rectified colour cameras of each recording day by image size: fx = fy, cx, cy, and the last columns of P2 and P3.
# Of 2011_09_28 and 2011_09_29 the columns' small y and z (millimetres) are left out.
# Source: calib_cam_to_cam.txt of KITTI raw.
DAYS = {
    (1242, 375): (721.5377, 609.5593, 172.854, (44.85728, 0.2163791, 0.002745884), (-339.5242, 2.199936, 0.002729905)),
    (1224, 370): (707.0493, 604.0814, 180.5066, (45.75831, 0, 0), (-334.1081, 0, 0)),
    (1238, 374): (718.3351, 600.3891, 181.5122, (44.50382, 0, 0), (-336.3147, 0, 0)),
    (1226, 370): (707.0912, 601.8873, 183.1104, (46.88783, 0.1178601, 0.006203223), (-333.4597, 1.93013, 0.003318498)),
    (1241, 376): (
        718.856,
        607.1928,
        185.2157,
        (45.38225, -0.1130887, 0.003779761),
        (-337.2877, 2.369057, 0.004915215),
    ),
}


def samples(source: KittiStereo, data: Data | Wanted) -> list[Sample]:
    """The samples of a KITTI 2012 or 2015 source.

    Raises:
        FileNotFoundError: If the root or a calibration is missing.
        DataError: If there are no samples, or stereo is wanted where there is one camera.
    """
    tree, wanted, layout = FileTree(source.root), Wanted.of(source, data), LAYOUTS[source.year]
    folders = [[f"{source.subset}/{name}" for name in pair] for pair in layout.pairs]
    pair = next((names for names in folders if tree.files(names[0])), folders[0])
    scenes = [_scenes(tree, folder) for folder in pair]
    found: list[Sample] = []
    for side in (("left", "right").index(name) for name in source.cameras):
        for scene in scenes[side]:
            clip = _clip(tree, source, layout, pair, scenes, scene, side)
            in_scene = clip_samples(clip, wanted)
            found += [s for s in in_scene if source.frames == "all" or s.frame == REFERENCE]
    return require_samples(
        sorted(found, key=lambda sample: sample.name),
        source,
        f"{tree.root}/{pair[0]} holds {len(scenes[0])} scenes, none with the views that source_offsets="
        f"{list(wanted.offsets)} and stereo={str(wanted.stereo).lower()} ask for."
        if scenes[0]
        else f"there are no images NNNNNN_10.png in {tree.root}/{pair[0]}. Point root at the folder that contains "
        f"{source.subset}/, and check year: {source.year}.",
    )


def _scenes(tree: FileTree, folder: str) -> dict[str, dict[int, tuple[str, ImageRef]]]:
    """Scene number (as written) -> time -> (sample name, image)."""
    found: dict[str, dict[int, tuple[str, ImageRef]]] = {}
    for suffix in IMAGE_SUFFIXES:
        for name, ref in tree.files(folder).items():
            match = re.fullmatch(rf"(\d{{6}})_(\d\d){re.escape(suffix)}", name.lower())
            if match:
                times = found.setdefault(match[1], {})
                times.setdefault(int(match[2]), (f"{folder}/{match[1]}_{match[2]}", ImageRef(ref)))
    return {scene: dict(sorted(times.items())) for scene, times in sorted(found.items())}


def _clip(
    tree: FileTree,
    source: KittiStereo,
    layout: Layout,
    pair: list[str],
    scenes: list[dict[str, dict[int, tuple[str, ImageRef]]]],
    scene: str,
    side: int,
) -> Clip:
    """One scene of one camera, with the other camera beside it."""
    images = scenes[side][scene]
    size = image_size(next(iter(images.values()))[1])
    recording, first = kitti_stereo_frames().get(
        (source.year, source.subset, scene), (f"kitti_{source.year}_{source.subset}_{scene}", REFERENCE)
    )
    numbers = [CAMERA_NUMBERS[folder.rpartition("/")[2]] for folder in pair]
    calibration = _calibration(tree, source, layout, scene, size, numbers)
    clips = []
    for i in (side, 1 - side):
        camera = make_camera(calibration.K(numbers[i]), size, f"{calibration.where} camera {numbers[i]}")
        in_scene = scenes[i].get(scene, {})
        clips.append(Clip(f"{pair[i]}/{scene}", in_scene, camera, recording, first - REFERENCE))
    clip, partner = clips
    clip.remedy = f"Unpack {pair[1 - side]}, or set stereo: false for this source."
    if scenes[1 - side]:  # where only this scene lacks its other image, it gives no stereo samples
        clip.partner, clip.T_partner_this = partner, calibration.T_a_b(numbers[1 - side], numbers[side])
    if side == 0:
        clip.truth = _truths(tree, source, layout, scene, calibration, numbers, size)
        clip.flow_truth = _flow_truths(tree, source, scene, size)
        clip.scene_flow_truth = _scene_flow_truths(tree, source, scene, calibration, numbers, size)
    return clip


def _calibration(
    tree: FileTree, source: KittiStereo, layout: Layout, scene: str, size: tuple[int, int], numbers: Sequence[int]
) -> Calibration:
    if source.calibration == "by_size":
        found = calibration_by_size(size, f"{tree.root} scene {scene}")
        if not found.cameras.keys() >= set(numbers):
            raise DataError(
                f"{tree.root} scene {scene}: calibration: by_size knows the colour cameras, but these are the grey "
                f"ones. Unpack {' and '.join(layout.pairs[0])}, or {layout.calibration}/ and set calibration: files."
            )
        return found
    where = tree.expect(f"{source.subset}/{layout.calibration}/{scene}.txt")
    if not where.exists():
        raise FileNotFoundError(
            f"{where} is missing; unpack the benchmark's calibration files there, or set calibration: by_size to use "
            "that of the recording day with images of this size."
        )
    if source.year == 2015:
        return parse_kitti_raw_calibration({"calib_cam_to_cam.txt": where.read_text()}, str(where))
    return parse_odometry_calibration(where.read_text(), str(where))


def calibration_by_size(size: tuple[int, int], where: str) -> Calibration:
    """The calibration of the KITTI recording day whose rectified colour images have this size.

    Raises:
        DataError: If none has.
    """
    if size not in DAYS:
        known = ", ".join(f"{w}x{h}" for w, h in DAYS)
        raise DataError(f"{where}: no KITTI recording day has images of {size[0]}x{size[1]}; they have {known}.")
    f, cx, cy, last_2, last_3 = DAYS[size]
    K = np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]])
    columns = {2: last_2, 3: last_3}
    cameras = {number: Camera(np.column_stack([K, column]), size) for number, column in columns.items()}
    return Calibration(f"{where} (calibration by size)", cameras)


def _truths(
    tree: FileTree,
    source: KittiStereo,
    layout: Layout,
    scene: str,
    calibration: Calibration,
    numbers: list[int],
    size: tuple[int, int],
) -> Callable[[int], Truth | None]:
    name = f"{scene}_{REFERENCE}.png"
    disparity = tree.find(f"{source.subset}/{layout.disparity}/{name}")
    if disparity is None:
        return lambda frame: None
    truth = Truth(
        "disparity_png",
        disparity,
        size,
        calibration.K(numbers[0]),
        calibration,
        numbers[0],
        calibration.baseline_m(*numbers),
        object_map=tree.find(f"{source.subset}/obj_map/{name}"),
        visible_disparity=tree.find(f"{source.subset}/{layout.visible_disparity}/{name}"),
    )
    return lambda frame: truth if frame == REFERENCE else None


def _flow_truths(
    tree: FileTree, source: KittiStereo, scene: str, size: tuple[int, int]
) -> Callable[[int], FlowTruth | None]:
    folder, name = source.subset, f"{scene}_{REFERENCE}.png"
    visible = tree.find(f"{folder}/flow_noc/{name}")
    flow = tree.find(f"{folder}/flow_occ/{name}") or visible
    if flow is None:
        return lambda frame: None
    objects = tree.find(f"{folder}/obj_map/{name}")
    truth = FlowTruth("kitti_png", flow, size, visible_flow=visible, object_map=objects)
    return lambda frame: truth if frame == REFERENCE else None


def _scene_flow_truths(
    tree: FileTree,
    source: KittiStereo,
    scene: str,
    calibration: Calibration,
    numbers: list[int],
    size: tuple[int, int],
) -> Callable[[int], SceneFlowTruth | None]:
    def find(folder: str) -> FileRef | None:
        return tree.find(f"{source.subset}/{folder}/{scene}_{REFERENCE}.png")

    disparity, disparity_next, flow = (find(name) for name in ("disp_occ_0", "disp_occ_1", "flow_occ"))
    if disparity is None or disparity_next is None or flow is None:
        return lambda frame: None
    first, second, third = (find(name) for name in ("disp_noc_0", "disp_noc_1", "flow_noc"))
    visible = None if first is None or second is None or third is None else (first, second, third)
    truth = SceneFlowTruth(
        "kitti_png",
        disparity,
        size,
        disparity_next,
        flow,
        visible,
        find("obj_map"),
        calibration.K(numbers[0]),
        calibration.baseline_m(*numbers),
    )
    return lambda frame: truth if frame == REFERENCE else None
