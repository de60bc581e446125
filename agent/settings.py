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
from agent.house_settings import FallbackSettings, LimitSettings, RampSettings, fallback_of, limits_of, ramp_of
from agent.link_settings import LinkSettings, Proxy, link_of
from agent.settings_section import Endpoint, Section, parse_endpoint

PASSWORD_VARIABLE: Final = "BALLAST_AGENT_WHATSMINER_PASSWORD"  # noqa: S105 - a name, not a password
KEY_DIRECTORY_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
_SITE_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SECTIONS: Final = ("site", "poll", "link", "buffer", "control", "limits", "ramp", "fallback")

__all__ = ["Endpoint", "LinkSettings", "Proxy", "Settings", "load_settings", "parse_endpoint"]


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
class Settings:
    """Everything the agent is told, from one file. ``key_directory`` is where systemd put its secrets, if it did."""

    source: Path
    site: SiteSettings
    poll: PollSettings
    link: LinkSettings
    buffer: BufferSettings
    control: ControlSettings
    limits: LimitSettings
    ramp: RampSettings
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
        site=_site(Section(path, document, "site")),
        poll=_poll(Section(path, document, "poll")),
        link=link_of(Section(path, document, "link")),
        buffer=_buffer(Section(path, document, "buffer")),
        control=_control(Section(path, document, "control"), variables.get(PASSWORD_VARIABLE)),
        limits=limits_of(Section(path, document, "limits")),
        ramp=ramp_of(Section(path, document, "ramp")),
        fallback=fallback_of(Section(path, document, "fallback")),
        key_directory=Path(keys) if keys else None,
    )


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


def _site(section: Section) -> SiteSettings:
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


def _poll(section: Section) -> PollSettings:
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


def _buffer(section: Section) -> BufferSettings:
    settings = BufferSettings(
        seal_s=section.number("seal_s", 1, 0.05, 60),
        max_bytes=section.whole("max_bytes", 1024**3, 1024**2, 1024**4),
    )
    section.nothing_left()
    return settings


def _control(section: Section, password: str | None) -> ControlSettings:
    written = section.text_or_nothing("whatsminer_password")
    settings = ControlSettings(
        whatsminer_password=written if password is None else password,
        concurrency=section.whole("concurrency", 64, 1, 4096),
        device_deadline_s=section.number("device_deadline_s", 20, 0.5, 600),
        idle_share=section.number("idle_share", 0.15, 0.01, 0.9),
    )
    section.nothing_left()
    return settings
