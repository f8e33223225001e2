"""`geossl check`: what a data set holds, every file that cannot be used, and what training shares with validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from geossl.config import SOURCE_KINDS, AnySource, ConfigError, Data, load_experiment, parse_source
from geossl.data.build import open_source
from geossl.data.check import check, find_missing
from geossl.data.exclude import Exclusion
from geossl.data.leaks import leaks
from geossl.data.samples import ALONE, Sample, Wanted


def check_data(
    spec: str,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    overrides: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """A summary of each source of a data specification or a config.

    Args:
        spec: `kind:root[,key=value...]`, or a config, of which all sources are looked at as training sees them.
        limit: Decode about this many samples, evenly spread; None decodes all. Missing files are looked for in all.
        progress: Called with (done, total) images of each source.
        overrides: "key=value" of the config.

    Returns:
        For each source: counts, sizes, cameras, labels, what its `exclude` left out, and `problems`, a line for each
        unusable file; for a config's validation sources also `leaks`, what its training sources share with them. Leaks
        are no problem in themselves: the Eigen-Zhou split, say, validates on neighbours of training frames.

    Raises:
        ConfigError: If the specification or config is wrong, or a specification has overrides.
        ValueError, OSError: If a source gives no samples at all.
    """
    training, validation = sources_of(spec, overrides)
    trained, summaries = [], []
    for source, data in training:
        samples, exclusion = open_source(source, data)
        summaries.append(summary(source, samples, exclusion, limit, progress))
        trained += samples
    for source, wanted in validation:
        samples, exclusion = open_source(source, wanted)
        row = summary(source, samples, exclusion, limit, progress)
        summaries.append({**row, "leaks": str(leaks(trained, samples))})
    return summaries


def sources_of(
    spec: str, overrides: Sequence[str]
) -> tuple[list[tuple[AnySource, Data]], list[tuple[AnySource, Wanted]]]:
    """The training sources (or the one of a specification) and the validation sources, with their samples' views."""
    if spec.partition(":")[0] in SOURCE_KINDS and not Path(spec).is_file():
        if overrides:
            raise ConfigError(f"'{overrides[0]}' is for a config; '{spec}' takes its options after commas.")
        return [(parse_source(spec), Data(source_offsets=(), stereo=False))], []
    data = load_experiment(spec, overrides).data
    return [(source, data) for source in data.train], [(source, ALONE) for source in data.validation]


def summary(
    source: AnySource,
    samples: Sequence[Sample],
    exclusion: Exclusion | None,
    limit: int | None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """What one source holds."""
    missing = find_missing(samples)
    absent = {problem.image for problem in missing}
    looked_at = thinned(samples, limit)
    problems = missing + [problem for problem in check(looked_at, progress) if problem.image not in absent]
    clips = Counter(sample.clip for sample in samples)
    sizes = Counter("{}x{}".format(*sample.target.camera.size) for sample in samples)
    labels: Counter[str] = Counter(sample.truth.kind for sample in samples if sample.truth is not None)
    labels.update(f"flow of {sample.flow_truth.kind}" for sample in samples if sample.flow_truth is not None)
    labels.update(f"scene flow of {s.scene_flow_truth.kind}" for s in samples if s.scene_flow_truth is not None)
    cameras = {
        tuple(round(float(v), 3) for v in sample.target.camera.K[(0, 1, 0, 1), (0, 1, 2, 2)]) for sample in samples
    }
    baselines = {round(float(s.T_stereo_target[0, 3]), 4) for s in samples if s.T_stereo_target is not None}
    return {
        "source": f"{source.kind}:{source.root}",
        "samples": len(samples),
        "clips": len(clips),
        "sizes": ", ".join(f"{size} ({count})" for size, count in sizes.most_common()),
        "cameras (fx, fy, cx, cy)": "; ".join(", ".join(f"{v:g}" for v in camera) for camera in sorted(cameras)[:5]),
        "stereo t_x (m)": ", ".join(f"{b:g}" for b in sorted(baselines)) or "none",
        "labels": ", ".join(f"{kind} ({count})" for kind, count in labels.items()) or "none",
        "excluded": "none" if exclusion is None else str(exclusion),
        "decoded": f"{len(looked_at)} of {len(samples)} samples",
        "problems": [str(problem) for problem in problems],
    }


def thinned(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` samples, evenly spread."""
    if limit is None or len(samples) <= limit:
        return list(samples)
    return [samples[i * len(samples) // limit] for i in range(limit)]
