"""Flow through a bottleneck: one image's structure and a short code of the motion must explain the optical flow.

Of two images, a motion network makes a vector; the encoder sees the first one alone. What the vector is too short to
say of every pixel, how near it is and where things end, only the encoder can say: structure, as depth needs it,
learned without cameras.

Source: Wang, Chen, Guo, Wen, Shen: Geometric pretraining for monocular depth estimation, ICRA 2020; code of 128
numbers.

Differs:
    * With a `teacher`, its flow is the target where it is the same forth and back. Without, as in the paper, the
      photometric error of the warped second image is; auto-masking and multi-scale terms are left out.
    * The decoder is two convolutions at stride 4 that see the encoder's features, the code and where a pixel lies.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from geossl.geometry.constants import vector_like
from geossl.geometry.pixels import pixel_grid_like, size_of
from geossl.geometry.transforms import resize_flow
from geossl.geometry.visibility import in_view
from geossl.geometry.warping import warp_by_flow
from geossl.losses.photometric import photometric_map
from geossl.losses.reduction import masked_mean
from geossl.losses.robust import charbonnier
from geossl.losses.smoothness import edge_aware_smoothness, mean_of
from geossl.methods.flow import flow_health
from geossl.methods.teacher import LazyTeacher
from geossl.networks.flow_layers import begin_near_zero, leaky_conv
from geossl.pretrain.heads import DenseHead
from geossl.pretrain.method import Pretraining, PretrainingOptions
from geossl.pretrain.pairs import temporal_pair
from geossl.types import Batch, Objective

LEAK = 0.1
MOTION_CHANNELS = (16, 32, 64, 96, 128)


class FlowReconstructionOptions(PretrainingOptions):
    teacher: str | None = Field(
        None, description="Run folder or model folder of our flow, or depth and motion; null: the images themselves."
    )
    code: int = Field(128, ge=1, description="Numbers that tell the motion.")
    dim: int = Field(64, ge=1, description="Channels of the decoder.")
    ssim_weight: float = Field(0.85, ge=0, le=1, description="Of the photometric error, without a teacher.")
    smoothness: float = Field(0.1, ge=0, description="Of the flow as a share of the width, without a teacher.")
    least_motion_px: float = Field(1.0, ge=0, description="With a teacher: leave out samples that move less.")


class FlowReconstruction(Pretraining):
    """Structure encoder, motion code, flow decoder."""

    Options = FlowReconstructionOptions

    def __init__(self, options: FlowReconstructionOptions) -> None:
        super().__init__(options)
        self.structure = DenseHead(self.encoder.channels, options.dim, level=1)
        widths = (6, *MOTION_CHANNELS)
        convs = [leaky_conv(i, o, LEAK, stride=2) for i, o in zip(widths, MOTION_CHANNELS, strict=False)]
        self.motion = nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Conv2d(MOTION_CHANNELS[-1], options.code, 1))
        self.mix = nn.Sequential(
            leaky_conv(options.dim + options.code + 2, options.dim, LEAK, kernel=1),
            leaky_conv(options.dim, options.dim, LEAK),
        )
        self.flow = nn.Conv2d(options.dim, 2, 3, padding=1)
        begin_near_zero(self.flow)
        self.teacher = None if options.teacher is None else LazyTeacher(options.teacher)

    def reconstruct(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, 3, H, W) twice -> (B, 2, H, W) flow in pixels, float32, out of the first image and the motion's code."""
        structure = self.structure(self.encoder(first))  # (B, dim, h, w)
        code = self.motion(torch.cat([first, second], 1))  # (B, code, 1, 1)
        h, w = size_of(structure)
        # The code is the same everywhere; where a pixel lies decides what a motion of the camera does to it.
        place = pixel_grid_like(structure) / vector_like(structure, w, h).view(2, 1, 1) - 0.5
        inputs = [structure, code.expand(-1, -1, h, w), place.expand(len(first), -1, -1, -1)]
        share = self.flow(self.mix(torch.cat(inputs, 1))).float()  # of the map's width
        return resize_flow(share * w, size_of(first))

    def forward(self, batch: Batch) -> Objective:
        self.require(batch, sources=True)
        first, second = batch.target.image, batch.sources[0].image
        flow = self.reconstruct(batch.target.jittered, batch.sources[0].jittered)
        if self.teacher is None:
            visible = in_view(flow)
            terms = self.photometric(first, second, flow, visible)
        else:
            pair = temporal_pair(batch, self.teacher.on(flow.device), self.options.least_motion_px)
            visible, target = pair.valid, pair.xy - pixel_grid_like(flow)
            width = flow.shape[-1]
            terms = {"flow": masked_mean(charbonnier((flow - target) / width), visible)}
        warped, _ = warp_by_flow(second, flow.detach())
        maps = {"target": first, "warped": warped, "flow": flow.detach(), "visible": visible.float()}
        return Objective(terms, maps, flow_health(flow, visible))

    def photometric(self, first: Tensor, second: Tensor, flow: Tensor, visible: Tensor) -> dict[str, Tensor]:
        """The terms without a teacher: the warped image's error where it is in view, and the flow's roughness."""
        warped, _ = warp_by_flow(second, flow)
        error = masked_mean(photometric_map(warped, first, self.options.ssim_weight), visible)
        roughness = mean_of(edge_aware_smoothness(flow / flow.shape[-1], first))
        return {"photometric": error, "smoothness": self.options.smoothness * roughness}
