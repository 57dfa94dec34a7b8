"""Inspected parts: kept, found again, and decided by people."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from blemish.errors import SettingsError
from blemish.serve.core import Core
from blemish.serve.errors import ConflictError, UnknownError
from blemish.serve.records import DECISIONS, Decision, PartRecord, Product, Review, ScoredPart
from blemish.types import VERDICTS

Order = Literal["time", "score", "lowest"]
State = Literal["open", "for_review", "reviewed", "unreviewed", "audited"]
ORDERS = {"time": "p.seq DESC", "score": "p.score DESC, p.seq DESC", "lowest": "p.score, p.seq DESC"}
_FOR_REVIEW = "p.verdict IS NOT NULL AND (p.verdict != 'good' OR p.audit_draw < p.audit_share)"
STATES = {
    "for_review": _FOR_REVIEW,
    "open": f"p.decision IS NULL AND {_FOR_REVIEW}",
    "reviewed": "p.decision IS NOT NULL",
    "unreviewed": "p.decision IS NULL",
    "audited": "p.audit_draw < p.audit_share",
}
MOST = 500  # parts of one page
LARGEST = 2**63 - 1  # of SQLite's integers
COLUMNS = (
    *("id", "part_id", "product", "version", "received_at", "sha256", "name", "source", "prediction", "verdict"),
    *("score", "p_value", "threshold", "unsure_threshold", "seconds", "audit_draw", "audit_share", "warnings"),
    *("statistics", "error", "has_picture"),
)


@dataclass(frozen=True, kw_only=True)
class PartQuery:
    """Which parts, in which order: all that are asked for must hold; None is not asked for, nor is an empty `verdict`.

    `product` is an id, `verdict` one of `VERDICTS` or "error", `state` a key of `STATES`, `decision` and `defect` those
    of the review that holds, `part_id` the user's, `since` a time, `text` is part of a name or part id, `before` the
    `seq` of a later part.
    """

    product: str | None = None
    verdict: str | None = None
    state: State | None = None
    decision: Decision | None = None
    defect: str | None = None
    part_id: str | None = None
    version: str | None = None
    since: float | None = None
    until: float | None = None
    text: str | None = None
    before: int | None = None
    order: Order = "time"
    limit: int = 50
    offset: int = 0

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL and its values. Raises SettingsError for an unknown word."""
        for value, known in (
            (self.verdict, (*VERDICTS, "error")),
            (self.state, get_args(State)),
            (self.decision, DECISIONS),
            (self.order, get_args(Order)),
        ):
            if value and value not in known:
                raise SettingsError(f"one of {', '.join(known)}", repr(value), "choose one of them")
        tests: list[tuple[str, Sequence[Any]]] = [("p.is_deleting = 0", ())]
        equal = {name: getattr(self, name) for name in ("product", "part_id", "version", "decision")}
        tests += [(f"p.{name} = ?", (value,)) for name, value in equal.items() if value is not None]
        if self.verdict:
            tests.append(("p.error != ''", ()) if self.verdict == "error" else ("p.verdict = ?", (self.verdict,)))
        if self.state is not None:
            tests.append((STATES[self.state], ()))
        if self.defect is not None:
            tests.append(("r.defect = ?", (self.defect,)))
        if self.since is not None:
            tests.append(("p.received_at >= ?", (self.since,)))
        if self.until is not None:
            tests.append(("p.received_at < ?", (self.until,)))
        if self.before is not None:
            tests.append(("p.seq < ?", (self.before,)))
        if self.text:
            escaped = self.text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
            tests.append((r"(p.part_id LIKE ? ESCAPE '\' OR p.name LIKE ? ESCAPE '\')", [f"%{escaped}%"] * 2))
        if self.order != "time":
            tests.append(("p.score IS NOT NULL", ()))
        return " AND ".join(test for test, _ in tests), [value for _, values in tests for value in values]


