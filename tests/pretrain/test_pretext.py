"""The parts of the pretext tasks against closed forms and loops, and that their shortcuts are closed."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geossl.config import ConfigError, parse_experiment
from geossl.methods import build_method
from geossl.pretrain.anti_shortcut import (
    draw_tiles,
    drop_channels,
    lose_colour,
    lower_resolution,
    shift_channels,
    standardized,
    windows,
)
from geossl.pretrain.context_prediction import DIRECTIONS
from geossl.pretrain.cpc import cut_patches, other_near
from geossl.pretrain.exemplar import own_patch
from geossl.pretrain.jigsaw import GRID, cut_tiles, distant_orders
from geossl.pretrain.lab import annealed_mean, colour_bins, colour_image, rebalancing, soft_bins, to_lab, to_rgb
from geossl.pretrain.mutual_information import (
    across_views,
    info_nce_of_scores,
    jensen_shannon,
    margin_ranking,
)
from geossl.pretrain.reconstruction import Decoder, draw_hole, normal_divergence
from geossl.pretrain.rotation import all_turns, draw_square
from geossl.pretrain.tracking import patches_at
from geossl.types import Batch, Frame, MissingInput

exactly = partial(pytest.approx, abs=1e-6)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return build_method(name, {"encoder": "compact", **options})


def batch(offsets: tuple[int, ...] = (), stereo: bool = False, samples: int = 2) -> Batch:
    def frame(seed: int) -> Frame:
        image = random(samples, 3, 64, 96, seed=seed)
        return Frame(image, image, torch.eye(3).repeat(samples, 1, 1))

    names = tuple(f"drive{i}/image_02/{i:06d}" for i in range(samples))
    sources = tuple(frame(10 + offset) for offset in offsets)
    other, T = (frame(1), torch.eye(4).repeat(samples, 1, 1)) if stereo else (None, None)
    return Batch(frame(0), sources, offsets, other, T, index=torch.arange(samples), names=names)


# --- against shortcuts -----------------------------------------------------------------------------------------------


def test_windows_are_slices_and_repeat_the_border() -> None:
    image = random(2, 3, 7, 9)
    corners = torch.tensor([[[0, 0], [4, 2]], [[-2, 3], [7, 6]]])
    found = windows(image, corners, (3, 4))
    assert found.shape == (2, 2, 3, 3, 4)
    assert torch.equal(found[0, 0], image[0, :, :3, :4]) and torch.equal(found[0, 1], image[0, :, 2:5, 4:8])
    assert torch.equal(found[1, 0], image[1][:, 3:6][:, :, [0, 0, 0, 1]])
    assert torch.equal(found[1, 1], image[1][:, [6, 6, 6]][:, :, [7, 8, 8, 8]])


def test_tiles_stay_in_their_cells() -> None:
    corners, (h, w) = draw_tiles(50, (64, 95), (3, 3), 0.75)
    assert (h, w) == (16, 23) and corners.shape == (50, 9, 2)
    for number in range(9):
        v, u = 21 * (number // 3), 31 * (number % 3)
        found = corners[:, number]
        assert (found[:, 0] >= u).all() and (found[:, 0] + w <= u + 31).all() and len(found[:, 0].unique()) > 4
        assert (found[:, 1] >= v).all() and (found[:, 1] + h <= v + 21).all()


def test_standardized_tiles_do_not_tell_their_place_by_mean_and_spread() -> None:
    """A linear classifier of the nine places by each channel's mean and deviation: easy before, chance after."""
    torch.manual_seed(0)
    v, u = torch.meshgrid(torch.linspace(0, 0.5, 48), torch.linspace(0, 0.3, 60), indexing="ij")
    image = (v + u + 0.2 * v * random(40, 3, 48, 60)).double()
    raw = windows(image, *draw_tiles(40, (48, 60), GRID, 0.75))
    label = torch.arange(9).repeat(40)

    def accuracy(tiles: Tensor) -> float:
        x = torch.cat([tiles.mean((3, 4)), tiles.std((3, 4), correction=0)], 2).flatten(0, 1)
        x = torch.cat([x.round(decimals=5), torch.ones(len(x), 1)], 1)  # float rounding is no image
        weights = torch.linalg.lstsq(x, torch.nn.functional.one_hot(label).double(), driver="gelsd").solution
        return ((x @ weights).argmax(1) == label).double().mean().item()

    assert accuracy(raw) > 0.5
    assert accuracy(standardized(raw)) == exactly(1 / 9)
    torch.manual_seed(0)
    assert torch.allclose(cut_tiles(image, 0.75).mean((3, 4)), torch.tensor(0.45, dtype=torch.float64))


