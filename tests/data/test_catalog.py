from __future__ import annotations

from blemish.data import DATASETS
from blemish.data.layouts import LAYOUTS


def test_every_entry_can_be_read_and_is_complete() -> None:
    assert len({info.name for info in DATASETS}) == len(DATASETS)
    for info in DATASETS:
        assert info.layout in LAYOUTS or info.package
        assert info.licence
        assert info.url.startswith("http")
        assert info.images >= info.categories > 0
