"""Replies cut into sections, and values read from them. Pure.

A section is what a command answers with, named as the reply names it, in lower case: ``summary``, ``stats``, ``devs``,
``pools``, ``config``, ... btminer's object answers become ``msg``. Each section is a list of rows (JSON objects).
What came over another wire than RPC is one row of the section that its command names (``/api/v1/summary``), and is cut
into sections as well where it has CGMiner's shape.

Invariants: nothing here raises on any document; what stands in a reply that says it is an error is no figure; a value
that is missing, empty, not finite or of another form is None.
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from agent.cgminer.repair import Decoded
from agent.cgminer.status import Status

_T = TypeVar("_T")
Row = dict[str, Any]
_MAX_NESTING: Final = 3
_PLURALS: Final = {"pool": "pools", "asc": "devs", "dev": "devs", "gpu": "devs", "pga": "devs"}
NEW_API: Final = "new:"
"""What stands before an RPC command that is asked with Bitmain's ``new_api``."""
_ANSWERS: Final = "msg"
_CGMINER_LISTS: Final = ("STATS", "SUMMARY", "POOLS", "DEVS", "VERSION")
_LEADING_NUMBER: Final = re.compile(r"\s*([-+]?[0-9]+(?:\.[0-9]+)?)")
_LAST_SECOND: Final = 4_102_444_800


class Sections:
    """The rows of one device's replies, by section; where two replies answer the same section, the first counts.

    ``beneath`` holds older sections (static data) that are looked at only where the fresh ones say nothing.
    ``garbled`` and ``denied`` note that a reply could not be read, or was refused to us; ``failing`` that a page says
    that it cannot answer now, ``busy`` because it is busy with something else.
    """

    def __init__(self, beneath: "Sections | None" = None) -> None:
        self._rows: dict[str, list[Row]] = {}
        self._seconds: dict[str, list[Row]] = {}
        self._beneath = beneath
        self.statuses: list[Status] = []
        self.descriptions: list[str] = []
        self.repaired: dict[str, None] = {}
        self.garbled = False
        self.failing = False
        self.busy = False
        self.denied = False

    def add(self, decoded: Decoded, *commands: str) -> None:
        """Take in one decoded reply to ``commands``; a joined reply is taken apart."""
        for rule in decoded.repaired:
            self.repaired[rule] = None
        found: dict[str, list[Row]] = {}
        if commands and not is_rpc(commands[0]):
            failed = self._is_framed_error(commands[0], decoded.document)
            for command in () if failed else commands:
                found[command] = _own_rows(decoded.document)
        if not found or _is_cgminer_shaped(decoded.document):
            self._add(found, decoded.document, 0)
        for section, rows in found.items():
            if section not in self._rows:
                self._rows[section] = rows
            elif section == _ANSWERS:
                self._rows[section].extend(rows)
            else:
                self._seconds.setdefault(section, []).extend(rows)

    def rows(self, section: str) -> list[Row]:
        """Return the rows of a section; none when it was not answered."""
        rows = self._rows.get(section)
        if rows is None:
            return [] if self._beneath is None else self._beneath.rows(section)
        return rows

    def find(self, section: str, key: str) -> Any:
        """Return the value of ``key`` in the first row of the section that has it; None otherwise."""
        for row in self._rows.get(section, ()):
            if key in row:
                return row[key]
        for row in self._seconds.get(section, ()):
            if key in row:
                return row[key]
        return None if self._beneath is None else self._beneath.find(section, key)

    def at(self, section: str, path: Sequence[str]) -> Any:
        """Return the value at ``path`` in the first row of the section that has one there; None otherwise."""
        for row in self.rows(section):
            value = dig(row, path)
            if value is not None:
                return value
        return None

    @property
    def fresh(self) -> "Sections":
        """Return these sections without the older ones beneath: what the device said this time."""
        if self._beneath is None:
            return self
        found = Sections()
        found.__dict__.update(self.__dict__)
        found._beneath = None
        return found

    def has(self, section: str) -> bool:
        """Return whether the section was answered with at least one row."""
        return bool(self.rows(section))

    def __bool__(self) -> bool:
        return bool(self._rows)

    @property
    def device_time(self) -> datetime | None:
        """Return the latest ``When`` of the replies as time, whatever the device's clock is set to."""
        seconds = [status.when for status in self.statuses if status.when is not None]
        latest = max((second for second in seconds if 0 < second < _LAST_SECOND), default=None)
        return None if latest is None else datetime.fromtimestamp(latest, UTC)

    def _add(self, found: dict[str, list[Row]], document: Any, depth: int) -> None:
        if isinstance(document, list):
            for item in document:
                if isinstance(item, dict) and depth < _MAX_NESTING:
                    self._add(found, item, depth + 1)
            return
        if not isinstance(document, dict):
            return
        if "STATUS" in document and self._is_error(document):
            return
        for key, value in document.items():
            if key in ("STATUS", "id"):
                continue
            if isinstance(value, list):
                self._add_list(found, key, value, depth)
            elif isinstance(value, dict):
                if "STATUS" in value and depth < _MAX_NESTING:
                    self._add(found, value, depth + 1)
                else:
                    found.setdefault(key.lower(), []).append(value)

    def _add_list(self, found: dict[str, list[Row]], key: str, values: list[Any], depth: int) -> None:
        rows = rows_of(values)
        if rows and isinstance(rows[0].get("STATUS"), list) and depth < _MAX_NESTING:
            for row in rows:
                self._add(found, row, depth + 1)
        elif rows:
            # Innosilicon numbers its sections: STATS0, STATS1, POOL0, ...
            name = key.lower().rstrip("0123456789")
            found.setdefault(_PLURALS.get(name, name), []).extend(rows)

    def _is_framed_error(self, command: str, document: Any) -> bool:
        """Take note of a framed reply's status; return whether it is an error."""
        if not command.startswith("v3:"):
            return False
        self.statuses.append(Status.of(document))
        return self.statuses[-1].is_error

    def _is_error(self, document: Row) -> bool:
        """Take note of the status in ``document``; return whether it is an error, beside which nothing is a figure."""
        self.statuses.append(Status.of(document))
        status = document["STATUS"]
        holder = status[0] if isinstance(status, list) and status else document
        description = holder.get("Description") if isinstance(holder, dict) else None
        if isinstance(description, str) and description:
            self.descriptions.append(description)
        return self.statuses[-1].is_error


