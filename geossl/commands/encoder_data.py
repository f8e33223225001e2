"""What encoders are compared on: images, and places that are known in two of them or in depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from geossl.config import AnySource
from geossl.data.build import build_targets
from geossl.data.dataset import SampleDataset
from geossl.data.samples import DataError, Sample, Wanted
from geossl.engine.labelled import thinned
from geossl.evaluation.encoder_matching import Places, Size, places_of
from geossl.evaluation.flow_truth import load_flow_truth
from geossl.evaluation.scene_flow_truth import load_scene_flow_truth
from geossl.evaluation.truth import load_disparity_truth
from geossl.geometry.conversion import disparity_px_to_depth
from geossl.geometry.normals import depth_to_normals
from geossl.geometry.pixels import pixel_grid_like, size_of
from geossl.geometry.transforms import resize_pixels
from geossl.methods.method import Method
from geossl.methods.teacher import load_teacher
from geossl.pretrain.pairs import stereo_pair, temporal_pair
from geossl.types import Batch, Frame, PredictsDepth, PredictsFlow

PLACES = 256  # of each image
LEAST_DISPARITY_PX = 0.1
Labels = tuple[Tensor, Tensor]
"""Values (K, H, W) on the truth's own pixels, as the flow to another image, and (H, W) bool where they are known."""


@dataclass(frozen=True)
class PairItem:
    """Two images (1, 3, H, W) in [0, 1] and places known in both."""

    first: Tensor
    second: Tensor
    places: Places


@dataclass(frozen=True)
class LabelledItem:
    """An image (1, 3, H, W), (N, 2) pixels of it, and the values (N, K) there that a probe is to tell."""

    image: Tensor
    here: Tensor
    value: Tensor


@dataclass(frozen=True)
class Material:
    """Where images come from, and how they are shown.

    Attributes:
        size: (height, width) of the images.
        most: Samples of each kind, evenly spaced.
    """

    source: AnySource
    size: Size
    most: int
    device: torch.device

    def load(
        self, wanted: Callable[[Sample], bool], offsets: tuple[int, ...] = (), stereo: bool = False
    ) -> list[tuple[Batch, Sample]]:
        """The wanted samples with float images on the device; none where the source has not these views."""
        try:
            samples = build_targets(self.source, Wanted(offsets, stereo))
        except DataError:
            if not (offsets or stereo):
                raise
            return []
        chosen = thinned([sample for sample in samples if wanted(sample)], self.most)
        if not chosen:
            return []
        dataset = SampleDataset(chosen, *self.size)
        return [(self._shown(dataset[index]), sample) for index, sample in enumerate(dataset.samples)]

    def _shown(self, batch: Batch) -> Batch:
        def shown(frame: Frame) -> Frame:
            image = frame.image.float() / 255
            return Frame(image, image, frame.K)

        return batch.to(self.device).map_frames(shown)

    def images(self) -> tuple[Tensor, tuple[str, ...]]:
        """(N, 3, H, W) in [0, 1] and their names."""
        batches = [batch for batch, _ in self.load(everything)]
        return torch.cat([batch.target.image for batch in batches]), tuple(batch.names[0] for batch in batches)

    def stereo_pairs(self, teacher: Path | None) -> list[PairItem]:
        """Both cameras' images, with places by the labels, else by the teacher's depth in metres, else none."""
        labelled = self.load(has_disparity, stereo=True)
        if labelled:
            return self.drawn((batch, *stereo_labels(sample)) for batch, sample in labelled)
        method = teaching(teacher, self.device)
        if not (isinstance(method, PredictsDepth) and method.is_metric):
            return []
        found = ((batch, stereo_pair(batch, method)) for batch, _ in self.load(everything, stereo=True))
        return self.drawn((batch, (x.xy - pixel_grid_like(x.xy))[0], x.valid[0, 0]) for batch, x in found)

    def flow_pairs(self, teacher: Path | None) -> list[PairItem]:
        """Images and the next ones, with places by the labels, else by the teacher's flow, else none."""
        labelled = self.load(lambda sample: sample.flow_truth is not None, offsets=(1,))
        if labelled:
            return self.drawn((batch, *flow_labels(sample)) for batch, sample in labelled)
        method = teaching(teacher, self.device)
        if not (isinstance(method, PredictsFlow) and method.flow_offsets == (1,)):
            return []
        found = ((batch, temporal_pair(batch, method, 0.0)) for batch, _ in self.load(everything, offsets=(1,)))
        return self.drawn((batch, (x.xy - pixel_grid_like(x.xy))[0], x.valid[0, 0]) for batch, x in found)

    def drawn(self, pairs: Iterable[tuple[Batch, Tensor, Tensor]]) -> list[PairItem]:
        """Pairs of (batch of one, flow to its other image, where that is known), with places drawn of those known."""
        generator = torch.Generator().manual_seed(0)
        items = []
        for batch, flow, valid in pairs:
            other = batch.sources[0] if batch.stereo is None else batch.stereo
            places = places_of(flow.to(self.device), valid.to(self.device), self.size)
            if len(places.here):
                items.append(PairItem(batch.target.image, other.image, places.thinned(PLACES, generator)))
        return items

    def depths(self) -> list[LabelledItem]:
        """Log of the disparity (N, 1), of inverse depth up to a constant; none where the data have no such labels."""

        def known(sample: Sample) -> Labels:
            disparity, there, _ = disparity_labels(sample)
            return disparity.log()[None], there & (disparity > LEAST_DISPARITY_PX)

        return self.labelled(has_disparity, known)

    def normals(self) -> list[LabelledItem]:
        """Normals (N, 3) in camera coordinates, of a synthetic street; none elsewhere.

        LiDAR's points are too sparse and its noise too large beside the distance of neighbouring pixels.
        """

        def known(sample: Sample) -> Labels:
            assert sample.scene_flow_truth is not None
            labels = load_scene_flow_truth(sample.scene_flow_truth)
            disparity = torch.from_numpy(labels.maps.disparity_px).double()[None, None]
            K = torch.from_numpy(labels.K).double()[None]
            depth = disparity_px_to_depth(disparity, K[:, 0, 0], labels.baseline_m)
            found, there = depth_to_normals(depth, K, torch.from_numpy(labels.maps.there()["d1"])[None, None])
            return found[0].float(), there[0, 0]

        return self.labelled(is_street, known)

    def labelled(self, wanted: Callable[[Sample], bool], known: Callable[[Sample], Labels]) -> list[LabelledItem]:
        """The wanted samples' images, with places drawn of those where (K, H, W) values are known, (H, W) bool."""
        generator = torch.Generator().manual_seed(0)
        items = []
        for batch, sample in self.load(wanted):
            values, there = known(sample)
            v, u = there.nonzero().unbind(1)
            chosen = torch.randperm(len(v), generator=generator)[:PLACES]
            u, v = u[chosen], v[chosen]
            here = resize_pixels(torch.stack([u, v], 1).float(), size_of(values), self.size)
            items.append(LabelledItem(batch.target.image, here.to(self.device), values[:, v, u].T.to(self.device)))
        return items


