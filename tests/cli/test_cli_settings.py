from __future__ import annotations

import pytest
import typer

from blemish.cli.main import app
from blemish.cli.settings import parse_settings
from blemish.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        ("true", True),
        ("False", False),
        ("none", None),
        ("mlp", "mlp"),
        ("top:0.01", "top:0.01"),
        ("[5,6,7]", [5, 6, 7]),
        ("a=b", "a=b"),
        ('"4"', "4"),
        ("NaN", "NaN"),
        ("", ""),
    ],
)
def test_a_value_is_read_as_what_it_looks_like(text: str, value: object) -> None:
    parsed = parse_settings([f"key={text}"])["key"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_commas_separate_settings_but_not_the_items_of_a_list() -> None:
    assert parse_settings(["depth=4,mlp=true, top=0.5"]) == {"depth": 4, "mlp": True, "top": 0.5}
    assert parse_settings(["blocks=[3,7],images=20"]) == {"blocks": [3, 7], "images": 20}
    assert parse_settings(['words=["a,b=1","c"]']) == {"words": ["a,b=1", "c"]}
    assert parse_settings(["prompts=a,b"]) == {"prompts": "a,b"}


def test_dashes_in_a_key_are_underscores() -> None:
    assert parse_settings(["top-k=3"]) == {"top_k": 3}


@pytest.mark.parametrize("pairs", [["depth"], ["=4"], ["1x=4"], ["a b=4"], ["depth=4", "depth=5"], ["depth=4,depth=5"]])
def test_what_is_no_setting_is_refused(pairs: list[str]) -> None:
    with pytest.raises(SettingsError, match="--set"):
        parse_settings(pairs)


@pytest.mark.parametrize(
    ("command", "of"),
    [("fit", "of the detector"), ("experiment", "of the experiment"), ("pretrain", "how the network")],
)
def test_the_help_says_what_is_set(command: str, of: str) -> None:
    (said,) = [one.help for one in typer.main.get_command(app).commands[command].params if "--set" in one.opts]
    assert of in said
