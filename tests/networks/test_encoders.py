"""Encoders by name, timm's among them."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch

from geossl.networks.depth_decoder import DepthDecoder
from geossl.networks.encoders import build_encoder
from geossl.networks.resnet import ResnetEncoder


def test_build_encoder_knows_resnets() -> None:
    encoder = build_encoder("resnet34", images=2)
    assert isinstance(encoder, ResnetEncoder)
    assert encoder.images == 2


def test_build_encoder_names_the_closest() -> None:
    with pytest.raises(ValueError, match=r"unknown encoder 'resnet81'\. Did you mean 'resnet18'\? Known: .*timm:NAME"):
        build_encoder("resnet81")


def test_build_encoder_says_how_to_install_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_timm(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "timm":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_timm)
    with pytest.raises(ImportError, match=r"pip install geossl\[timm\]"):
        build_encoder("timm:resnet10t")


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_timm_encoder_feeds_the_depth_decoder(name: str) -> None:
    pytest.importorskip("timm")
    encoder = build_encoder(f"timm:{name}", images=2)
    features = encoder(torch.rand(2, 6, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(encoder.channels, (2, 4, 8, 16, 32), strict=True)
    ]
    maps = DepthDecoder(encoder.channels)(features)
    assert maps[0].shape == (2, 1, 64, 96)
    sum(m.mean() for m in maps).backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_timm_encoder_loads_a_file_and_inflates_it(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "w.pth")
    one = build_encoder("timm:resnet10t", tmp_path / "w.pth").eval()
    two = build_encoder("timm:resnet10t", tmp_path / "w.pth", images=2).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(one(image), two(image.repeat(1, 2, 1, 1)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_timm_encoder_names_what_does_not_fit(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"has no model 'resnet10tt'\. Did you mean 'timm:resnet10t'"):
        build_encoder("timm:resnet10tt")
    with pytest.raises(ValueError, match=r"strides 16, 16, 16; expected 4, 8, 16 and 32.*missing: 4, 8, 32"):
        build_encoder("timm:vit_tiny_patch16_224")
    torch.save(timm.create_model("convnext_atto").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth' do not fit timm's 'resnet10t': tensors .* missing, the first"):
        build_encoder("timm:resnet10t", tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError, match="no weights file"):
        build_encoder("timm:resnet10t", tmp_path / "none.pth")
