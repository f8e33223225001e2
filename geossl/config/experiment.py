"""The sections of an experiment, with every default and its meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from geossl.config.sources import AnySource
from geossl.config.strict import Strict


class Augment(Strict):
    """Colour jitter and horizontal flip of whole samples (Monodepth2's values)."""

    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    jitter: float = Field(0.5, ge=0, le=1, description="Probability of colour jitter; one draw for all frames.")
    brightness: float = Field(0.2, ge=0)
    contrast: float = Field(0.2, ge=0)
    saturation: float = Field(0.2, ge=0)
    hue: float = Field(0.1, ge=0, le=0.5)


class Data(Strict):
    train: tuple[AnySource, ...] = Field((), description="Sources of training samples.")
    validation: tuple[AnySource, ...] = Field(
        (), description="Sources with labels: depth, disparity, flow or scene flow."
    )
    height: int = Field(192, ge=64, multiple_of=32)
    width: int = Field(640, ge=64, multiple_of=32)
    source_offsets: tuple[int, ...] = Field((-1, 1), description="Time steps of the source views; () for none.")
    stereo: bool = Field(False, description="Load the other camera of the target's time.")
    stereo_sources: bool = Field(False, description="Load the other camera of the sources' times too.")
    cache: Literal["none", "memory", "disk"] = Field("none", description="Keep decoded uint8 images at training size.")
    cache_dir: Path | None = Field(None, description="Folder of the disk cache; null: ~/.cache/geossl.")
    on_error: Literal["raise", "skip"] = Field("raise", description="What to do about an unreadable sample.")
    num_workers: int = Field(2, ge=0, description="Loader processes; 0 loads in the training process.")
    augment: Augment = Augment()


class Train(Strict):
    start_from: Path | None = Field(
        None, description="Run folder, model folder or checkpoint of the same method, to start from its weights."
    )
    epochs: int = Field(20, ge=1)
    steps: int | None = Field(None, ge=1, description="Optimiser steps; overrides `epochs` where given.")
    batch_size: int = Field(12, ge=1, description="Samples a step over all processes.")
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "step"
    milestones: tuple[float, ...] = Field((0.75,), description="Shares of the training after which `step` drops.")
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of each drop of `step`.")
    warmup: float = Field(0.0, ge=0, lt=1, description="Share of the training with linearly rising rate.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Of the networks; losses stay float32.")
    channels_last: bool = True
    grad_clip: float | None = Field(None, gt=0, description="Largest gradient norm.")
    freeze_batchnorm: bool = Field(False, description="Use running statistics and do not update them.")
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    kernels: Literal["auto", "plain", "gpu"] = Field(
        "auto",
        description="auto: compiled CPU kernels where they fit; plain: torch only, the same figures, slower; gpu: as "
        "auto, and Triton kernels on CUDA, which have not been measured on a GPU yet.",
    )
    log_every: int = Field(20, ge=1, description="Steps between lines of metrics.jsonl.")
    sample_every: int = Field(500, ge=1, description="Steps between sample pictures.")
    validate_every: int = Field(1000, ge=1, description="Steps between validations.")
    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints.")


class Experiment(Strict):
    """One experiment: a method with its options, data and training."""

    method: str = Field("monodepth2", description="A name of geossl.methods, or package.module:Class of your own.")
    model: dict[str, Any] = Field(default_factory=dict, description="The method's own options.")
    data: Data = Data()
    train: Train = Train()
