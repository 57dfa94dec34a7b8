"""In which number format, on which device a frozen network runs: bf16 only where the hardware multiplies it fast.

What "auto" stands for is decided once, when a model is fitted, and is part of it: a model fitted in bf16 runs in bf16
on any machine, emulated (slowly) by a CPU without the instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from blemish.errors import SettingsError

Precision = Literal["auto", "fp32", "bf16"]


def resolve_device(device: str) -> torch.device:
    """ "auto" → the first GPU if there is one, else the CPU; a device that torch cannot use is a `SettingsError`."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise SettingsError("a device: auto, cpu or cuda", repr(device), "choose one of them") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError("a usable CUDA device", f"{device!r}, but torch sees none", "use the device cpu or auto")
    try:
        torch.zeros(1, device=resolved).item()  # of a device that holds no numbers ("meta"), there are none to ask for
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).partition("\n")[0].partition(". ")[0]
        raise SettingsError(
            "a device that torch can use", f"{device!r} ({why})", "use the device cpu or auto"
        ) from error
    return resolved


def check_precision(precision: str | Sequence[str]) -> None:
    """`SettingsError` unless it is a known precision, or a known one for each of several joined encoders."""
    for one in [precision] if isinstance(precision, str) else precision:
        if one not in get_args(Precision):
            raise SettingsError("a precision: auto, fp32 or bf16", repr(one), "choose one of them")


def precision_of(encoder: object) -> Precision | tuple[Precision, ...]:
    """The precision that an encoder runs in, one for each part of a joined one; "fp32" for one that does not say."""
    precision: Precision | tuple[Precision, ...] = getattr(encoder, "precision", "fp32")
    return precision


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """ "auto" → bf16 where the device has instructions for it, else fp32."""
    check_precision(precision)
    if precision != "auto":
        return precision
    return "bf16" if multiplies_bf16(device) else "fp32"


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16 matrices: a GPU says so, a CPU by its flags."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and cpu_multiplies_bf16()


@cache
def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has AVX512-BF16 or AMX; without them bf16 is emulated and slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def prepare(network: nn.Module, device: torch.device, precision: Literal["fp32", "bf16"]) -> nn.Module:
    """Freeze `network` and move it. For bf16 the weights of linear layers are rounded once, here.

    Everything else (norms, the residual stream, position embeddings) stays float32, so that rounding does not pile up
    over the blocks.
    """
    network = network.eval().requires_grad_(False).to(device)
    if precision == "bf16":
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.to(torch.bfloat16)
    return network
