"""How many workers a machine carries: its usable cores, and the memory that is free."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from blemish.utils.cores import usable_cores

# Bytes of one worker: torch, an encoder of the largest that the registry names by default, and one image of 100 million
# pixels (benchmarks/batch.py measures the resident size of a worker).
WORKER_BYTES = 1_500_000_000
_CGROUP = Path("/sys/fs/cgroup")
_DEVICES = Path("/dev")  # GPUs by their number on the machine: a container that was given the fourth has no first


def free_memory() -> int | None:
    """Bytes that programs may still take, of the machine or of the container; None where the system does not say."""
    found: list[int] = []
    with suppress(OSError, ValueError, StopIteration, IndexError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        line = next(line for line in text.splitlines() if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())  # "max" is no number: no limit
        found.append(limit - int((_CGROUP / "memory.current").read_text()) + _cached_files())
    return min(found) if found else None


def _cached_files() -> int:
    """Bytes of files that the container has read and the system gives up at once: they count as its memory, too."""
    with suppress(OSError, ValueError, StopIteration, IndexError):
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("inactive_file ")).split()[1])
    return 0


def is_on_gpu(device: str) -> bool:
    """Whether a model that is to run on `device` ("auto", "cpu", "cuda") will run on a GPU; loads no torch."""
    return device.startswith("cuda") or (device == "auto" and any(_DEVICES.glob("nvidia[0-9]*")))


def default_workers(shards: int, is_gpu: bool = False) -> int:
    """Workers for so many shards: one a core as far as memory carries them; one for a GPU, which they would share."""
    if is_gpu:
        return 1
    memory = free_memory()
    carried = usable_cores() if memory is None else memory // WORKER_BYTES
    return max(1, min(usable_cores(), carried, shards))
