"""Ramps, teachers, crops and hidden superpixels: closed forms, slow loops, and what a resumed training needs."""

import sys

import pytest
import torch
from torch import Tensor, nn

from geossl.geometry.warping import warp_by_flow
from geossl.methods.self_supervision import (
    Teacher,
    crop_at,
    draw_origins,
    hide_superpixels,
    ramp,
    some_superpixels,
    superpixels,
)


def test_ramp_worked_numbers() -> None:
    assert [ramp(p, 0.4, 0.2) for p in (0.0, 0.4, 0.5, 0.6, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert [ramp(p, 0.4) for p in (0.0, 0.39, 0.4, 1.0)] == [0, 0, 1, 1]
    assert ramp(0.0, 0.0) == 1


# --- teachers --------------------------------------------------------------------------------------------------------


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def trained_on(network: nn.Module, x: Tensor) -> None:
    """One step that changes weights, statistics and counters."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    network(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_teacher_is_a_frozen_copy_in_evaluation_mode() -> None:
    student, x = small_network(), torch.rand(3, 3, 5, 7)
    teacher = Teacher(student)
    teacher.train()
    before = teacher(x)
    assert torch.equal(before, student.eval()(x)) and not before.requires_grad
    trained_on(student, x)
    assert torch.equal(teacher(x), before)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


def test_following_teacher_is_the_moving_average_of_weights_and_statistics() -> None:
    student, x = small_network(), torch.rand(3, 3, 5, 7)
    teacher = Teacher(student)
    expected = {name: value.clone() for name, value in student.state_dict().items()}
    for _ in range(3):
        trained_on(student, x)
        teacher.follow(student, 0.9)
        for name, value in student.state_dict().items():
            moving = value.is_floating_point()
            expected[name] = 0.9 * expected[name] + 0.1 * value if moving else value.clone()
    found = teacher.network.state_dict()
    assert found["1.num_batches_tracked"] == 3
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
    frozen, copied = Teacher(student), Teacher(small_network())
    before = {name: value.clone() for name, value in frozen.network.state_dict().items()}
    frozen.follow(small_network(), 1.0)
    copied.follow(student, 0.0)
    weights = [name for name in before if name != "1.num_batches_tracked"]
    assert all(torch.equal(frozen.network.state_dict()[name], before[name]) for name in weights)
    assert all(torch.allclose(copied.network.state_dict()[name], before[name]) for name in weights)


def test_teacher_is_part_of_the_state_and_of_no_optimiser() -> None:
    student = small_network()
    method = nn.ModuleDict({"network": student, "teacher": Teacher(student)})
    other = nn.ModuleDict({"network": small_network(), "teacher": Teacher(small_network())})
    with torch.no_grad():
        student[0].weight.add_(1)
    other.load_state_dict(method.state_dict())
    x = torch.rand(1, 3, 4, 6)
    assert torch.equal(other["teacher"](x), method["teacher"](x))
    assert not torch.equal(other["teacher"](x), other["network"].eval()(x))


def test_teacher_refuses_weights_of_another_shape() -> None:
    teacher = Teacher(small_network())
    with pytest.raises(ValueError, match=r"some/file does not fit.*0\.weight"):
        teacher.load({**small_network().state_dict(), "0.weight": torch.zeros(4, 3, 5, 5)}, "some/file")


# --- crops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3])
def test_crop_shows_what_a_slow_loop_finds(batch_size: int) -> None:
    torch.manual_seed(1)
    x = torch.rand(2 * batch_size, 2, 9, 13)
    origins = draw_origins(batch_size, (9, 13), (4, 7))
    cropped = crop_at(x, origins, (4, 7))
    assert cropped.shape == (2 * batch_size, 2, 4, 7)
    for i in range(2 * batch_size):
        u, v = (int(c) for c in origins[i % batch_size])
        for row in range(4):
            for column in range(7):
                assert torch.equal(cropped[i, :, row, column], x[i, :, v + row, u + column])


def test_crop_is_what_a_warp_with_that_origin_and_zero_flow_sees() -> None:
    torch.manual_seed(2)
    x = torch.rand(3, 3, 11, 16)
    origins = draw_origins(3, (11, 16), (5, 6))
    seen, _ = warp_by_flow(x, torch.zeros(3, 2, 5, 6), origin=origins)
    assert torch.allclose(crop_at(x, origins, (5, 6)), seen, atol=1e-6)


def test_origins_reach_every_place_and_no_further() -> None:
    torch.manual_seed(0)
    origins = draw_origins(2000, (5, 8), (3, 7))
    assert {tuple(o) for o in origins.tolist()} == {(u, v) for u in range(2) for v in range(3)}
    assert torch.equal(draw_origins(2, (5, 8), (5, 8)), torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="crop of 9x3 is larger than the image, 8x5"):
        draw_origins(1, (5, 8), (3, 9))


# --- hidden superpixels ----------------------------------------------------------------------------------------------


def quarters(height: int = 40, width: int = 64) -> Tensor:
    """An image of four plain rectangles."""
    image = torch.zeros(3, height, width)
    image[0, : height // 2, : width // 2] = 1
    image[1, : height // 2, width // 2 :] = 1
    image[2, height // 2 :, : width // 2] = 1
    return image


def test_superpixels_follow_the_edges_of_plain_areas() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    image = quarters()
    labels = superpixels(image, 16)
    assert labels.shape == (40, 64) and labels.dtype == torch.int64 and labels.min() == 0
    assert 8 <= len(labels.unique()) <= 24
    crossing = sum(len(image[:, labels == n].unique(dim=1).T) > 1 for n in labels.unique())
    assert crossing == 0


def test_superpixels_of_odd_sizes_cover_the_image() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    torch.manual_seed(0)
    assert superpixels(torch.rand(3, 33, 61), 20).shape == (33, 61)


def test_marked_superpixels_are_whole_and_about_the_share() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    torch.manual_seed(0)
    images = torch.rand(3, 3, 48, 80)
    marked = some_superpixels(images, 0.3, segments=(60, 60))
    assert marked.shape == (3, 1, 48, 80) and marked.dtype == torch.bool
    assert 0.15 < marked.float().mean() < 0.45
    for image, mask in zip(images, marked[:, 0], strict=True):
        labels = superpixels(image, 60)
        assert all(len(mask[labels == n].unique()) == 1 for n in labels.unique())
    assert some_superpixels(images, 1.0).all() and not some_superpixels(images, 0.0).any()


def test_hidden_superpixels_are_the_same_noise_in_every_version() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    torch.manual_seed(0)
    clean = torch.rand(1, 3, 32, 48)
    (a, b), hidden = hide_superpixels((clean, clean * 0.5), 0.5)
    everywhere = hidden.expand_as(a)
    assert hidden.any() and not hidden.all()
    assert torch.equal(a[everywhere], b[everywhere]) and not torch.equal(a[everywhere], clean[everywhere])
    assert torch.equal(a[~everywhere], clean[~everywhere]) and torch.equal(b[~everywhere], clean[~everywhere] * 0.5)
    noise = a[everywhere]
    assert len(noise.unique()) > 0.99 * noise.numel() and 0.4 < noise.mean() < 0.6  # drawn for every pixel and channel
    torch.manual_seed(0)
    torch.rand(1, 3, 32, 48)
    (again, _), _ = hide_superpixels((clean, clean), 0.5)
    assert torch.equal(a, again)


def test_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ModuleNotFoundError, match=r"scikit-image.*pip install 'geossl\[superpixels\]'"):
        superpixels(torch.rand(3, 8, 8), 4)
