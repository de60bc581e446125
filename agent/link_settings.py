"""``[link]``: where the cloud is, and by which transports it is reached.

Invariants: the preferred transport is named first; a proxy's password is never shown.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from agent.errors import BadInput
from agent.settings_section import Endpoint, Section, parse_endpoint

TRANSPORTS: Final = ("grpc", "mqtt")
"""What can carry the link."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that leads to other hosts by CONNECT; ``user`` is empty where it asks for none."""

    endpoint: Endpoint
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"proxy {self.endpoint}"

    __str__ = __repr__

    @property
    def url(self) -> str:
        """Return it as an address, password and all."""
        who = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user else ""
        return f"http://{who}{self.endpoint}"


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Where the cloud is, and by which transports: the preferred one first.

    ``mqtt_endpoint`` is the broker, None when MQTT is not among them. ``ca_file`` holds CAs that are believed beside
    the one that enrolment brought.
    """

    endpoint: Endpoint
    enrol_endpoint: Endpoint
    server_name: str
    heartbeat_s: float
    transports: tuple[str, ...] = ("grpc",)
    mqtt_endpoint: Endpoint | None = None
    mqtt_server_name: str = "ballast-broker"
    proxy: Proxy | None = None
    ca_file: Path | None = None


def link_of(section: Section) -> LinkSettings:
    """Return the section ``[link]``.

    Raises:
        BadInput: a key is unknown or of the wrong form, or MQTT is named without its broker.
    """
    settings = LinkSettings(
        endpoint=section.endpoint("endpoint", "127.0.0.1:7443"),
        enrol_endpoint=section.endpoint("enrol_endpoint", "127.0.0.1:7444"),
        server_name=section.text("server_name", "ballast-cloud"),
        heartbeat_s=section.number("heartbeat_s", 5, 0.2, 300),
        transports=_transports(section),
        mqtt_endpoint=section.endpoint("mqtt_endpoint", "") if section.has("mqtt_endpoint") else None,
        mqtt_server_name=section.text("mqtt_server_name", "ballast-broker"),
        proxy=_proxy(section),
        ca_file=section.path("ca_file", "") if section.has("ca_file") else None,
    )
    section.nothing_left()
    if "mqtt" in settings.transports and settings.mqtt_endpoint is None:
        raise section.bad("mqtt_endpoint", "is missing", 'write the broker, for example "broker.example.com:8883"')
    return settings


def _transports(section: Section) -> tuple[str, ...]:
    named = section.texts("transports", '["grpc", "mqtt"]') or TRANSPORTS[:1]
    if unknown := sorted(set(named) - set(TRANSPORTS)):
        raise section.bad("transports", f"{unknown[0]!r} is not known", f"write one or more of {', '.join(TRANSPORTS)}")
    if len(set(named)) < len(named):
        raise section.bad("transports", "names one twice", "name each once, the preferred one first")
    return named


def _proxy(section: Section) -> Proxy | None:
    text = section.text_or_nothing("proxy")
    if not text:
        return None
    try:
        parts = urlsplit(text)
        rest = (parts.path.rstrip("/"), parts.query, parts.fragment)
        if parts.scheme != "http" or parts.port is None or not parts.hostname or any(rest):
            raise BadInput("not of that form")
        endpoint = parse_endpoint(parts.netloc.rpartition("@")[2])
    except (ValueError, BadInput):
        # What was written is not quoted: there may be a password in it.
        raise section.bad("proxy", "is not the address of an HTTP proxy", "write http://HOST:PORT") from None
    return Proxy(endpoint, unquote(parts.username or ""), unquote(parts.password or ""))
