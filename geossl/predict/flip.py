"""Averaging predictions with those of mirrored images."""

from __future__ import annotations

import torch
from torch import Tensor

from geossl.geometry.transforms import flip_K
from geossl.types import PredictsSceneFlow


def merge_mirrored(plain: Tensor, mirrored: Tensor) -> Tensor:
    """Merges a prediction with that of the mirrored image, which is blind at the other edge.

    The left 5 % are the mirrored prediction, the right 5 % the plain one, their mean lies between, with linear
    passages of 5 %.

    Args:
        plain, mirrored: (B, C, H, W), both in the geometry of the image as it is.

    Source: Godard et al., CVPR 2017, section 4.1. https://arxiv.org/abs/1609.03677
    """
    column = torch.linspace(0, 1, plain.shape[-1], device=plain.device)
    left = 1.0 - (20.0 * (column - 0.05)).clamp(0, 1)
    right = left.flip(0)
    return right * plain + left * mirrored + (1.0 - left - right) * 0.5 * (plain + mirrored)


def flip_averaged_scene_flow(
    model: PredictsSceneFlow, target: Tensor, source: Tensor, K: Tensor, K_source: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A model's depth and scene flow, merged with those of the mirrored images: inverse depths and motions.

    Args and returns: As `PredictsSceneFlow.predict_scene_flow`.

    Source: Hur and Roth, CVPR 2020, supplement, after Godard et al., CVPR 2017, section 4.1.
    """
    depth, scene_flow = (x.float() for x in model.predict_scene_flow(target, source, K, K_source))
    width = target.shape[-1]
    flipped = None if K_source is None else flip_K(K_source, width)
    mirrored_depth, mirrored_motion = (
        x.float().flip(-1)
        for x in model.predict_scene_flow(target.flip(-1), source.flip(-1), flip_K(K, width), flipped)
    )
    # In the mirrored world x points the other way.
    mirrored_motion = mirrored_motion * mirrored_motion.new_tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1)
    return 1 / merge_mirrored(1 / depth, 1 / mirrored_depth), merge_mirrored(scene_flow, mirrored_motion)
