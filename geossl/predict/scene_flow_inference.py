"""Depth and 3-D motion of image pairs at the images' own size: of one model, or from the parts depth, flow, motion.

From parts, the depth of the second image is read where the flow leads to (`scene_flow_from_parts`). Points that the
second image does not show stand still where the depth model also predicts the camera's motion, else they keep their
depth along the flow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from geossl.engine.model_folder import LoadedModel
from geossl.geometry.conversion import scene_flow_from_parts
from geossl.geometry.transforms import resize_K, upsample
from geossl.geometry.visibility import forward_backward_check
from geossl.predict.common import model_size, to_model_size
from geossl.predict.depth import infer_depth
from geossl.predict.flip import flip_averaged_scene_flow
from geossl.predict.flow import infer_flows, windows_of
from geossl.predict.pairs import Pair, Picture
from geossl.types import PredictsMotion

Group = Sequence[tuple[Pair, Mapping[int, Picture]]]


@torch.no_grad()
def infer_scene_flow(loaded: LoadedModel, group: Group, flip: bool) -> list[tuple[Tensor, Tensor]]:
    """For each pair depth (1, 1, H, W) and scene flow (1, 3, H, W) of its images' size.

    Inverse depth and motion are resized bilinearly from what the network sees.
    """
    method: Any = loaded.method
    device, size = next(method.parameters()).device, model_size(loaded)
    target, source = (torch.cat([to_model_size(images[i], size) for _, images in group]).to(device) for i in (0, 1))
    K = torch.cat([resize_K(camera_of(pair), images[0].shape[:2], size) for pair, images in group]).float().to(device)
    predict = partial(flip_averaged_scene_flow, method) if flip else method.predict_scene_flow
    depth, scene_flow = (x.float().cpu() for x in predict(target, source, K))
    return [
        (1 / upsample(1 / depth[i : i + 1], images[0].shape[:2]), upsample(scene_flow[i : i + 1], images[0].shape[:2]))
        for i, (_, images) in enumerate(group)
    ]


@torch.no_grad()
def infer_from_parts(
    depth_model: LoadedModel, flow_model: LoadedModel, group: Group, relative: float, absolute: float
) -> list[tuple[Tensor, Tensor]]:
    """As `infer_scene_flow`, from a depth model and a flow model, each seeing images of its own training size.

    Args:
        relative, absolute: Of the forward-backward check that says which points the second image shows.
    """
    method: Any = flow_model.method
    windows, size = windows_of(method.flow_offsets), model_size(flow_model)
    flows = infer_flows(method, [images for _, images in group], windows, size)
    natives = {id(images[i]): (images[i], pair.first.K) for pair, images in group for i in (0, 1)}
    depths = infer_depth(depth_model, [n for n, _ in natives.values()], [K for _, K in natives.values()], False)
    by_image = {key: torch.from_numpy(depth)[None, None] for key, depth in zip(natives, depths, strict=True)}
    motions = motions_to_next(depth_model, group)
    found = []
    for i, (pair, images) in enumerate(group):
        depth, next_depth = (by_image[id(images[step])] for step in (0, 1))
        forward, backward = (flow.cpu() for flow in flows[i])
        visible = forward_backward_check(forward, backward, relative, absolute)
        T = None if motions is None else motions[i : i + 1]
        found.append((depth, scene_flow_from_parts(depth, next_depth, forward, visible, camera_of(pair).float(), T)))
    return found


def motion_offsets(loaded: LoadedModel) -> tuple[int, ...]:
    """Time steps of the images that a depth model needs for the motion to the next one; none if it predicts none."""
    method = loaded.method
    offsets = tuple(method.pose_offsets) if isinstance(method, PredictsMotion) else ()
    return offsets if 1 in offsets else ()


def motions_to_next(loaded: LoadedModel, group: Group) -> Tensor | None:
    """(B, 4, 4) T_next_this of each pair, or None if the model predicts none."""
    offsets, size = motion_offsets(loaded), model_size(loaded)
    if not offsets:
        return None
    method: Any = loaded.method
    device = next(method.parameters()).device
    target, *sources = (
        torch.cat([to_model_size(images[step], size) for _, images in group]).to(device) for step in (0, *offsets)
    )
    T: Tensor = method.predict_motions(target, sources)  # (B, S, 4, 4)
    return T[:, offsets.index(1)].float().cpu()


def camera_of(pair: Pair) -> Tensor:
    """(1, 3, 3) float64 of a pair's images."""
    return torch.tensor(pair.first.K, dtype=torch.float64)[None]
