"""What a request costs and how it fails: refused before its body is read, off the event loop, in three facts."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import sys
import threading
from collections.abc import Callable, MutableMapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serve_parts import HERE, TOY, bad_png, good_png, served, taught

from blemish.serve.api import inference_protocol, invocations, lookout
from blemish.serve.app import create_app
from blemish.serve.core import ServiceSettings
from blemish.serve.service import Service


def answered(app: Any, path: str, headers: dict[str, str]) -> tuple[int, int]:
    """The status of a POST, and how often its body was asked for."""
    asked, statuses = [], []

    async def receive() -> MutableMapping[str, Any]:
        asked.append(1)
        return {"type": "http.request", "body": b"--x\r\n", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("10.0.0.1", 1),
        "state": {},
    }
    asyncio.run(app(scope, receive, send))
    return statuses[0], len(asked)


@pytest.mark.parametrize(
    "path",
    ["/api/products/disc/good", "/v2/models/disc/infer", "/invocations", "/api/inspect", "/api/reviews"],
)
def test_without_a_token_no_body_is_read(toy: str, tmp_path: Path, path: str) -> None:
    with Service.open(tmp_path) as service:
        service.catalog.create("disc", "test", TOY)
        app = create_app(service, is_exposed=True)
        token = service.users.add("one", "engineer", "test")
        form = {"content-type": "multipart/form-data; boundary=x" if path.endswith("good") else "application/json"}
        assert answered(app, path, form) == (401, 0)
        assert answered(app, path, form | {"authorization": "Bearer wrong"}) == (401, 0)
        assert answered(app, path, form | {"authorization": f"Bearer {token}"})[1] > 0


@pytest.mark.parametrize(
    ("module", "name", "path", "body"),
    [
        (inference_protocol, "png", "/v2/models/disc/infer", "pixels"),
        (invocations, "from_base64", "/invocations", "base64"),
        (lookout, "mask_png", "/2020-11-20/projects/disc/models/1/detect", "file"),
    ],
)
def test_pictures_are_made_off_the_event_loop(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, path: str, body: str
) -> None:
    threads: list[str] = []
    make: Callable[[Any], Any] = getattr(module, name)

    def noted(value: Any) -> Any:
        threads.append(threading.current_thread().name)
        return make(value)

    monkeypatch.setattr(module, name, noted)
    tensor = {"name": "image", "datatype": "UINT8", "shape": [64, 80, 3], "data": np.zeros(64 * 80 * 3, int).tolist()}
    bodies: dict[str, dict[str, Any]] = {
        "pixels": {"json": {"inputs": [tensor]}},
        "base64": {"json": {"instances": [base64.b64encode(bad_png(4)).decode()]}},
        "file": {"content": bad_png(4)},
    }
    with served(tmp_path, compat=["lookout"]) as (service, client):
        taught(service)
        assert client.post(path, **bodies[body]).status_code == 200
    assert [one.split()[0] for one in threads] == ["AnyIO"]


def test_a_body_of_pixels_is_parsed_off_the_event_loop(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    parse = inference_protocol.Inference.model_validate_json

    def noted(content: bytes) -> inference_protocol.Inference:
        threads.append(threading.current_thread().name)
        return parse(content)

    monkeypatch.setattr(inference_protocol.Inference, "model_validate_json", noted)
    with served(tmp_path, ServiceSettings(max_upload=30_000)) as (service, client):
        service.catalog.create("disc", "test", TOY)
        tensor = {"name": "image", "datatype": "UINT8", "shape": [2, 2, 3], "data": [7] * 12}
        assert client.post("/v2/models/disc/infer", json={"inputs": [tensor]}).status_code == 409  # nothing learned
        assert [one.split()[0] for one in threads] == ["AnyIO"]
        tensor["data"] = [7] * 700_000
        assert client.post("/v2/models/disc/infer", json={"inputs": [tensor]}).status_code == 413
        assert len(threads) == 1  # what is too large is never parsed


def test_a_cancelled_inspection_leaves_its_picture_at_once(toy: str, tmp_path: Path) -> None:
    """It stays in the queue behind what is at work, which may take long."""
    with Service.open(tmp_path, ServiceSettings(workers=1)) as service:
        taught(service)
        content = good_png(2)
        before = sys.getrefcount(content)
        with service.core.store.transaction():  # nothing can be committed meanwhile
            first = service.line.submit("disc", good_png(1))
            second = service.line.submit("disc", content)
            assert sys.getrefcount(content) > before
            assert second.cancel()
            assert sys.getrefcount(content) == before
        assert first.result(30).verdict is not None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/parts?offset=99999999999999999999", 200),
        ("/api/parts?offset=-99999999999999999999", 200),
        ("/api/parts?limit=99999999999999999999", 200),
        ("/api/audit?before=99999999999999999999", 422),
        ("/api/audit?limit=99999999999999999999", 200),
        ("/audit?before=99999999999999999999", 422),
        ("/api/parts?verdict=&state=open&order=score", 200),
    ],
)
def test_numbers_and_words_at_their_ends(tmp_path: Path, path: str, status: int) -> None:
    with served(tmp_path) as (_, client):
        assert client.get(path).status_code == status


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("secret"), 500), (sqlite3.OperationalError("database or disk is full"), 507)]
)
def test_what_nobody_foresaw_is_answered_in_three_facts_with_all_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: Any) -> None:
        raise error

    with Service.open(tmp_path) as service:
        monkeypatch.setattr(service.parts, "counts", fail)
        client = TestClient(create_app(service), HERE, raise_server_exceptions=False, client=("127.0.0.1", 1))
        for path in ("/api/status", "/api/parts?verdict=perhaps"):
            found = client.get(path)
            assert found.status_code == (status if path == "/api/status" else 400)
            assert found.json()["error"].keys() == {"expected", "got", "do"}
            assert "secret" not in found.text
            assert "default-src 'self'" in found.headers["content-security-policy"]
        with pytest.raises(type(error)):  # the server hears of it, too
            TestClient(create_app(service), HERE, client=("127.0.0.1", 1)).get("/api/status")


JSON = {"content-type": "application/json"}


def inference(**tensor: Any) -> str:
    return json.dumps({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [2, 2, 3], "data": [7]} | tensor]})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/invocations", "[" * 100_000),
        ("/invocations", '{"instances": ' + "[" * 100_000),
        ("/v2/models/disc/infer", inference(data=[{}] * 12)),
        ("/v2/models/disc/infer", inference(data=[None] * 12)),
        ("/v2/models/disc/infer", inference(shape=[10**30, 2, 3])),
        ("/api/products", '{"name": "other", "detector_settings": {"\\ud800": 1}}'),
        ("/api/products", '{"name": "other", "detector_settings": {"a": ' + "[" * 900 + "]" * 900 + "}}"),
    ],
)
def test_no_body_is_a_fault_of_the_service(toy: str, tmp_path: Path, path: str, body: str) -> None:
    with served(tmp_path) as (service, client):
        taught(service)
        found = client.post(path, content=body, headers=JSON)
        assert 400 <= found.status_code < 500, found.text
        assert found.json()["error"]


def test_a_part_id_that_is_null_is_none(toy: str, tmp_path: Path) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(good_png(1)).decode()]}
    with served(tmp_path) as (service, client):
        taught(service)
        body: dict[str, Any] = {"parameters": {"part_id": None}, "inputs": [tensor]}
        for part_id, expected in ((None, ""), (7, "7"), ("a", "a")):
            body["parameters"]["part_id"] = part_id
            part = client.post("/v2/models/disc/infer", json=body).json()["outputs"][-1]["data"][0]
            assert service.parts.get(part).part_id == expected


def test_a_form_without_a_file_is_refused(toy: str, tmp_path: Path) -> None:
    """As of `curl -F files=part.png`, which forgets the @."""
    with served(tmp_path) as (service, client):
        taught(service)
        form = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\npart.png\r\n--x--\r\n'
        kind = {"content-type": "multipart/form-data; boundary=x"}
        found = client.post("/api/inspect?product=disc", content=form, headers=kind)
        assert (found.status_code, found.json()["error"]["expected"]) == (400, "a form with a file")


def test_a_table_of_an_unknown_verdict_is_refused_before_it_begins(toy: str, tmp_path: Path) -> None:
    with served(tmp_path) as (service, client):
        service.catalog.create("disc", "test", TOY)
        assert client.get("/api/parts.csv?product=disc&verdict=perhaps").status_code == 400
