"""Who may do what: every route, without a token, as an operator and as an engineer; forged requests; guessing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from serve_parts import HERE, served

from blemish.serve import users
from blemish.serve.app import create_app
from blemish.serve.auth import engineer, operator
from blemish.serve.service import Service

OPEN = {"/v2/health/live", "/v2/health/ready", "/ping", "/health", "/api/session", "/login"}
ENGINEERS = {
    ("POST", "/api/products"),
    ("PATCH", "/api/products/{product}"),
    ("POST", "/api/products/{product}/good"),
    ("DELETE", "/api/products/{product}/good/{sha256}"),
    ("POST", "/api/products/{product}/learn"),
    ("POST", "/api/products/{product}/activate"),
    ("DELETE", "/api/jobs/{job}"),
    ("PUT", "/api/thresholds"),
    ("POST", "/api/reviews/apply"),
    ("POST", "/api/monitor/restart"),
    ("GET", "/api/users"),
    ("POST", "/api/users"),
    ("DELETE", "/api/users/{name}"),
    ("GET", "/api/webhooks"),
    ("POST", "/api/webhooks"),
    ("DELETE", "/api/webhooks/{webhook}"),
}
Matrix = tuple[TestClient, dict[str, dict[str, str]]]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Matrix]:
    """A client of a service with two users, and the headers that each of them sends."""
    with served(tmp_path / "data", compat=["lookout"]) as (service, client):
        tokens = {role: service.users.add(f"an {role}", role, "test") for role in ("engineer", "operator")}
        yield client, {role: {"authorization": f"Bearer {token}"} for role, token in tokens.items()}


def routes(app: Any) -> list[tuple[str, APIRoute]]:
    """Every method of every route of the API; pages redirect to the one for signing in, and have tests of their own."""
    found: list[tuple[str, APIRoute]] = []
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        if isinstance(route, APIRoute):
            found += [(method, route) for method in sorted(route.methods) if method != "HEAD"]
        else:
            waiting += getattr(getattr(route, "original_router", None), "routes", [])
    return found


def path_of(route: APIRoute) -> str:
    return re.sub(r"\{[^}]+\}", "x", route.path)


def test_every_route_refuses_who_has_no_token(guarded: Matrix) -> None:
    client = guarded[0]
    seen = routes(client.app)
    assert len(seen) > 40
    for method, route in seen:
        if route.path in OPEN or "/pages/" in route.endpoint.__code__.co_filename:
            continue
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}):
            with_other = {"x-forwarded-for": "10.0.0.1"} | headers
            answer = client.request(method, path_of(route), headers=with_other, follow_redirects=False)
            assert answer.status_code in (401, 429), f"{method} {route.path} answered {answer.status_code}"


def test_what_engineers_alone_may_do(guarded: Matrix) -> None:
    """Exactly the routes named above refuse an operator, and let an engineer through to whatever is wrong next."""
    client, headers = guarded
    refused = set()
    for method, route in routes(client.app):
        if route.path in OPEN or "/pages/" in route.endpoint.__code__.co_filename or route.path == "/api/events":
            continue
        status = client.request(method, path_of(route), headers=headers["operator"]).status_code
        if status == 403:
            refused.add((method, route.path))
        assert status not in (401, 429), f"{method} {route.path}"
        assert client.request(method, path_of(route), headers=headers["engineer"]).status_code not in (401, 403)
    assert refused == ENGINEERS


def test_every_route_names_who_may(guarded: Matrix) -> None:
    """So that a route that is added without a role fails here."""
    for method, route in routes(guarded[0].app):
        if route.path in OPEN or "/pages/" in route.endpoint.__code__.co_filename:
            continue
        calls = {dependency.call for dependency in route.dependant.dependencies}
        assert calls & {operator, engineer}, f"{method} {route.path}"


def test_a_page_has_a_cookie_and_must_add_a_header(guarded: Matrix) -> None:
    client, headers = guarded
    token = headers["engineer"]["authorization"].removeprefix("Bearer ")
    answer = client.post("/api/session", json={"token": token})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert token.lower() not in cookie
    assert client.get("/api/status").json()["user"]["name"] == "an engineer"
    assert client.post("/api/products", json={"name": "a"}).status_code == 403
    assert client.post("/api/products", json={"name": "a"}, headers={"x-blemish": "1"}).status_code == 201
    foreign = {"x-blemish": "1", "origin": "https://elsewhere.example"}
    assert client.post("/api/products", json={"name": "b"}, headers=foreign).status_code == 403
    assert client.delete("/api/session", headers={"x-blemish": "1"}).status_code == 204
    assert client.get("/api/status").status_code == 401


def test_without_users_this_machine_alone_is_served(tmp_path: Path) -> None:
    with served(tmp_path / "data") as (_, client):
        assert client.get("/api/status").json()["user"] == {"name": "local", "role": "engineer", "created_at": 0.0}
        assert client.get("/api/status", headers={"host": "elsewhere.example:8765"}).status_code == 403
        for headers in ({"origin": "https://elsewhere.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
            assert client.post("/api/products", json={"name": "x"}, headers=headers).status_code == 403
        own = {"origin": HERE, "sec-fetch-site": "same-origin"}
        assert client.post("/api/products", json={"name": "x"}, headers=own).status_code == 201


@pytest.mark.parametrize("headers", [{"host": "["}, {"host": "[::1"}, {"origin": "http://["}])
def test_brackets_that_are_no_address_are_nobody_s(tmp_path: Path, headers: dict[str, str]) -> None:
    with served(tmp_path) as (_, client):
        assert client.post("/api/products", json={"name": "disc"}, headers=headers).status_code == 403


def test_without_users_a_proxy_is_refused(tmp_path: Path) -> None:
    """What it hands on may come from anywhere, whatever name it asks for."""
    with served(tmp_path / "data") as (service, client):
        app = client.app
        for name in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via"):
            assert client.get("/api/status", headers={name: "10.0.0.7"}).status_code == 403
        for address in ("10.0.0.7", "testclient", ""):
            assert TestClient(app, HERE, client=(address, 1)).get("/api/status").status_code == 403
        assert TestClient(app, HERE, client=("::1", 1)).get("/api/status").status_code == 200

        async def by_nginx(scope: Any, receive: Any, send: Any) -> None:
            await app(scope | ({"http_version": "1.0"} if scope["type"] == "http" else {}), receive, send)

        old = TestClient(by_nginx, HERE, client=("127.0.0.1", 1))
        assert old.get("/api/status").status_code == 403
        token = {"authorization": f"Bearer {service.users.add('one', 'engineer', 'test')}"}
        assert old.get("/api/status", headers=token | {"x-forwarded-for": "10.0.0.7"}).status_code == 200


def test_other_machines_need_a_token_before_there_are_users(tmp_path: Path) -> None:
    with served(tmp_path / "data", is_exposed=True) as (_, client):
        assert client.get("/api/status").status_code == 401


def test_guessing_is_slowed_down(guarded: Matrix) -> None:
    client, headers = guarded
    assert client.get("/api/status", headers=headers["operator"]).status_code == 200
    wrong = {"authorization": "Bearer guess"}
    statuses = [client.get("/api/status", headers=wrong).status_code for _ in range(users.FAILURES + 2)]
    assert statuses == [401] * users.FAILURES + [429] * 2
    assert client.post("/api/session", json={"token": "guess"}).headers["retry-after"] == "60"
    assert client.get("/api/status", headers=headers["engineer"]).status_code == 429  # might be a lucky guess
    assert client.get("/api/status", headers=headers["operator"]).status_code == 200  # was there before


def test_tokens_are_stored_as_hashes_alone(tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        token = service.users.add("one", "engineer", "test")
        session = service.users.open_session(service.users.all()[0])
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert token.encode() not in stored
    assert session.encode() not in stored
    assert users.token_hash(token).encode() in stored


def test_the_last_engineer_stays(guarded: Matrix) -> None:
    client, headers = guarded
    assert client.delete("/api/users/an engineer", headers=headers["engineer"]).status_code == 409
    assert client.delete("/api/users/an operator", headers=headers["engineer"]).status_code == 204
    assert client.get("/api/status", headers=headers["operator"]).status_code == 401


def test_a_session_ends_with_its_user_and_with_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Service.open(tmp_path) as service:
        service.users.add("one", "engineer", "test")
        service.users.add("two", "operator", "test")
        one, two = service.users.all()
        session = service.users.open_session(two)
        assert service.users.by_session(session) == two
        service.users.remove("two", "test")
        assert service.users.by_session(session) is None
        monkeypatch.setattr(users, "SESSION_SECONDS", -1.0)
        assert service.users.by_session(service.users.open_session(one)) is None


def test_a_session_of_a_clock_that_was_years_ahead_ends_once_it_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service.open(tmp_path) as service:
        service.users.add("one", "engineer", "test")
        (one,) = service.users.all()
        with monkeypatch.context() as patch:
            patch.setattr(users.time, "time", lambda: 4e9)
            session = service.users.open_session(one)
            assert service.users.by_session(session) == one
        assert service.users.by_session(session) is None


def test_an_application_without_the_lookout_flag_has_no_such_route(tmp_path: Path) -> None:
    with Service.open(tmp_path) as service:
        app: FastAPI = create_app(service)
        assert not any("2020-11-20" in route.path for _, route in routes(app))
