"""The page about one inspection: the verdict first, then what it rests on, then every image worth a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from blemish.errors import ImageError
from blemish.metrics.ranking import auroc
from blemish.report import charts
from blemish.report.colours import HEAT, css
from blemish.report.evidence import NOT_KNOWN, CalibrationFacts, evidence_in_words
from blemish.report.overlays import draw_mask, draw_overlay, heat_image, light_copy, strongest_regions, thumbnail
from blemish.report.page import Markup, element, facts, figure, join, page, section, table, tile, write_page
from blemish.scoring.describe import count_in_words, number, rarity_in_words, region_in_words, times_in_words
from blemish.types import Prediction

ImageInputs = Callable[[Prediction], np.ndarray | None]

_SIDE, _SMALL_SIDE = 380, 168  # pixels of a shown image, of a compact one
_MOST_ROWS, _MOST_FAILURES, _MOST_CATEGORIES = 1000, 100, 24


@dataclass(frozen=True)
class _Inspection:
    """What the parts of the page draw from."""

    predictions: Sequence[Prediction]
    images: ImageInputs
    masks: ImageInputs | None
    labels: Mapping[str, int]
    calibration: Sequence[CalibrationFacts]
    reliefs: ImageInputs | None = None

    def relief(self, prediction: Prediction) -> np.ndarray | None:
        return _or_none(self.reliefs, prediction) if self.reliefs else None

    def image(self, prediction: Prediction) -> np.ndarray | None:
        return _or_none(self.images, prediction)

    def mask(self, prediction: Prediction) -> np.ndarray | None:
        return _or_none(self.masks, prediction) if self.masks else None

    def label(self, prediction: Prediction) -> int | None:
        return self.labels.get(prediction.source)

    def outcome(self, prediction: Prediction) -> str:
        """ "found", "missed", "false alarm", "passed", or the verdict alone where no label is known."""
        label = self.label(prediction)
        if not prediction.is_known:
            return "unknown part"
        if label is None:
            return "defective" if prediction.is_defective else "good"
        if label:
            return "found" if prediction.is_defective else "missed"
        return "false alarm" if prediction.is_defective else "passed"


def _or_none(give: ImageInputs, prediction: Prediction) -> np.ndarray | None:
    """None for a file that went away since it was inspected: no reason to lose the report."""
    try:
        return give(prediction)
    except (OSError, ImageError):
        return None


def write_inspection_report(
    path: str | Path,
    *,
    title: str,
    model_facts: Mapping[str, object],
    predictions: Sequence[Prediction],
    images: ImageInputs,
    failures: Sequence[tuple[str, str]] = (),
    calibration: Sequence[CalibrationFacts] = (),
    labels: Mapping[str, int] | None = None,
    masks: ImageInputs | None = None,
    reliefs: ImageInputs | None = None,
    loss_curve: Sequence[tuple[float, float]] | None = None,
    most_defective: int = 40,
    most_good: int = 36,
    made: datetime | None = None,
) -> Path:
    """Write one self-contained HTML page about an inspection and return its path.

    `images` and `masks` give the `(H, W, 3)` uint8 image and the `(H, W)` true mask of a prediction, or None; they
    are asked only for those that are shown; so are `reliefs`, the measured points as `(H, W, 3)` uint8. `failures` are
    (file, message) of unreadable images. `labels` maps a prediction's `source` to 0 or 1. `loss_curve` holds (step,
    loss). The most defective `most_defective` images and the `most_good` good ones nearest to the limit are shown,
    the rest counted, which bounds the page at a few MB.

    Raises OutputError when the page cannot be written.
    """
    data = _Inspection(predictions, images, masks, labels or {}, calibration, reliefs)
    defective = _worst_first(p for p in predictions if p.is_defective and p.is_known)
    unknown = _worst_first(p for p in predictions if not p.is_known)
    good = _worst_first(p for p in predictions if not p.is_defective and p.is_known)
    missed = [p for p in good if data.label(p)]
    passed = [p for p in good if not data.label(p)]
    when = (made or datetime.now()).strftime("%Y-%m-%d %H:%M")
    text = page(
        title,
        _headline(title, when, len(predictions), len(defective), len(good), len(unknown), len(failures)),
        _against_labels(data) if data.labels else None,
        _scores(data),
        _missed(data, missed, most_defective),
        _defective(data, defective, most_defective),
        _compact(data, unknown, most_good, "Unknown parts", _UNKNOWN_NOTE, "unknown"),
        _unreadable(failures),
        _compact(data, passed, most_good, "Good pictures", _GOOD_NOTE, "good"),
        _model(model_facts, calibration, loss_curve),
        _every_image(data),
        element("footer", f"Made by blemish on {when}. This file needs no network and no other file."),
    )
    return write_page(path, text)


_UNKNOWN_NOTE = (
    "These lie far from every part the model learned. They were not judged: check the camera and the part, "
    "or teach the model this part."
)
_GOOD_NOTE = "Nearest to the limit first: if a defect was missed, it is likely to be among these."


def _worst_first(predictions: Iterable[Prediction]) -> list[Prediction]:
    return sorted(predictions, key=lambda p: (-_excess(p), p.source))


def _excess(prediction: Prediction) -> float:
    """How far beyond its own limit a score lies; comparable across categories."""
    return prediction.score / prediction.threshold if prediction.threshold > 0 else prediction.score


def _headline(title: str, when: str, inspected: int, defective: int, good: int, unknown: int, failed: int) -> Markup:
    verdict = "No picture was inspected" if not inspected else f"{defective:,} of {inspected:,} defective"
    if inspected and not defective:
        verdict = f"No defect in {count_in_words(inspected, 'picture')}"
    tiles = [tile(f"{inspected:,}", "inspected"), tile(f"{defective:,}", "defective", "defect" if defective else "")]
    tiles.append(tile(f"{good:,}", "good", "good" if good else ""))
    if unknown:
        tiles.append(tile(f"{unknown:,}", "unknown part", "unknown"))
    tiles.append(tile(f"{failed:,}", "unreadable", "warn" if failed else ""))
    shares = [("defect", defective), ("unknown", unknown), ("good", good), ("warn", failed)]
    bar = [element("i", class_=f"b-{tone}", style=f"flex:{count}") for tone, count in shares if count]
    says = f"{defective} defective, {unknown} unknown, {good} good, {failed} unreadable"
    return element(
        "header",
        element("p", f"blemish inspection report · {when}", class_="brand"),
        element("h1", verdict),
        element("p", title, class_="lead"),
        element("div", *tiles, class_="tiles"),
        element("div", *bar, class_="share", role="img", aria_label=says),
    )


def _against_labels(data: _Inspection) -> Markup | None:
    """Found, missed, false alarms and the AUROC, where the truth is known; unknown parts were not judged."""
    known = [(p, data.label(p)) for p in data.predictions if p.is_known and data.label(p) is not None]
    if not known:
        return None
    scores = np.array([_excess(p) for p, _ in known])
    truth = np.array([int(bool(label)) for _, label in known])
    flagged = np.array([p.is_defective for p, _ in known])
    found, missed = int((flagged & (truth == 1)).sum()), int((~flagged & (truth == 1)).sum())
    alarms, passed = int((flagged & (truth == 0)).sum()), int((~flagged & (truth == 0)).sum())
    tiles = [
        tile(f"{found:,}", "defects found", "good", f"of {found + missed:,}"),
        tile(f"{missed:,}", "defects missed", "defect" if missed else ""),
        tile(f"{alarms:,}", "false alarms", "warn" if alarms else "", f"of {alarms + passed:,} good"),
    ]
    both = 0 < truth.sum() < len(truth)
    if both:
        tiles.append(tile(f"{auroc(scores, truth):.3f}", "AUROC", "", "1 is perfect, 0.5 is guessing"))
    note = (
        f"{count_in_words(len(known), 'picture')} of known parts came with a label; the model did not see the labels."
    )
    curves = charts.small_multiples(
        [charts.roc_chart(scores, truth, threshold=1.0), charts.precision_recall_chart(scores, truth)]
    )
    return section(
        "Against the known truth", element("div", *tiles, class_="tiles"), curves if both else None, note=note
    )


def _missed(data: _Inspection, missed: list[Prediction], most: int) -> Markup | None:
    if not missed:
        return None
    cards = [_card(data, p) for p in missed[:most]]
    note = "Labelled defective, scored below the limit. The heat shows what the model saw."
    return section(
        f"Missed defects ({len(missed):,})", *cards, _left_out(len(missed) - len(cards), "missed"), note=note
    )


def _defective(data: _Inspection, defective: list[Prediction], most: int) -> Markup | None:
    if not defective:
        return None
    shown = defective[:most]
    cards = [_card(data, p) for p in shown]
    return section(
        f"Defective pictures ({len(defective):,})",
        _heat_key(),
        _tools("parts", [tag for p in shown for tag in _tags(data, p)]),
        element("div", *cards, id="parts"),
        _left_out(len(defective) - len(cards), "defective"),
        note="Furthest above the limit first.",
    )


def _tags(data: _Inspection, prediction: Prediction) -> list[str]:
    tags = [data.outcome(prediction)] if data.label(prediction) is not None else []
    return tags + ([prediction.category] if prediction.category else [])


def _tools(list_id: str, tags: list[str]) -> Markup | None:
    """Filter buttons and a sort order: shown only where scripts run."""
    counts = Counter(tags)
    buttons = []
    if len(counts) > 1:
        total = element("button", "all", type="button", data_show="", aria_pressed="true")
        buttons = [total] + [
            element("button", f"{tag} ({n})", type="button", data_show=tag, aria_pressed="false")
            for tag, n in counts.most_common(_MOST_CATEGORIES)
        ]
    orders = [
        element("option", "furthest above the limit", value="score"),
        element("option", "file name", value="file"),
    ]
    select = element("select", *orders, aria_label="Sort by")
    return element("div", *buttons, select, class_="tools", data_list=list_id)


def _heat_key() -> Markup:
    stops = ", ".join(css(tuple(HEAT[i])) for i in (100, 150, 200, 250))
    key = element("i", style=f"background:linear-gradient(90deg, {stops})", aria_hidden="true")
    return element("p", "at the limit", key, "far above the limit; untinted areas lie below it", class_="heatkey")


def _card(data: _Inspection, prediction: Prediction) -> Markup:
    """One image: the views on the left, what is to say about it on the right."""
    outcome = data.outcome(prediction)
    name = Path(prediction.source).name or prediction.source
    pairs: dict[str, object] = {
        "score": number(prediction.score),
        "limit": number(prediction.threshold),
        "p-value": number(prediction.p_value),
    }
    head = [element("h3", name), _badge(outcome), element("span", prediction.category) if prediction.category else None]
    words = element(
        "div",
        element("div", *head, class_="head"),
        element(
            "p",
            element("strong", times_in_words(prediction.score, prediction.threshold)),
            f"; {_rarity(data, prediction)}",
        ),
        facts(pairs),
        _regions(prediction),
        element("p", prediction.source, class_="path") if prediction.source != name else None,
    )
    return element(
        "article",
        _views(data, prediction, name),
        words,
        class_="part",
        data_tags="|".join(_tags(data, prediction)),
        data_score=_excess(prediction),
        data_file=prediction.source,
    )


def _rarity(data: _Inspection, prediction: Prediction) -> str:
    """The p-value in words; the smallest value the evidence allows is said to be just that."""
    for known in data.calibration:
        same = known.category in (None, prediction.category)
        if same and len(known.scores) and prediction.score > np.max(known.scores):
            return f"higher than all {count_in_words(len(known.scores), 'good score')} it was compared with"
    return rarity_in_words(prediction.p_value)


def _badge(outcome: str) -> Markup:
    tones = {"found": "good", "good": "good", "passed": "good", "unknown part": "unknown", "false alarm": "warn"}
    return element("span", outcome, class_=f"badge {tones.get(outcome, 'defect')}")


def _views(data: _Inspection, prediction: Prediction, name: str) -> Markup:
    """The image plain, its relief where points were measured, marked, with the true defect where it is known."""
    image = data.image(prediction)
    if image is None:
        return element("div", element("p", "The picture is not at hand.", class_="note"))
    small, light = thumbnail(image, _SIDE), light_copy(prediction, _SIDE)
    views = [(small, "picture", f"{name}, as inspected")]
    relief = data.relief(prediction)
    if relief is not None:
        views.append((thumbnail(relief, _SIDE), "surface", f"{name}, its measured surface lit from one side"))
    if prediction.is_defective and prediction.regions:
        marked = draw_overlay(small, light, strip=False, scale=1.6)
        views.append((marked, "marked", f"{name}, marked: {_where(prediction)}"))
    else:
        heat = heat_image(light, (small.shape[0], small.shape[1]))
        views.append((heat, "heat, the limit at mid-scale", f"{name}, scores as heat"))
    mask = data.mask(prediction)
    if mask is not None and np.any(mask):
        views.append((draw_mask(small, mask, scale=1.6), "true defect", f"{name}, the true defect outlined in blue"))
    figures = (
        element("figure", figure(shown, alt, data_zoom=True), element("figcaption", caption))
        for shown, caption, alt in views
    )
    return element("div", *figures, class_="views")


def _where(prediction: Prediction) -> str:
    size = (prediction.map.shape[0], prediction.map.shape[1])
    strongest = strongest_regions(prediction)
    return region_in_words(strongest[0], size, prediction.map_threshold) if strongest else "no region"


def _regions(prediction: Prediction, most: int = 4) -> Markup | None:
    regions = strongest_regions(prediction)
    if not regions:
        return element("p", "No single area rises above the limit.", class_="note")
    size = (prediction.map.shape[0], prediction.map.shape[1])
    items = []
    for i, region in enumerate(regions[:most]):
        place, _, rest = region_in_words(region, size, prediction.map_threshold).partition(", ")
        items.append(
            element(
                "li", element("b", i + 1), element("span", place.capitalize(), element("span", rest, class_="more"))
            )
        )
    if len(regions) > most:
        more = count_in_words(len(regions) - most, "weaker region")
        items.append(element("li", element("span"), element("span", f"and {more}", class_="more")))
    return element("ul", *items, class_="regions")


def _compact(
    data: _Inspection, predictions: list[Prediction], most: int, heading: str, note: str, kind: str
) -> Markup | None:
    """Images as a contact sheet, only their name and score below."""
    if not predictions:
        return None
    figures = []
    for prediction in predictions[:most]:
        image = data.image(prediction)
        name = Path(prediction.source).name or prediction.source
        said = times_in_words(prediction.score, prediction.threshold)
        shown = element("div", "not at hand", class_="note")
        if image is not None:
            shown = figure(thumbnail(image, _SMALL_SIDE), f"{name}, {kind}, {said}", data_zoom=True)
        figures.append(element("figure", shown, element("figcaption", name, element("br"), element("b", said))))
    return section(
        f"{heading} ({len(predictions):,})",
        element("div", *figures, class_="grid"),
        _left_out(len(predictions) - len(figures), kind),
        note=note,
    )


def _left_out(count: int, kind: str) -> Markup | None:
    if count <= 0:
        return None
    words = count_in_words(count, f"more {kind} picture")
    return element("p", f"{words} not shown here; all are in results.csv.", class_="left-out")


def _unreadable(failures: Sequence[tuple[str, str]]) -> Markup | None:
    if not failures:
        return None
    items = [element("li", element("h3", file), element("p", message)) for file, message in failures[:_MOST_FAILURES]]
    return section(
        f"Unreadable files ({len(failures):,})",
        element("ul", *items, class_="trouble"),
        _left_out(len(failures) - len(items), "unreadable"),
        note="These were not inspected. All other pictures were.",
    )


def _scores(data: _Inspection) -> Markup | None:
    """One histogram a category: good parts the limit comes from, and what was inspected."""
    if not data.predictions:
        return None
    calibration = {known.category: known for known in data.calibration}
    names = sorted({p.category for p in data.predictions if p.is_known}, key=lambda name: name or "")
    shown = [
        _histogram(data, name, calibration.get(name, calibration.get(None)), len(names))
        for name in names[:_MOST_CATEGORIES]
    ]
    note = "Each row is scaled on its own. The limit should stand in a gap between the good and the defective."
    drawn = charts.small_multiples(shown) if len(shown) > 1 else join(*shown)
    rest = len(names) - len(shown)
    more = element("p", f"{count_in_words(rest, 'more category', 'more categories')} not drawn.", class_="left-out")
    return section("Scores", drawn, more if rest > 0 else None, note=note)


def _histogram(data: _Inspection, name: str | None, known: CalibrationFacts | None, of: int) -> Markup:
    mine = [p for p in data.predictions if p.category == name and p.is_known]
    groups = [charts.Group("good, reference", known.scores, "calm")] if known is not None else []
    if data.labels:
        kinds = [("good", 0, "good"), ("defective", 1, "defect"), ("no label", None, "accent")]
        for words, label, tone in kinds:
            values = np.array([p.score for p in mine if data.label(p) == label])
            if len(values):
                groups.append(charts.Group(words, values, tone))
    else:
        groups.append(charts.Group("inspected", np.array([p.score for p in mine]), "accent"))
    limit = mine[0].threshold if mine else known.threshold if known else None
    title = f"Picture scores of {name}" if name else "Picture scores"
    return charts.histogram(
        groups, title=title, threshold=limit, width=480 if of > 1 else 1040, bins=40 if of > 1 else 72
    )


def _model(
    model_facts: Mapping[str, object],
    calibration: Sequence[CalibrationFacts],
    loss_curve: Sequence[tuple[float, float]] | None,
) -> Markup:
    shown = {name: _fact(value) for name, value in model_facts.items()}
    boxes = [
        element(
            "div",
            element("h3", known.category) if known.category else None,
            *(element("p", sentence) for sentence in evidence_in_words(known)),
            class_="evidence",
        )
        for known in calibration[:_MOST_CATEGORIES]
    ]
    evidence = element("div", *boxes, class_="evidences") if boxes else None
    limits = element("p", NOT_KNOWN) if boxes else None
    loss = element("div", charts.loss_chart(loss_curve, width=1040)) if loss_curve else None
    return section("What the verdicts rest on", facts(shown), evidence, limits, loss)


def _fact(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(str(v) for v in value)
    return "–" if value is None else value


def _every_image(data: _Inspection) -> Markup | None:
    if not data.predictions:
        return None
    rows: list[list[object]] = []
    ordered = _worst_first(data.predictions)
    with_category = any(p.category for p in ordered)
    for p in ordered[:_MOST_ROWS]:
        row: list[object] = [p.source, _badge(data.outcome(p)), number(p.score), number(p.threshold), number(p.p_value)]
        rows.append(row + ([p.category] if with_category else []))
    columns = ["file", "verdict", "score", "limit", "p-value"] + (["category"] if with_category else [])
    drawn = table(columns, rows, caption="Strangest first", numeric=frozenset({2, 3, 4}))
    rest = _left_out(len(ordered) - len(rows), "inspected")
    summary = element("summary", f"Every picture as a table ({min(len(ordered), _MOST_ROWS):,})")
    return element("section", element("details", summary, drawn, rest))
