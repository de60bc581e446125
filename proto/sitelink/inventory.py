"""A site's two lists, inventory.csv and meters.csv, as the site's operator writes them. Pure: bytes to entries.

    inventory.csv   miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths
                    and, where wanted, web_port,credentials,outlet
    meters.csv      meter_id,kind,feeder_id,url

The agent and the cloud read the same files by the same rules; the cloud keeps no address.

Invariants: a list is taken whole or not at all; each broken field is named with its file, line, cause and what to write
instead; what ``write_miners`` writes, ``read_miners`` reads back equal; one MAC and one address have one form, however
they were written.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from sitelink.hosts import BadAddress, one_form
from sitelink.meter_source import HOST, BadSource, MeterSource, parse_source
from sitelink.miner_ids import canonical
from sitelink.miners import AUTO, EXOTIC, WEB_PORT
from sitelink.outlet_source import OUTLET_FORM, BadOutlet, parse_outlet
from sitelink.rows import BadList, Row, Unique, read_rows
from sitelink.units import TeraHashPerSecond, Watts

DIALECTS: Final = (
    *("luxos", "whatsminer", "avalon", "antminer", "braiins", "cgminer", "whatsminer-v3", "braiins-rest", "vnish"),
    *("hiveon", "innosilicon", "blackminer", "mskminer", "goldshell", "elphapex", "hammer", "obelisk", "epic"),
    *("auradine", "bitaxe", "antminer-web", EXOTIC, AUTO),
)
CONTROLLABLE: Final = frozenset(
    ("antminer", "avalon", "braiins", "braiins-rest", "cgminer", "luxos", "vnish", "whatsminer", "whatsminer-v3")
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
    return tuple(_whole(file, data).entries)


def told_miners(file: str, data: bytes) -> tuple[tuple[MinerEntry, ...], frozenset[str]]:
    """Return the miners listed in ``data``, and the ids of those whose row writes a web port, be it the usual one.

    For whoever takes the rows into another list: what a row leaves empty says nothing. Raises as ``read_miners``.
    """
    taken = _whole(file, data)
    return tuple(taken.entries), frozenset(taken.web_ports)


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
    web_ports: set[str] = field(default_factory=set)
    """The ids whose row says a web port."""

    def add(self, row: Row, entry: MinerEntry) -> None:
        """Take the row's miner, without its outlet where that cannot be used."""
        try:
            self._note_switch(row, entry)
        except BadList as error:
            self.complaints += (_Complaint(text, of_outlet=True) for text in error.complaints)
            entry = replace(entry, outlet="")
        if row.has("web_port"):
            self.web_ports.add(entry.miner_id)
        self.entries.append(entry)

    def _note_switch(self, row: Row, entry: MinerEntry) -> None:
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


def _whole(file: str, data: bytes) -> "_Taken":
    taken = _taken(file, data)
    if taken.complaints:
        raise BadList(*(each.text for each in taken.complaints))
    return taken


def _taken(file: str, data: bytes) -> _Taken:
    taken = _Taken()
    names = Unique("miner_id", "each miner stands once; remove the second row")
    addresses = Unique("host", "two miners cannot share one address and port; correct one of the rows")
    places = Unique("position", "two miners cannot stand at one place; correct one, or leave rack empty if unknown")
    try:
        for row in read_rows(file, data, MINER_FIELDS, OPTIONAL_MINER_FIELDS):
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
    return _miner(Row("row", 1, row))


def read_meters(file: str, data: bytes) -> tuple[MeterEntry, ...]:
    """Return the meters listed in ``data``, the CSV file called ``file``.

    Raises:
        BadList: it is not UTF-8, its header is wrong, a row is broken, or an id or feeder stands there twice.
    """
    entries: list[MeterEntry] = []
    names = Unique("meter_id", "each meter stands once; remove the second row")
    feeders = Unique("feeder_id", "one meter measures a feeder; remove the second row")
    for row in read_rows(file, data, METER_FIELDS):
        entry = _meter(row)
        names.add(row, entry.meter_id)
        if entry.kind == "feeder":
            feeders.add(row, entry.feeder_id)
        entries.append(entry)
    return tuple(entries)


_HOST_FORM: Final = "write the miner's IP address or host name"


def _host(row: Row) -> str:
    text = row.name("host", _HOST_FORM, HOST)
    try:
        return one_form(text)
    except BadAddress as error:
        raise row.wrong("host", str(error), f"{_HOST_FORM}, such as 10.0.0.10, without leading zeros") from None


_MINER: Final[Mapping[str, Callable[[Row], Any]]] = {
    "miner_id": lambda row: canonical(row.name("miner_id", "write the miner's MAC address or serial number")),
    "host": _host,
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


def _miner(row: Row) -> MinerEntry:
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


def _meter(row: Row) -> MeterEntry:
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


def _source(row: Row) -> MeterSource:
    try:
        return parse_source(row.text("url"))
    except BadSource as error:
        raise row.wrong("url", str(error), error.fix) from None
