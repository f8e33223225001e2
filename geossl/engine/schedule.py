"""The learning rate as a function of the step, so that a resumed run needs no scheduler state.

A worked number: 100 steps, schedule 'step' with milestones (0.75,) and gamma 0.1: steps 0..74 train at lr, steps
75..99 at 0.1 lr.
"""

from __future__ import annotations

import math

from geossl.config import Train

ONE_CYCLE_RISE = 0.3  # share of the steps with rising rate, unless `warmup` says otherwise
ONE_CYCLE_START = 1 / 25  # first rate over the largest
ONE_CYCLE_END = 1e-4 / 25  # last rate over the largest


def learning_rate(step: int, total_steps: int, options: Train) -> float:
    """The rate of step `step` (0 is the first) of `total_steps`.

    `warmup` is a share of the training in which the rate rises linearly, ending at the schedule's own rate;
    `one_cycle` has a rise of its own, of which it sets the length.

    Raises:
        ValueError: If `step` is not in [0, total_steps).

    Source: one_cycle is Smith and Topin 2018 in the cosine form of `torch.optim.lr_scheduler.OneCycleLR`.
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"step is {step}; expected 0 <= step < total_steps = {total_steps}.")
    if options.schedule == "one_cycle":
        return options.lr * _one_cycle(step, total_steps, options.warmup or ONE_CYCLE_RISE)
    warmup_steps = round(options.warmup * total_steps)
    rise = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    if options.schedule == "cosine":
        share = max(0, step - warmup_steps) / max(1, total_steps - warmup_steps)
        return options.lr * rise * _cosine(1.0, 0.0, share)
    if options.schedule == "step":
        drops = sum(step >= round(milestone * total_steps) for milestone in options.milestones)
        return options.lr * rise * options.gamma**drops
    return options.lr * rise


def _one_cycle(step: int, total_steps: int, rise: float) -> float:
    top = rise * total_steps - 1  # the step of the largest rate, as a real number
    if step <= top:
        return _cosine(ONE_CYCLE_START, 1.0, step / top if top else 1.0)
    return _cosine(1.0, ONE_CYCLE_END, (step - top) / (total_steps - 1 - top))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
