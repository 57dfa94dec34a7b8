"""Settings under the names of earlier versions, in saved models and after `--set`."""

from __future__ import annotations

import pytest

from blemish import registry
from blemish.detectors import factory
from blemish.detectors.hybrid import Hybrid
from blemish.detectors.patchcore import PatchCore
from blemish.detectors.settings import OLD_NAMES, setting_names
from blemish.errors import SettingsError
from blemish.registry import DETECTORS

PATCHCORE = {
    "aggregation": 5, "coreset": 0.5, "least_patches": 7, "most_copies": 9, "most_patches": 70, "reweight": 2,
    "sample": 90,
}  # fmt: skip
TRAINING = {"average": 0.5, "clip": 0.25, "warmup": 3}


@pytest.mark.parametrize(("name", "old"), [("patchcore", PATCHCORE), ("foundad", TRAINING)])
def test_earlier_names_of_settings_still_work(name: str, old: dict[str, float]) -> None:
    found = factory.build(name, old).settings
    assert {OLD_NAMES[key]: value for key, value in old.items()}.items() <= found.items()


def test_earlier_names_work_inside_both_halves_of_hybrid() -> None:
    old = {"coreset": 0.5, "local": {"aggregation": 5}, "context": {"least_patches": 7}}
    new = Hybrid(coreset_ratio=0.5, local={"neighbourhood_size": 5}, context={"min_patches": 7})
    assert factory.build("hybrid", old).settings == new.settings


def test_an_earlier_name_beside_the_one_of_today_is_refused() -> None:
    for settings in ({"coreset": 0.5, "coreset_ratio": 0.5}, {"coreset_ratio": 0.5, "coreset": 0.5}):
        with pytest.raises(SettingsError, match="once"):
            PatchCore.current_settings(settings)


def test_an_unknown_setting_is_named_as_it_was_typed() -> None:
    with pytest.raises(SettingsError, match="got warmup"):
        factory.build("patchcore", {"warmup": 3})


@pytest.mark.parametrize("name", DETECTORS)
def test_no_detector_has_a_setting_under_an_earlier_name(name: str) -> None:
    assert not set(setting_names(registry.resolve(DETECTORS[name].target))) & set(OLD_NAMES)
