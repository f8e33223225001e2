"""A tiny method and an in-memory data set, and trainings of them in processes of their own that can be killed."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from geossl.config import Experiment, Strict, parse_experiment
from geossl.engine.benchmark import random_batch
from geossl.engine.checkpoint import Checkpoint, read_checkpoint
from geossl.engine.distributed import World
from geossl.engine.run_folder import last_path
from geossl.engine.train import TrainResult, train
from geossl.engine.validate import Validation
from geossl.methods.method import Method, depth_health
from geossl.types import Batch, Frame, Objective, collate

SAMPLES, BATCH_SIZE, STEPS = 14, 4, 11  # 3 steps an epoch
HEIGHT, WIDTH = 32, 64


class TinyOptions(Strict):
    channels: int = 4
    encoder_weights: str | None = "imagenet"
    min_depth: float = 0.1
    max_depth: float = 100.0
    poison: str | None = None
    """Sample whose loss is not a number."""
    poison_gradient: bool = False
    """A loss that is finite while its gradient is not."""


class Tiny(Method):
    """Paints the image's brightness; its inverse is called depth."""

    Options = TinyOptions
    is_metric = True
    latest: Tiny | None = None

    def __init__(self, options: TinyOptions) -> None:
        super().__init__(options)
        self.encoder = nn.Sequential(nn.Conv2d(3, options.channels, 3, padding=1), nn.BatchNorm2d(options.channels))
        self.decoder = nn.Conv2d(options.channels, 1, 3, padding=1)
        Tiny.latest = self

    def paint(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(image).relu()).float().sigmoid()

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
        return 1 / (self.paint(image) + 0.01)

    def forward(self, batch: Batch) -> Objective:
        painted, image = self.paint(batch.target.jittered), batch.target.image
        error = (painted - image.mean(1, keepdim=True)).abs()
        smooth = painted.diff(dim=3).abs().mean()
        terms = {"photometric": error.mean(), "smoothness": 0.1 * smooth}
        if self.options.poison in batch.names:
            terms["smoothness"] = terms["smoothness"] * torch.nan
        if self.options.poison_gradient:
            terms["root"] = (painted * 0).sqrt().sum()
        health = {"photometric": error.mean().detach(), **depth_health(1 / (painted + 0.01))}
        return Objective(terms, {"target": image, "error": error.detach(), "depth": 1 / painted.detach()}, health)


def sample(index: int) -> Batch:
    """Sample `index` of the data set: a smooth random uint8 image, 64x32."""
    generator = torch.Generator().manual_seed(index)
    coarse = torch.rand((1, 3, 4, 8), generator=generator)
    image = nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear").mul(255).byte()
    K = torch.tensor([[[40.0, 0, 31.5], [0, 40.0, 15.5], [0, 0, 1]]])
    return Batch(Frame(image, image, K), index=torch.tensor([index]), names=(f"sample/{index}",))


def street(index: int) -> Batch:
    """Random images with two sources and stereo, 96x64."""
    batch = random_batch(SAMPLES, 64, 96, (-1, 1), stereo=True)
    part = batch.map(lambda values: values[index : index + 1])
    return replace(part, names=(f"street/{index}",))


@dataclass
class Samples(Dataset[Batch]):
    streets: bool = False

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Batch:
        return street(index) if self.streets else sample(index)


@dataclass
class TinyLoader:
    """Batches keyed by (seed, epoch), from a step on; may kill or signal its process when asked for a given step."""

    world: World
    seed: int
    start_step: int
    workers: int
    batch_size: int = BATCH_SIZE
    signal_at: int | None = None
    signal_number: int = signal.SIGKILL
    streets: bool = False
    steps_per_epoch: int = SAMPLES // BATCH_SIZE

    def indices(self) -> Iterator[list[int]]:
        for step in itertools.count(self.start_step):
            epoch, place = divmod(step, self.steps_per_epoch)
            order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(1000 * self.seed + epoch)).tolist()
            batch = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield batch[self.world.rank :: self.world.size]

    def __iter__(self) -> Iterator[Batch]:
        samples = Samples(self.streets)
        loader = DataLoader(samples, batch_sampler=self.indices(), num_workers=self.workers, collate_fn=collate)  # type: ignore[arg-type]
        for step, batch in enumerate(loader, start=self.start_step):
            if step == self.signal_at:
                os.kill(os.getpid(), self.signal_number)
            yield batch


def tiny_experiment(**train_options: Any) -> Experiment:
    """An experiment with `Tiny` (or another `method`) and options of the training."""
    model, method = train_options.pop("model", {}), train_options.pop("method", "engine_tiny:Tiny")
    options = {"steps": STEPS, "batch_size": BATCH_SIZE, "device": "cpu", "lr": 1e-2, "log_every": 3}
    options |= {"checkpoint_every": 4, "sample_every": 100, "validate_every": 5} | train_options
    return parse_experiment({"method": method, "model": model, "train": options})


def train_tiny(
    run: Path, experiment: Experiment | None = None, workers: int = 0, *, resume: bool = True, **loader: Any
) -> TrainResult:
    """Trains in this process."""
    experiment = experiment or tiny_experiment()

    def make_loader(experiment: Experiment, world: World, start_step: int) -> TinyLoader:
        size = experiment.train.batch_size
        return TinyLoader(world, experiment.train.seed, start_step, workers, size, **loader)

    return train(experiment, run, resume=resume, make_loader=make_loader, make_validation=lambda d, m: Validation())


# --- trainings in other processes ------------------------------------------------------------------------------------


def context() -> ForkServerContext:
    """A server that has imported everything once, and forks quick children."""
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # the server, when first needed, starts with it
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["engine_tiny", "torch.utils.tensorboard", "torch._dynamo"])
    return found


def run_processes(run: Path, processes: int = 1, experiment: Experiment | None = None, **options: Any) -> list[int]:
    """Trains in processes as torchrun would start them, and returns their exit codes once all have ended."""
    port = free_port()
    children = []
    for rank in range(processes):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        texts = {name: str(value) for name, value in environment.items()} if processes > 1 else {}
        children.append(context().Process(target=_child, args=(run, texts, experiment, options)))
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        if child.exitcode is None or child.exitcode < 0:  # as torchrun does when one has died
            for other in children:
                other.kill()
    return [child.exitcode if child.exitcode is not None else -signal.SIGKILL for child in children]


def _child(run: Path, environment: dict[str, str], experiment: Experiment | None, options: dict[str, Any]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of loader workers, as in a training of its own
    if options.pop("kill_in_save", False):
        os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    raise SystemExit(train_tiny(run, experiment, **options).exit_code)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def last(run: Path) -> Checkpoint:
    return read_checkpoint(last_path(run))


def assert_same_bits(a: Checkpoint, b: Checkpoint, *, with_state: bool = True) -> None:
    """Weights, optimiser state and position are equal, bit by bit."""
    for one, other in ((a.model, b.model), (a.optimizer, b.optimizer)):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name
    if with_state:
        assert a.state == b.state


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    timing = ("samples_per_second", "seconds_per_step", "data_wait", "memory_mb")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in timing} for line in lines]
