"""A site's two lists, inventory.csv and meters.csv, as the site's operator writes them. Pure: bytes to entries.

    inventory.csv   miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths
                    and, where wanted, web_port,credentials,outlet
    meters.csv      meter_id,kind,feeder_id,url

The agent and the cloud read the same files by the same rules; the cloud keeps no address.

Invariants: a list is taken whole or not at all; each broken field is named with its file, line, cause and what to write
instead; what ``write_miners`` writes, ``read_miners`` reads back equal; one MAC has one form, however it was written.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from sitelink.meter_source import HOST, BadSource, MeterSource, parse_source
from sitelink.miner_ids import canonical
from sitelink.miners import AUTO, EXOTIC, WEB_PORT
from sitelink.outlet_source import OUTLET_FORM, BadOutlet, parse_outlet
from sitelink.units import TeraHashPerSecond, Watts

DIALECTS: Final = (
    *("luxos", "whatsminer", "avalon", "antminer", "braiins", "cgminer", "whatsminer-v3", "braiins-rest", "vnish"),
    *("hiveon", "innosilicon", "blackminer", "mskminer", "goldshell", "elphapex", "hammer", "obelisk", "epic"),
    *("auradine", "bitaxe", "antminer-web", EXOTIC, AUTO),
)
CONTROLLABLE: Final = frozenset(
    ("antminer", "avalon", "braiins", "braiins-rest", "luxos", "vnish", "whatsminer", "whatsminer-v3")
)
"""Dialects whose miners the agent stops and starts by their firmware's own commands."""
MINER_FIELDS: Final = (
    "miner_id",
    "host",
    "port",
    "dialect",
    "model",
    "feeder_id",
    "rack",
    "position",
    "nameplate_w",
    "nameplate_ths",
)
OPTIONAL_MINER_FIELDS: Final = ("web_port", "credentials", "outlet")
METER_FIELDS: Final = ("meter_id", "kind", "feeder_id", "url")
_METER_KINDS: Final = ("site", "feeder")
MAX_MINER_ID_BYTES: Final = 48
_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:@-]{{0,{MAX_MINER_ID_BYTES - 1}}}")


class BadList(ValueError):
    """A list cannot be taken; each of ``complaints`` names file, line, field, cause and what to write."""

    def __init__(self, *complaints: str) -> None:
        more = f" (and {len(complaints) - 1} more such complaints)" if len(complaints) > 1 else ""
        super().__init__(complaints[0] + more)
        self.complaints = complaints


@dataclass(frozen=True, slots=True)
class MinerEntry:
    """One miner of the inventory. ``miner_id`` is the device's own MAC (lower-case, colons) or serial.

    ``port`` is its API's, ``web_port`` its web page's. ``credentials`` names the group whose user and password open
    it, empty for the group of its dialect. ``outlet`` is the switch before it (``modbus://..`` or ``http://..``),
    empty where there is none.
    """

    miner_id: str
    host: str
    port: int
    dialect: str
    model: str
    feeder_id: str
    rack: str
    position: int
    nameplate_w: Watts | None
    nameplate_ths: TeraHashPerSecond | None
    web_port: int = WEB_PORT
    credentials: str = ""
    outlet: str = ""

    @property
    def controllable(self) -> bool:
        """Return whether it can be stopped and started, by its firmware or by the outlet before it."""
        return self.dialect in CONTROLLABLE or bool(self.outlet)


@dataclass(frozen=True, slots=True)
class MeterEntry:
    """One meter of the site or of one feeder, and where it is read."""

    meter_id: str
    kind: str
    feeder_id: str
    source: MeterSource


def read_miners(file: str, data: bytes) -> tuple[MinerEntry, ...]:
    """Return the miners listed in ``data``, the CSV file called ``file``.

    Raises:
        BadList: it is not UTF-8, its header is wrong, a row is broken, or an id, an address, a place in a rack or a
            switch stands there twice.
    """
    taken = _taken(file, data)
    if taken.complaints:
        raise BadList(*(each.text for each in taken.complaints))
    return tuple(taken.entries)


