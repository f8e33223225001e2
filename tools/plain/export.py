"""Depth of a folder of images, one after the other: read, resize, predict, enlarge, write the map and a picture."""

from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image
from torchvision.transforms import functional as TF

from .networks import Networks
from .reprojection import disparity_to_depth


def load_networks(weights, device):
    networks = Networks()
    networks.load_state_dict(weights)
    return networks.to(device).eval()


def export_depth(networks, paths, out, height, width, device, resample=Image.LANCZOS):
    """Writes OUT/<name>.npy and OUT/<name>.png of every image file."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for path in paths:
            with Image.open(path) as file:
                image = file.convert("RGB")
            full_width, full_height = image.size
            small = TF.to_tensor(image.resize((width, height), resample))[None].to(device)
            disparity = networks.depth_decoder(networks.encoder(small))[0]
            inverse = 1 / disparity_to_depth(disparity)
            inverse = F.interpolate(inverse, (full_height, full_width), mode="bilinear", align_corners=False)
            values = inverse[0, 0].cpu().numpy()
            np.save(out / f"{Path(path).stem}.npy", 1 / values)
            low, high = np.percentile(values, [2, 98])
            mapper = ScalarMappable(
                norm=Normalize(low, max(high, low * (1 + 1e-6))), cmap=matplotlib.colormaps["magma"]
            )
            picture = (mapper.to_rgba(values)[:, :, :3] * 255).astype(np.uint8)
            Image.fromarray(picture).save(out / f"{Path(path).stem}.png")
