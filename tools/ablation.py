"""What the ablation tools share: studies, kept trainings, tables over the seeds, and whether claims came out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geossl.commands.console import text_table
from geossl.config import load_experiment, merge, parse_experiment
from geossl.engine.train import train
from geossl.formats.atomic import write_text_atomic
from geossl.report import curves_of, read_metrics

# What the narrow networks of flow and scene flow are trained with, and the narrow ARFlow that both tools compare.
FLOW_TRAIN = {
    "batch_size": 4,
    "lr": 1e-3,
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "grad_clip": 1.0,
    "validate_every": 100,
    "checkpoint_every": 1000,
    "sample_every": 1000,
}
NARROW_ARFLOW = {"width": 0.5, "normalize_costs": True, "census_from": 1.0, "augmentation_from": 0.5}
PAIRS = {"source_offsets": [1], "augment": {"jitter": 0.0}}
ARFLOW_ON_PAIRS = {
    "method": "arflow",
    "model": NARROW_ARFLOW,
    "data": PAIRS,
    "train": {**FLOW_TRAIN, "steps": 600},
}
CONTINUED = {"start_from": "{run:beginning}", "lr": 3e-4}  # of variants that go on from one beginning

Figures = Mapping[str, float]
Scores = Mapping[tuple[str, int], Figures]
"""(variant, seed) -> figures."""
Curve = tuple[list[float], list[float]]
"""Steps, and a figure's values at them."""


@dataclass(frozen=True)
class Study:
    """One method, its variants, and what each is expected to worsen.

    Attributes:
        base: The experiment's values.
        variants: Name -> what differs. `{run:NAME}` in a value is the run folder of another variant of the same seed,
            which is trained before.
        claims: (better, worse, figure): the comparisons that the paper makes.
        composed: Name of a system of several models -> its trainings by name, as `variants`; scored together.
    """

    base: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    claims: tuple[tuple[str, str, str], ...]
    composed: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def scored(self) -> tuple[str, ...]:
        """The rows of the table."""
        return (*self.variants, *self.composed)


def parser(description: str | None, out: str, studies: Mapping[str, Study]) -> argparse.ArgumentParser:
    """The options that every ablation has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("-o", "--out", type=Path, default=Path(out))
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--study", choices=list(studies), action="append", help="only this one; may be repeated")
    made.add_argument("--steps", type=int, help="of every training, instead of each study's own; for a quick look")
    return made


def run_studies(
    studies: Mapping[str, Study],
    arguments: argparse.Namespace,
    common: Mapping[str, Any],
    score: Callable[..., Figures],
) -> dict[str, Scores]:
    """Trains and scores every variant with every seed, and adds the tables to OUT/summary.json.

    Args:
        arguments: Of `parser`.
        common: Values of every experiment, over those of the study.
        score: Run folder (of a composed system, those of its trainings in their order) -> figures.

    Returns:
        The figures by study.
    """
    found = {}
    for name in arguments.study or list(studies):
        study, scores = studies[name], {}
        for seed in range(arguments.seeds):
            for variant in study.scored:
                runs = {
                    run_folder(arguments.out, name, part, seed): experiment_values(
                        arguments, name, study, part, seed, common
                    )
                    for part in study.composed.get(variant, (variant,))
                }
                scores[variant, seed] = run_together(run_folder(arguments.out, name, variant, seed), runs, score)
        found[name] = scores
        report_study(arguments, name, study, scores)
    return found


def report_study(arguments: argparse.Namespace, name: str, study: Study, scores: Scores) -> None:
    """Prints a study's tables, and adds them to OUT/summary.json."""
    path = arguments.out / "summary.json"
    summary = json.loads(path.read_text()) if path.is_file() else {}
    rows, verdicts = table_rows(study, scores), judge(study, scores)
    summary[name] = {"table": rows, "claims": verdicts, "seeds": arguments.seeds}
    write_text_atomic(path, json.dumps(summary, indent=1) + "\n")
    print(f"{name}\n{text_table(rows)}\n\n{text_table(verdicts)}\n", flush=True)


def run_folder(out: Path, study: str, variant: str, seed: int) -> Path:
    return out / study / f"{variant.replace(' ', '_')}-{seed}"


