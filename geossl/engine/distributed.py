"""One process or many: who this process is, and the few things that processes must agree on.

`torchrun --no-python geossl train ...` starts one process for each GPU (or several on CPU) and tells each its rank in
the environment; without it there is one process and every function here does nothing.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import rendezvous

T = TypeVar("T")
POLL_S = 0.02  # between two looks at the store


@dataclass(frozen=True)
class World:
    """The processes of one training and this one's place among them.

    Attributes:
        rank: This process's number among all, 0 being the one that writes files.
        size: Number of processes.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag is True in every process if it is True in one."""
        if self.size == 1:
            return flags
        summed = torch.tensor([float(flag) for flag in flags], device=self.device)
        dist.all_reduce(summed)
        return tuple(bool(x) for x in summed.tolist())

    def mean(self, values: Tensor) -> Tensor:
        """The mean over processes, the same bits in each."""
        if self.size == 1:
            return values
        summed = values.clone()
        dist.all_reduce(summed)
        return summed / self.size

    def gather(self, value: T) -> list[T]:
        """Every process's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def share_buffers(self, module: nn.Module) -> None:
        """Gives every process the buffers (batch norm's running statistics) of process 0."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that `train.device` asks for; `auto` takes a GPU where there is one.

    Raises:
        ValueError: If the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if local_rank >= count:
            if not count:
                raise ValueError("device is cuda, but PyTorch sees no GPU. Set device=cpu, or install its CUDA build.")
            raise ValueError(
                f"process {local_rank} of this machine needs GPU {local_rank}, but PyTorch sees {count}. "
                f"Start at most {count} processes a machine, or set device=cpu."
            )
        return torch.device("cuda", local_rank)
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device is mps, but PyTorch has no Metal here. Set device=cpu.")
    return torch.device(name)


@contextmanager
def world_of(device: str = "auto") -> Iterator[World]:
    """Joins the processes that torchrun started (gloo on CPU, nccl on GPUs), and leaves them at the end.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`, as in `train.device`.

    Raises:
        ValueError: If the device is not there.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    picked = pick_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if picked.type == "cuda":
        torch.cuda.set_device(picked)
    if size == 1 or dist.is_initialized():  # a caller that has its own process group keeps it
        yield World(rank, size, picked)
        return
    store, rank, size = next(rendezvous("env://"))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        store = fresh_store(store, rank, size)
    backend = "nccl" if picked.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield World(rank, size, picked)
    finally:
        dist.destroy_process_group()


def fresh_store(store: dist.Store, rank: int, size: int, patience_s: float = 1800.0) -> dist.Store:
    """A part of a store that no earlier attempt has written to, the same for all processes.

    torchrun's agent keeps one store over its restarts, so a restarted process can read the address of one that was
    killed (`connectFullMesh failed ... Connection refused`). Restart counts are each machine's own and cannot tell
    attempts apart; so process 0 names a session, and gives the name to each process that shows a token of its own.

    Raises:
        TimeoutError: If a process does not come in time.
    """
    deadline = time.monotonic() + patience_s
    if rank > 0:
        token = secrets.token_hex(16)
        store.set(f"geossl/token/{rank}", token)
        _await(store, f"geossl/session/{token}", deadline)
        session = store.get(f"geossl/session/{token}").decode()
        store.set(f"geossl/joined/{session}/{rank}", "yes")
        return dist.PrefixStore(f"geossl/{session}", store)
    session = secrets.token_hex(16)
    answered = [""] * size
    missing = set(range(1, size))
    while missing:
        for other in sorted(missing):
            if store.check([f"geossl/token/{other}"]):
                token = store.get(f"geossl/token/{other}").decode()
                if token != answered[other]:  # maybe that of a killed process, which the living one will overwrite
                    store.set(f"geossl/session/{token}", session)
                    answered[other] = token
            if store.check([f"geossl/joined/{session}/{other}"]):
                missing.discard(other)
        if missing and time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(missing)} of {size} did not come within {patience_s:g} s.")
        time.sleep(POLL_S)
    return dist.PrefixStore(f"geossl/{session}", store)


def _await(store: dist.Store, key: str, deadline: float) -> None:
    while not store.check([key]):
        if time.monotonic() > deadline:
            raise TimeoutError("process 0 did not come in time.")
        time.sleep(POLL_S)


def share_of(items: Sequence[T], world: World) -> Sequence[T]:
    """This process's part of a list: every `size`-th item."""
    return items[world.rank :: world.size]