def test_flat_patches_stay_flat() -> None:
    assert torch.allclose(standardized(torch.full((1, 3, 4, 4), 0.9)), torch.tensor(0.45), atol=1e-4)


def test_dropped_channels_are_noise_about_the_mean() -> None:
    torch.manual_seed(0)
    image = random(64, 3, 8, 8)
    found = drop_channels(image, 0.5)
    kept = (found == image).flatten(2).all(2).sum(1)
    assert set(kept.tolist()) == {1, 3} and 16 < (kept == 1).sum() < 48
    number = int((kept == 1).nonzero()[0])
    channel = int((found[number] == image[number]).flatten(1).all(1).nonzero()[0])
    noise = found[number, (channel + 1) % 3]
    assert noise.mean().item() == pytest.approx(image[number, channel].mean().item(), abs=2e-3)
    assert noise.std().item() == pytest.approx(0.01 * image[number, channel].std().item(), rel=0.5)


def test_colour_channels_and_resolution() -> None:
    torch.manual_seed(0)
    image = random(16, 3, 12, 16)
    grey = lose_colour(image, 0.5)
    colourless = (grey[:, 0] == grey[:, 2]).flatten(1).all(1)
    assert 2 < colourless.sum() < 14 and torch.equal(grey[~colourless], image[~colourless])

    shifted = shift_channels(image, 1)[:, :, 1:-1, 1:-1]
    views = [image[:, :, 1 + v : 11 + v, 1 + u : 15 + u] for v in (-1, 0, 1) for u in (-1, 0, 1)]
    same = torch.stack([(shifted == view).flatten(2).all(2) for view in views])  # (9, 16, 3)
    assert same.any(0).all() and same.any((1, 2)).sum() > 5

    coarse = lower_resolution(image)
    deviation = coarse.std((1, 2, 3))
    assert (coarse == image).flatten(1).all(1).any() and (deviation < 0.7 * image.std((1, 2, 3))).any()


# --- puzzles ---------------------------------------------------------------------------------------------------------


def test_orders_are_distinct_far_apart_and_always_the_same() -> None:
    orders = distant_orders(9, 60)
    assert orders.shape == (60, 9) and orders[0].tolist() == list(range(9))
    assert (np.sort(orders, 1) == np.arange(9)).all()
    distance = (orders[:, None] != orders).sum(2)
    apart = distance[~np.eye(60, dtype=bool)]
    assert (distance[:9, :9][~np.eye(9, dtype=bool)] == 9).all()  # nine orders can differ in every place
    random_orders = np.random.default_rng(0).permuted(np.tile(np.arange(9), (60, 1)), axis=1)
    assert apart.min() >= 7 > (random_orders[:, None] != random_orders).sum(2)[~np.eye(60, dtype=bool)].min()
    distant_orders.cache_clear()
    assert np.array_equal(distant_orders(9, 60), orders)


def test_orders_against_a_slow_search() -> None:
    pool = list(permutations(range(4)))
    chosen = [pool[0]]
    while len(chosen) < 10:
        scores = []
        for order in pool:
            distances = [sum(a != b for a, b in zip(order, other, strict=True)) for other in chosen]
            scores.append((min(distances), sum(distances)))
        chosen.append(pool[scores.index(max(scores))])
    assert distant_orders(4, 10).tolist() == [list(order) for order in chosen]
    with pytest.raises(ValueError, match="there are 6 orders of 3 tiles; 7 are asked for"):
        distant_orders(3, 7)


