"""How long do the nearest neighbours and the coreset take? `python benchmarks/memory_bank_speed.py [--threads 2]`

Clustered random patches of width 384, one image of 1024 patches against banks of growing size, at both precisions and
as one plain `torch.cdist`; then the k-centre selection. Milliseconds and seconds are of the wall clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from blemish.numeric.coreset import k_centre
from blemish.numeric.neighbours import Neighbours

WIDTH, PATCHES = 384, 1024


def patches(count: int, seed: int) -> torch.Tensor:
    """`(count, WIDTH)` rows on a noisy 24-dimensional sheet, as patches of one kind of part are."""
    shared, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    axes, centres = torch.randn(24, WIDTH, generator=shared), torch.randn(300, 24, generator=shared)
    inner = centres[torch.randint(300, (count,), generator=own)] + 0.4 * torch.randn(count, 24, generator=own)
    return inner @ axes + 0.5 * torch.randn(count, WIDTH, generator=own)


def best_of(runs: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--largest", type=int, default=200_000, help="rows of the largest coreset problem")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    queries = patches(PATCHES, 1)
    print("bank rows, bfloat16 ms, float32 ms, torch.cdist ms")
    for count in (4096, 8192, 16384, 32768):
        bank = patches(count, 2)
        exact = [Neighbours(bank, "l2", precision) for precision in ("bfloat16", "float32")]
        for search in exact:
            search.search(queries[:2])
        times = [best_of(3, lambda s=search: s.search(queries)) for search in exact]
        times.append(best_of(3, lambda b=bank: torch.cdist(queries, b).min(1)))
        print(count, *(f"{1e3 * seconds:.0f}" for seconds in times), sep=", ")
    print("rows, selected, seconds")
    for count, share in ((32768, 0.1), (options.largest, 0.01), (options.largest, 0.1)):
        rows = patches(count, 3)
        print(count, round(share * count), f"{best_of(1, lambda r=rows, s=share: k_centre(r, round(s * len(r)))):.1f}")


if __name__ == "__main__":
    main()