def everything(sample: Sample) -> bool:
    return True


def is_street(sample: Sample) -> bool:
    return sample.scene_flow_truth is not None and sample.scene_flow_truth.kind == "street"


def teaching(teacher: Path | None, device: torch.device) -> Method | None:
    return None if teacher is None else load_teacher(teacher).to(device)


def has_disparity(sample: Sample) -> bool:
    return sample.scene_flow_truth is not None or (sample.truth is not None and sample.truth.kind == "disparity_png")


def disparity_labels(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    """(H, W) pixels, and (H, W) bool where it is known, and where the right camera sees the place too."""
    if sample.scene_flow_truth is None:
        assert sample.truth is not None
        disparity = torch.from_numpy(load_disparity_truth(sample.truth)).float()
        known = disparity > 0
        visible = sample.truth.visible_disparity is not None
        seen = torch.from_numpy(load_disparity_truth(sample.truth, visible_only=True)) > 0 if visible else known
        return disparity, known, seen
    labels = load_scene_flow_truth(sample.scene_flow_truth)
    known = torch.from_numpy(labels.maps.there()["d1"])
    seen = known if labels.visible is None else known & torch.from_numpy(labels.visible["d1"])
    return torch.from_numpy(labels.maps.disparity_px).float(), known, seen


def stereo_labels(sample: Sample) -> Labels:
    """To the right camera."""
    disparity, _, seen = disparity_labels(sample)
    return torch.stack([-disparity, torch.zeros_like(disparity)]), seen


def flow_labels(sample: Sample) -> Labels:
    """To the next frame."""
    assert sample.flow_truth is not None
    labels = load_flow_truth(sample.flow_truth)
    seen = labels.valid if labels.visible is None else labels.valid & labels.visible
    return torch.from_numpy(labels.flow).permute(2, 0, 1).float(), torch.from_numpy(seen)
