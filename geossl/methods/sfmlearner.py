"""SfMLearner: depth and ego-motion from monocular video.

Source: Zhou, Brown, Snavely, Lowe: Unsupervised learning of depth and ego-motion from video, CVPR 2017.
https://arxiv.org/abs/1704.07813

Differs:
    * Pixels that leave a source are excluded; the TensorFlow release compares them with black.
    * Smoothness acts on inverse depth, as released (the paper says depth).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from geossl.config import Strict
from geossl.geometry.motion import motion_from_euler
from geossl.geometry.transforms import area_reduced
from geossl.geometry.warping import synthesize_target
from geossl.losses.photometric import l1_map
from geossl.losses.smoothness import mean_of, second_order_smoothness
from geossl.methods.method import Method, depth_health, motion_health
from geossl.networks.pyramid_encoder import load_pyramid
from geossl.networks.sfmlearner import DispNet, PoseExpNet
from geossl.types import Batch, Frame, Objective


class SfMLearnerOptions(Strict):
    source_offsets: tuple[int, ...] = Field((-1, 1), description="The window; must equal data.source_offsets.")
    encoder_weights: str | None = Field(
        None, description="Of the depth network's encoder: the encoder folder of a pre-training with encoder dispnet."
    )
    explainability: float = Field(
        0.2, ge=0, description="Weight of the mask's pull towards one; 0 trains without masks, as released later."
    )
    smoothness: float = Field(0.5, ge=0, description="Divided by 2^scale.")


class SfMLearner(Method):
    """DispNet depth, one pose network for the whole window, view synthesis at four scales, eq. 1 to 4."""

    Options = SfMLearnerOptions

    def __init__(self, options: SfMLearnerOptions) -> None:
        super().__init__(options)
        self.pose_offsets = tuple(options.source_offsets)
        self.depth_network = DispNet()
        load_pyramid(self.depth_network, options.encoder_weights, "dispnet")
        self.pose_network = PoseExpNet(sources=len(self.pose_offsets), explainability=options.explainability > 0)

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 1, H, W) depth up to scale."""
        return 1 / self.depth_network(image)[0].float()

    def predict_motions(self, target: Tensor, sources: Sequence[Tensor]) -> Tensor:
        """The window -> (B, S, 4, 4) T_source_target, up to scale."""
        return self.motions(target, sources)[0]

    def motions(self, target: Tensor, sources: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        translation, angles, masks = self.pose_network(target, list(sources))
        return motion_from_euler(translation.float(), angles.float()), masks

    def forward(self, batch: Batch) -> Objective:
        self.require(batch, sources=True)
        if batch.source_offsets != self.pose_offsets:
            raise ValueError(
                f"the batch's source_offsets {batch.source_offsets} differ from the model's {self.pose_offsets}; "
                "set model.source_offsets and data.source_offsets alike."
            )
        T, masks = self.motions(batch.target.jittered, [f.jittered for f in batch.sources])
        inverse_depths = [d.float() for d in self.depth_network(batch.target.jittered)]
        photometric, smoothness, explained, maps, health = [], [], [], {}, {}
        for scale, inverse_depth in enumerate(inverse_depths):
            target = area_reduced(batch.target, inverse_depth.shape[-2:])
            for i, full_source in enumerate(batch.sources):
                source = area_reduced(full_source, inverse_depth.shape[-2:])
                warped, visible = synthesize_target(source, 1 / inverse_depth, target.K, T[:, i])
                error = l1_map(warped, target.image).where(visible, warped.new_zeros(()))
                if masks:
                    mask = masks[scale][:, i : i + 1].float()
                    explained.append(-mask.clamp_min(1e-6).log().mean())
                    error = error * mask  # eq. 3
                photometric.append(error.mean())
                if scale == 0 and i == 0:
                    depth = 1 / inverse_depth
                    maps = {"target": target.image, "warped": warped, "error": error, "depth": depth}
                    maps |= {"explained": mask} if masks else {}
                    health = {"photometric": error.mean(), "identity_photometric": self.identity(target, source)}
            smoothness.append(mean_of(second_order_smoothness(inverse_depth)) / 2**scale)
        terms = {
            "photometric": torch.stack(photometric).sum(),
            "smoothness": self.options.smoothness * torch.stack(smoothness).sum(),
        }
        if explained:
            terms["explainability"] = self.options.explainability * torch.stack(explained).sum()
        health |= depth_health(1 / inverse_depths[0]) | motion_health(T[:, 0])
        detach = {name: value.detach() for name, value in maps.items()}
        return Objective(terms, detach, {name: value.detach() for name, value in health.items()})

    @torch.no_grad()
    def identity(self, target: Frame, source: Frame) -> Tensor:
        return l1_map(target.image, source.image).mean()
