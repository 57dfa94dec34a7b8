"""Runs a batch's shards in forked children and kills them at random moments, a program of its own without torch.

    python killed.py SOURCE OUT KILLS SEED

Prints how many children were killed before they were done. Forking after all imports, a kill costs some milliseconds.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from batch_parts import light
from light_maker import ORIGIN, LightMaker

from blemish.batch.run import INPUT, BatchSummary, finish, prepared
from blemish.batch.shards import finished_shards
from blemish.batch.source import InputReader
from blemish.batch.worker import Task, finish_shard
from blemish.utils.locking import exclusive


def one_by_one(source: Path, out: Path, run: str, pause: float = 0.0) -> None:
    """What `run_batch` does, with the work of the workers in this process."""
    settings = light(source, out, shard_rows=16)
    with exclusive(out):
        plan = prepared(settings, ORIGIN, [])
        reader = InputReader(out / INPUT)
        for number in sorted(set(range(len(plan))) - finished_shards(out)):
            for _ in finish_shard(LightMaker(pause=pause), reader, out, Task(plan.shard(number), run)):
                pass
        reader.close()
        finish(out, plan, ORIGIN, BatchSummary())


def main(source: Path, out: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    one_by_one(source, out.with_name("warm"), "warm")
    done = 0
    for attempt in range(20 * kills):
        child = os.fork()
        if not child:
            one_by_one(source, out, f"run{attempt}", pause=0.0005)
            os._exit(0)
        time.sleep(draw.uniform(0.001, 0.06))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        done += os.WIFSIGNALED(status)
        if done == kills:
            break
    one_by_one(source, out, "last")
    print(done)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
