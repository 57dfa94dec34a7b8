"""The images of samples, decoded when asked for, ahead of the reader and in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import overload

from blemish.types import ImageOrScan, Sample

MEMORY = 256 << 20  # bytes of decoded images that are kept: of small sets every image is decoded once
LAST = 4  # images kept beyond that, the last ones asked for
AHEAD = 4  # images decoded before they are asked for, at most


class DecodedImages(Sequence[ImageOrScan]):
    """What `load` makes of each of the samples. The first ones stay in memory, up to `memory` bytes.

    After `expect(indices)` the images at these are decoded in a thread, a few ahead of the reader.
    """

    def __init__(self, samples: Sequence[Sample], load: Callable[[Sample], ImageOrScan], memory: int = MEMORY) -> None:
        self.samples, self.load, self.memory = samples, load, memory
        self._kept: dict[int, ImageOrScan] = {}
        self._bytes = 0
        self._last: OrderedDict[int, ImageOrScan] = OrderedDict()
        self._expected: deque[int] = deque()
        self._futures: dict[int, Future[ImageOrScan]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> ImageOrScan: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageOrScan]: ...
    def __getitem__(self, index: int | slice) -> ImageOrScan | list[ImageOrScan]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with self._lock:
            image = self._kept.get(index)
            image = self._last.get(index) if image is None else image
            if image is None:
                future = self._futures.pop(index, None)
                image = self.load(self.samples[index]) if future is None else future.result()
                self._keep(index, image)
            self._decode_expected(index)
            return image

    def expect(self, indices: Iterable[int]) -> None:
        """Say which images will be asked for next, in this order."""
        with self._lock:
            for future in self._futures.values():
                future.cancel()
            self._futures.clear()
            self._expected = deque(dict.fromkeys(indices))

    def subset(self, indices: Sequence[int]) -> DecodedImages:
        """The images at `indices` alone; what is decoded already stays so."""
        part = DecodedImages([self.samples[i] for i in indices], self.load, self.memory)
        for new, old in enumerate(indices):
            if old in self._kept:
                part._keep(new, self._kept[old])
        return part

    def _keep(self, index: int, image: ImageOrScan) -> None:
        if self._bytes + image.nbytes <= self.memory:
            self._kept[index] = image
            self._bytes += image.nbytes
            return
        self._last[index] = image
        if len(self._last) > LAST:
            self._last.popitem(last=False)

    def _decode_expected(self, index: int) -> None:
        """Start to decode what comes after `index`."""
        if index in self._futures or index not in self._expected:
            return
        while self._expected.popleft() != index:  # passed over
            pass
        following = [i for i, _ in zip(self._expected, range(AHEAD), strict=False)]
        for i in following:
            if i not in self._futures and i not in self._kept and i not in self._last:
                self._pool = self._pool or ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")
                self._futures[i] = self._pool.submit(self.load, self.samples[i])
