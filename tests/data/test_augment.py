from dataclasses import replace

import pytest
import torch

from geossl.config import Augment
from geossl.data.augment import augment, draw, to_float
from geossl.types import Batch, Frame, collate

H, W = 17, 23
ALWAYS = Augment(flip=1, jitter=1)
NEVER = Augment(flip=0, jitter=0)


def frame(seed: int) -> Frame:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (1, 3, H, W), dtype=torch.uint8, generator=generator)
    return Frame(image, image, torch.tensor([[[20.0, 0, 9], [0, 20, 7], [0, 0, 1]]]))


def sample(index: int) -> Batch:
    T = torch.eye(4)[None].clone()
    T[0, 0, 3] = -0.5
    target, before, after, stereo = (frame(10 * index + i) for i in range(4))
    return Batch(target, (before, after), (-1, 1), stereo, T, index=torch.tensor([index]), names=(str(index),))


BATCH = collate([sample(i) for i in (3, 8, 5)])


def test_to_float_is_exact_and_once() -> None:
    batch = to_float(BATCH)
    assert batch.target.image.dtype == torch.float32 and batch.target.jittered is batch.target.image
    assert (batch.target.image * 255).round().to(torch.uint8).equal(BATCH.target.image)
    with pytest.raises(TypeError, match="expected uint8"):
        to_float(batch)


def test_without_augmentation_nothing_changes() -> None:
    batch = augment(BATCH, NEVER, 0, 0)
    for a, b in zip(batch.frames, to_float(BATCH).frames, strict=True):
        assert a.image.equal(b.image) and a.jittered is a.image and a.K.equal(b.K)


def test_every_frame_gets_the_same_colours_and_losses_the_clean_ones() -> None:
    first = frame(1)
    same = Batch(first, (first, first), (-1, 1), first, torch.eye(4)[None], index=torch.tensor([4]), names=("4",))
    batch = augment(same, Augment(flip=0, jitter=1), 1, 2)
    for other in batch.frames:
        assert other.jittered.equal(batch.target.jittered)
        assert other.image.equal(to_float(same).target.image)
    assert not batch.target.jittered.equal(batch.target.image)


def test_flip_moves_images_intrinsics_and_baseline_together() -> None:
    batch = augment(BATCH, Augment(flip=1, jitter=0), 0, 0)
    assert batch.target.image.equal(to_float(BATCH).target.image.flip(-1))
    assert batch.target.K[0, 0, 2] == W - 1 - 9
    assert batch.T_stereo_target is not None and batch.T_stereo_target[:, 0, 3].tolist() == [0.5] * 3


def test_a_samples_draws_do_not_depend_on_its_batch() -> None:
    options = Augment()
    whole = augment(BATCH, options, 7, 3)
    for place, index in enumerate((3, 8, 5)):
        alone = augment(sample(index), options, 7, 3)
        for a, b in zip(alone.frames, whole.frames, strict=True):
            # The mean of contrast may be summed in another order: equal to rounding.
            assert a.image[0].equal(b.image[place])
            torch.testing.assert_close(a.jittered[0], b.jittered[place], atol=1e-6, rtol=0)


def test_augment_is_reproducible_and_keyed() -> None:
    def images(seed: int, epoch: int, batch: Batch = BATCH) -> torch.Tensor:
        return augment(batch, ALWAYS, seed, epoch).target.jittered

    assert images(1, 2).equal(images(1, 2))
    moved = replace(BATCH, index=torch.tensor([13, 18, 15]))
    for other in (images(2, 2), images(1, 3), images(1, 2, moved)):
        assert not other.equal(images(1, 2))


def test_draws_have_the_probabilities_and_ranges() -> None:
    options = Augment(flip=0.3, jitter=0.6, brightness=0.2, contrast=1.5, saturation=0.1, hue=0.05)
    drawn = draw(range(4000), options, 0, 0)
    assert drawn.flip.mean() == pytest.approx(0.3, abs=0.03) and drawn.jitter.mean() == pytest.approx(0.6, abs=0.03)
    for values, low, high in (
        (drawn.brightness, 0.8, 1.2),
        (drawn.contrast, 0.0, 2.5),
        (drawn.saturation, 0.9, 1.1),
        (drawn.hue, -0.05, 0.05),
    ):
        assert low <= values.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))


def test_augment_does_not_change_its_input() -> None:
    before = BATCH.target.image.clone()
    augment(BATCH, ALWAYS, 0, 0)
    assert BATCH.target.image.equal(before)
