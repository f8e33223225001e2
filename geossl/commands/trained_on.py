"""How many of the evaluated frames a model was trained on, by the config that is stored with the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geossl.config import AnySource
from geossl.data.build import build_samples, build_targets
from geossl.data.leaks import NEAR_FRAMES, Leaks, leaks
from geossl.data.samples import Sample


@dataclass(frozen=True)
class Training:
    """What a model was trained on, as far as its data are on this machine.

    Attributes:
        samples: Of the training sources that are here.
        unknown: For each source that is not, why nothing is known of it.
    """

    samples: tuple[Sample, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class LeakNote:
    """What a result says of training frames among the evaluated ones.

    Attributes:
        found: What training and test share; None where nothing is known of the training data.
        unknown: See `Training`.
    """

    found: Leaks | None
    unknown: tuple[str, ...] = ()

    def __str__(self) -> str:
        reasons = "; ".join(self.unknown)
        if self.found is None:
            return f"unknown ({reasons})"
        near = f", {len(self.found.near)} within {NEAR_FRAMES} frames" if self.found.near else ""
        more = f"; unknown for the rest of the training ({reasons})" if reasons else ""
        return f"{len(self.found.frames)} of {self.found.tested} frames trained on{near}{more}"

    def annotated(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its field `leaks`, and with a warning if the model has seen what it is tested on."""
        warnings = [*row.get("warnings", [])]
        if self.found is not None and not self.found.clean:
            warnings.append(f"the model has seen what it is tested on: {self.found}")
        return {**row, "leaks": str(self), "warnings": warnings}

    def to_json(self) -> dict[str, Any]:
        """Counts, None where nothing is known."""
        found = self.found
        return {
            "tested": None if found is None else found.tested,
            "trained_on": None if found is None else len(found.frames),
            "near": None if found is None else len(found.near),
            "recordings": None if found is None else found.recordings,
            "unknown": list(self.unknown),
        }


def training_of(model: str | Path) -> Training:
    """The training samples of a model, by the config stored with it.

    Relative roots are looked for below the current folder, as a training does.

    Raises:
        CheckpointError: If there is no model at `model`.
    """
    from geossl.engine.model_folder import stored_experiment

    data = stored_experiment(model).data
    samples: list[Sample] = []
    unknown = [] if data.train else ["the model's config names no training data"]
    for source in data.train:
        try:
            samples += build_samples(source, data)
        except (OSError, ValueError) as error:
            unknown.append(reason_of(source, error))
    return Training(tuple(samples), tuple(unknown))


def reason_of(source: AnySource, error: Exception) -> str:
    if not Path(source.root).exists():
        return f"training data not found at {source.root}"
    return f"training data at {source.root} cannot be used: {str(error).rstrip('.')}"


def leak_note(training: Training, test: Iterable[Sample]) -> LeakNote:
    """Compares what is known of a training with the evaluated samples."""
    return LeakNote(leaks(training.samples, test) if training.samples else None, training.unknown)


def leaks_of(model: str | Path, source: AnySource, names: Iterable[str]) -> LeakNote:
    """What a model's training shares with the named images of a source."""
    return leak_note(training_of(model), evaluated_samples(source, names))


def evaluated_samples(source: AnySource, names: Iterable[str] | None = None) -> list[Sample]:
    """The target frames of a source; only those of the given names, where some are given."""
    wanted = None if names is None else frozenset(names)
    return [sample for sample in build_targets(source) if wanted is None or sample.name in wanted]
