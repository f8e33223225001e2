"""Samples as Monodepth2 loads them: decoded at every access, four scales, jittered copies of all, in PIL.

Source: Godard, Mac Aodha, Firman, Brostow, ICCV 2019, section 4 and supplement. https://arxiv.org/abs/1806.01260
"""

import random

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as TF

SCALES = range(4)
RANGES = (0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.1, 0.1)  # brightness, contrast, saturation, hue


def load_sample(paths, K, height, width, jitter, flip, resample=Image.LANCZOS):
    """A sample of the images of some files: see `prepare_sample`."""
    images = []
    for path in paths:
        with open(path, "rb") as file, Image.open(file) as image:
            images.append(image.convert("RGB"))
    return prepare_sample(images, K, height, width, jitter, flip, resample)


def prepare_sample(images, K, height, width, jitter, flip, resample=Image.LANCZOS):
    """Pyramids of a sample's images.

    Args:
        images: Of PIL, the target first.
        K: (3, 3) in pixels of height x width.
        jitter: Whether colours of the copies are changed. flip: Whether the sample is mirrored.

    Returns:
        `color` and `jittered`, for each image a list of (3, H / 2^s, W / 2^s) in [0, 1]; `K`, `inverse_K` (4, 4).
    """
    change = random_jitter() if jitter else lambda image: image
    sample = {"color": [], "jittered": []}
    for image in images:
        if flip:
            image = image.transpose(Image.FLIP_LEFT_RIGHT)
        pyramid = []
        for scale in SCALES:
            image = image.resize((width // 2**scale, height // 2**scale), resample)
            pyramid.append(image)
        sample["color"].append([TF.to_tensor(image) for image in pyramid])
        sample["jittered"].append([TF.to_tensor(change(image)) for image in pyramid])
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = K
    if flip:
        matrix[0, 2] = width - 1 - matrix[0, 2]
    sample["K"], sample["inverse_K"] = torch.from_numpy(matrix), torch.from_numpy(np.linalg.pinv(matrix))
    return sample


def random_jitter():
    """One change of colours for all images of a sample."""
    order, *factors = ColorJitter.get_params(*RANGES)
    return lambda image: jitter_image(image, order, factors)


def jitter_image(image, order, factors):
    """Changes brightness, contrast, saturation and hue, numbered 0 to 3, of an image in some order."""
    operations = TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue
    for index in order:
        image = operations[index](image, factors[index])
    return image


def half_the_time():
    return random.random() > 0.5
