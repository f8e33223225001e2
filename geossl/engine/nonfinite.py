"""What is done about a loss or gradient that is not finite: say where it came from, and keep the batch for replay."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from geossl.config import Experiment
from geossl.engine.checkpoint import CheckpointError, read_safetensors, write_safetensors
from geossl.engine.distributed import World
from geossl.types import Batch, Frame, Objective

FORMAT = "geossl-batch-1"
LISTED = 3  # parameters named in a message


class NonFiniteError(RuntimeError):
    """A loss or gradient was not finite.

    Attributes:
        step: The step (0 is the first) that failed; the weights are those before it.
        terms: Loss terms, or `gradient of <parameter>`, that are not finite, in any process.
        names: The samples of the batches, those of the processes where it began.
        batches: The saved batches; `load_batch` reads one.
    """

    def __init__(self, step: int, terms: list[str], names: list[str], batches: list[Path]) -> None:
        self.step, self.terms, self.names, self.batches = step, terms, names, batches
        super().__init__(
            f"not finite in step {step}: {', '.join(terms)}. Samples of the batch: {', '.join(names)}. "
            f"The batch is saved in {', '.join(map(str, batches))}; the weights are untouched and the last checkpoint "
            "stands. Look at these samples, lower train.lr, set train.grad_clip, or use train.precision=fp32."
        )


def non_finite_error(
    run: Path, experiment: Experiment, world: World, step: int, batch: Batch, objective: Objective, method: nn.Module
) -> NonFiniteError:
    """Saves the batch of every process where it began, and returns the error that names all of them."""
    terms = [f"loss term {name}" for name, value in objective.terms.items() if not bool(value.isfinite().all())]
    began = bool(terms)
    if not any(world.gather(began)):  # every loss is finite: a backward formula is to blame
        bad = [
            name for name, p in method.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())
        ]
        more = f" and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
        terms, began = ["gradient of " + ", ".join(bad[:LISTED]) + more], True
    path = run / "nonfinite" / f"step_{step:07d}_rank_{world.rank}.safetensors"
    if began:
        config = json.dumps(experiment.model_dump(mode="json"))
        save_batch(path, batch, {"step": str(step), "terms": json.dumps(terms), "experiment": config})
    reports = world.gather((terms, list(batch.names), path) if began else ([], [], None))
    return NonFiniteError(
        step,
        list(dict.fromkeys(term for found, _, _ in reports for term in found)),
        [name for _, names, _ in reports for name in names],
        [saved for _, _, saved in reports if saved is not None],
    )


def save_batch(path: Path, batch: Batch, notes: dict[str, str]) -> None:
    """Writes a batch as safetensors.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    tensors: dict[str, Tensor] = {"index": batch.index}
    frames = {"target": batch.target} | {f"sources/{i}": f for i, f in enumerate(batch.sources)}
    frames |= {} if batch.stereo is None else {"stereo": batch.stereo}
    frames |= {f"stereo_sources/{i}": f for i, f in enumerate(batch.stereo_sources)}
    for name, frame in frames.items():
        tensors |= {f"{name}/image": frame.image, f"{name}/jittered": frame.jittered, f"{name}/K": frame.K}
    if batch.T_stereo_target is not None:
        tensors["T_stereo_target"] = batch.T_stereo_target
    shape = {"names": json.dumps(batch.names), "source_offsets": json.dumps(batch.source_offsets)}
    write_safetensors(path, tensors, {"format": FORMAT} | shape | notes)


def load_batch(path: Path, device: torch.device | str = "cpu") -> Batch:
    """Reads a batch that `save_batch` wrote.

    Raises:
        CheckpointError: If it is not one.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a saved batch (format {metadata.get('format', 'missing')}).")

    def frame(name: str) -> Frame:
        return Frame(tensors[f"{name}/image"], tensors[f"{name}/jittered"], tensors[f"{name}/K"])

    def frames(name: str) -> tuple[Frame, ...]:
        count = sum(key.startswith(f"{name}/") and key.endswith("/image") for key in tensors)
        return tuple(frame(f"{name}/{index}") for index in range(count))

    return Batch(
        target=frame("target"),
        sources=frames("sources"),
        source_offsets=tuple(json.loads(metadata["source_offsets"])),
        stereo=frame("stereo") if "stereo/image" in tensors else None,
        T_stereo_target=tensors.get("T_stereo_target"),
        stereo_sources=frames("stereo_sources"),
        index=tensors["index"],
        names=tuple(json.loads(metadata["names"])),
    ).to(device)
