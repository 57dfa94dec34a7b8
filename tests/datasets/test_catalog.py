from __future__ import annotations

from blemish.datasets import DATASETS
from blemish.datasets.layouts import LAYOUTS


def test_every_entry_can_be_read_and_is_complete() -> None:
    assert len({info.name for info in DATASETS}) == len(DATASETS)
    for info in DATASETS:
        assert info.layout in LAYOUTS or info.package
        assert info.licence
        assert info.url.startswith("http")
        assert info.pictures >= info.categories > 0