def test_context_pairs_lie_where_their_direction_says() -> None:
    method = build("pretrain_context", pairs=200)
    side, gap, jitter = 13, 6, 1  # of images of 64 rows
    first, second, direction = method.draw_pairs(3, (64, 96))
    step = torch.tensor(DIRECTIONS)[direction] * (side + gap)
    assert (second - first - step).abs().max() == jitter and direction.unique().tolist() == list(range(8))
    assert (torch.cat([first, second]) >= 0).all()
    assert (torch.cat([first, second]) + side <= torch.tensor([96, 64])).all()


def test_context_patches_too_large_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"take 1\.24 of the image's height"):
        parse_experiment({"method": "pretrain_context", "model": {"patch": 0.3}})


def test_turns_come_back_after_four() -> None:
    torch.manual_seed(0)
    square = draw_square(random(3, 3, 5, 8))
    assert square.shape == (3, 3, 5, 5)
    turned = all_turns(square).unflatten(0, (4, 3))
    assert torch.equal(turned[0], square) and torch.equal(turned[2], square.flip(2, 3))
    assert torch.equal(torch.rot90(turned[3], 1, (2, 3)), square)


def test_exemplars_depend_on_their_index_only() -> None:
    image = random(1, 3, 30, 50).expand(3, -1, -1, -1)
    patches = own_patch(image, torch.tensor([4, 9, 4]), 1 / 3)
    assert patches.shape == (3, 3, 10, 10)
    assert torch.equal(patches[0], patches[2]) and not torch.equal(patches[0], patches[1])
    with pytest.raises(ValueError, match=r"sample 1 is beyond model\.samples = 1"):
        build("pretrain_exemplar", samples=1)(batch())


# --- reconstruction and colour ---------------------------------------------------------------------------------------


def test_normal_divergence_of_closed_forms() -> None:
    mean, variance = (torch.tensor(x).view(1, 2, 1, 1) for x in ([1.0, 0.0], [1.0, 4.0]))
    expected = 0.5 + 0.5 * (4 - 1 - math.log(4))  # of mean 1; of variance 4
    assert float(normal_divergence(mean, variance.log())) == exactly(expected)
    oracle = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, variance.sqrt()), torch.distributions.Normal(0.0, 1.0)
    )
    assert float(oracle.sum()) == exactly(expected)


def test_hole_has_its_size_and_a_rim() -> None:
    torch.manual_seed(0)
    hole, wide = draw_hole(torch.zeros(20, 3, 40, 61), 0.5, 3)
    assert (hole.sum((1, 2, 3)) == 20 * 30).all() and (wide | ~hole).all()
    rows = wide.any(3).sum(2).flatten()
    assert (rows <= 26).all() and (rows == 26).any()  # less at the image's border
    assert len({tuple(x.nonzero()[0].tolist()) for x in hole}) > 5


def test_decoder_reaches_odd_sizes() -> None:
    found = Decoder(4, 8, 5)(torch.zeros(1, 4, 2, 3), torch.zeros(1, 3, 49, 81))
    assert found.shape == (1, 3, 49, 81)


def test_inpainting_sees_nothing_of_the_hole() -> None:
    method, first = build("pretrain_inpaint", overlap=0.0), batch()
    torch.manual_seed(3)
    given = method(first).maps["given"]
    hole = (given == 0.45).all(1, keepdim=True)
    other = replace(first, target=first.target.map(lambda x: x.where(~hole, 1 - x) if x.dim() == 4 else x))
    torch.manual_seed(3)
    assert torch.equal(method(other).maps["given"], given)


def test_colour_alone_tells_nothing_of_lightness() -> None:
    lab = torch.tensor([50.0, 12.0, -8.0]).view(1, 3, 1, 1).expand(1, 3, 2, 3)
    darker = lab - torch.tensor([20.0, 0, 0]).view(1, 3, 1, 1)
    assert torch.equal(colour_image(lab), colour_image(darker))
    assert torch.allclose(to_lab(colour_image(lab))[:, 1:], lab[:, 1:], atol=0.1)
    assert torch.allclose(to_rgb(to_lab(random(1, 3, 4, 5))), random(1, 3, 4, 5), atol=1e-4)