def usable_miners(file: str, data: bytes) -> tuple[tuple[MinerEntry, ...], tuple[str, ...]]:
    """Return the miners of the list, and a complaint about each outlet that is left out because it cannot be used.

    For whoever runs on what was taken before: one outlet gone wrong is no reason to leave all miners alone.

    Raises:
        BadList: anything but an outlet is wrong, as for ``read_miners``.
    """
    taken = _taken(file, data)
    if not all(each.of_outlet for each in taken.complaints):
        raise BadList(*(each.text for each in taken.complaints))
    return tuple(taken.entries), tuple(each.text for each in taken.complaints)


def sound_miners(file: str, data: bytes) -> tuple[tuple[MinerEntry, ...], tuple[str, ...]]:
    """Return the miners of the rows that are sound, and a complaint about each row or outlet that is not.

    For whoever must act on those he can: a list as such is taken whole or not at all (``read_miners``). A miner whose
    outlet is wrong is there without it; a switch that stands twice is nobody's.
    """
    taken = _taken(file, data)
    return tuple(taken.entries), tuple(each.text for each in taken.complaints)


class _Complaint(NamedTuple):
    text: str
    of_outlet: bool = False
    """Nothing else is wrong with the row."""


@dataclass(slots=True)
class _Taken:
    """What could be taken of a list, and what is wrong with it."""

    entries: list[MinerEntry] = field(default_factory=list)
    complaints: list[_Complaint] = field(default_factory=list)
    switches: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Each switch with the line and the place among the entries of the row where it stands first."""

    def add(self, row: "_Row", entry: MinerEntry) -> None:
        """Take the row's miner, without its outlet where that cannot be used."""
        try:
            self._note_switch(row, entry)
        except BadList as error:
            self.complaints += (_Complaint(text, of_outlet=True) for text in error.complaints)
            entry = replace(entry, outlet="")
        self.entries.append(entry)

    def _note_switch(self, row: "_Row", entry: MinerEntry) -> None:
        if not entry.outlet:
            return
        try:
            switch = parse_outlet(entry.outlet).switch
        except BadOutlet as error:
            raise row.wrong("outlet", str(error), OUTLET_FORM) from None
        line, place = self.switches.setdefault(switch, (row.line, len(self.entries)))
        if line != row.line:
            self.entries[place] = replace(self.entries[place], outlet="")
            raise row.wrong(
                "outlet", f"{switch} is that of line {line} too", "a switch feeds one miner: correct one of the rows"
            )


def _taken(file: str, data: bytes) -> _Taken:
    taken = _Taken()
    names = _Unique("miner_id", "each miner stands once; remove the second row")
    addresses = _Unique("host", "two miners cannot share one address and port; correct one of the rows")
    places = _Unique("position", "two miners cannot stand at one place; correct one, or leave rack empty if unknown")
    try:
        for row in _rows(file, data, MINER_FIELDS, OPTIONAL_MINER_FIELDS):
            try:
                entry = _miner(row)
                names.add(row, entry.miner_id)
                addresses.add(row, f"{entry.host}:{entry.port}")
                if entry.rack:
                    places.add(row, f"{entry.rack} {entry.position}")
                taken.add(row, entry)
            except BadList as error:
                taken.complaints += map(_Complaint, error.complaints)
    except BadList as error:
        taken.complaints += map(_Complaint, error.complaints)  # nothing behind it can be told apart
    return taken


