"""Templates that escape what they show, and the words and numbers that several of them use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment

from blemish.report.page import environment_of, printable
from blemish.scoring.describe import number

# The mark and the word of each verdict: never its colour alone.
VERDICTS = {
    "good": ("✓", "good"),
    "defective": ("✕", "defective"),
    "unsure": ("?", "unsure"),
    "unknown": ("≠", "another part"),
    "error": ("!", "unreadable"),
}
# What the journal calls what has another name in code, or none.
WORDS = {
    "false_alarm_rate": "false alarms you accept",
    "unsure_rate": "good parts a person may be asked about",
    "audit_share": "random sample to review",
    "detector": "method",
    "detector_settings": "settings of the method",
    "image_size": "picture size",
    "sha256": "picture",
    "id": "number",
}
RATES = ("false_alarm_rate", "unsure_rate", "audit_share")


@cache
def environment() -> Environment:
    """The templates of this folder, with the words and filters that they use."""
    made = environment_of("blemish.serve.pages")
    made.globals["verdicts"] = VERDICTS
    made.filters |= {"when": when, "number": number, "percent": percent, "change": change_words, "counted": counted}
    made.filters |= {"gigabytes": gigabytes}
    return made


def render(template: str, **view: Any) -> str:
    """The page that a template makes of a view, without characters that HTML cannot hold."""
    common = {"user": None, "product": None, "tab": "", "waiting": 0, "needs_token": False}
    return printable(environment().get_template(template).render({**common, **view}))


@cache
def theme() -> str:
    """The colours of reports, light and dark, as a style sheet: pages and reports are one family."""
    css = files("blemish.report").joinpath("page.css").read_text("utf-8")
    return css[: css.index("* {")]


def when(seconds: float | None) -> str:
    """A time on this machine's clock."""
    return "–" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage of three digits at most."""
    return f"{100 * share:.3g} %"


def gigabytes(size: int) -> str:
    """Bytes in units of 10⁹ with three digits."""
    return f"{size / 1e9:.3g} GB"


def counted(count: int, word: str, words: str = "") -> str:
    """ "1 picture", "3 pictures"."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def change_words(change: Mapping[str, Any]) -> str:
    """What an entry of the journal says of before and after, in one line."""
    if "cause" in change:  # an alarm says it in words
        return str(change.get("text", change["cause"]))
    rest = {key: value for key, value in change.items() if key not in ("from", "to", "limits")}
    said = []
    if "to" in change:
        kind = "limits" if isinstance(change["to"], list) else "version"
        before = f"{plain(change['from'])} → " if change.get("from") else ""
        said.append(f"{kind} {before}{plain(change['to'])}")
    for key, value in rest.items():
        say = rate if key in RATES else plain
        is_move = isinstance(value, list) and len(value) == 2 and not are_hashes(value)
        words = f"{say(value[0])} → {say(value[1])}" if is_move else say(value)
        said.append(f"{WORDS.get(key, key.replace('_', ' '))} {words}")
    return "; ".join(said)


def are_hashes(values: Sequence[Any]) -> bool:
    """Whether these are names of pictures, which nobody reads: their number says enough."""
    return bool(values) and all(isinstance(one, str) and len(one) == 64 for one in values)


def rate(value: Any) -> str:
    """A share in [0, 1] as a person reads it."""
    return percent(value) if isinstance(value, int | float) else plain(value)


def plain(value: Any) -> str:
    """A value as a person reads it."""
    if value is None or value == "":
        return "none"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return str(len(value)) if are_hashes(value) else " / ".join(plain(one) for one in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items())
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "…"
