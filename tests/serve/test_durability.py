"""Nothing acknowledged is lost or doubled: under kill -9, many threads, a flood, and a second process."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serve_parts import TOY, bad_png, good_png, png, served, taught

from blemish.errors import OutputError
from blemish.model.inspector import Inspector
from blemish.serve import learning
from blemish.serve.core import ServiceSettings
from blemish.serve.errors import BusyError, ConflictError, TimeLimitError
from blemish.serve.limits import LimitMove
from blemish.serve.models import SAVING
from blemish.serve.parts import PartQuery
from blemish.serve.records import PartRecord, Version
from blemish.serve.service import Service
from blemish.serve.store import VERSION, Row, Store

LOAD = Path(__file__).with_name("load.py")


@contextmanager
def process(folder: Path, waiting: int = 64) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The service as a process of its own, and its address."""
    with subprocess.Popen([sys.executable, LOAD, folder, str(waiting)], stdout=subprocess.PIPE, text=True) as found:
        try:
            assert found.stdout is not None
            yield found, f"http://127.0.0.1:{found.stdout.readline().strip()}"
        finally:
            found.kill()


def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(toy: str, tmp_path: Path) -> None:
    """Parts, reviews and good pictures that got a reply are there afterwards, once each, with their pictures."""
    folder = tmp_path / "data"
    with Service.open(folder) as service:
        taught(service)
    rng = random.Random(0)
    acknowledged: dict[str, str] = {}
    reviewed: dict[str, str] = {}
    added: set[str] = set()
    for round_ in range(2):
        with process(folder) as (running, address):
            stop = threading.Event()

            def send(worker: int, address: str = address, round_: int = round_, stop: threading.Event = stop) -> None:
                with httpx.Client(base_url=address, timeout=30) as client, suppress(httpx.TransportError):
                    for i in range(10_000):
                        if stop.is_set():
                            return
                        seed = 1000 * round_ + 100 * worker + i
                        reply = client.post(f"/api/inspect?part_id={seed}", content=bad_png(seed))
                        if reply.status_code == 200:
                            acknowledged[str(seed)] = reply.json()["id"]
                            body = {"part": reply.json()["id"], "decision": "defective", "defect": f"d{seed}"}
                            if client.post("/api/reviews", json=body).status_code == 201:
                                reviewed[reply.json()["id"]] = f"d{seed}"
                        if i % 3 == 0:
                            file = {"files": ("g.png", good_png(50_000 + seed))}
                            good = client.post("/api/products/disc/good", files=file)
                            added.update(one["sha256"] for one in good.json()["added"])

            with ThreadPoolExecutor(4) as pool:
                work = [pool.submit(send, worker) for worker in range(4)]
                before = len(acknowledged)
                until = time.monotonic() + 20
                while len(acknowledged) < before + 5 and time.monotonic() < until:
                    time.sleep(0.01)
                time.sleep(rng.uniform(0, 0.4))
                running.kill()
                stop.set()
                for one in work:
                    one.result()
    assert len(acknowledged) >= 10
    with Service.open(folder) as service:
        parts = service.parts.find(PartQuery(limit=500))
        ids = Counter(part.part_id for part in parts)
        assert max(ids.values()) == 1
        found = {part.part_id: part.id for part in parts}
        assert acknowledged.items() <= found.items()
        for part in parts:
            content, _ = service.renderer.part(part, "image")
            assert content == bad_png(int(part.part_id))
            assert service.renderer.part(part, "overlay")
        by_id = {part.id: part for part in parts}
        for identity, defect in reviewed.items():
            review = by_id[identity].review
            assert review is not None
            assert review.defect == defect
        assert added <= {one.sha256 for one in service.catalog.good(service.core.product("disc"))}
    with sqlite3.connect(folder / "line.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_many_clients_lose_and_double_nothing(toy: str, tmp_path: Path) -> None:
    """20 clients, a short queue: each part has one record in the end, and those refused were told to come again."""
    folder = tmp_path / "data"
    with Service.open(folder) as service:
        taught(service)
    refused = Counter[int]()

    def send(worker: int) -> list[str]:
        found = []
        with httpx.Client(base_url=address, timeout=60) as client:
            for i in range(3):
                path, content = f"/api/inspect?part_id={worker}-{i}", good_png(10 * worker + i)
                while (reply := client.post(path, content=content)).status_code == 503:
                    assert reply.headers["retry-after"]
                    refused[503] += 1
                    time.sleep(0.1)
                assert reply.status_code == 200, reply.text
                found.append(reply.json()["id"])
        return found

    with process(folder, waiting=4) as (_, address), ThreadPoolExecutor(20) as pool:
        ids = [one for some in pool.map(send, range(20)) for one in some]
        assert len(set(ids)) == 60
        total = httpx.get(f"{address}/api/parts?limit=1").json()["total"]
    assert total == 60
    assert refused[503] > 0


def test_threads_that_send_the_same_part_get_the_same_record(toy: str, tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        taught(service)
        with ThreadPoolExecutor(8) as pool:
            same = list(pool.map(lambda _: service.line.inspect("disc", good_png(77), "p").id, range(24)))
        assert len(set(same)) == 1
        other = service.line.inspect("disc", good_png(78), "p")
        assert other.id not in same
        assert service.parts.count(PartQuery(part_id="p")) == 2
        assert service.line.inspect("disc", good_png(77)).id != service.line.inspect("disc", good_png(77)).id


def files_in(folder: Path) -> set[str]:
    """The names of all files of pictures and heat."""
    return {one.name for name in ("pictures", "maps") for one in (folder / name).rglob("*") if one.is_file()}


def test_what_is_not_stored_leaves_no_file(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the second of two requests with the same part, nor one that the database has no room for."""
    with Service.open(tmp_path) as service:
        taught(service)
        both, known = threading.Barrier(2), service.parts.known
        first = iter((True, True))

        def both_unknown(product: str, part_id: str, sha256: str) -> PartRecord | None:
            if next(first, False):
                both.wait(20)
                return None
            return known(product, part_id, sha256)

        before = files_in(tmp_path)
        with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
            patch.setattr(service.parts, "known", both_unknown)
            parts = list(pool.map(lambda _: service.line.inspect("disc", good_png(1000), "same"), range(2)))
        assert parts[0] == parts[1]
        assert files_in(tmp_path) - before == {parts[0].sha256, f"{parts[0].id}.npy"}
        stored = files_in(tmp_path)
        with service.core.store.transaction() as connection:
            connection.execute("CREATE TRIGGER full BEFORE INSERT ON parts BEGIN SELECT RAISE(FAIL, 'full'); END")
        with pytest.raises(sqlite3.Error, match="full"):
            service.line.inspect("disc", good_png(1001))
        with pytest.raises(sqlite3.Error, match="full"):
            service.line.inspect("disc", good_png(1000), "another part with the same picture")
        assert files_in(tmp_path) == stored


def test_two_people_who_change_settings_at_once_both_do(toy: str, tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        product = service.catalog.create("disc", "test", TOY)
        service.catalog.change(product, "one", audit_share=0.5)
        changed = service.catalog.change(product, "two", false_alarm_rate=0.1)  # looked before the other one changed
        assert (changed.settings.audit_share, changed.settings.false_alarm_rate) == (0.5, 0.1)
        assert service.core.journal(product.id)[0].change == {"false_alarm_rate": [0.05, 0.1]}


def test_the_latest_job_is_the_one_begun_last_whatever_the_clock_says(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service.open(tmp_path) as service:
        product = taught(service)
        now = time.time()
        monkeypatch.setattr(learning.time, "time", lambda: now - 86_400)
        job = service.learning.wait(service.learning.start(product, "test").id)
        assert service.learning.jobs(product, 1) == [job]


def test_a_full_disk_at_the_start_is_said(tmp_path: Path) -> None:
    Service.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "line.sqlite") as connection:
        connection.execute("INSERT INTO webhooks (id, url, verdicts, product, created_at) VALUES ('a', '', '', '', 0)")
        connection.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON webhooks BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
        )
    connection.close()
    with pytest.raises(OutputError, match=r"disk is full.*room"):
        Service.open(tmp_path)


def test_scores_are_those_of_the_model_alone(toy: str, tmp_path: Path) -> None:
    """One verdict path: what the service stores is what `Inspector` says of the same file."""
    from blemish.model.inspector import Inspector

    with Service.open(tmp_path) as service:
        product = taught(service)
        alone = Inspector.load(service.models.folder(product.active_version))
        for content in (good_png(5), bad_png(6)):
            part, expected = service.line.inspect("disc", content), alone.inspect(content)
            assert (part.score, part.p_value, part.verdict) == (expected.score, expected.p_value, expected.verdict)
            assert part.prediction["regions"] == json.loads(json.dumps(expected.to_dict()["regions"]))


def test_a_full_queue_refuses_and_recovers(toy: str, tmp_path: Path) -> None:
    settings = ServiceSettings(waiting=2, workers=1)
    with Service.open(tmp_path, settings) as service:
        taught(service)
        with service.core.store.transaction():  # nothing can be committed meanwhile
            waiting = [service.line.submit("disc", good_png(i)) for i in range(3)]
            with pytest.raises(BusyError):
                service.line.submit("disc", good_png(9))
        assert all(one.result(30).verdict is not None for one in waiting)
        assert service.line.inspect("disc", good_png(9)).verdict is not None


def test_a_part_is_looked_up_once_and_limits_moved_while_it_waits_hold(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service.open(tmp_path, ServiceSettings(workers=1)) as service:
        product = taught(service)
        found, ask = [], service.core.store.row

        def counted(query: str, values: Sequence[Any] = ()) -> Row | None:
            if query.startswith(("SELECT * FROM products", "SELECT * FROM versions")):
                found.append(query)
            return ask(query, values)

        hold, begun = threading.Event(), threading.Event()

        def measure(version: Version, image: np.ndarray) -> dict[str, Any]:
            """Nothing for the monitor, which looks the version up, too; waits."""
            begun.set()
            assert hold.wait(30)
            return {}

        with monkeypatch.context() as patch:
            patch.setattr(service.line, "_measure", measure)
            first = service.line.submit("disc", good_png(1))
            assert begun.wait(30)
            second = service.line.submit("disc", good_png(2))
            moved = service.limits.set(product, LimitMove(threshold=0.5, unsure_threshold=0.25), "test")
            hold.set()
            assert (first.result(30).version, second.result(30).version) == (product.active_version, moved.id)
            patch.setattr(service.core.store, "row", counted)
            service.line.inspect("disc", good_png(3))
        assert len(found) == 2


def test_an_inspection_that_takes_too_long_is_given_up(toy: str, tmp_path: Path) -> None:
    with served(tmp_path, ServiceSettings(time_limit=0.2, workers=1)) as (service, client):
        taught(service)
        with service.core.store.transaction():
            with pytest.raises(TimeLimitError):
                service.line.inspect("disc", good_png(1))
            reply = client.post("/api/inspect", content=good_png(2))  # its turn has not come: it may be sent again
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
            with pytest.raises(BusyError):
                service.line.inspect("disc", good_png(3))


def test_an_inspection_that_has_waited_has_its_time_once_it_begins(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service.open(tmp_path, ServiceSettings(time_limit=2.0, workers=1)) as service:
        taught(service)
        service.line.submit("disc", good_png(0)).result(30)  # loads the model, starts what decodes
        measured, pauses = service.line._measure, iter((1.2, 1.2))

        def slow(version: Version, image: np.ndarray) -> dict[str, Any]:
            time.sleep(next(pauses))
            return measured(version, image)

        monkeypatch.setattr(service.line, "_measure", slow)
        first = service.line.submit("disc", good_png(1))
        assert service.line.inspect("disc", good_png(2)).verdict is not None
        assert first.result(0).verdict is not None


def test_a_killed_run_of_learning_is_interrupted_and_leaves_nothing(toy: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with Service.open(folder) as service:
        product = service.catalog.create("disc", "test", TOY)
        service.catalog.add_good(product, [(f"{i}.png", good_png(i)) for i in range(60)], "test")
    with process(folder) as (running, address):
        job = httpx.post(f"{address}/api/products/disc/learn", timeout=30).json()["id"]
        running.kill()
    with sqlite3.connect(folder / "line.sqlite") as connection:  # saved, but not published
        connection.execute("INSERT INTO kept VALUES (?, '')", (f"{SAVING}orphan",))
    connection.close()
    for name in ("orphan", "somebodys"):
        (folder / "models" / name).mkdir(parents=True, exist_ok=True)
    with Service.open(folder) as service:
        assert service.learning.job(job).state == "interrupted"
        assert service.models.versions(service.core.product("disc").id) == []
        assert [one.name for one in (folder / "models").iterdir()] == ["somebodys"]
        assert notes(service) == []
        again = service.learning.start(service.core.product("disc"), "test")
        assert service.learning.wait(again.id).state == "done"


def notes(service: Service) -> list[Row]:
    """Which folders of versions are noted as being written."""
    return service.core.store.rows("SELECT name FROM kept WHERE name LIKE ?", (f"{SAVING}%",))


def test_models_of_others_are_never_removed(toy: str, tmp_path: Path) -> None:
    """Neither in a project's own folder, nor after a database of another time was put in the place of this one."""
    (tmp_path / "project" / "models" / "bottle").mkdir(parents=True)
    with pytest.raises(OutputError, match="without line"):
        Service.open(tmp_path / "project")
    assert [one.name for one in (tmp_path / "project").iterdir()] == ["models"]
    folder = tmp_path / "data"
    Service.open(folder).close()
    older = (folder / "line.sqlite").read_bytes()
    with Service.open(folder) as service:
        product = taught(service)
    (folder / "line.sqlite").write_bytes(older)
    with Service.open(folder) as service:
        assert service.catalog.products() == []
        assert (folder / "models" / product.active_version / "settings.json").is_file()


def test_an_unfinished_version_is_noted_before_it_is_written(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service.open(tmp_path) as service:
        product = taught(service)
        first = service.models.active(product)
        inspector = service.models.inspector(first)
        save, noted = Inspector.save, []

        def saved(self: Inspector, at: Path) -> Path:
            noted.extend(row["name"] for row in notes(service))
            return save(self, at)

        monkeypatch.setattr(Inspector, "save", saved)
        second = service.models.publish(product, inspector, "again", "test", first)
        assert (noted, notes(service)) == ([f"{SAVING}{second.id}"], [])
        with pytest.raises(ConflictError):
            service.models.publish(product, inspector, "again", "test", first)
        assert notes(service) == []
        assert {one.name for one in (tmp_path / "models").iterdir()} == {first.id, second.id}


def test_limits_moved_while_it_learns_cost_no_learning(toy: str, tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        product = taught(service)
        first = service.models.active(product)
        moved = service.limits.set(product, LimitMove(threshold=0.5, unsure_threshold=0.25), "test")
        inspector = service.models.inspector(first)
        learned = service.models.publish(product, inspector, "learned", "test", first, is_refitted=True)
        assert (learned.parent, learned.scored_by) == (moved.id, learned.id)
        assert service.core.journal(product.id)[0].change["from"] == [0.5, 0.25]
        assert service.core.product("disc").active_version == learned.id


@pytest.mark.parametrize("verb", ["INSERT", "UPDATE"])
def test_a_full_disk_does_not_end_learning_for_good(toy: str, tmp_path: Path, verb: str) -> None:
    with Service.open(tmp_path) as service:
        product = taught(service)
        store = service.core.store
        with store.transaction() as connection:
            connection.execute(
                f"CREATE TRIGGER full BEFORE {verb} ON jobs BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
            )
        job = ""
        if verb == "INSERT":
            with pytest.raises(sqlite3.Error, match="full"):
                service.learning.start(product, "test")
        else:
            job = service.learning.start(product, "test").id
            assert service.learning.wait(job, 30).state == "done"  # the version is there, its job only in memory
        with store.transaction() as connection:
            connection.execute("DROP TRIGGER full")
        again = service.learning.wait(service.learning.start(product, "test").id)
        assert again.state == "done"
    with Service.open(tmp_path) as service:
        assert {one.state for one in service.learning.jobs()} == {"done"}
        assert len(service.learning.jobs()) == 2 + bool(job)


def test_a_cancelled_run_leaves_nothing(toy: str, tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        product = service.catalog.create("disc", "test", TOY)
        service.catalog.add_good(product, [(f"{i}.png", good_png(i)) for i in range(4)], "test")
        hold = threading.Event()
        service.learning.run(service.catalog.create("other", "test"), "learn", "test", lambda _: hold.wait() and None)
        job = service.learning.start(product, "test")  # waits for the other one
        with pytest.raises(ConflictError):
            service.learning.start(product, "test")
        service.learning.cancel(job.id)
        hold.set()
        assert service.learning.wait(job.id).state == "cancelled"
        assert service.core.product("disc").active_version == ""


def test_a_model_that_loads_holds_up_no_other(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Service.open(tmp_path) as service:
        other, product = (taught(service, name, count=4) for name in ("other", "disc"))
    with Service.open(tmp_path) as service, ThreadPoolExecutor(3) as threads:
        models = service.models
        other, product = (models.active(service.core.product(one.id)) for one in (other, product))
        known = models.inspector(product)
        begun, hold, loads = threading.Event(), threading.Event(), []

        def slow(folder: Path, load: Any = Inspector.load) -> Inspector:
            loads.append(folder.name)
            begun.set()
            assert hold.wait(60)
            return load(folder)

        monkeypatch.setattr(Inspector, "load", slow)
        waiting = [threads.submit(models.inspector, other) for _ in range(2)]
        try:
            assert begun.wait(60)
            assert threads.submit(models.inspector, product).result(10) is known
        finally:
            hold.set()
        assert waiting[0].result() is waiting[1].result()
        assert loads == [other.id]


def test_a_folder_is_open_once(tmp_path: Path) -> None:
    with Service.open(tmp_path), pytest.raises(OutputError):
        Service.open(tmp_path)
    Service.open(tmp_path).close()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "line.sqlite") as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(OutputError):
        Store(tmp_path)


def test_a_transaction_is_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(sqlite3.IntegrityError), store.transaction() as connection:
        connection.executemany("INSERT INTO kept VALUES (?, '1')", [("a",), ("b",), ("a",)])
    assert store.row("SELECT * FROM kept") is None
    with store.transaction() as connection:
        connection.execute("INSERT INTO kept VALUES ('a', '1')")
    assert store.row("SELECT value FROM kept")["value"] == "1"
    store.close()


def test_files_of_any_name_are_pictures_by_their_content_alone(toy: str, tmp_path: Path) -> None:
    """A name that a client sends never becomes a path."""
    with Service.open(tmp_path / "data") as service:
        product = taught(service)
        import numpy as np

        tiny = png(np.full((16, 16, 3), np.arange(16, dtype=np.uint8)[:, None, None] * 9, np.uint8))
        part = service.line.inspect(product.id, good_png(3), name="../../../etc/passwd\x00.png")
        assert "/" not in part.name
        service.catalog.add_good(product, [("..\\..\\evil.png", tiny)], "test")
        assert service.catalog.good(product)[-1].name == "evil.png"
    outside = [path for path in tmp_path.iterdir() if path.name != "data"]
    assert outside == []