def experiment_values(
    arguments: argparse.Namespace, name: str, study: Study, variant: str, seed: int, common: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of one training, of a variant or of a part of a composed system."""
    steps = {} if arguments.steps is None else {"steps": arguments.steps}
    trainings = dict(study.variants)
    for parts in study.composed.values():
        trainings |= parts
    values = merge(merge(study.base, trainings[variant]), common)

    def filled(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: filled(part) for key, part in value.items()}
        if isinstance(value, str) and value.startswith("{run:"):
            return str(run_folder(arguments.out, name, value.removeprefix("{run:").removesuffix("}"), seed))
        return value

    return merge(filled(values), {"train": {"seed": seed, **steps}})


def run_variant(run: Path, values: Mapping[str, Any], score: Callable[[Path], Figures]) -> dict[str, float]:
    """Trains a variant where that is not done yet, and scores it."""
    return run_together(run, {run: values}, score)


def run_together(
    folder: Path, runs: Mapping[Path, Mapping[str, Any]], score: Callable[..., Figures]
) -> dict[str, float]:
    """Trains what is not trained yet, scores all of it together, and keeps the figures in the folder."""
    kept = folder / "scores.json"
    experiments = {run: parse_experiment(values, where=str(run)) for run, values in runs.items()}
    if kept.is_file():
        for run, experiment in experiments.items():
            if load_experiment(run / "config.yaml") != experiment:
                raise SystemExit(
                    f"{run} holds figures of other settings; choose another folder with -o, or remove it."
                )
        return json.loads(kept.read_text())  # type: ignore[no-any-return]
    for run, experiment in experiments.items():
        result = train(experiment, run)
        if result.stopped:
            raise SystemExit(result.exit_code)
    scores = dict(score(*runs))
    write_text_atomic(kept, json.dumps(scores, indent=1) + "\n")
    return scores


def table_rows(study: Study, scores: Scores) -> list[dict[str, Any]]:
    """One row a variant: each figure's median over the seeds and its range."""
    rows = []
    for variant in study.scored:
        row: dict[str, Any] = {"variant": variant}
        for figure in next(iter(scores.values())):
            values = values_of(scores, variant, figure)
            row[figure] = f"{np.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"
        rows.append(row)
    return rows


def judge(study: Study, scores: Scores) -> list[dict[str, Any]]:
    """Whether each claim came out: the medians' difference against the spread of the seeds."""
    verdicts = []
    for better, worse, figure in study.claims:
        a, b = values_of(scores, better, figure), values_of(scores, worse, figure)
        wins = sum(x < y for x, y in zip(a, b, strict=True))
        gap = float(np.median(b) - np.median(a))
        spread = max(float(np.std(a)), float(np.std(b)))
        verdicts.append(
            {
                "claim": f"{better} < {worse}",
                "figure": figure,
                "gap": gap,
                "largest_std": spread,
                "seeds_won": f"{wins} of {len(a)}",
                "came_out": "yes" if gap > spread and wins == len(a) else "weakly" if gap > 0 else "no",
            }
        )
    return verdicts


def values_of(scores: Scores, variant: str, figure: str) -> list[float]:
    return [values[figure] for (name, _), values in sorted(scores.items()) if name == variant]


def curves_of_variants(out: Path, name: str, study: Study, scores: Scores, figure: str) -> dict[str, Curve]:
    """A figure of the trainings' metrics.jsonl by variant, each curve the median over the seeds.

    A variant that starts from another goes on where that one ends.
    """
    drawn: dict[str, Curve] = {}
    for variant in study.variants:
        runs = [run_folder(out, name, variant, seed) for trained, seed in scores if trained == variant]
        steps, values = median_curve(runs, figure)
        before = drawn.get(started_from(study.variants[variant]))
        if before is not None:
            steps = [before[0][-1], *(before[0][-1] + step for step in steps)]
            values = [before[1][-1], *values]
        drawn[variant] = steps, values
    return drawn


def started_from(values: Mapping[str, Any]) -> str:
    """The variant whose weights one with these values starts from, "" where it starts from random ones."""
    given = values.get("train", {}).get("start_from") or values.get("model", {}).get("weights") or ""
    return str(given).removeprefix("{run:").removesuffix("}")


def median_curve(runs: Iterable[Path], figure: str) -> Curve:
    """The median over trainings with the same steps."""
    found = [curve(run, figure) for run in runs]
    return found[0][0], list(np.median([values for _, values in found], axis=0))


def curve(run: Path, figure: str) -> Curve:
    """A figure of a training's metrics.jsonl."""
    return curves_of(read_metrics(run / "metrics.jsonl"))[figure]
