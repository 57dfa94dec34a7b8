"""Results reach other programs at least once, over failures and restarts; events reach whoever listens."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from serve_parts import bad_png, good_png, served, taught
from starlette.requests import Request

from blemish.cli.serve import bound_socket
from blemish.errors import SettingsError
from blemish.serve import webhooks
from blemish.serve.api import events as events_api
from blemish.serve.app import create_app
from blemish.serve.events import Event, Events
from blemish.serve.service import Service


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]], list[int]]]:
    """An address, the bodies that it received, and the statuses that it answers with in turn; 0: no answer of HTTP."""
    bodies: list[dict[str, Any]] = []
    statuses: list[int] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = statuses.pop(0) if statuses else 200
            if status == 0:
                self.wfile.write(b"no HTTP\r\n\r\n")
                return
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if status == 200:
                bodies.append(body)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", bodies, statuses
        server.shutdown()
        thread.join()


def eventually(is_true: Callable[[], bool], seconds: float = 15) -> bool:
    until = time.monotonic() + seconds
    while not is_true() and time.monotonic() < until:
        time.sleep(0.02)
    return is_true()


def test_results_are_sent_again_until_they_arrive(toy: str, tmp_path: Path, receiver: Any) -> None:
    url, bodies, statuses = receiver
    statuses += [500, 302]
    with Service.open(tmp_path) as service:
        taught(service)
        service.webhooks.add(url, ["defective"], "disc", "test")
        service.line.inspect("disc", good_png(60))
        alarm = service.line.inspect("disc", bad_png(61))
        assert eventually(lambda: len(bodies) == 1)
    assert bodies[0]["part"] == json.loads(json.dumps(alarm.to_dict()))
    assert bodies[0]["part"]["seq"] == 2
    assert bodies[0]["schema"] == 1


def test_what_waits_is_sent_after_a_restart(toy: str, tmp_path: Path, receiver: Any) -> None:
    url, bodies, statuses = receiver
    statuses += [503]
    with Service.open(tmp_path) as service:
        taught(service)
        service.webhooks.add(url, [], "", "test")
        service.line.inspect("disc", good_png(60))
        assert eventually(lambda: service.webhooks.waiting()[0]["last_error"] is not None)
    with Service.open(tmp_path) as service:
        assert eventually(lambda: len(bodies) == 1)
        assert eventually(lambda: service.webhooks.waiting()[0]["waiting"] == 0)


def test_results_come_in_order_and_a_failure_holds_back_all_of_its_webhook(
    toy: str, tmp_path: Path, receiver: Any
) -> None:
    url, bodies, statuses = receiver
    with Service.open(tmp_path) as service:
        taught(service)
        service.webhooks.add(url, [], "", "test")
        statuses += [503] * 100
        sent = [service.line.inspect("disc", good_png(60)).id]
        assert eventually(lambda: len(statuses) < 100)
        assert eventually(lambda: service.webhooks.waiting()[0]["last_error"] is not None)
        with service.core.store.transaction() as connection:
            connection.execute("UPDATE webhooks SET next_at = next_at + 1000")
        tries = len(statuses)
        sent += [service.line.inspect("disc", good_png(61 + i)).id for i in range(2)]
        assert service.webhooks.deliver() == 0
        assert len(statuses) == tries
        statuses.clear()
    with Service.open(tmp_path) as service:  # a start tries at once
        assert eventually(lambda: len(bodies) == 3)
        assert [body["part"]["id"] for body in bodies] == sent
        assert eventually(lambda: service.webhooks.waiting()[0]["last_error"] is None)


def test_a_receiver_that_takes_its_time_holds_up_no_other(
    toy: str, tmp_path: Path, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, bodies, _ = receiver
    is_let_go = threading.Event()
    with Service.open(tmp_path) as service:
        taught(service)
        send = service.webhooks._send

        def slowly(address: str, body: str, number: int) -> str:
            return send(address, body, number) if address == url else str(is_let_go.wait(30) or "let go")

        monkeypatch.setattr(service.webhooks, "_send", slowly)
        service.webhooks.add("http://127.0.0.1:9/slow", [], "", "test")
        service.webhooks.add(url, [], "", "test")
        sent = [service.line.inspect("disc", good_png(60 + i)).id for i in range(3)]
        assert eventually(lambda: len(bodies) == 3)
        is_let_go.set()
    assert [body["part"]["id"] for body in bodies] == sent


def test_a_clock_that_is_set_back_holds_nothing_up(toy: str, tmp_path: Path, receiver: Any) -> None:
    url, bodies, statuses = receiver
    with Service.open(tmp_path) as service:
        taught(service)
        service.webhooks.add(url, [], "", "test")
        statuses += [503]
        service.line.inspect("disc", good_png(60))
        assert eventually(lambda: service.webhooks.waiting()[0]["last_error"] is not None)
        with service.core.store.transaction() as connection:  # as if written a day ahead
            connection.execute("UPDATE webhooks SET next_at = next_at + 86400")
        assert eventually(lambda: len(bodies) == 1)


def test_an_answer_that_is_no_http_is_a_failure_of_its_webhook_alone(toy: str, tmp_path: Path, receiver: Any) -> None:
    url, bodies, statuses = receiver
    statuses += [0]
    with Service.open(tmp_path) as service:
        taught(service)
        service.webhooks.add(url, [], "", "test")
        first = service.line.inspect("disc", good_png(60))
        assert eventually(lambda: "no HTTP" in (service.webhooks.waiting()[0]["last_error"] or ""))
        assert eventually(lambda: [body["part"]["id"] for body in bodies] == [first.id])


def test_the_thread_survives_what_nobody_foresaw(
    toy: str, tmp_path: Path, receiver: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url, bodies, _ = receiver
    with Service.open(tmp_path) as service:
        taught(service)
        service.webhooks.add(url, [], "", "test")
        with monkeypatch.context() as patch:
            patch.setattr(service.webhooks, "deliver", lambda: {}["nothing"])
            service.line.inspect("disc", good_png(60))
            assert eventually(lambda: "KeyError" in caplog.text)
        assert eventually(lambda: len(bodies) == 1)


def test_of_each_webhook_the_latest_results_wait_and_what_is_dropped_is_said(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MOST_WAITING", 2)
    monkeypatch.setattr(webhooks, "DROPS_AN_ENTRY", 3)
    with served(tmp_path) as (service, client):
        taught(service)
        for path in ("a", "b"):
            service.webhooks.add(f"http://127.0.0.1:9/{path}", [], "", "test")  # nobody listens there
        parts = [service.line.inspect("disc", good_png(60 + i)).id for i in range(6)]
        assert [(one["waiting"], one["dropped"]) for one in client.get("/api/status").json()["webhooks"]] == [
            (2, 4)
        ] * 2
        kept = service.core.store.rows("SELECT body FROM outbox ORDER BY seq")
        assert [json.loads(row["body"])["part"]["id"] for row in kept] == [one for one in parts[-2:] for _ in range(2)]
        said = [one.change["dropped"] for one in service.core.journal() if "dropped" in one.what]
        assert said == [3, 3, 1, 1]
        assert "blemish_webhooks_dropped 8" in client.get("/metrics").text
        assert "4 dropped" in client.get("/settings").text


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "ftp://x/",
            "http://",
            "nothing",
            "http://host/a b",
            "http://host:port/",
            "http://[::1",
        ),
        *("http://host:0/", "http://host:99999/", "http://host/ä", "http://host/a\tb", "http://user:password@host/"),
    ],
)
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with Service.open(tmp_path) as service, pytest.raises(SettingsError):
        service.webhooks.add(url, [], "", "test")


@pytest.mark.parametrize("url", ["http://x", "https://[::1]:8443/a?b=%20#c", "http://bücher.example:80/hook"])
def test_addresses_that_can_be_sent_to_are_taken(tmp_path: Path, url: str) -> None:
    with Service.open(tmp_path) as service:
        assert service.webhooks.add(url, [], "", "test") in service.webhooks.all()


def test_events_are_streamed_and_can_be_caught_up_with(toy: str, tmp_path: Path) -> None:
    with Service.open(tmp_path) as service, bound_socket("127.0.0.1", 0) as listening:
        taught(service)
        config = uvicorn.Config(create_app(service), log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert eventually(lambda: server.started)
        try:
            part = service.line.inspect("disc", bad_png(62))
            for _ in range(2):  # a second listener asks for what it missed
                with httpx.stream("GET", f"{address}/api/events?after=0&product=disc", timeout=10) as answer:
                    assert answer.headers["content-type"].startswith("text/event-stream")
                    lines = answer.iter_lines()
                    while next(lines) != "event: part":
                        pass
                    assert json.loads(next(lines).removeprefix("data: "))["id"] == part.id
        finally:
            server.should_exit = True
            thread.join()


def test_events_end_with_the_token_of_who_listens(tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        allowed = iter([True, False])

        async def heard() -> list[str]:
            found = []
            stream = events_api.stream(service, None, None, lambda: next(allowed))
            async for text in stream:
                found.append(text.splitlines()[1] if text.startswith("id") else text)
                service.events.publish("product", {})
            return found

        assert asyncio.run(asyncio.wait_for(heard(), 20)) == ["retry: 2000\n\n", "event: product"]
        token = service.users.add("one", "engineer", "test")
        service.users.add("two", "engineer", "test")
        request = Request(
            {
                "type": "http",
                "method": "GET",
                "headers": [(b"authorization", f"Bearer {token}".encode())],
                "client": ("10.0.0.1", 1),
                "app": create_app(service),
            }
        )

        async def listened() -> int:
            answer = await events_api.events(request, service, service.users.all()[0])
            count = 0
            async for _ in answer.body_iterator:
                count += 1
                if count == 2:
                    service.users.remove("one", "test")
                service.events.publish("product", {})
            return count

        assert asyncio.run(asyncio.wait_for(listened(), 20)) == 2


def test_a_listener_that_fails_costs_nobody_else_an_event() -> None:
    events, heard = Events(), []

    def fail(_: Event) -> None:
        raise RuntimeError

    events.subscribe(fail)
    end = events.subscribe(lambda event: heard.append(event.number))
    events.publish("part", {})
    end()
    events.publish("part", {})
    assert heard == [1]
    events.subscribe(lambda event: heard.append(event.number), after=1)
    assert heard == [1, 2]
