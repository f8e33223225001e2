"""MPI Sintel, unpacked or as the official zip file.

root/training/clean/alley_1/frame_0001.png, final         test/ alike, without what follows
root/training/flow/alley_1/frame_0001.flo                 from frame 1 to frame 2; the last frame has none
root/training/occlusions/alley_1/frame_0001.png           255: hidden in frame 2
root/training/invalid/alley_1/frame_0001.png              255: not to be scored

The cameras are taken for ones of 60 degrees: Sintel's own come in another archive, and flow does not need them.
"""

from __future__ import annotations

import re

from geossl.config import Data, Sintel
from geossl.data.folder import guessed_camera
from geossl.data.images import ImageRef, image_size
from geossl.data.samples import Clip, DataError, Sample, Wanted, clip_samples, require_samples
from geossl.formats.files import FileTree
from geossl.formats.truth import FlowTruth


def samples(source: Sintel, data: Data | Wanted) -> list[Sample]:
    """The samples of a Sintel source: of each pass in turn, its scenes by name.

    Raises:
        FileNotFoundError: If the root is missing.
        DataError: If a scene or pass is not there, there are no samples, or stereo is wanted.
    """
    tree, wanted = FileTree(source.root), Wanted.of(source, data)
    found: list[Sample] = []
    for name in source.passes:
        folder = f"{source.subset}/{name}"
        scenes = [scene for scene in tree.names(folder) if _images(tree, folder, scene)]
        if not scenes:
            raise DataError(
                f"{tree.root}/{folder} holds no scenes with images frame_NNNN.png. Point root at the folder that "
                f"contains {source.subset}/, and check passes: {list(source.passes)}."
            )
        unknown = sorted(set(source.scenes or ()) - set(scenes))
        if unknown:
            raise DataError(f"{tree.root}/{folder} has no scene {unknown[0]}; it has {', '.join(scenes)}.")
        for scene in scenes if source.scenes is None else source.scenes:
            found += clip_samples(_clip(tree, source.subset, name, scene), wanted)
    return require_samples(
        found, source, f"no frame has the neighbours source_offsets={list(wanted.offsets)} asks for."
    )


def _images(tree: FileTree, folder: str, scene: str) -> dict[int, tuple[str, ImageRef]]:
    """Frame number -> (sample name, image)."""
    inside = f"{folder}/{scene}"
    matches = {re.fullmatch(r"frame_(\d{4})\.png", name): ref for name, ref in tree.files(inside).items()}
    return {int(m[1]): (f"{inside}/{m[0][:-4]}", ImageRef(ref)) for m, ref in matches.items() if m is not None}


def _clip(tree: FileTree, subset: str, render_pass: str, scene: str) -> Clip:
    """One scene of one pass; both passes are one recording, as they show the same."""
    folder = f"{subset}/{render_pass}"
    images = _images(tree, folder, scene)
    size = image_size(next(iter(images.values()))[1])
    labels = {kind: tree.files(f"{subset}/{kind}/{scene}") for kind in ("flow", "occlusions", "invalid")}

    def flow_truth(frame: int) -> FlowTruth | None:
        name = f"frame_{frame:04d}"
        flow = labels["flow"].get(f"{name}.flo")
        if flow is None:
            return None
        occlusions, invalid = (labels[kind].get(f"{name}.png") for kind in ("occlusions", "invalid"))
        return FlowTruth("flo", flow, size, occlusions=occlusions, invalid=invalid)

    return Clip(f"{folder}/{scene}", images, guessed_camera(size), f"sintel {scene}", flow_truth=flow_truth)