def test_soft_bins_weigh_the_closest() -> None:
    bins = colour_bins()
    assert 200 < len(bins) < 400 and (bins % 10 == 0).all()
    ab = torch.tensor([[3.0, -4.0], [20.0, 20.0]])
    weights = soft_bins(ab, bins)
    assert torch.allclose(weights.sum(1), torch.ones(2)) and ((weights > 0).sum(1) == 5).all()
    assert bins[weights.argmax(1)].tolist() == [[0.0, 0.0], [20.0, 20.0]]
    distance = (ab[0] - bins).norm(dim=1).sort().values[:5]
    expected = (-(distance**2) / 50).exp()
    assert torch.allclose(weights[0].sort(descending=True).values[:5], expected / expected.sum(), atol=1e-5)


def test_rebalancing_of_two_colours() -> None:
    assert rebalancing(torch.tensor([1.0, 0.0])).tolist() == exactly([1.0, 3.0])
    assert rebalancing(torch.tensor([0.9, 0.1]), mix=1.0).tolist() == exactly([1.0, 1.0])
    frequency = torch.tensor([0.7, 0.2, 0.1])
    assert (frequency * rebalancing(frequency)).sum().item() == exactly(1.0)


def test_annealed_mean_goes_from_mode_to_mean() -> None:
    bins = torch.tensor([[0.0, 10.0], [20.0, 30.0]])
    logits = torch.tensor([0.75, 0.25]).log().view(1, 2, 1, 1)
    assert annealed_mean(logits, bins, 1.0).flatten().tolist() == exactly([5.0, 15.0])
    assert annealed_mean(logits, bins, 1e-3).flatten().tolist() == exactly([0.0, 10.0])


def test_colour_frequencies_move_after_the_step_only() -> None:
    method = build("pretrain_colourise", momentum=0.5)
    before = method.frequency.clone()
    method(batch())
    assert torch.equal(method.frequency, before)
    method.after_step()
    assert not torch.equal(method.frequency, before) and method.frequency.sum().item() == pytest.approx(1, abs=1e-5)


# --- what belongs together -------------------------------------------------------------------------------------------


def test_jensen_shannon_of_two_densities() -> None:
    """p = (1/2, 1/4, 1/4) and q = (1/4, 1/4, 1/2), by four samples each; the critic log p/q is the best one."""
    p, q = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64), torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)
    m = (p + q) / 2
    js = ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2
    critic = (p / q).log()
    joint, marginal = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 2, 2])
    best = jensen_shannon(critic[joint], critic[marginal])
    assert best.item() == exactly((2 * js - 2 * math.log(2)).item())
    for change in (0.1, -0.1):
        for value in range(3):
            other = critic.clone()
            other[value] += change
            assert jensen_shannon(other[joint], other[marginal]) < best
    certain = torch.full((4,), 50.0)
    assert jensen_shannon(certain, -certain).item() == exactly(0.0)  # JS = ln 2
    keep = torch.tensor([True, True, False, True])
    assert jensen_shannon(critic[joint], critic[marginal], keep) == jensen_shannon(
        critic[joint], critic[marginal[keep]]
    )


def test_info_nce_of_scores_against_a_loop() -> None:
    scores, own = random(4, 6).double(), torch.tensor([2, 0, 5, 2])
    excluded = random(4, 6, seed=1) < 0.4
    for i, loss in enumerate(info_nce_of_scores(scores, own, excluded)):
        others = [scores[i, j].exp() for j in range(6) if j == own[i] or not excluded[i, j]]
        assert loss.item() == exactly((-(scores[i, own[i]].exp() / sum(others)).log()).item())


def test_across_views_of_equal_embeddings_is_chance_both_ways() -> None:
    same = torch.ones(5, 3)
    assert across_views(same, same, 0.07).item() == exactly(2 * math.log(5))
    first, second = random(5, 3), random(5, 3, seed=1)
    assert across_views(first, second, 0.2).item() == exactly(across_views(second, first, 0.2).item())
    assert across_views(first, second, 0.2, torch.ones(5, 5, dtype=torch.bool)).item() == exactly(0.0)


