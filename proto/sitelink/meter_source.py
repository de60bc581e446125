"""Where a meter is read, as meters.csv writes it in ``url``. Pure.

    modbus://HOST[:502]/UNIT[?register=N]           float32 W at input register N, float32 kWh two above
    modbus://HOST[:502]/UNIT?map=NAME               registers as the map of the meter's model says
    http://HOST[:80]/PATH[?QUERY][#SELECTORS]       a page with the figures
    file:///PATH[#SELECTORS]                        a file with the figures, written anew every few seconds

SELECTORS are joined by ``&``: ``power=PLACE``, ``energy=PLACE`` (keys and list places joined by dots), ``power_unit=``
W, kW or MW, ``energy_unit=`` Wh, kWh or MWh, ``max_age_s=`` for a file. Without ``power`` the whole text is the power.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

HOST: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62}))*\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)"
)
"""A name whose every label can be looked up, or an IPv4 or IPv6 address."""
MAP_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PLACE: Final = re.compile(r"[^\s.&=#]+(?:\.[^\s.&=#]+){0,15}")
_POWER_UNITS: Final = {"W": 1.0, "kW": 1e3, "MW": 1e6}
_ENERGY_UNITS: Final = {"Wh": 1.0, "kWh": 1e3, "MWh": 1e6}
_MODBUS_FORM: Final = "write modbus://HOST:PORT/UNIT?register=N or modbus://HOST:PORT/UNIT?map=NAME"
_PAGE_FORM: Final = "write http://HOST:PORT/PATH#power=PLACE&power_unit=kW"
_FILE_FORM: Final = "write file:///PATH#power=PLACE&power_unit=kW"
_LAST_REGISTER: Final = 65_532
_FILE_AGE_S: Final = 30.0


class BadSource(ValueError):
    """The text names no place a meter can be read at; ``fix`` says what to write."""

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(cause)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class ModbusSource:
    """One Modbus TCP unit. ``map_name`` is empty for float32 W at ``register`` and float32 kWh two above."""

    host: str
    port: int
    unit: int
    register: int = 0
    map_name: str = ""


@dataclass(frozen=True, slots=True)
class Selectors:
    """Where the figures stand in a text. Empty ``power``: the whole text; empty ``energy``: there is none."""

    power: str = ""
    energy: str = ""
    power_factor: float = 1.0
    energy_factor: float = 1e3
    """By what a figure is multiplied to be in W and in Wh."""


@dataclass(frozen=True, slots=True)
class PageSource:
    """A page on a web server in the site's own network."""

    host: str
    port: int
    target: str
    selectors: Selectors


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file that another program writes anew every few seconds; older than ``max_age_s`` it tells nothing."""

    path: str
    selectors: Selectors
    max_age_s: float


MeterSource = ModbusSource | PageSource | FileSource


def parse_source(url: str) -> MeterSource:
    """Return where ``url`` says that a meter is read.

    Raises:
        BadSource: it says nothing of the kind.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadSource(f"{url!r} is not an address", _MODBUS_FORM) from None
    if not url.isprintable() or " " in url:
        raise BadSource(f"{url!r} has characters that no address has", _MODBUS_FORM)
    if parts.scheme == "modbus":
        return _modbus(url, parts, port)
    if parts.scheme == "http":
        return _page(url, parts, port)
    if parts.scheme == "file":
        return _file(url, parts)
    raise BadSource(f"{url!r} is no Modbus TCP address, page or file", _MODBUS_FORM)


def _modbus(url: str, parts: SplitResult, port: int | None) -> ModbusSource:
    _check_host(url, parts, port, _MODBUS_FORM)
    asked = dict(parse_qsl(parts.query, keep_blank_values=True, separator="&"))
    if (
        parts.fragment
        or not set(asked) <= {"register", "map"}
        or parts.query.count("=") > 1
        or bool(asked) != bool(parts.query)
    ):
        raise BadSource(f"{url!r} says more than host, port, unit and register or map", _MODBUS_FORM)
    unit = _whole(url, parts.path.strip("/"), 0, 255, "UNIT from 0 to 255")
    if "map" not in asked:
        register = _whole(url, asked.get("register", "0"), 0, _LAST_REGISTER, f"N from 0 to {_LAST_REGISTER}")
        return ModbusSource(str(parts.hostname), 502 if port is None else port, unit, register)
    if not MAP_NAME.fullmatch(asked["map"]):
        raise BadSource(f"{asked['map']!r} is not the name of a map", "write a map's name, such as eastron-sdm630")
    return ModbusSource(str(parts.hostname), 502 if port is None else port, unit, map_name=asked["map"])


def _page(url: str, parts: SplitResult, port: int | None) -> PageSource:
    _check_host(url, parts, port, _PAGE_FORM)
    selectors, left = _selectors(url, parts.fragment, _PAGE_FORM)
    if left:
        raise BadSource(f"{url!r}: {min(left)} is not known for a page", _PAGE_FORM)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return PageSource(str(parts.hostname), 80 if port is None else port, target, selectors)


def _file(url: str, parts: SplitResult) -> FileSource:
    if parts.netloc or not parts.path.startswith("/") or parts.query:
        raise BadSource(f"{url!r} is not the whole path of a file", _FILE_FORM)
    selectors, left = _selectors(url, parts.fragment, _FILE_FORM)
    age = left.pop("max_age_s", None)
    if left:
        raise BadSource(f"{url!r}: {min(left)} is not known for a file", _FILE_FORM)
    if age is None:
        return FileSource(parts.path, selectors, _FILE_AGE_S)
    return FileSource(parts.path, selectors, float(_whole(url, age, 1, 3600, "max_age_s from 1 to 3600")))


def _selectors(url: str, fragment: str, form: str) -> tuple[Selectors, dict[str, str]]:
    """Return the selectors in ``fragment`` and what else stands there."""
    pairs = [part.partition("=") for part in fragment.split("&")] if fragment else []
    asked = {name: value for name, _, value in pairs}
    if len(asked) != len(pairs) or not all(asked.values()):
        raise BadSource(f"{url!r}: a selector stands twice or is empty", form)
    places = {name: asked.pop(name, "") for name in ("power", "energy")}
    for name, place in places.items():
        if place and not _PLACE.fullmatch(place):
            raise BadSource(
                f"{url!r}: {name}: {place!r} names no place", "write keys joined by dots, such as total.power"
            )
    power_unit, energy_unit = asked.pop("power_unit", "W"), asked.pop("energy_unit", "kWh")
    if power_unit not in _POWER_UNITS or energy_unit not in _ENERGY_UNITS:
        raise BadSource(f"{url!r}: a unit is not known", "write W, kW or MW, and Wh, kWh or MWh")
    factors = (_POWER_UNITS[power_unit], _ENERGY_UNITS[energy_unit])
    return Selectors(places["power"], places["energy"], *factors), asked


def _check_host(url: str, parts: SplitResult, port: int | None, form: str) -> None:
    if not parts.hostname:
        raise BadSource(f"{url!r} names no host", form)
    if parts.username is not None:
        raise BadSource(f"{url!r} has a user in it", f"{form}, without a user")
    if not HOST.fullmatch(parts.hostname) or port == 0:
        raise BadSource(f"{url!r} names a host or port that cannot be", form)


def _whole(url: str, text: str, low: int, high: int, fix: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not low <= int(text) <= high:
        raise BadSource(f"{url!r}: {text!r} does not fit", f"write {fix}")
    return int(text)
