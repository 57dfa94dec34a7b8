"""What other limits would change is read from scores alone, and is what whole records say."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from serve_parts import bad_png, good_png, taught

from blemish.serve.limits import LimitMove
from blemish.serve.models import calibration_of
from blemish.serve.parts import PartQuery
from blemish.serve.records import PartRecord, Product
from blemish.serve.service import Service
from blemish.serve.store import Row, Store

FLIP = ("part", "part_id", "score", "before", "after", "review")


def slow_preview(service: Service, product: Product, move: LimitMove) -> dict[str, Any]:
    """The preview's counts and flips from whole records, one by one."""
    active = service.models.active(product)
    before = calibration_of(service.models.inspector(active))
    after = move.of(before)
    detectors = {one.id: one.scored_by for one in service.models.versions(product.id)}
    records = [
        part
        for part in service.parts.find(PartQuery(product=product.id, limit=500))
        if part.score is not None and detectors[part.version] == active.scored_by
    ]

    def verdicts(part: PartRecord) -> tuple[str, str]:
        assert part.score is not None
        is_known = part.verdict != "unknown"
        return before.verdict(part.score, is_known), after.verdict(part.score, is_known)

    pairs = [(part, *verdicts(part)) for part in records]
    return {
        "total": len(records),
        "before": {
            name: sum(old == name for _, old, _ in pairs) for name in ("good", "unsure", "defective", "unknown")
        },
        "after": {name: sum(new == name for _, _, new in pairs) for name in ("good", "unsure", "defective", "unknown")},
        "flips": [
            (part.id, part.part_id, part.score, old, new, part.review and part.review.decision)
            for part, old, new in pairs
            if old != new
        ],
    }


def test_a_preview_is_what_whole_records_say(toy: str, tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        product = taught(service)
        service.line.inspect("disc", good_png(99))  # of a detector that is replaced: its score does not compare
        service.learning.wait(service.learning.start(product, "test").id)
        parts = [service.line.inspect("disc", good_png(100 + i), f"part {i}") for i in range(8)]
        parts += [service.line.inspect("disc", bad_png(200 + i)) for i in range(3)]
        service.line.inspect("disc", b"no picture")
        for part, decision in zip(parts, ("good", "unsure", "good", "defective"), strict=False):
            service.parts.review(part.id, decision, "test")
        service.parts.undo("test")
        with service.core.store.transaction() as connection:
            connection.execute("UPDATE parts SET verdict = 'unknown' WHERE id = ?", (parts[5].id,))
        product = service.core.product("disc")
        service.limits.set(product, LimitMove(false_alarm_rate=0.2), "test")  # the same detector: they compare
        product = service.core.product("disc")
        scores = sorted(part.score for part in parts if part.score is not None)
        for threshold, unsure in ((scores[2], scores[0]), (scores[-2], scores[-2]), (scores[6], scores[3])):
            move = LimitMove(threshold=threshold, unsure_threshold=unsure)
            found, expected = service.limits.preview(product, move), slow_preview(service, product, move)
            flips = [tuple(flip[name] for name in FLIP) for flip in found["flips"]]
            assert {**found["parts"], "flips": flips} == expected
            assert expected["total"] == len(parts)
            near = {one["part"]: one["score"] for one in found["nearest"]["threshold"]}
            assert near == {part.id: part.score for part in parts}


def test_a_preview_reads_scores_not_records(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One query, one short row a part: a limit that is dragged asks several times a second."""
    with Service.open(tmp_path) as service:
        product = taught(service)
        for i in range(6):
            service.line.inspect("disc", good_png(100 + i))
        read: list[Row] = []
        rows = service.core.store.rows

        def counted(query: str, values: Any = ()) -> list[Row]:
            found = rows(query, values)
            read.extend(found)
            return found

        monkeypatch.setattr(service.core.store, "rows", counted)
        assert service.limits.preview(product, LimitMove(false_alarm_rate=0.1))["parts"]["total"] == 6
        assert len(read) == 6
        assert all(len(row) == 5 and sum(len(str(value)) for value in row) < 200 for row in read)
        assert "prediction" not in {name for row in read for name in row.keys()}  # noqa: SIM118


def test_no_page_walks_over_all_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's plans: the latest parts come in order from an index, counts from one that covers them."""
    with Service.open(tmp_path) as service:
        product = service.catalog.create("disc", "test")
        store, parts = service.core.store, service.parts
        asked: list[tuple[str, Any]] = []

        def noted(query: str, values: Any = ()) -> list[Row]:
            asked.append((query, values))
            return []

        with monkeypatch.context() as patch:
            patch.setattr(store, "rows", noted)
            patch.setattr(store, "row", lambda *query: next(iter(noted(*query)), None))
            parts.scored(product.id, "v", 500)
            parts.find(PartQuery(product=product.id))
            ordered = len(asked)
            parts.counts(product.id)
            parts.count(PartQuery(product=product.id, state="open"))
            parts.counts()
        for place, (query, values) in enumerate(asked):
            plan = " ".join(row["detail"] for row in store.rows(f"EXPLAIN QUERY PLAN {query}", values))
            expected = (
                "SEARCH p USING INDEX parts_by_time" if place < ordered else "USING COVERING INDEX parts_by_state"
            )
            assert expected in plan, (query, plan)
            assert "FOR ORDER BY" not in plan, (query, plan)


def test_an_older_database_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its tables and indexes are then those of a new one, and what it holds is still there."""
    things = (
        'SELECT m.type, m.name, m.tbl_name, c.name, c.type, c."notnull", c.dflt_value '
        "FROM sqlite_master m LEFT JOIN pragma_table_info(m.name) c ORDER BY 1, 2, c.cid"
    )
    new = Store(tmp_path)
    expected = [tuple(row) for row in new.rows(things)]
    with new.transaction() as connection:
        connection.execute("INSERT INTO kept VALUES ('a', '1')")
        for index in ("parts_by_time", "parts_by_state", "outbox_by_webhook"):
            connection.execute(f"DROP INDEX {index}")
        connection.execute("DROP TABLE outbox")
        connection.execute("DROP TABLE webhooks")
        connection.execute(
            "CREATE TABLE webhooks (id TEXT PRIMARY KEY, url TEXT NOT NULL, verdicts TEXT NOT NULL, "
            "product TEXT NOT NULL, created_at REAL NOT NULL)"
        )
        connection.execute(
            "CREATE TABLE outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, webhook TEXT NOT NULL REFERENCES webhooks(id) "
            "ON DELETE CASCADE, body TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, "
            "last_error TEXT NOT NULL DEFAULT '')"
        )
        connection.execute("INSERT INTO webhooks VALUES ('w', 'http://x/', '[]', '', 1.0)")
        connection.executemany("INSERT INTO outbox VALUES (?, 'w', 'b', 3, 9e9, 'refused')", [(6,), (7,), (8,)])
        connection.execute("DELETE FROM outbox WHERE seq = 8")
        connection.execute("PRAGMA user_version = 1")
    new.close()
    for _ in range(2):
        store = Store(tmp_path)
        assert [tuple(row) for row in store.rows(things)] == expected
        assert store.row("SELECT value FROM kept")["value"] == "1"  # type: ignore[index]
        assert [tuple(row) for row in store.rows("SELECT * FROM outbox")] == [(6, "w", "b"), (7, "w", "b")]
        store.close()
    with closing(sqlite3.connect(tmp_path / "line.sqlite")) as connection:  # deliveries keep their numbers
        assert connection.execute("INSERT INTO outbox (webhook, body) VALUES ('w', 'c')").lastrowid == 9
