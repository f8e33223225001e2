"""What runs a depth network when maps are exported: torch, or OpenVINO on the CPU.

OpenVINO fuses the layers and packs the weights for the processor once. The converted network and what the processor
needs of it are kept in a folder of the user's cache, so that a second run starts at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import geossl
from geossl.engine.model_folder import LoadedModel
from geossl.engine.precision import autocast
from geossl.predict.common import model_size
from geossl.types import MissingInput, PredictsDepth

RUNTIMES = ("torch", "openvino")
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}  # as OpenVINO calls them


class TorchDepth:
    """A method's depth, its networks in the memory layout that suits convolutions, in a precision."""

    def __init__(self, method: Any, precision: str) -> None:
        self.method = method.to(memory_format=torch.channels_last)
        self.precision = precision

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1], (B, 3, 3) -> (B, 1, H, W) float32 z-depth."""
        with autocast(self.precision, image.device):
            depth: Tensor = self.method.predict_depth(image.contiguous(memory_format=torch.channels_last), K)
        return depth.float()


class OpenVinoDepth:
    """A method's depth as a network that OpenVINO has compiled for one image at a time."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.inputs = [entry.get_any_name() for entry in compiled.inputs]

    def predict_depth(self, image: Tensor, K: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1], (B, 3, 3) -> (B, 1, H, W) float32 z-depth."""
        depths = []
        for one, matrix in zip(image.split(1), K.split(1), strict=True):
            given = {"image": one.contiguous().numpy(), "K": matrix.contiguous().numpy()}
            result = self.compiled({name: given[name] for name in self.inputs})[0]
            depths.append(torch.from_numpy(result.copy()))  # the next call writes to the same memory
        return torch.cat(depths)


DepthRuntime = TorchDepth | OpenVinoDepth


def depth_runtime(loaded: LoadedModel, runtime: str, precision: str, cache: Path | None = None) -> DepthRuntime:
    """What predicts a model's depth.

    Args:
        loaded: The model, on its device.
        runtime: Of `RUNTIMES`.
        precision: Of `PRECISIONS`; of the networks only.
        cache: Where converted networks are kept; None takes `cache_folder()`.

    Raises:
        ValueError: If runtime or precision are unknown, or OpenVINO is to run on another device than the CPU.
        MissingInput: If OpenVINO is not installed, or the model predicts no depth.
    """
    if runtime not in RUNTIMES or precision not in PRECISIONS:
        raise ValueError(
            f"runtime '{runtime}' and precision '{precision}' should be of {', '.join(RUNTIMES)} and "
            f"{', '.join(PRECISIONS)}."
        )
    if not isinstance(loaded.method, PredictsDepth):
        raise MissingInput(f"{loaded.config.method} predicts no depth; give a model that does.")
    if runtime == "torch":
        return TorchDepth(loaded.method, precision)
    device = next(loaded.method.parameters()).device
    if device.type != "cpu":
        raise ValueError(f"runtime openvino is for the CPU, not for {device}; give --device cpu.")
    return OpenVinoDepth(_compiled(loaded, precision, cache or cache_folder()))


def cache_folder() -> Path:
    """Where converted networks are kept: geossl/openvino in the user's cache (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geossl" / "openvino"


def _compiled(loaded: LoadedModel, precision: str, cache: Path) -> Any:
    try:
        import openvino
    except ImportError:
        raise MissingInput(
            "runtime openvino needs OpenVINO; install it with pip install 'geossl[openvino]'."
        ) from None
    height, width = model_size(loaded)
    identity = [loaded.info["hash"], loaded.config.method, loaded.config.model, height, width]
    key = hashlib.sha256(
        json.dumps([*identity, geossl.__version__, torch.__version__, openvino.__version__], default=str).encode()
    ).hexdigest()
    path = cache / f"{key[:32]}.xml"
    core = openvino.Core()
    core.set_property({"CACHE_DIR": str(cache)})
    if not path.is_file():
        _convert(openvino, loaded, (height, width), path)
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    return core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": PRECISIONS[precision], **threads})


def _convert(openvino: Any, loaded: LoadedModel, size: tuple[int, int], path: Path) -> None:
    """Writes a model's depth network in OpenVINO's format; the .xml comes last, so that it stands for the whole."""
    example = torch.rand(1, 3, *size), torch.eye(3)[None]
    with torch.no_grad():
        exported = torch.export.export(_Depth(loaded.method), example)
    converted = openvino.convert_model(exported)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.xml")
    openvino.save_model(converted, str(temporary), compress_to_fp16=False)
    for suffix in (".bin", ".xml"):
        os.replace(temporary.with_suffix(suffix), path.with_suffix(suffix))


class _Depth(nn.Module):
    """A method's depth as a module of its own."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method

    def forward(self, image: Tensor, K: Tensor) -> Tensor:
        depth: Tensor = self.method.predict_depth(image, K)
        return depth
