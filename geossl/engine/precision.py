"""The precision that the networks compute in; losses and geometry leave it for float32."""

from __future__ import annotations

import torch


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The networks' precision on a device."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def slow_precision(precision: str, device: torch.device) -> str:
    """A warning where the processor lacks the instructions for a precision, else nothing."""
    has = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    needed = {"fp32": (), "bf16": ("avx512_f", "amx_bf16"), "fp16": ("avx512_fp16", "amx_fp16")}[precision]
    if has.get("architecture") != "x86_64" or not needed or any(has.get(name) for name in needed):
        return ""
    return f"this processor has no {precision} arithmetic and emulates it, often 10 times slower: set precision=fp32"
