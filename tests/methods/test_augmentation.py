import torch
from torch import Tensor

from geossl.methods.augmentation import (
    ARFLOW_SINTEL_APPEARANCE,
    SMURF_APPEARANCE,
    AppearanceRange,
    draw_recolouring,
    erase_rectangles,
    vary_apart,
    vary_appearance,
)


def random_image(samples: int = 3, height: int = 21, width: int = 33) -> Tensor:
    return torch.rand(samples, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_both_images_change_alike_but_for_the_noise() -> None:
    image = random_image()
    limits = AppearanceRange(0.5, 0.5, 0.5, 0.1, (0.7, 1.5), blur_px=3.0)
    first, second = vary_appearance([image, image.clone()], limits)
    assert torch.equal(first, second) and not torch.equal(first, image)
    first, second = vary_appearance([image, image.clone()], ARFLOW_SINTEL_APPEARANCE)
    assert not torch.equal(first, second)
    assert first.min() >= 0 and first.max() <= 1 and first.shape == image.shape


def test_an_empty_range_changes_nothing() -> None:
    image = random_image()
    assert torch.equal(vary_appearance([image], AppearanceRange())[0], image)


def test_brightness_is_a_factor_within_its_range() -> None:
    image = torch.full((500, 3, 2, 2), 0.5)
    torch.manual_seed(0)
    factors = vary_appearance([image], AppearanceRange(brightness=0.4))[0][:, 0, 0, 0] / 0.5
    assert 0.6 <= factors.min() < 0.61 and 1.39 < factors.max() <= 1.4


def test_about_half_of_the_samples_are_blurred() -> None:
    image = torch.zeros(400, 1, 3, 5).repeat(1, 3, 1, 1)
    image[..., 2] = 1
    torch.manual_seed(0)
    blurred = vary_appearance([image], AppearanceRange(blur_px=2.0))[0][:, 0, 1, 2] < 1
    assert 160 < int(blurred.sum()) < 240


def test_apart_means_by_other_draws_in_each_image() -> None:
    image = random_image()
    assert all(torch.equal(x, image) for x in vary_apart([image, image], SMURF_APPEARANCE, 0.0))
    first, second = vary_apart([image, image], SMURF_APPEARANCE, 1.0)
    assert not torch.equal(first, second) and not torch.equal(first, image)
    some = vary_apart([random_image(200, 4, 5)] * 2, SMURF_APPEARANCE, 0.2)
    changed = [(x != random_image(200, 4, 5)).flatten(1).any(1) for x in some]
    assert torch.equal(changed[0], changed[1]) and 20 < int(changed[0].sum()) < 62


def test_erased_rectangles_hold_the_mean_colour() -> None:
    image = random_image(2, 150, 200)
    torch.manual_seed(0)
    assert torch.equal(erase_rectangles(image, probability=0.0), image)
    found = erase_rectangles(image, probability=1.0, sides_px=(20, 30), most=1)
    for before, after in zip(image, found, strict=True):
        erased = (after != before).any(0)
        torch.testing.assert_close(after[:, erased], before.mean((1, 2))[:, None].expand(3, int(erased.sum())))
        rows, columns = erased.any(1), erased.any(0)
        assert erased.sum() == rows.sum() * columns.sum()  # one full rectangle
        assert 1 <= rows.sum() <= 30 and 1 <= columns.sum() <= 30


def test_erasing_starts_with_its_probability_and_goes_on_with_it() -> None:
    torch.manual_seed(0)
    image = random_image(1, 4, 5).repeat(2000, 1, 1, 1)
    erased = (erase_rectangles(image, 0.5, sides_px=(4, 6)) != image).any(1)
    assert 920 < int(erased.flatten(1).any(1).sum()) < 1080


def test_recolouring_is_one_change_for_every_image_within_its_ranges() -> None:
    """Of grey 0.25: 0.25^gamma lies in 0.189..0.330, times 0.5..2, times 0.8..1.2 for each channel."""
    image = torch.full((2000, 3, 1, 2), 0.25)
    torch.manual_seed(0)
    recolour = draw_recolouring(2000, 1.0)
    changed = recolour(image)
    assert torch.equal(changed, recolour(image))
    assert 0.189 * 0.5 * 0.8 <= changed.min() < 0.1 and 0.7 < changed.max() <= 0.33 * 2 * 1.2
    channels = changed[:, :, 0, 0]
    assert (channels.amax(1) / channels.amin(1)).max() <= 1.5 + 1e-4
    some = draw_recolouring(2000, 0.5)(image)
    assert 900 < int((some != image).flatten(1).any(1).sum()) < 1100
    assert torch.equal(draw_recolouring(2000, 0.0)(image), image)
