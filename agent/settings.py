"""What a site's operator writes in ``agent.toml``, read once and checked whole.

Invariants: unknown sections and keys are refused by name; relative paths are relative to the file; every complaint is
one line naming the file, the key, the cause and what to write instead. Two environment variables are read:
``BALLAST_AGENT_WHATSMINER_PASSWORD``, so that the password need not stand in the file, and ``CREDENTIALS_DIRECTORY``,
where systemd puts the service's secrets.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.errors import BadInput
from agent.files import next_step
from sitelink.miner_ids import canonical
from sitelink.types import Fallback
from sitelink.units import Watts

PASSWORD_VARIABLE: Final = "BALLAST_AGENT_WHATSMINER_PASSWORD"  # noqa: S105 - a name, not a password
KEY_DIRECTORY_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
_SITE_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SHOWN_CHARACTERS: Final = 60
_SECTIONS: Final = ("site", "poll", "link", "buffer", "control", "limits", "fallback")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (name or address, without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """Which site this is and where its files are. ``ranges`` are its own addresses, searched for lost miners."""

    site_id: str
    inventory: Path
    meters: Path
    state_dir: Path
    ranges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PollSettings:
    """How often and how patiently devices are read.

    ``connect_s`` and ``total_s`` run from the start of an exchange, ``first_byte_s`` from its connection.
    """

    interval_s: float
    concurrency: int
    meter_interval_s: float
    connect_s: float
    first_byte_s: float
    total_s: float
    cap_bytes: int


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Where the cloud is."""

    endpoint: Endpoint
    enrol_endpoint: Endpoint
    server_name: str
    heartbeat_s: float


@dataclass(frozen=True, slots=True)
class BufferSettings:
    """How long readings wait before they are sealed, and how much disk they may take."""

    seal_s: float
    max_bytes: int


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """How miners are switched. A stopped miner draws less than ``idle_share`` of its baseline.

    ``whatsminer_password`` stands in for the vault's group ``whatsminer``; empty: no password is known.
    """

    whatsminer_password: str
    concurrency: int
    device_deadline_s: float
    idle_share: float


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """What no plan may exceed at this site; ``max_step_w`` 0 means no limit."""

    max_off_s: float
    max_step_w: Watts
    never_touch: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FallbackSettings:
    """What the site does when the clock is untrusted or the plan has expired, after ``grace_s``."""

    mode: Fallback
    grace_s: float


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the agent is told, from one file. ``key_directory`` is where systemd put its secrets, if it did."""

    source: Path
    site: SiteSettings
    poll: PollSettings
    link: LinkSettings
    buffer: BufferSettings
    control: ControlSettings
    limits: LimitSettings
    fallback: FallbackSettings
    key_directory: Path | None = None

    @property
    def database(self) -> Path:
        """Return the path of the buffer and journal."""
        return self.site.state_dir / "agent.db"

    @property
    def identity_dir(self) -> Path:
        """Return the folder of key, certificate and trust."""
        return self.site.state_dir / "identity"

    def redacted(self) -> dict[str, Any]:
        """Return the settings as plain values fit for a log: no secret is in them."""
        shown: dict[str, Any] = {}
        for name in _SECTIONS:
            section = getattr(self, name)
            shown[name] = {key: str(getattr(section, key)) for key in section.__slots__}
        shown["control"]["whatsminer_password"] = "***"  # noqa: S105 - hides it
        return shown


def load_settings(path: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings in the TOML file at ``path``.

    Raises:
        BadInput: the file is missing or not TOML, or a key is unknown, missing, or of the wrong form.
    """
    variables = os.environ if environment is None else environment
    document = _document(path)
    unknown = set(document) - set(_SECTIONS)
    if unknown:
        raise BadInput(f"{path}: unknown section [{min(unknown)}]; the sections are {', '.join(_SECTIONS)}")
    keys = variables.get(KEY_DIRECTORY_VARIABLE)
    return Settings(
        source=path,
        site=_site(_Section(path, document, "site")),
        poll=_poll(_Section(path, document, "poll")),
        link=_link(_Section(path, document, "link")),
        buffer=_buffer(_Section(path, document, "buffer")),
        control=_control(_Section(path, document, "control"), variables.get(PASSWORD_VARIABLE)),
        limits=_limits(_Section(path, document, "limits")),
        fallback=_fallback(_Section(path, document, "fallback")),
        key_directory=Path(keys) if keys else None,
    )


