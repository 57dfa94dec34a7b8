"""How many parts a service takes on loopback: throughput, p50 and p99 of a reply, refusals, nothing lost or doubled.

    python benchmarks/serve_load.py MODEL PICTURES [--clients 200] [--parts 2000] [--workers 2] [--waiting 64]

MODEL is a model folder, PICTURES a folder of files to send. The server runs in a process of its own beside the clients,
on the same machine: figures of a line's own machine are better. A client that is refused (503) comes again after the
time that the reply asks for, give or take a half; its time counts from its first try.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from tables import keep_row

from blemish.model.inspector import Inspector
from blemish.serve.core import ServiceSettings
from blemish.serve.service import Service

RESULTS = Path(__file__).parent / "results" / "serve_load.csv"
HEAD = (
    *("model", "clients", "workers", "waiting", "parts", "parts_per_s", "p50_ms", "p99_ms", "refused", "lost"),
    *("doubled", "alone_ms"),
)


@contextmanager
def server(folder: Path, workers: int, waiting: int) -> Iterator[str]:
    """A service on a data folder, in a process of its own; its address."""
    options = ["--port", "0", "--workers", str(workers), "--waiting", str(waiting)]
    command = [sys.executable, "-m", "blemish", "serve", "--data", str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as found:
        assert found.stdout is not None
        line = next(text for text in found.stdout if "http://" in text)
        try:
            yield line.split("http://")[1].split(" ")[0]
        finally:
            found.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    for name, default in (("clients", 200), ("parts", 2000), ("workers", 2), ("waiting", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--name", default="", help="what the row is called; the model folder's name if left out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    contents = [path.read_bytes() for path in sorted(args.pictures.iterdir()) if path.is_file()]
    inspector = Inspector.load(args.model)
    inspector.inspect(contents[0])
    started = time.perf_counter()
    for content in contents[:10]:
        inspector.inspect(content)
    alone = (time.perf_counter() - started) / len(contents[:10])
    refused: Counter[int] = Counter()

    def send(numbers: range) -> list[tuple[str, float]]:
        replies = []
        with httpx.Client(base_url=f"http://{address}", timeout=300) as client:
            for number in numbers:
                began = time.perf_counter()
                path, content = f"/api/inspect?part_id={number}", contents[number % len(contents)]
                while (reply := client.post(path, content=content)).status_code == 503:
                    refused[503] += 1
                    time.sleep(float(reply.headers["retry-after"]) * random.uniform(0.5, 1.5))
                reply.raise_for_status()
                replies.append((reply.json()["id"], time.perf_counter() - began))
        return replies

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with Service.open(data, ServiceSettings()) as service:
            product = service.catalog.create("part", "benchmark")
            service.models.publish(product, inspector, "made elsewhere", "benchmark")
        with server(data, args.workers, args.waiting) as address, ThreadPoolExecutor(args.clients) as pool:
            httpx.post(
                f"http://{address}/api/inspect?part_id=first", content=contents[0], timeout=300
            ).raise_for_status()
            started = time.perf_counter()
            shares = [range(first, args.parts, args.clients) for first in range(min(args.clients, args.parts))]
            replies = [reply for some in pool.map(send, shares) for reply in some]
            seconds = time.perf_counter() - started
            stored = httpx.get(f"http://{address}/api/parts?limit=1", timeout=60).json()["total"] - 1
    times = np.array([each for _, each in replies]) * 1e3
    distinct = len({identity for identity, _ in replies})
    row = (
        *(args.name or args.model.name, args.clients, args.workers, args.waiting, args.parts),
        *(f"{args.parts / seconds:.1f}", f"{np.percentile(times, 50):.0f}", f"{np.percentile(times, 99):.0f}"),
        *(refused[503], args.parts - distinct, stored - distinct, f"{1e3 * alone:.1f}"),
    )
    keep_row(args.results, HEAD, 5, dict(zip(HEAD, map(str, row), strict=True)))
    print(*(f"{name} {value}" for name, value in zip(HEAD, row, strict=True)), sep="\n")


if __name__ == "__main__":
    main()