def test_margin_ranking_against_a_loop() -> None:
    first, last = random(4, 3).double() - 0.5, random(4, 3, seed=1).double() - 0.5
    valid, negative = torch.tensor([True, False, True, True]), random(4, 4, seed=2) < 0.6
    cosine = torch.nn.functional.cosine_similarity(first[:, None], last, dim=2)
    losses = [
        max(0.0, (1 - cosine[i, i] - (1 - cosine[i, j]) + 0.5).item())
        for i in range(4)
        for j in range(4)
        if negative[i, j] and valid[i] and valid[j]
    ]
    assert margin_ranking(first, last, valid, negative, 0.5).item() == exactly(np.mean(losses))
    assert margin_ranking(first, last, ~valid & valid, negative, 0.5).item() == 0


def test_context_of_a_row_does_not_see_below() -> None:
    method = build("pretrain_cpc")
    z = random(1, 128, 7, 7)
    changed = z.clone()
    changed[:, :, 4:] = 0
    before, after = method.contexts(z), method.contexts(changed)
    assert torch.equal(before[:, :, :4], after[:, :, :4]) and (before[:, :, 4:] != after[:, :, 4:]).any()


def test_cpc_patches_overlap_by_half() -> None:
    image = random(1, 3, 64, 96)
    patches = cut_patches(image, 7, 0)
    assert patches.shape == (1, 49, 3, 16, 24)
    assert torch.equal(patches[0, 8], image[0, :, 8:24, 12:36])


def test_codes_of_near_samples_are_left_out() -> None:
    near = torch.eye(3, dtype=torch.bool)
    near[0, 2] = near[2, 0] = True
    found = other_near(torch.tensor([1, 3]), near, 2)  # codes of samples 0 and 1
    assert found.tolist() == [[False, False, False, False, True, True], [False] * 6]


def test_cpc_rows_must_be_there() -> None:
    with pytest.raises(ConfigError, match="rows: 6 cannot be predicted in a grid of 7"):
        parse_experiment({"method": "pretrain_cpc", "model": {"rows": 6}})


def test_multiview_sees_what_it_is_told() -> None:
    see = ("target", "stereo", "next")
    objective = build("pretrain_cmc", see=see)(batch((1,), stereo=True))
    assert list(objective.terms) == ["target_stereo", "target_next", "stereo_next"] and list(objective.maps) == [*see]
    assert objective.total.isfinite()
    with pytest.raises(MissingInput, match=r"CMC needs batch\.stereo"):
        build("pretrain_cmc", see=see)(batch((1,)))
    with pytest.raises(ConfigError, match="see: depth needs `teacher`"):
        parse_experiment({"method": "pretrain_cmc", "model": {"see": ["target", "depth"]}})
    with pytest.raises(ConfigError, match="names a view twice"):
        parse_experiment({"method": "pretrain_cmc", "model": {"see": ["target", "target"]}})


# --- time ------------------------------------------------------------------------------------------------------------


def test_standing_frames_teach_no_order() -> None:
    still = batch((-2, -1, 1, 2))
    still = replace(still, sources=(still.target,) * 4)
    for name in ("pretrain_order", "pretrain_arrow"):
        objective = build(name)(still)
        assert objective.total.item() == 0 and objective.health["moving"] == 0
        assert build(name)(batch((-2, -1, 1, 2))).health["moving"] == 1


def test_order_names_the_missing_frames() -> None:
    with pytest.raises(MissingInput, match=r"has none at -2, 2; set data\.source_offsets: \[-2, -1, 1, 2\]"):
        build("pretrain_order")(batch((-1, 1)))


def test_arrow_shows_the_earlier_frame_first_or_last() -> None:
    method, later = build("pretrain_arrow"), batch((1,), samples=8)
    objective = method(later)
    forwards = (objective.maps["first"] == later.target.image).flatten(1).all(1)
    assert 0 < forwards.sum() < 8
    assert torch.equal(objective.maps["first"][~forwards], later.sources[0].image[~forwards])


def test_patches_are_centred_on_their_places() -> None:
    image = random(1, 3, 20, 30)
    places = torch.tensor([[10.2, 7.9], [5.0, 9.0]]).view(1, 2, 1, 2)  # pixels (10.2, 5), (7.9, 9)
    found = patches_at(image, places, 5)
    assert torch.equal(found[0, 0], image[0, :, 3:8, 8:13]) and torch.equal(found[0, 1], image[0, :, 7:12, 6:11])
