"""Results published to an MQTT broker; the outbox of webhooks holds what the broker has not acknowledged yet."""

from __future__ import annotations

import threading
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from blemish.errors import SettingsError
from blemish.utils.optional import need

PORTS = {"mqtt": 1883, "mqtts": 8883}
TIMEOUT = 5.0  # seconds for a connection, and for an acknowledgement


@dataclass(frozen=True)
class MqttAddress:
    """A topic of a broker. `is_safe`: over TLS. What is shown and stored of it holds no user and no password."""

    host: str
    port: int
    topic: str
    is_safe: bool = False
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, text: str) -> MqttAddress:
        """From mqtt://[user:password@]host[:1883]/topic, or mqtts:// for TLS. Raises SettingsError."""
        parts = urllib.parse.urlsplit(text, allow_fragments=False)
        topic = urllib.parse.unquote(parts.path[1:])
        try:
            port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            port = 0
        is_topic = topic and not set(topic) & {"+", "#", "\0"}
        if not (parts.scheme in PORTS and parts.hostname and port and is_topic):
            raise SettingsError(
                "an address such as mqtt://host:1883/line/results, its topic without + and #",
                repr(text.rpartition("@")[2][:80]),
                "mend --mqtt",
            )
        user, password = (urllib.parse.unquote(one or "") for one in (parts.username, parts.password))
        return cls(parts.hostname, port, topic, parts.scheme == "mqtts", user, password)

    @property
    def url(self) -> str:
        """The address as it is shown and stored."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.is_safe else 'mqtt'}://{host}:{self.port}/{urllib.parse.quote(self.topic)}"


class MqttSender:
    """Publishes to one topic, with quality of service 1: each message until the broker has acknowledged it.

    A connection is made at the first message. After any failure it is given up, with what its client still held: the
    message comes again from the outbox, by a new one. Raises MissingPackageError without the extra `mqtt`.
    """

    def __init__(self, address: MqttAddress) -> None:
        self.address = address
        self._module: Any = need("paho.mqtt.client", "mqtt", "blemish serve --mqtt")
        self._client: Any = None

    def send(self, body: str) -> str:
        """Publish a message; gives why that failed, "" where the broker has it."""
        try:
            client = self._connected()
            published = client.publish(self.address.topic, body.encode(), qos=1)
            published.wait_for_publish(TIMEOUT)
            if published.is_published():
                return ""
            error = f"no acknowledgement within {TIMEOUT:g} s"
        except (OSError, ValueError, RuntimeError) as failure:
            error = str(failure) or type(failure).__name__
        self.close()
        return error

    def _connected(self) -> Any:
        """The client, connected. Raises OSError where the broker cannot be reached, or refuses."""
        if self._client is not None and self._client.is_connected():
            return self._client
        self.close()
        client = self._client = self._module.Client(self._module.CallbackAPIVersion.VERSION2)
        if self.address.user:
            client.username_pw_set(self.address.user, self.address.password or None)
        if self.address.is_safe:
            client.tls_set()
        answered = threading.Event()
        refusals: list[str] = []

        def on_connect(client: Any, data: Any, flags: Any, reason: Any, properties: Any = None) -> None:
            if reason.is_failure:
                refusals.append(str(reason))
            answered.set()

        client.on_connect = on_connect
        client.connect_timeout = TIMEOUT
        client.connect(self.address.host, self.address.port, keepalive=30)
        client.loop_start()
        if not answered.wait(TIMEOUT) or refusals:
            raise OSError(f"the broker refused: {refusals[0]}" if refusals else f"no answer within {TIMEOUT:g} s")
        return client

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None
