"""One table of a settings file, read key by key.

Invariants: each key is taken once and checked; every complaint is one line naming the file, the key, the cause and what
to write instead; a key that nobody asked for is refused.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.errors import BadInput

_SHOWN_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (name or address, without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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


class Section:
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

    def has(self, key: str) -> bool:
        """Return whether something is written for ``key``; an empty text is nothing."""
        if self._left.get(key) == "":
            del self._left[key]
        return key in self._left

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

    def texts(self, key: str, example: str = '["02:00:00:00:00:01"]', default: Sequence[str] = ()) -> tuple[str, ...]:
        """Return a list of texts, ``default`` when the key is absent."""
        value = self._left.pop(key, list(default))
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

    def tables(self, key: str) -> dict[str, "Section"]:
        """Return the tables below ``key`` by name, none when the key is absent."""
        below = Section(self._path, {f"{self._name}.{key}": self._left.pop(key, {})}, f"{self._name}.{key}")
        names = list(below._left)
        return {
            name: Section(self._path, {f"{below._name}.{name}": below._left[name]}, f"{below._name}.{name}")
            for name in names
        }

    def table(self, key: str) -> "Section | None":
        """Return the table below ``key``, None when it is absent."""
        if key not in self._left:
            return None
        name = f"{self._name}.{key}"
        return Section(self._path, {name: self._left.pop(key)}, name)

    def pairs(self, key: str, example: str) -> tuple[tuple[float, float], ...]:
        """Return a list of pairs of numbers, none when the key is absent."""
        value = self._left.pop(key, [])
        pairs = value if isinstance(value, list) else [value]
        if not all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in pairs):
            raise self.bad(key, f"expected pairs of numbers, got {_shown(value)}", f"write for example {example}")
        return tuple((float(pair[0]), float(pair[1])) for pair in pairs)

    def nothing_left(self) -> None:
        """Refuse keys nobody asked for."""
        if self._left:
            raise self.bad(min(self._left), "is not a known key", "remove it or correct its spelling")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: object) -> str:
    """Return ``value`` as a complaint quotes it: short, whatever was written."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