def write_miners(entries: Iterable[MinerEntry]) -> bytes:
    """Return the CSV file that lists ``entries``; optional columns stand there when one of them says something."""
    rows = [row_of(entry) for entry in entries]
    said = [name for name in OPTIONAL_MINER_FIELDS if any(row[name] != _UNSAID[name] for row in rows)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, (*MINER_FIELDS, *said), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def row_of(entry: MinerEntry) -> dict[str, str]:
    """Return the miner as the texts of its row, by column."""
    return {field: _written(getattr(entry, field)) for field in (*MINER_FIELDS, *OPTIONAL_MINER_FIELDS)}


def miner_of(row: Mapping[str, str]) -> MinerEntry:
    """Return the miner whose row is ``row``, as ``row_of`` gives it.

    Raises:
        BadList: a field is missing or wrong.
    """
    missing = [name for name in MINER_FIELDS if name not in row]
    if missing:
        raise BadList(f"row: {missing[0]}: it is missing; write the row anew")
    return _miner(_Row("row", 1, row))


def read_meters(file: str, data: bytes) -> tuple[MeterEntry, ...]:
    """Return the meters listed in ``data``, the CSV file called ``file``.

    Raises:
        BadList: it is not UTF-8, its header is wrong, a row is broken, or an id or feeder stands there twice.
    """
    entries: list[MeterEntry] = []
    names = _Unique("meter_id", "each meter stands once; remove the second row")
    feeders = _Unique("feeder_id", "one meter measures a feeder; remove the second row")
    for row in _rows(file, data, METER_FIELDS):
        entry = _meter(row)
        names.add(row, entry.meter_id)
        if entry.kind == "feeder":
            feeders.add(row, entry.feeder_id)
        entries.append(entry)
    return tuple(entries)


class _Row:
    """One line of a list; every complaint names the file, the line and the field."""

    def __init__(self, file: str, line: int, values: Mapping[str, str]) -> None:
        self.line = line
        self._place = f"{file} line {line}"
        self._values = values
        self.broken: BadList | None = None
        """Why the line is no row at all; whoever takes the row raises it."""

    def wrong(self, field: str, cause: str, fix: str) -> BadList:
        return BadList(f"{self._place}: {field}: {cause}; {fix}")

    def has(self, field: str) -> bool:
        return bool(self._values.get(field, "").strip())

    def text(self, field: str) -> str:
        return self._values[field].strip()

    def name(self, field: str, fix: str, pattern: re.Pattern[str] = _NAME) -> str:
        text = self.text(field)
        if not text:
            raise self.wrong(field, "it is empty", fix)
        if not pattern.fullmatch(text):
            raise self.wrong(field, f"{text!r} has characters that do not belong there", fix)
        return text

    def label(self, field: str) -> str:
        text = self.text(field)
        if not "".join(text.split()).isprintable():
            raise self.wrong(field, f"{text!r} has characters that cannot be printed", "write letters that can be read")
        return text

    def one_of(self, field: str, choices: tuple[str, ...]) -> str:
        text = self.text(field).lower()
        if text not in choices:
            raise self.wrong(field, f"{text!r} is not known", f"write one of {', '.join(choices)}")
        return text

    def whole(self, field: str, low: int, high: int, fix: str) -> int:
        return _whole(self, field, self.text(field), low, high, fix)

    def positive(self, field: str, unit: str) -> float | None:
        text = self.text(field)
        if not text:
            return None
        fix = f"write the nameplate figure in {unit}, or leave it empty"
        try:
            number = float(text)
        except ValueError:
            raise self.wrong(field, f"{text!r} is not a number", fix) from None
        if not 0 < number < 1e9:
            raise self.wrong(field, f"{text} is out of range", fix)
        return number


class _Unique:
    """Names that may stand once; two that differ in case alone are one name."""

    def __init__(self, field: str, fix: str) -> None:
        self._field, self._fix = field, fix
        self._seen: set[str] = set()

    def add(self, row: _Row, value: str) -> None:
        if value.lower() in self._seen:
            raise row.wrong(self._field, f"{value!r} stands twice", self._fix)
        self._seen.add(value.lower())


_MINER: Final[Mapping[str, Callable[[_Row], Any]]] = {
    "miner_id": lambda row: canonical(row.name("miner_id", "write the miner's MAC address or serial number")),
    "host": lambda row: row.name("host", "write the miner's IP address or host name", HOST),
    "port": lambda row: row.whole("port", 1, 65535, "write the TCP port, usually 4028"),
    "dialect": lambda row: row.one_of("dialect", DIALECTS),
    "model": lambda row: row.label("model"),
    "feeder_id": lambda row: row.label("feeder_id"),
    "rack": lambda row: row.label("rack"),
    "position": lambda row: row.whole("position", 0, 100_000, "write the place in the rack, counted from 0 or 1"),
    "nameplate_w": lambda row: row.positive("nameplate_w", "W"),
    "nameplate_ths": lambda row: row.positive("nameplate_ths", "TH/s"),
    "web_port": lambda row: row.whole("web_port", 1, 65535, "write the web page's TCP port, usually 80"),
    "credentials": lambda row: row.label("credentials"),
    "outlet": lambda row: row.label("outlet"),
}
_UNSAID: Final = {"web_port": str(WEB_PORT), "credentials": "", "outlet": ""}


def _miner(row: _Row) -> MinerEntry:
    """Return the row's miner. Raises BadList with a complaint for each field that is wrong."""
    if row.broken is not None:
        raise row.broken
    values: dict[str, Any] = {}
    complaints: list[str] = []
    for name, read in _MINER.items():
        if name in OPTIONAL_MINER_FIELDS and not row.has(name):
            continue
        try:
            values[name] = read(row)
        except BadList as error:
            complaints += error.complaints
    if complaints:
        raise BadList(*complaints)
    return MinerEntry(**values)


def _written(value: object) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _meter(row: _Row) -> MeterEntry:
    if row.broken is not None:
        raise row.broken
    kind = row.one_of("kind", _METER_KINDS)
    feeder = row.label("feeder_id")
    if kind == "feeder" and not feeder:
        raise row.wrong("feeder_id", "it is empty", "a feeder meter needs the feeder it measures")
    return MeterEntry(
        meter_id=row.name("meter_id", "write a short name for the meter"),
        kind=kind,
        feeder_id=feeder,
        source=_source(row),
    )


def _source(row: _Row) -> MeterSource:
    try:
        return parse_source(row.text("url"))
    except BadSource as error:
        raise row.wrong("url", str(error), error.fix) from None


def _whole(row: _Row, field: str, text: str, low: int, high: int, fix: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,12}", text):
        raise row.wrong(field, f"{text!r} is not a number", fix)
    if not low <= int(text) <= high:
        raise row.wrong(field, f"{text} is not between {low} and {high}", fix)
    return int(text)


def _rows(file: str, data: bytes, fields: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[_Row]:
    expected = ",".join(fields)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadList(f"{file}: it is not UTF-8 text; save it as CSV with the header {expected}") from None
    first = text.partition("\n")[0]
    between = ";" if ";" in first and "," not in first else ","  # spreadsheets of half of Europe write the former
    lines = _numbered(file, csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=between))
    _, header = next(lines, (0, []))
    names = [name.strip() for name in header]
    for name in fields:
        if name not in names:
            raise BadList(f"{file} line 1: {name}: the column is missing; the header is {expected}")
    for name in names:
        if name not in (*fields, *optional) or names.count(name) > 1:
            raise BadList(f"{file} line 1: {name}: the column is unknown or doubled; the header is {expected}")
    for line, values in lines:
        row = _Row(file, line, dict(zip(names, values, strict=False)))
        if len(values) != len(names):
            row.broken = BadList(
                f"{file} line {line}: {names[min(len(values), len(names) - 1)]}: the row has {len(values)} fields "
                f"instead of {len(names)}; write one value, or nothing, for each of {expected}"
            )
        yield row


def _numbered(file: str, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    line: Callable[[], int] = lambda: int(getattr(reader, "line_num", 0))  # noqa: E731
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadList(f"{file} line {line()}: row: {error}; put double quotes around the whole field") from None
        if any(value.strip() for value in values):
            yield line(), values
