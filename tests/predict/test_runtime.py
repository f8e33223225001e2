"""The same depth, whatever runs the network."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from predict_tiny import checkpoint, pictures

from geossl.benchmark.predict import untrained_model
from geossl.engine.model_folder import load_model
from geossl.predict import predict_depth
from geossl.predict.runtime import cache_folder, depth_runtime
from geossl.types import MissingInput


@pytest.fixture
def image_and_K() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(1)), torch.eye(3).repeat(3, 1, 1)


def test_openvino_gives_torch_s_depth(tmp_path: Path, image_and_K: tuple[torch.Tensor, torch.Tensor]) -> None:
    pytest.importorskip("openvino")
    loaded = load_model(untrained_model(tmp_path, (64, 96))[0])
    with torch.no_grad():
        expected = loaded.method.predict_depth(*image_and_K)
    written = []
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 1e-2)):
        runtime = depth_runtime(loaded, "openvino", precision, tmp_path / "cache")
        found = runtime.predict_depth(*image_and_K)
        assert found.dtype == torch.float32 and found.shape == (3, 1, 64, 96)
        assert float((found - expected).norm() / expected.norm()) < tolerance
        written.append({path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.xml")})
    assert len(written[0]) == 1 and written[0] == written[1]  # converted once


def test_torch_in_bf16_stays_close(tmp_path: Path, image_and_K: tuple[torch.Tensor, torch.Tensor]) -> None:
    loaded = load_model(untrained_model(tmp_path, (64, 96))[0])
    with torch.no_grad():
        expected = loaded.method.predict_depth(*image_and_K)
        found = depth_runtime(loaded, "torch", "bf16").predict_depth(*image_and_K)
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < 1e-2


def test_meta_says_what_ran(tmp_path: Path) -> None:
    predict_depth(checkpoint(tmp_path), str(pictures(tmp_path / "in", 1)), tmp_path / "out", precision="bf16")
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert (meta["runtime"], meta["precision"]) == ("torch", "bf16")
    assert np.load(tmp_path / "out" / "npy" / "frame_0.npy").dtype == np.float32


def test_a_folder_holds_one_precision_and_one_runtime(tmp_path: Path) -> None:
    model, source, out = checkpoint(tmp_path), str(pictures(tmp_path / "in", 2)), tmp_path / "out"
    predict_depth(model, source, out)
    with pytest.raises(ValueError, match=r"holds predictions with precision = fp32, these have bf16\. .*--overwrite"):
        predict_depth(model, source, out, precision="bf16")
    assert predict_depth(model, source, out).kept == 2
    assert predict_depth(model, source, out, precision="bf16", overwrite=True).written == 2
    meta = json.loads((out / "meta.json").read_text())
    for said, shown in (({"runtime": "openvino"}, "openvino"), ({}, "not said")):
        (out / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if k != "runtime"} | said))
        with pytest.raises(ValueError, match=f"holds predictions with runtime = {shown}, these have torch"):
            predict_depth(model, source, out, precision="bf16")


def test_unknown_runtimes_and_missing_openvino_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(checkpoint(tmp_path))
    with pytest.raises(ValueError, match="runtime 'tensorrt' and precision 'fp32' should be of torch, openvino"):
        depth_runtime(loaded, "tensorrt", "fp32")
    imported = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:
        if name == "openvino":
            raise ImportError(name)
        return imported(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingInput, match=r"pip install 'geossl\[openvino\]'"):
        depth_runtime(loaded, "openvino", "fp32")


def test_cache_lies_in_the_user_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "geossl" / "openvino"