# A decision `d` that no later row takes back; the review that holds is the latest of a part.
_HOLDS = "d.decision IS NOT NULL AND NOT EXISTS (SELECT 1 FROM reviews u WHERE u.supersedes = d.seq)"
_LATEST = f"SELECT MAX(d.seq) FROM reviews d WHERE d.part = p.id AND {_HOLDS}"
JOINED = f"FROM parts p LEFT JOIN reviews r ON r.seq = ({_LATEST})"
SELECTED = (
    f"SELECT p.*, r.seq AS r_seq, r.decision AS r_decision, r.defect AS r_defect, r.who AS r_who, r.at AS r_at {JOINED}"
)


class Parts:
    """All inspections of all products, and the reviews of them."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def add(self, connection: sqlite3.Connection, part: PartRecord) -> PartRecord:
        """Write a new inspection; gives it with its number, `seq`.

        Raises sqlite3.IntegrityError where a part id has been inspected with this content.
        """
        values = {name: getattr(part, name) for name in COLUMNS}
        for name in ("prediction", "warnings", "statistics"):
            values[name] = json.dumps(values[name])
        places = ", ".join("?" * len(COLUMNS))
        statement = f"INSERT INTO parts ({', '.join(COLUMNS)}) VALUES ({places})"
        return replace(part, seq=connection.execute(statement, list(values.values())).lastrowid or 0)

    def get(self, identity: str) -> PartRecord:
        """One inspection by the service's id. Raises UnknownError."""
        row = self._core.store.row(f"{SELECTED} WHERE p.id = ? AND p.is_deleting = 0", (identity,))
        if row is None:
            raise UnknownError("the id of an inspected part", repr(identity[:80]), "take it from /api/parts")
        return part_of(row)

    def known(self, product: str, part_id: str, sha256: str) -> PartRecord | None:
        """The inspection of this content under this part id, if there was one."""
        row = self._core.store.row(
            f"{SELECTED} WHERE p.product = ? AND p.part_id = ? AND p.sha256 = ? AND p.part_id != ''",
            (product, part_id, sha256),
        )
        return None if row is None else part_of(row)

    def is_known(self, product: str, sha256: str) -> bool:
        """Whether a picture of this content has been judged for a product; one that could not be read has not."""
        found = self._core.store.row(
            "SELECT 1 FROM parts WHERE sha256 = ? AND product = ? AND error = ''", (sha256, product)
        )
        return found is not None

    def find(self, query: PartQuery) -> list[PartRecord]:
        """The parts asked for, `limit` of them after the first `offset`."""
        where, values = query.where()
        limit = min(max(1, query.limit), MOST)
        rows = self._core.store.rows(
            f"{SELECTED} WHERE {where} ORDER BY {ORDERS[query.order]} LIMIT ? OFFSET ?",
            [*values, limit, min(max(0, query.offset), LARGEST)],
        )
        return [part_of(row) for row in rows]

    def scored(self, product: str, scored_by: str, limit: int) -> list[ScoredPart]:
        """The latest `limit` parts of a product that versions of one detector scored, latest first.

        `scored_by` is that of the versions. Only what is compared is read, not the whole records.
        """
        rows = self._core.store.rows(
            "SELECT p.id, p.part_id, p.score, p.verdict, p.decision FROM parts p JOIN versions v ON v.id = p.version "
            "WHERE p.product = ? AND v.scored_by = ? AND p.score IS NOT NULL AND p.is_deleting = 0 "
            "ORDER BY p.seq DESC LIMIT ?",
            (product, scored_by, limit),
        )
        return [ScoredPart(*row) for row in rows]

    def count(self, query: PartQuery) -> int:
        """How many parts are asked for, whatever the page."""
        where, values = query.where()
        source = "FROM parts p" if query.defect is None else JOINED  # an index alone answers without the reviews
        row = self._core.store.row(f"SELECT COUNT(*) AS n {source} WHERE {where}", values)
        return 0 if row is None else int(row["n"])

    def counts(self, product: str | None = None, since: float | None = None) -> dict[str, int]:
        """How many parts had each verdict, could not be read ("error"), and wait for a person ("open")."""
        where, values = PartQuery(product=product, since=since).where()
        rows = self._core.store.rows(
            f"SELECT COALESCE(p.verdict, 'error') AS verdict, COUNT(*) AS n FROM parts p WHERE {where} GROUP BY 1",
            values,
        )
        found = dict.fromkeys([*VERDICTS, "error"], 0) | {row["verdict"]: int(row["n"]) for row in rows}
        return found | {"open": self.count(PartQuery(product=product, since=since, state="open"))}

    def defects(self, product: Product) -> dict[str, int]:
        """The names of defects that people gave, and how often."""
        rows = self._core.store.rows(
            "SELECT r.defect AS defect, COUNT(*) AS n FROM reviews r JOIN parts p ON p.id = r.part "
            f"WHERE r.seq = ({_LATEST}) AND p.product = ? AND r.defect != '' AND p.is_deleting = 0 "
            "GROUP BY 1 ORDER BY 2 DESC, 1",
            (product.id,),
        )
        return {row["defect"]: int(row["n"]) for row in rows}

    def review(self, identity: str, decision: str, who: str, defect: str = "") -> PartRecord:
        """A person's decision about a part; it takes the place of an earlier one, which stays in the history."""
        if decision not in DECISIONS:
            raise SettingsError(f"a decision: {', '.join(DECISIONS)}", repr(decision), "choose one of them")
        defect = defect.strip()[:100] if decision == "defective" else ""
        self.get(identity)
        with self._core.store.transaction() as connection:
            connection.execute(
                "INSERT INTO reviews (part, decision, defect, who, at) VALUES (?, ?, ?, ?, ?)",
                (identity, decision, defect, who, time.time()),
            )
            connection.execute("UPDATE parts SET decision = ? WHERE id = ?", (decision, identity))
        return self._announced(identity)

    def undo(self, who: str) -> PartRecord:
        """Take back the last decision of `who` that still holds. Raises ConflictError where there is none."""
        with self._core.store.transaction() as connection:
            last = connection.execute(
                f"SELECT * FROM reviews d WHERE d.who = ? AND {_HOLDS} ORDER BY d.seq DESC LIMIT 1",
                (who,),
            ).fetchone()
            if last is None:
                raise ConflictError("a decision to take back", f"none of {who}", "decide first")
            connection.execute(
                "INSERT INTO reviews (part, decision, defect, who, at, supersedes) VALUES (?, NULL, '', ?, ?, ?)",
                (last["part"], who, time.time(), last["seq"]),
            )
            connection.execute(
                f"UPDATE parts SET decision = (SELECT d.decision FROM reviews d WHERE d.part = parts.id AND {_HOLDS} "
                "ORDER BY d.seq DESC LIMIT 1) WHERE id = ?",
                (last["part"],),
            )
        return self._announced(last["part"])

    def _announced(self, identity: str) -> PartRecord:
        part = self.get(identity)
        review = None if part.review is None else part.review.to_dict()
        self._core.events.publish("review", {"part": identity, "product": part.product, "review": review})
        return part

    def history(self, identity: str) -> list[dict[str, Any]]:
        """All decisions about a part, taken back ones included, first one first."""
        rows = self._core.store.rows("SELECT * FROM reviews WHERE part = ? ORDER BY seq", (identity,))
        return [dict(row) for row in rows]


def part_of(row: sqlite3.Row) -> PartRecord:
    """A row of `SELECTED` as the record it is."""
    values: dict[str, Any] = {name: row[name] for name in COLUMNS}
    for name in ("prediction", "warnings", "statistics"):
        values[name] = json.loads(values[name])
    part = PartRecord(
        seq=row["seq"],
        **values | {"warnings": tuple(values["warnings"]), "has_picture": bool(values["has_picture"])},
    )
    if row["r_seq"] is None:
        return part
    return replace(
        part,
        review=Review(row["r_seq"], row["id"], row["r_decision"], row["r_defect"], row["r_who"], row["r_at"]),
    )
