"""People's decisions become limits that do not drift, and drift of the line is noticed."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_parts import made_up_part
from serve_parts import bad_png, good_png, png, served, taught

from blemish.errors import DatasetError
from blemish.model.inspector import Inspector
from blemish.monitoring.line_monitor import LineMonitor
from blemish.serve.limits import LimitMove
from blemish.serve.models import calibration_of
from blemish.serve.service import Service


def test_limits_rest_on_the_random_sample_alone(toy: str, tmp_path: Path) -> None:
    """Of 40 parts reviewed as good those drawn count; parts after one that waits do not; flips are shown first."""
    with Service.open(tmp_path) as service:
        product = service.catalog.change(taught(service), "test", audit_share=0.5)
        parts = [service.line.inspect("disc", good_png(100 + i)) for i in range(40)]
        with pytest.raises(DatasetError):
            service.feedback.apply(product, "limits", "test")
        drawn = [part for part in parts if part.is_audited]
        assert 8 <= len(drawn) <= 32
        assert all(part.is_for_review for part in drawn)
        for part in parts:
            if part.id != drawn[-1].id:
                service.parts.review(part.id, "good", "test")
        state = service.feedback.state(product)
        assert (state["counted"], state["waiting"]) == (len(drawn) - 1, [drawn[-1].id])
        preview = service.feedback.preview(product)
        assert preview["added"] == len(drawn) - 1
        job = service.learning.wait(service.feedback.apply(product, "limits", "test").id)
        assert job.state == "done", job.error
        active = service.models.active(service.core.product(product.id))
        assert active.threshold == preview["after"]["threshold"] != preview["before"]["threshold"]
        calibration = calibration_of(service.models.inspector(active))
        assert {one.score for one in calibration.added} == {part.score for part in drawn[:-1]}
        turned = [part for part in parts if calibration.verdict(part.score) != part.verdict]
        assert {flip["part"] for flip in preview["flips"]} == {part.id for part in turned}


def test_false_alarms_are_learned_from_and_never_calibrate(toy: str, tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        product = service.catalog.change(taught(service), "test", audit_share=0.0)
        alarms = [service.line.inspect("disc", bad_png(300 + i)) for i in range(4)]
        assert {part.verdict for part in alarms} == {"defective"}
        for part in alarms:
            service.parts.review(part.id, "good", "test")
        assert service.feedback.state(product)["counted"] == 0
        job = service.learning.wait(service.feedback.apply(product, "learn", "test").id)
        assert job.state == "done", job.error
        active = service.models.active(service.core.product(product.id))
        assert len(active.details["false_alarms"]) == 4
        assert len(calibration_of(service.models.inspector(active)).scores) == 12
        again = service.line.inspect("disc", bad_png(300))
        assert again.score is not None
        assert alarms[0].score is not None
        assert again.score < alarms[0].score
        assert service.feedback.state(service.core.product(product.id))["false_alarms"] == 0
        histogram = service.limits.histogram(service.core.product(product.id))
        assert histogram["totals"]["unlabelled"] == 1  # parts of the detector before do not compare
        # A version whose limits alone were moved does not make it forget what was learned from reviews before.
        service.limits.set(service.core.product(product.id), LimitMove(false_alarm_rate=0.2), "test")
        late = service.line.inspect("disc", bad_png(400))
        service.parts.review(late.id, "good", "test")
        job = service.learning.wait(service.feedback.apply(service.core.product(product.id), "learn", "test").id)
        assert job.state == "done", job.error
        learned = service.models.active(service.core.product(product.id)).details["false_alarms"]
        assert learned == [part.sha256 for part in (*alarms, late)]


def test_a_darker_lamp_raises_an_alarm_that_stays_over_a_restart(toy: str, tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        product = taught(service, count=30)
        for i in range(60):
            dark = (made_up_part(seed=500 + i) * np.float32(0.6)).astype(np.uint8)
            service.line.inspect("disc", png(dark))
        causes = {alarm["cause"] for alarm in service.watch.state(product)["alarms"]}
        assert "darker" in causes
    with Service.open(tmp_path) as service:
        state = service.watch.state(service.core.product(product.id))
        assert {alarm["cause"] for alarm in state["alarms"]} == causes
        assert any(entry.what == "raised an alarm" for entry in service.core.journal(product.id))
        assert service.watch.restart(service.core.product(product.id), True, "test")["alarms"] == []


def test_who_takes_back_an_alarm_does_not_hold_up_parts(toy: str, tmp_path: Path) -> None:
    """While a part is being stored, a restart waits for the store; it must not hold the monitors meanwhile."""
    with Service.open(tmp_path) as service, ThreadPoolExecutor(2) as pool:
        product = taught(service)
        service.line.inspect("disc", good_png(1))
        with service.core.store.transaction():
            waiting = pool.submit(service.watch.restart, service.core.product(product.id), False, "test")
            with pytest.raises(FutureTimeoutError):
                waiting.result(0.2)
            state = pool.submit(service.watch.state, service.core.product(product.id))
            try:
                assert state.result(5)["parts"] == 1
            except FutureTimeoutError:
                pytest.fail("the restart holds the monitors while it waits for the store")
        assert waiting.result(5)["parts"] == 0


def test_the_monitor_is_begun_before_a_part_is_stored(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading good pictures takes a while, in which other parts can be stored."""
    with Service.open(tmp_path) as service:
        taught(service)
        begin, inside = service.watch._started, []

        def started(product: str, version: str) -> LineMonitor:
            inside.append(service.core.store._writer.in_transaction)
            return begin(product, version)

        monkeypatch.setattr(service.watch, "_started", started)
        service.line.inspect("disc", good_png(1))
        service.line.inspect("disc", good_png(2))
        assert inside == [False]


