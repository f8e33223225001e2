"""What a reprojection objective asks for by itself: a free depth for every pixel, no network, true motions.

A network blurs what it learned of many images; here nothing does. Depth starts at the truth, and what the objective
makes of it is what it gets wrong: where only one of the frames before and after sees a surface, the mean of both views
draws depth towards what hides it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geossl.data.synthetic import FrameLabels, StreetOptions, read_labels, write_street
from geossl.data.synthetic.write import label_path
from geossl.geometry.conversion import mean_normalized
from geossl.inputs import open_source
from geossl.losses.smoothness import edge_aware_smoothness, mean_of
from geossl.methods.reprojection import Criterion, Reprojection
from geossl.predict import to_model_size
from geossl.types import Frame

OBJECTIVES = {"minimum reprojection": Criterion(minimum=True), "mean reprojection": Criterion(minimum=False)}
STREETS, STEPS, STEP, SMOOTHNESS = 4, 200, 0.01, 1e-3
FAR_M, CAP_M = 1000.0, 80.0


def ablate_objective(folder: Path, size: tuple[int, int], seed: int) -> dict[str, dict[str, float]]:
    """AbsRel that each objective of `OBJECTIVES` leaves of true depth after `STEPS` steps of Adam.

    Args:
        folder: Where the streets are written: `STREETS` of three frames.
        size: (height, width) of the images.
        seed: Of the streets.

    Returns:
        Objective -> `abs_rel_half_occluded`, of standing surfaces that just one of the frames before and after sees,
        and `abs_rel_seen_twice`, of those that both see.
    """
    height, width = size
    options = StreetOptions(STREETS, 3, width=width, height=height, seed=700 + seed, standing=0.0, speed=1.5)
    write_street(folder, options)
    images = {image.name: image for image in open_source(f"kitti_raw:{folder},cameras=[image_02]")}
    labels = [read_labels(label_path(folder, street, 1)) for street in range(STREETS)]
    K = stacked([each.K for each in labels])

    def frame(number: int) -> Frame:
        chosen = [image for name, image in images.items() if int(Path(name).name) == number]
        image = torch.cat([to_model_size(each.read(), size) for each in chosen])
        return Frame(image, image, K)

    before, target, after = (frame(number) for number in range(3))
    views = [
        (before, stacked([each.T_previous_camera for each in labels])),
        (after, stacked([each.T_next_camera for each in labels])),
    ]
    truth = stacked([np.where(each.valid, each.depth, FAR_M) for each in labels])[:, None]
    found = {}
    for name, criterion in OBJECTIVES.items():
        depth = optimized(Reprojection(target, views, criterion), truth)
        relative = (depth - truth).abs() / truth
        found[name] = {
            "abs_rel_half_occluded": float(relative[stacked_masks(labels, twice=False)].mean()),
            "abs_rel_seen_twice": float(relative[stacked_masks(labels, twice=True)].mean()),
        }
    return found


def optimized(explain: Reprojection, depth: Tensor) -> Tensor:
    """(B, 1, H, W) depth after `STEPS` steps down the objective and the smoothness of its inverse."""
    log_inverse = depth.log().neg().requires_grad_()
    optimizer = torch.optim.Adam([log_inverse], lr=STEP)
    for _ in range(STEPS):
        inverse = log_inverse.exp()
        roughness = mean_of(edge_aware_smoothness(mean_normalized(inverse), explain.target.image))
        loss = explain(1 / inverse).loss + SMOOTHNESS * roughness
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return log_inverse.detach().neg().exp()


def stacked(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).float()


def stacked_masks(labels: list[FrameLabels], twice: bool) -> Tensor:
    """(B, 1, H, W) bool: standing surfaces up to 80 m that both neighbouring frames see, or just one."""
    masks = []
    for each in labels:
        one, other = each.visible_previous, each.visible_next
        seen = one & other if twice else one ^ other
        masks.append(seen & each.static & each.valid & (each.depth < CAP_M))
    return torch.from_numpy(np.stack(masks))[:, None]
