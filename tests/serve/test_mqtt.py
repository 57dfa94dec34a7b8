"""Results reach a broker's topic at least once, over failures and restarts; the broker is a stand-in for paho-mqtt."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from serve_parts import bad_png, good_png, taught
from test_webhooks import eventually
from typer.testing import CliRunner

from blemish.errors import MissingPackageError, SettingsError
from blemish.serve import mqtt
from blemish.serve.mqtt import MqttAddress, MqttSender
from blemish.serve.service import Service


@dataclass
class Broker:
    """What clients connect to: each of `faults` makes one attempt fail in its way; `messages` are acknowledged ones."""

    faults: list[str] = field(default_factory=list)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    connections: list[dict[str, Any]] = field(default_factory=list)

    def fault(self, *kinds: str) -> str:
        return self.faults.pop(0) if self.faults and self.faults[0] in kinds else ""


def module_of(broker: Broker) -> ModuleType:
    """paho.mqtt.client as far as it is used."""

    class Client:
        def __init__(self, version: str) -> None:
            assert version == "v2"
            self.facts: dict[str, Any] = {"is_closed": False}
            self.on_connect: Any = None

        def username_pw_set(self, user: str, password: str | None) -> None:
            self.facts |= {"user": user, "password": password}

        def tls_set(self) -> None:
            self.facts["tls"] = True

        def connect(self, host: str, port: int, keepalive: int) -> None:
            if broker.fault("unreachable"):
                raise ConnectionRefusedError(111, "Connection refused")
            self.facts |= {"host": host, "port": port}
            broker.connections.append(self.facts)

        def loop_start(self) -> None:
            refused = broker.fault("refused")
            if not broker.fault("silent"):
                reason = SimpleNamespace(is_failure=bool(refused))
                self.on_connect(self, None, {}, reason, None)

        def is_connected(self) -> bool:
            return not self.facts["is_closed"]

        def publish(self, topic: str, payload: bytes, qos: int) -> Any:
            assert qos == 1  # at least once
            is_lost = bool(broker.fault("lost"))
            if not is_lost:
                broker.messages.append((topic, json.loads(payload)))

            def wait_for_publish(timeout: float) -> None:
                if broker.fault("broken"):
                    raise RuntimeError("The client is not currently connected.")

            return SimpleNamespace(wait_for_publish=wait_for_publish, is_published=lambda: not is_lost)

        def disconnect(self) -> None:
            self.facts["is_closed"] = True

        def loop_stop(self) -> None:
            pass

    made = ModuleType("paho.mqtt.client")
    made.Client = Client  # type: ignore[attr-defined]
    made.CallbackAPIVersion = SimpleNamespace(VERSION2="v2")  # type: ignore[attr-defined]
    return made


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    found = Broker()
    for name, module in (
        ("paho", ModuleType("paho")),
        ("paho.mqtt", ModuleType("paho.mqtt")),
        ("paho.mqtt.client", module_of(found)),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(mqtt, "TIMEOUT", 0.2)
    return found


def sender(text: str = "mqtt://broker/line/results") -> MqttSender:
    return MqttSender(MqttAddress.of(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtt://broker/line/results", ("broker", 1883, "line/results", False, "", "")),
        ("mqtts://broker/a", ("broker", 8883, "a", True, "", "")),
        ("mqtt://anna:p%40ss@[::1]:18/a%20b", ("::1", 18, "a b", False, "anna", "p@ss")),
    ],
)
def test_addresses(text: str, expected: tuple[Any, ...]) -> None:
    found = MqttAddress.of(text)
    assert (found.host, found.port, found.topic, found.is_safe, found.user, found.password) == expected
    assert MqttAddress.of(found.url).topic == found.topic
    assert "anna" not in found.url
    assert "p@ss" not in repr(found)


@pytest.mark.parametrize(
    "text",
    ["http://broker/a", "mqtt://broker", "mqtt://broker/", "mqtt:///a", "mqtt://b:x/a", "mqtt://u:pw@b/+/x", "a"],
)
def test_other_addresses_are_refused_without_their_password(text: str) -> None:
    with pytest.raises(SettingsError, match="mqtt://host") as refused:
        MqttAddress.of(text)
    assert "pw" not in str(refused.value)


def test_each_verdict_is_published_in_order(toy: str, tmp_path: Path, broker: Broker) -> None:
    with Service.open(tmp_path) as service:
        service.webhooks.publish_to([sender("mqtts://anna:secret@broker/line/results")])
        taught(service)
        parts = [service.line.inspect("disc", good_png(60)), service.line.inspect("disc", bad_png(61))]
        assert eventually(lambda: len(broker.messages) == 2)
        assert [body["part"]["id"] for _, body in broker.messages] == [part.id for part in parts]
        assert {topic for topic, _ in broker.messages} == {"line/results"}
        assert {body["schema"] for _, body in broker.messages} == {1}
        facts = {"user": "anna", "password": "secret", "tls": True, "host": "broker", "port": 8883}
        assert broker.connections == [{"is_closed": False, **facts}]  # one for all messages
        assert "secret" not in json.dumps([one.to_dict() for one in service.webhooks.all()])
        assert "secret" not in json.dumps([one.to_dict() for one in service.core.journal()])
    assert broker.connections[0]["is_closed"]


@pytest.mark.parametrize("fault", ["unreachable", "refused", "silent", "lost", "broken"])
def test_what_the_broker_has_not_acknowledged_comes_again_by_a_new_connection(
    toy: str, tmp_path: Path, broker: Broker, fault: str
) -> None:
    broker.faults.append(fault)
    one = sender()
    assert one.send('{"part": 1}')
    assert all(facts["is_closed"] for facts in broker.connections)
    assert one.send('{"part": 1}') == ""
    assert broker.messages[-1] == ("line/results", {"part": 1})
    one.close()


def test_what_waits_is_published_after_a_restart_and_no_more_once_it_is_not_named(
    toy: str, tmp_path: Path, broker: Broker
) -> None:
    broker.faults += ["unreachable"] * 1000
    with Service.open(tmp_path) as service:
        service.webhooks.publish_to([sender()])
        taught(service)
        service.line.inspect("disc", good_png(60))
        assert eventually(lambda: "refused" in (service.webhooks.waiting()[0]["last_error"] or ""))
    broker.faults.clear()
    with Service.open(tmp_path) as service:
        service.webhooks.publish_to([sender()])
        assert eventually(lambda: len(broker.messages) == 1)
        assert eventually(lambda: service.webhooks.waiting()[0]["waiting"] == 0)
        assert len(service.webhooks.all()) == 1
    with Service.open(tmp_path) as service:
        service.webhooks.publish_to([])
        assert service.webhooks.all() == []
        assert [one.what for one in service.core.journal()][:1] == ["publishes no more"]


def test_without_the_package_the_line_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blemish.cli.main import app

    monkeypatch.setitem(sys.modules, "paho", None)
    with pytest.raises(MissingPackageError, match=r"blemish\[mqtt\]"):
        sender()
    for address, words in (("mqtt://broker/line", "blemish[mqtt]"), ("mqtt://broker", "mqtt://host:1883")):
        found = CliRunner().invoke(app, ["serve", "--data", str(tmp_path), "--port", "0", "--mqtt", address])
        assert found.exit_code == 2
        assert words in found.stderr.replace("\n", " ")
