"""Makes rows as `LightMaker`, in a worker that cannot write a shard's file."""

from __future__ import annotations

import os
import signal

from light_maker import LightMaker

from blemish.batch import worker


class DyingMaker(LightMaker):
    """The worker kills itself when it is to publish a shard, or, `without_memory`, has none for it."""

    def __init__(self, *, without_memory: bool = False, threads: int = 1) -> None:
        super().__init__(threads=threads)

        def publish(*_: object) -> None:
            if without_memory:
                raise MemoryError
            os.kill(os.getpid(), signal.SIGKILL)

        worker.publish = publish