Reader = Callable[[Sections], _T | None]


def first(section: str, key: str, read: Callable[[Any], _T | None]) -> Reader[_T]:
    """Return a reader of ``key`` in the first row of ``section`` that has it."""

    def reader(sections: Sections) -> _T | None:
        value = sections.find(section, key)
        return None if value is None else read(value)

    return reader


def at(section: str, path: str, read: Callable[[Any], _T | None]) -> Reader[_T]:
    """Return a reader of what stands at ``path`` (``"miner.chains.0.power"``) in ``section``."""
    steps = path.split(".")

    def reader(sections: Sections) -> _T | None:
        value = sections.at(section, steps)
        return None if value is None else read(value)

    return reader


def dig(document: Any, path: Sequence[str]) -> Any:
    """Return what stands at ``path``: a key at each step, or a place where there is a list; None when nothing does."""
    for step in path:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isdecimal() and len(step) < 6 and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def rows_of(value: Any) -> list[Row]:
    """Return the objects in ``value``, if it is a list."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def is_rpc(command: str) -> bool:
    """Return whether a table's command goes over CGMiner's RPC, as most do."""
    return not command.startswith("/") and (":" not in command or command.startswith(NEW_API))


def _own_rows(document: Any) -> list[Row]:
    """Return a whole document as rows: one, or those of a list."""
    return [document] if isinstance(document, dict) else rows_of(document)


def _is_cgminer_shaped(document: Any) -> bool:
    return isinstance(document, dict) and any(isinstance(document.get(name), list) for name in _CGMINER_LISTS)


def summed(section: str, key: str, read: Callable[[Any], float | None]) -> Reader[Any]:
    """Return a reader of the sum of ``key`` over all rows of ``section`` that have it."""

    def reader(sections: Sections) -> float | None:
        values = [read(row[key]) for row in sections.rows(section) if key in row]
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return reader


def number(value: Any) -> float | None:
    """Return a finite number given as number or as text; None for anything else."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is not int and kind is not str:
        return None
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        return None  # Python reads more as a number than a miner writes: 1_000, or another script's digits
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def leading_number(value: Any) -> float | None:
    """Return the number that a text such as ``58.94W`` or ``456.78 (AB)`` starts with."""
    if isinstance(value, str):
        match = _LEADING_NUMBER.match(value)
        return float(match.group(1)[:64]) if match else None
    return number(value)


def whole(value: Any) -> int | None:
    """Return a count; None when negative or beyond 63 bits."""
    found = number(value)
    return int(found) if found is not None and 0 <= found < 2**63 else None


def text(value: Any) -> str | None:
    """Return text without the quotes and blanks that btminer wraps around it; None when nothing is left."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if not isinstance(value, str) and abs(value) >= 2**63:
        return None  # read exactly by one decoder, roundly by another: no name
    stripped = str(value).strip().strip("'\"").strip()
    return stripped or None


def mac(value: Any) -> str | None:
    """Return a MAC address as lower-case with colons; None when it is none, or all zeros."""
    if not isinstance(value, str):
        return None
    digits = re.sub(r"[-:.\s]", "", value).lower()
    if not re.fullmatch(r"[0-9a-f]{12}", digits) or not digits.strip("0"):
        return None
    return ":".join(digits[place : place + 2] for place in range(0, 12, 2))
