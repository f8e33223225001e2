"""`geossl evaluate encoder`: what encoders are worth before anything is trained on them, side by side.

Nothing here needs labels but what compares with them: places of stereo and flow come from the data's labels, or from a
model of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geossl.commands.encoder_data import PLACES, LabelledItem, Material, PairItem
from geossl.commands.evaluate import Progress, Result
from geossl.config import parse_source
from geossl.engine.distributed import pick_device
from geossl.evaluation.encoder import (
    angle_figures,
    effective_rank,
    linear_regression,
    linear_regression_r2,
    retrieval,
    spread,
)
from geossl.evaluation.encoder_matching import (
    Size,
    descriptors,
    matched,
    other_tones,
    patch_descriptors,
    share_within,
    viewpoint,
)
from geossl.geometry.pixels import sample_at_pixels, size_of
from geossl.geometry.transforms import resize_pixels
from geossl.networks.blocks import Encoder
from geossl.networks.handover import read_encoder_info
from geossl.networks.pyramid_encoder import build_any_encoder
from geossl.pretrain.objectives import alignment, uniformity
from geossl.pretrain.pairs import moments
from geossl.pretrain.views import Views, draw_view

LEVEL = 1  # stride 4, of the maps that are matched
NEAR_FRAMES = 20  # within which samples of one recording show the same
ZNCC_SIDE = 11
PROBE_PENALTY = 0.1  # with hundreds of channels and few images, a smaller one fits the images instead of the depth


@dataclass(frozen=True)
class Candidate:
    """One row: its name, and what it makes of (1, 3, H, W) images; `pooled` is None for patches."""

    name: str
    maps: Callable[[Tensor], Tensor]
    pooled: Callable[[Tensor], Tensor] | None


def evaluate_encoder(
    encoders: Sequence[str],
    data: str,
    *,
    teacher: Path | None = None,
    size: Size | None = None,
    px: float = 3.0,
    samples: int = 64,
    device: str = "auto",
    command: str = "",
    progress: Progress | None = None,
) -> Result:
    """Compares encoders on the images of a data set, one row each.

    Figures: `retrieval` (the nearest other image is of the same recording, at most 20 frames apart), `alignment` of
    two views, `uniformity`, effective `rank` and `spread` of the pooled features; `depth_r2`, the share of log inverse
    depth's variance that a linear function of the features at a place explains, fitted to half of the images;
    `normal_...`, the angle to the surface's true normal of one fitted likewise, where a synthetic street tells it; PCK
    in the other camera along the row (`stereo_pck`), with its tones changed (`stereo_tones_pck`), in the next frame
    (`flow_pck`) and after a change of viewpoint (`view_pck`, within twice `px`).

    Args:
        encoders: Encoder folders, or runs of `geossl pretrain`; random or imagenet (the first one's network),
            random:NETWORK or imagenet:NETWORK; NETWORK@FILE, its weights of a file; zncc for the patches themselves.
        data: Data specification of the images.
        teacher: Run folder or model folder of ours that finds stereo and flow where the data have no labels.
        size: (height, width) of the images; None: those of the first encoder's pre-training.
        px: Pixels within which a place counts as found.
        samples: Images at most, evenly spaced; pairs of each kind likewise.

    Raises:
        ValueError: If an encoder is unknown, or the data have fewer than two images.
    """
    size = size or size_for(encoders)
    material = Material(parse_source(data), size, samples, pick_device(device))
    images = material.images()
    if len(images[0]) < 2:
        raise ValueError(f"{data} has {len(images[0])} images; at least two can be compared.")
    pairs = {"stereo": material.stereo_pairs(teacher), "flow": material.flow_pairs(teacher)}
    depths, normals = material.depths(), material.normals()
    rows = []
    for number, name in enumerate(encoders):
        candidate = open_candidate(name, encoders, images[0])
        rows.append(score(candidate, images, pairs, depths, normals, size, px))
        if progress is not None:
            progress(number + 1, len(encoders))
    conditions = {"images": len(images[0]), "size": f"{size[1]}x{size[0]}", "px": f"{px:g}"}
    conditions |= {f"{kind}_pairs": len(found) for kind, found in pairs.items()}
    full = {"data": data, "command": command, "rows": rows, **conditions}
    return Result([row | conditions for row in rows], full)


def size_for(encoders: Sequence[str]) -> Size:
    """(height, width) of the first encoder folder's pre-training."""
    for name in encoders:
        info = read_encoder_info(folder_of(name))
        if info is not None:
            return info["height"], info["width"]
    raise ValueError("no encoder folder says how large images should be; give --size WxH.")


def folder_of(name: str) -> Path:
    """The encoder folder of a name: itself, or inside a run of `geossl pretrain`."""
    inside = Path(name) / "encoder"
    return inside if inside.is_dir() else Path(name)


def open_candidate(name: str, encoders: Sequence[str], images: Tensor) -> Candidate:
    """An encoder by its name in the list of all, on the device of the images.

    Raises:
        ValueError: If there is none.
    """
    if name == "zncc":
        return Candidate(name, lambda image: patch_descriptors(image, ZNCC_SIDE, 2 ** (LEVEL + 1)), None)
    kind, _, network = name.partition(":")
    file_of, at, file = name.partition("@")
    if at and not Path(name).exists():
        encoder = build_any_encoder(file_of, file).to(images.device)
    elif kind in ("random", "imagenet"):
        known = [info["arch"] for other in encoders if (info := read_encoder_info(folder_of(other))) is not None]
        if not (network or known):
            raise ValueError(f"{kind} has no encoder beside it to be like; name the network: {kind}:resnet18.")
        torch.manual_seed(0)
        weights = None if kind == "random" else "imagenet"
        encoder = build_any_encoder(network or known[0], weights).to(images.device)
        encoder = calibrated(encoder, images) if kind == "random" else encoder
    else:
        info = read_encoder_info(folder_of(name))
        if info is None:
            raise ValueError(
                f"{name} is no encoder folder, no finished run of `geossl pretrain`, and not random[:NETWORK], "
                "imagenet[:NETWORK], NETWORK@FILE or zncc."
            )
        encoder = build_any_encoder(info["arch"], folder_of(name)).to(images.device)
    encoder.eval()
    return Candidate(
        name,
        lambda image: descriptors(encoder(image), LEVEL),
        lambda image: encoder(image)[-1].mean((2, 3)),
    )


@torch.no_grad()
def calibrated(encoder: Encoder, images: Tensor) -> Encoder:
    """The encoder with batch norm's statistics of these images, without which random weights shrink what they see."""
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    encoder.train()
    for group in images.split(8):
        encoder(group)
    return encoder


@torch.no_grad()
def score(
    candidate: Candidate,
    images: tuple[Tensor, tuple[str, ...]],
    pairs: dict[str, list[PairItem]],
    depths: list[LabelledItem],
    normals: list[LabelledItem],
    size: Size,
    px: float,
) -> dict[str, Any]:
    """One row."""
    row: dict[str, Any] = {"encoder": candidate.name}
    row |= pooled_figures(candidate, *images)
    if len(depths) > 1:
        row["depth_r2"] = depth_r2(candidate, depths, size)
    if len(normals) > 1:
        row |= normal_figures(candidate, normals, size)
    if pairs["stereo"]:
        row["stereo_pck"] = pck(candidate, pairs["stereo"], size, px, along_row=True)
        changed = [PairItem(item.first, other_tones(item.second), item.places) for item in pairs["stereo"]]
        row["stereo_tones_pck"] = pck(candidate, changed, size, px, along_row=True)
    if pairs["flow"]:
        row["flow_pck"] = pck(candidate, pairs["flow"], size, px, along_row=False)
    generator = torch.Generator().manual_seed(0)
    seen = [(image[None], *viewpoint(image[None])) for image in images[0]]
    items = [PairItem(first, second, places.thinned(PLACES, generator)) for first, second, places in seen]
    row["view_pck"] = pck(candidate, items, size, 2 * px, along_row=False)
    return row


def pooled_figures(candidate: Candidate, images: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    """Figures of whole images; NaN for patches, which say nothing of them."""
    if candidate.pooled is None:
        return dict.fromkeys(("retrieval", "alignment", "uniformity", "rank", "spread"), float("nan"))
    torch.manual_seed(0)
    views = [draw_view(images, Views()).image for _ in range(2)]
    features, first, second = (
        torch.cat([candidate.pooled(group) for group in x.split(8)]).float() for x in (images, *views)
    )
    when = moments(names, images.device)
    return {
        "retrieval": retrieval(features, when.near(when, NEAR_FRAMES)),
        "alignment": float(alignment(first, second)),
        "uniformity": float(uniformity(F.normalize(features, dim=1))),
        "rank": effective_rank(features),
        "spread": spread(features),
    }


def depth_r2(candidate: Candidate, depths: list[LabelledItem], size: Size) -> float:
    """Of log inverse depth."""
    x, y, x_test, y_test = halves(candidate, depths, size)
    return linear_regression_r2(x, y[:, 0], x_test, y_test[:, 0], penalty=PROBE_PENALTY)


def normal_figures(candidate: Candidate, normals: list[LabelledItem], size: Size) -> dict[str, float]:
    """Of the camera's frame."""
    x, y, x_test, y_test = halves(candidate, normals, size)
    found = angle_figures(linear_regression(x, y, x_test, penalty=PROBE_PENALTY), y_test)
    return {f"normal_{name}": value for name, value in found.items()}


def halves(candidate: Candidate, items: list[LabelledItem], size: Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features and values (N, K) of the first half of the images, to fit to, and those of the second, to score on.

    Neighbours in time would be the same twice.
    """
    x, y = [], []
    for item in items:
        maps = candidate.maps(item.image)
        at = resize_pixels(item.here, size, size_of(maps))
        x.append(sample_at_pixels(maps, at.T[None, :, None])[0, :, 0].T)
        y.append(item.value)
    half = len(x) // 2
    return torch.cat(x[:half]), torch.cat(y[:half]), torch.cat(x[half:]), torch.cat(y[half:])


def pck(candidate: Candidate, items: list[PairItem], size: Size, px: float, *, along_row: bool) -> float:
    """Share of all places that are found."""
    found = [
        matched(candidate.maps(item.first)[0], candidate.maps(item.second)[0], item.places.here, size, along_row)
        for item in items
    ]
    return share_within(torch.cat(found), torch.cat([item.places.there for item in items]), px)