def test_a_steady_line_raises_none(toy: str, tmp_path: Path) -> None:
    with served(tmp_path) as (service, client):
        taught(service)
        for i in range(40):
            service.line.inspect("disc", good_png(700 + i))
        state = client.get("/api/monitor?product=disc").json()
        assert (state["alarms"], state["parts"]) == ([], 40)
        assert client.post("/api/monitor/restart", json={"product": "disc"}).json()["parts"] == 0


def test_limits_by_hand_survive_a_restart(toy: str, tmp_path: Path) -> None:

    with Service.open(tmp_path) as service:
        product = taught(service)
        service.limits.set(product, LimitMove(threshold=0.25, unsure_threshold=0.125), "test")
    with Service.open(tmp_path) as service:
        part = service.line.inspect("disc", good_png(1))
        assert (part.threshold, part.unsure_threshold) == (0.25, 0.125)
        assert dataclasses.asdict(service.models.active(service.core.product("disc")))["change"] == "moved the limits"


def test_who_looks_at_the_line_does_not_hold_up_parts(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A monitor that nobody has begun yet is begun by whoever looks: parts are stored meanwhile."""
    with Service.open(tmp_path) as service, ThreadPoolExecutor(1) as pool:
        product = taught(service)
        part = service.line.inspect("disc", good_png(1000))
        begin, begun, go_on = service.watch._started, threading.Event(), threading.Event()

        def started(*arguments: str) -> LineMonitor:
            begun.set()
            assert go_on.wait(20)
            return begin(*arguments)

        for look in (
            lambda: service.watch.state(product),
            lambda: service.watch.restart(product, False, "test"),
        ):
            service.watch._monitors.clear()
            with service.core.store.transaction() as connection:
                connection.execute("DELETE FROM kept")
            monkeypatch.setattr(service.watch, "_started", started)
            looking = pool.submit(look)
            assert begun.wait(20)
            monkeypatch.setattr(service.watch, "_started", begin)
            with service.core.store.transaction() as connection:
                service.watch.put(connection, part)
            go_on.set()
            looking.result(20)
            begun.clear()
            go_on.clear()


def test_the_rate_of_false_alarms_is_that_of_the_limit_that_holds(toy: str, tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        product = service.catalog.change(taught(service), "test", audit_share=1.0)
        parts = [service.line.inspect("disc", good_png(1000 + i)) for i in range(8)]
        assert service.feedback.state(product)["estimated_rate"] is None
        for part in parts:
            service.parts.review(part.id, "good", "test")
        scores = sorted(part.score or 0 for part in parts)
        for above in (0, 3):
            limit = scores[-1] + 1 if not above else (scores[-above] + scores[-above - 1]) / 2
            with service.core.store.transaction() as connection:
                connection.execute("UPDATE versions SET threshold = ?", (limit,))
            assert service.feedback.state(product)["estimated_rate"] == above / 8
        job = service.learning.wait(service.learning.start(product, "test").id)
        assert job.state == "done", job.error
        renewed = service.feedback.state(service.core.product("disc"))
        assert renewed["estimated_rate"] is None  # scores of another detector say nothing of it


def test_a_picture_that_is_removed_while_it_is_learned_from_stays_until_then(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service.open(tmp_path) as service:
        product = taught(service)
        gone = service.catalog.good(product)[-1].sha256
        path, fit, there = service.core.pictures.path(gone), Inspector.fit, []

        def fitted(self: Inspector, *given: Any, **options: Any) -> Inspector:
            service.catalog.remove_good(product, gone, "test")
            there.append(path.is_file())
            return fit(self, *given, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Inspector, "fit", fitted)
            job = service.learning.wait(service.learning.start(product, "test").id)
        assert (job.state, there) == ("done", [True]), job.error
        assert not path.exists()
        job = service.learning.wait(service.learning.start(product, "test").id)
        assert service.models.active(service.core.product("disc")).details["pictures"] == 11
        other = service.catalog.good(product)[-1].sha256
        service.catalog.remove_good(product, other, "test")  # nobody reads it now
        assert not service.core.pictures.path(other).exists()


def test_a_random_sample_that_was_learned_from_costs_no_learning(toy: str, tmp_path: Path) -> None:
    """Somebody has added all of its pictures to the good ones: then the limits rest on the others alone."""
    with Service.open(tmp_path) as service:
        product = service.catalog.change(taught(service), "test", audit_share=1.0)
        drawn = service.line.inspect("disc", good_png(1000))
        service.parts.review(drawn.id, "good", "test")
        service.catalog.add_good(product, [("again.png", good_png(1000))], "test")
        alarm = service.line.inspect("disc", bad_png(1001))
        with service.core.store.transaction() as connection:  # outside of the sample
            connection.execute("UPDATE parts SET audit_draw = 1 WHERE id = ?", (alarm.id,))
        service.parts.review(alarm.id, "good", "test")
        state = service.feedback.state(product)
        assert (state["counted"], state["false_alarms"]) == (1, 1)
        job = service.learning.wait(service.feedback.apply(product, "learn", "test").id)
        assert job.state == "done", job.error
        details = service.models.active(service.core.product("disc")).details
        assert (details["added"], details["false_alarms"]) == (0, [alarm.sha256])
