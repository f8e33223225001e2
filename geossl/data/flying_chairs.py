"""FlyingChairs, unpacked or as the official zip file: pairs of images with the flow from the first to the second.

root/data/00001_img1.ppm, 00001_img2.ppm, 00001_flow.flo, or
root/data/0000000-img0.png, 0000000-img1.png, 0000000-gt.flo, or either right in root
root/FlyingChairs_train_val.txt                           a line for each pair in order: 1 training, 2 validation

The cameras are taken for ones of 60 degrees: the pairs show no real scene.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from geossl.config import Data, FlyingChairs
from geossl.data.folder import guessed_camera
from geossl.data.images import ImageRef, image_size
from geossl.data.samples import Camera, Clip, DataError, Sample, Wanted, clip_samples, require_samples
from geossl.formats.files import FileRef, FileTree
from geossl.formats.truth import FlowTruth

FOLDERS = ("data", "FlyingChairs_release/data", "")
SPLIT_FILES = ("FlyingChairs_train_val.txt", "FlyingChairs_release/FlyingChairs_train_val.txt")
SPLIT_WORDS = {"train": "1", "val": "2"}
NAMINGS = (("{}_img1.ppm", "{}_img2.ppm", "{}_flow.flo"), ("{}-img0.png", "{}-img1.png", "{}-gt.flo"))


def samples(source: FlyingChairs, data: Data | Wanted) -> list[Sample]:
    """The samples of a FlyingChairs source, in order of the pairs' numbers; targets are frames 0 of clips of two.

    Raises:
        FileNotFoundError: If the root is missing, or a split is wanted and its file is.
        DataError: If there are no samples, the split's file does not fit the pairs, or stereo is wanted.
    """
    tree, wanted = FileTree(source.root), Wanted.of(source, data)
    clips = _clips(tree)
    chosen = clips if source.split is None else _of_split(tree, source.split, clips)
    return require_samples(
        [sample for clip in chosen for sample in clip_samples(clip, wanted)],
        source,
        f"it holds {len(clips)} pairs, {len(chosen)} of the split, none with the views that source_offsets="
        f"{list(wanted.offsets)} asks for; a pair's first image has the neighbour 1, the second -1."
        if clips
        else "there are no pairs 00001_img1.ppm, 00001_img2.ppm in it or its data/. Point root at the pairs' folder.",
    )


def _clips(tree: FileTree) -> list[Clip]:
    """A clip of frames 0 and 1 for each pair."""
    clips: list[Clip] = []
    camera: Camera | None = None
    for folder in FOLDERS:
        files = tree.files(folder)
        for first, second, flow in NAMINGS:
            pattern = re.compile(re.escape(first).replace(r"\{\}", r"(\d+)"))
            for match in filter(None, map(pattern.fullmatch, files)):
                number = match[1]
                pair = [files.get(name.format(number)) for name in (first, second)]
                images = {i: (_name(folder, ref), ImageRef(ref)) for i, ref in enumerate(pair) if ref is not None}
                # One size for all, which reading an image checks: opening 45,744 headers takes longer than all else.
                camera = camera or guessed_camera(image_size(images[0][1]))
                truth = _truths(files.get(flow.format(number)), camera)
                clips.append(Clip(f"{folder}/{number}".lstrip("/"), images, camera, f"flying_chairs {number}"))
                clips[-1].flow_truth = truth
        if clips:
            break
    return clips


def _name(folder: str, ref: FileRef) -> str:
    name = PurePosixPath(ref.member or ref.path).stem
    return f"{folder}/{name}".lstrip("/")


def _truths(flow: FileRef | None, camera: Camera) -> Callable[[int], FlowTruth | None]:
    truth = None if flow is None else FlowTruth("flo", flow, camera.size)
    return lambda frame: truth if frame == 0 else None


def _of_split(tree: FileTree, split: str, clips: list[Clip]) -> list[Clip]:
    """The pairs that the official list counts to a split."""
    ref = next(filter(None, map(tree.find, SPLIT_FILES)), None)
    if ref is None:
        raise FileNotFoundError(
            f"{tree.root}/{SPLIT_FILES[0]} is missing, which split: {split} needs; download it, or set split: null."
        )
    words = ref.read_text().split()
    if len(words) != len(clips) or not set(words) <= set(SPLIT_WORDS.values()):
        raise DataError(
            f"{ref} should hold a line for each of the {len(clips)} pairs of {tree.root}, 1 for training or 2 for "
            f"validation; it has {len(words)}. Unpack all pairs, or set split: null."
        )
    return [clip for clip, word in zip(clips, words, strict=True) if word == SPLIT_WORDS[split]]