def parse_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """Return ``HOST:PORT``, ``[IPv6]:PORT`` or, with a default port, ``HOST`` as an endpoint.

    Raises:
        BadInput: the text has no host, no port where one is needed, or a port outside 1..65535.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:\[\]]+))(?::(\d{1,5}))?", text.strip())
    if match is None or (match[3] is None and default_port is None):
        raise BadInput(f"{text!r} is not HOST:PORT; write for example 10.0.0.5:4028")
    port = int(match[3]) if match[3] is not None else int(default_port or 0)
    if not 1 <= port <= 65535:
        raise BadInput(f"{text!r}: the port must be 1..65535")
    return Endpoint(match[1] or match[2], port)


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; give the agent's settings with --config agent.toml") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}; {next_step(error)}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not valid TOML: {error}; correct that line") from None
    except ValueError:
        # Python reads no decimal integer beyond some thousand digits, and tomllib lets that error through.
        raise BadInput(f"{path}: it holds a number of thousands of digits; write a shorter one") from None
    except RecursionError:
        raise BadInput(f"{path}: its lists or tables nest too deeply; write them flat") from None


def _site(section: "_Section") -> SiteSettings:
    site_id = section.text("site_id")
    if _SITE_ID.fullmatch(site_id) is None:
        raise section.bad(
            "site_id", f"{site_id!r} is not a site id", "use small letters, digits and -, such as pecos-1"
        )
    settings = SiteSettings(
        site_id=site_id,
        inventory=section.path("inventory", "inventory.csv"),
        meters=section.path("meters", "meters.csv"),
        state_dir=section.path("state_dir", "state"),
        ranges=section.texts("ranges", '["10.0.0.0/22"]'),
    )
    section.nothing_left()
    return settings


def _poll(section: "_Section") -> PollSettings:
    settings = PollSettings(
        interval_s=section.number("interval_s", 60, 5, 3600),
        concurrency=section.whole("concurrency", 256, 1, 4096),
        meter_interval_s=section.number("meter_interval_s", 5, 0.5, 3600),
        connect_s=section.number("connect_s", 1, 0.05, 60),
        first_byte_s=section.number("first_byte_s", 2, 0.05, 60),
        total_s=section.number("total_s", 5, 0.1, 120),
        cap_bytes=section.whole("cap_bytes", 256 * 1024, 4096, 16 * 1024 * 1024),
    )
    section.nothing_left()
    if not settings.connect_s <= settings.first_byte_s <= settings.total_s:
        raise section.bad("connect_s, first_byte_s, total_s", "are not in rising order", "write for example 1, 2 and 5")
    return settings


def _link(section: "_Section") -> LinkSettings:
    settings = LinkSettings(
        endpoint=section.endpoint("endpoint", "127.0.0.1:7443"),
        enrol_endpoint=section.endpoint("enrol_endpoint", "127.0.0.1:7444"),
        server_name=section.text("server_name", "ballast-cloud"),
        heartbeat_s=section.number("heartbeat_s", 5, 0.2, 300),
    )
    section.nothing_left()
    return settings


def _buffer(section: "_Section") -> BufferSettings:
    settings = BufferSettings(
        seal_s=section.number("seal_s", 1, 0.05, 60),
        max_bytes=section.whole("max_bytes", 1024**3, 1024**2, 1024**4),
    )
    section.nothing_left()
    return settings


def _control(section: "_Section", password: str | None) -> ControlSettings:
    written = section.text_or_nothing("whatsminer_password")
    settings = ControlSettings(
        whatsminer_password=written if password is None else password,
        concurrency=section.whole("concurrency", 64, 1, 4096),
        device_deadline_s=section.number("device_deadline_s", 20, 0.5, 600),
        idle_share=section.number("idle_share", 0.15, 0.01, 0.9),
    )
    section.nothing_left()
    return settings


def _limits(section: "_Section") -> LimitSettings:
    settings = LimitSettings(
        max_off_s=section.number("max_off_s", 14400, 1, 7 * 86400),
        max_step_w=Watts(section.number("max_step_w", 0, 0, 1e9)),
        never_touch=tuple(canonical(name) for name in section.texts("never_touch")),
    )
    section.nothing_left()
    return settings


def _fallback(section: "_Section") -> FallbackSettings:
    mode = section.text("mode", Fallback.RUN.value)
    known = [choice.value for choice in Fallback]
    if mode not in known:
        raise section.bad("mode", f"{mode!r} is not known", f"write one of {', '.join(known)}")
    settings = FallbackSettings(mode=Fallback(mode), grace_s=section.number("grace_s", 0, 0, 86400))
    section.nothing_left()
    return settings


class _Section:
    """One table of the file; each key is taken once and checked."""

    def __init__(self, path: Path, document: Mapping[str, Any], name: str) -> None:
        self._path = path
        self._name = name
        table = document.get(name, {})
        if not isinstance(table, dict):
            raise BadInput(
                f"{path}: [{name}]: expected a section, got {_shown(table)}; write [{name}] and its keys below"
            )
        self._left: dict[str, Any] = dict(table)

    def bad(self, key: str, cause: str, remedy: str) -> BadInput:
        """Return the complaint about ``key``."""
        return BadInput(f"{self._path}: [{self._name}] {key}: {cause}; {remedy}")

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text that is not empty."""
        value = self._left.pop(key, default)
        if value is None:
            raise self.bad(key, "is missing", "add it")
        if not isinstance(value, str) or not value.strip():
            raise self.bad(key, f"expected a text, got {_shown(value)}", "write it in quotes")
        if not value.isprintable():
            raise self.bad(key, "has characters that cannot be printed", "remove them")
        return value

    def text_or_nothing(self, key: str) -> str:
        """Return a text, empty when the key is absent or empty."""
        if self._left.get(key, "") == "":
            self._left.pop(key, None)
            return ""
        return self.text(key)

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """Return a number within ``low..high``."""
        value = self._left.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.bad(key, f"expected a number, got {_shown(value)}", f"write a number from {low:g} to {high:g}")
        if not low <= value <= high:
            raise self.bad(key, f"{_shown(value)} is out of range", f"write a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        """Return a whole number within ``low..high``."""
        value = self._left.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.bad(key, f"{_shown(value)} does not fit", f"write a whole number from {low} to {high}")
        return value

    def texts(self, key: str, example: str = '["02:00:00:00:00:01"]') -> tuple[str, ...]:
        """Return a list of texts, empty when the key is absent."""
        value = self._left.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.bad(key, f"expected a list of texts, got {_shown(value)}", f"write for example {example}")
        return tuple(item.strip() for item in value)

    def path(self, key: str, default: str) -> Path:
        """Return a path, taken relative to the settings file."""
        text = self.text(key, default)
        try:
            return (self._path.parent / Path(text).expanduser()).absolute()
        except RuntimeError:
            raise self.bad(key, f"{_shown(text)} names a user without a home folder", "write the whole path") from None

    def endpoint(self, key: str, default: str) -> Endpoint:
        """Return a host and port."""
        text = self.text(key, default)
        try:
            return parse_endpoint(text)
        except BadInput as error:
            raise self.bad(key, str(error), "correct it") from None

    def nothing_left(self) -> None:
        """Refuse keys nobody asked for."""
        if self._left:
            raise self.bad(min(self._left), "is not a known key", "remove it or correct its spelling")


def _shown(value: object) -> str:
    """Return ``value`` as a complaint quotes it: short, whatever was written."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
