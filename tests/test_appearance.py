import colorsys
import math

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from torch import Tensor

from geossl.appearance import (
    add_noise,
    adjust_brightness,
    adjust_contrast,
    adjust_gamma,
    adjust_hue,
    adjust_saturation,
    blur,
)


def random_image(samples: int = 3, height: int = 17, width: int = 23) -> Tensor:
    return torch.rand(samples, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (adjust_brightness, TF.adjust_brightness),
        (adjust_contrast, TF.adjust_contrast),
        (adjust_saturation, TF.adjust_saturation),
        (adjust_hue, TF.adjust_hue),
    ],
)
@pytest.mark.parametrize("amount", [-0.5, -0.13, 0.0, 0.07, 0.5])
def test_each_operation_is_torchvisions(ours, theirs, amount) -> None:  # type: ignore[no-untyped-def]
    image = random_image()
    image[0, :, :4] = image[0, :1, :4]  # grey pixels have no hue
    image[1, :, :2] = 0
    image[1, :, 2:4] = 1
    factor = amount if ours is adjust_hue else 1 + amount
    found = ours(image, torch.full((3,), factor))
    assert (found - theirs(image, factor)).abs().max() < 1e-5
    assert found.min() >= 0 and found.max() <= 1


def test_hue_is_colorsys() -> None:
    colours = np.random.default_rng(0).random((50, 3))
    colours[0], colours[1], colours[2] = (1, 0, 0), (0, 1, 1), (0.2, 0.2, 0.9)
    image = torch.from_numpy(colours).float().T.reshape(1, 3, 5, 10)
    found = adjust_hue(image, torch.tensor([0.3])).reshape(3, 50).T.numpy()
    for colour, result in zip(colours, found, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*colour)
        np.testing.assert_allclose(result, colorsys.hsv_to_rgb((h + 0.3) % 1, s, v), atol=1e-5)


def test_gamma_is_a_power_of_each_image() -> None:
    image = random_image(2)
    found = adjust_gamma(image, torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(found[0], image[0] * image[0])
    torch.testing.assert_close(found[1], image[1].sqrt())


def test_blur_is_a_gaussian_of_each_image() -> None:
    """Three impulses: the weights are exp(-d^2 / 2 sigma^2), normalised; sigma 0 changes nothing."""
    image = torch.zeros(3, 1, 31, 41)
    image[:, :, 15, 20] = 1
    sigma = torch.tensor([0.0, 1.0, 2.5])
    found = blur(image, sigma, radius=9)
    assert torch.equal(found[0], image[0])
    for i in (1, 2):
        weights = [math.exp(-(d**2) / (2 * float(sigma[i]) ** 2)) for d in range(-9, 10)]
        assert float(found[i, 0, 15, 20]) == pytest.approx(1 / sum(weights) ** 2, rel=1e-5)
        assert float(found[i, 0, 13, 23]) == pytest.approx(weights[7] * weights[12] / sum(weights) ** 2, rel=1e-5)


def test_blur_agrees_with_torchvision_inside_and_keeps_flat_images() -> None:
    image = random_image(1)
    theirs = TF.gaussian_blur(image, [9, 9], [1.3, 1.3])
    ours = blur(image, torch.tensor([1.3]), radius=4)
    torch.testing.assert_close(ours[..., 4:-4, 4:-4], theirs[..., 4:-4, 4:-4], atol=1e-6, rtol=0)
    torch.testing.assert_close(
        blur(torch.full((1, 3, 5, 8), 0.3), torch.tensor([2.0]), 6), torch.full((1, 3, 5, 8), 0.3)
    )


def test_noise_is_of_each_pixel_and_each_images_own_strength() -> None:
    torch.manual_seed(0)
    image = torch.full((2, 3, 100, 120), 0.5)
    found = add_noise(image, torch.tensor([0.0, 0.04])) - image
    assert torch.equal(found[0], torch.zeros_like(found[0]))
    assert float(found[1].std()) == pytest.approx(0.04, rel=0.02) and abs(float(found[1].mean())) < 1e-3
    assert abs(float(torch.corrcoef(found[1].flatten(1))[0, 1])) < 0.03
    assert add_noise(image, torch.tensor([5.0, 5.0])).aminmax() == (0.0, 1.0)
