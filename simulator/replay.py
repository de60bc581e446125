"""Recorded devices: replies captured from real miners, served byte for byte, one device a case.

Invariants: a recorded reply leaves as it was recorded, with or without a NUL behind it; a command that was not
recorded gets the firmware's own error; recordings with the same command take turns, but those that name another
device than the first do not: a device never changes its MAC. A recording never tells a nameplate.

      MANIFEST.csv -> case -> 127.30.x.y:4028, command -> file
"""

import asyncio
import csv
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.bounds import LAST_PORT, check_net, check_range
from simulator.dialects.rpc import Malformed, Request, parse_request
from simulator.errors import BadInput, SimulatorError
from simulator.faults import as_json
from simulator.httpd import ControlServer
from simulator.listener import bind
from simulator.service import Service
from simulator.site import allow_files, write_csv
from sitelink.clock import Clock
from sitelink.inventory import MINER_FIELDS
from sitelink.miner_ids import MAX_MINER_ID_BYTES

_DIALECTS = {
    "antminer-stock": "antminer",
    "avalon-cgminer": "avalon",
    "braiins": "braiins",
    "braiins-bosplus": "braiins",
    "luxos": "luxos",
    "whatsminer-btminer": "whatsminer",
}
_JOINERS = {"avalon", "braiins", "luxos"}
_SHOWS_STATE = {
    "antminer": ("stats",),
    "avalon": ("summary",),
    "braiins": ("summary",),
    "luxos": ("summary",),
    "whatsminer": ("summary", "status"),
}
"""By dialect, the commands any one of which says whether the device hashes."""

_COLUMNS = ("file", "case", "firmware", "model", "transport", "command")
_NO_COMMAND = "reply"
_MAC = re.compile(rb'"(?:MAC|MACAddr|mac)"\s*:\s*"([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5})"')
_DNA = re.compile(rb"DNA\[([0-9A-Fa-f]{12,20})\]")
_NO_NAME = re.compile(r"[^A-Za-z0-9._:@-]")
_SERIAL = re.compile(rb'"miner_id"\s*:\s*"([0-9A-Fa-f]{12,20})"')
_REQUEST_BYTES = 65_536
_IDLE_S = 10.0


@dataclass(slots=True)
class RecordedDevice:
    """One case: ``replies`` by command and parameter, each a list of recordings that take turns."""

    case: str
    firmware: str
    model: str
    replies: dict[tuple[str, str], list[bytes]] = field(default_factory=dict)
    turns: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    host: str = ""
    miner_id: str = ""
    asked: int = 0

    @property
    def dialect(self) -> str:
        """Return the dialect for inventory.csv; ``auto`` where the firmware is none of ours."""
        return _DIALECTS.get(self.firmware, "auto")

    @property
    def lacks(self) -> str:
        """Return the commands of which one would have to be recorded to see the device's state; empty if one is.

        Unknown firmware (dialect ``auto``) promises nothing.
        """
        shows = _SHOWS_STATE.get(self.dialect, ())
        recorded = {name for command, _ in self.replies for name in command.split("+")}
        return "" if recorded & set(shows) else " or ".join(shows) or "its dialect"

    def answer(self, request: Request, when: int) -> bytes:
        """Return the recorded reply to ``request``, or the firmware's error at device time ``when``."""
        found = self._recorded(request) or self._joined(request) or self._part(request)
        return found if found is not None else self._error(14, "Invalid command", when)

    def refuse(self, fault: Malformed, when: int) -> bytes:
        """Return the firmware's answer to something that is no request."""
        return self._error(fault.code, fault.message, when)

    def _recorded(self, request: Request) -> bytes | None:
        command = "+".join(sorted(request.command.split("+")))
        for key in self.replies:
            if key[0] == command and key[1] in {"", *re.split(r"[,|:]", request.parameter)}:
                turn = self.turns[key]
                self.turns[key] = turn + 1
                return self.replies[key][turn % len(self.replies[key])]
        return None

    def _joined(self, request: Request) -> bytes | None:
        """Splice recorded documents for ``a+b``, where the firmware is known to answer that."""
        names = request.command.split("+")
        if len(names) < 2 or self.dialect not in _JOINERS:
            return None
        parts = [self.replies.get((name, "")) for name in names]
        spliced = [
            b'"' + name.encode() + b'":[' + part[0].strip() + b"]"
            for name, part in zip(names, parts, strict=True)
            if part is not None
        ]
        return b"{" + b",".join(spliced) + b',"id":1}' if len(spliced) == len(names) else None

    def _part(self, request: Request) -> bytes | None:
        """Take one command's document out of a recorded ``a+b``."""
        for command, _ in self.replies:
            if request.command in command.split("+"):
                try:
                    return as_json(json.loads(self.replies[command, ""][0])[request.command][0])
                except (ValueError, LookupError, TypeError):
                    continue
        return None

    def _error(self, code: int, message: str, when: int) -> bytes:
        head = {"STATUS": "E", "When": when, "Code": code, "Msg": message}
        if self.dialect == "whatsminer":
            return as_json({**head, "Msg": "invalid cmd" if code == 14 else message, "Description": "whatsminer v1.1"})
        return as_json({"STATUS": [{**head, "Description": "cgminer 4.11.1"}], "id": 1})


def load_devices(folder: Path, net: str) -> tuple[RecordedDevice, ...]:
    """Return one device for each rpc4028 case of ``folder``/MANIFEST.csv, with addresses from ``net``.

    Raises:
        BadInput: names the manifest's line and what is wrong with it.
    """
    devices: dict[str, RecordedDevice] = {}
    for place, row in _rows(folder / "MANIFEST.csv"):
        if row["transport"] != "rpc4028" or row["command"] == _NO_COMMAND:
            continue
        device = devices.setdefault(row["case"], RecordedDevice(row["case"], row["firmware"], row["model"]))
        try:
            reply = (folder / row["file"]).read_bytes()
        except OSError as error:
            raise BadInput(
                f"{place}: file: cannot read {row['file']}: {error.strerror}; restore or remove it"
            ) from None
        device.replies.setdefault(_request_of(row["command"]), []).append(reply)
    if not devices:
        raise BadInput(f"{folder / 'MANIFEST.csv'}: no rpc4028 case in it; give a folder of captures")
    _place(tuple(devices.values()), net)
    return tuple(devices.values())


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise BadInput(f"{path} line 1: no column {missing[0]}; the header needs {','.join(_COLUMNS)}")
            rows = [(f"{path} line {reader.line_num}", row) for row in reader]
    except UnicodeDecodeError:
        raise BadInput(f"{path}: it is not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise BadInput(f"{path} line {reader.line_num}: {error}; mend the quoting") from None
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; give a folder with MANIFEST.csv") from None
    for place, row in rows:
        if any(row[name] is None for name in _COLUMNS):
            raise BadInput(f"{place}: fewer columns than the header; complete the row")
    return rows


def _request_of(command: str) -> tuple[str, str]:
    """Return (command, parameter) that a manifest's command name means, such as ``ascset_softoff``."""
    name = command.removeprefix("rpc_").removesuffix("_with_errors")
    if name.endswith("_stats"):
        return "stats", ""
    parameterised = re.fullmatch(r"(ascset|curtail|healthchipget|voltageget)[-_](\w+)", name)
    if parameterised:
        return parameterised[1], parameterised[2]
    return "+".join(sorted(name.split("+"))), ""


def _place(devices: tuple[RecordedDevice, ...], net: str) -> None:
    """Give each device an address and the identity it tells, or its case's name where it tells none of its own."""
    taken: set[str] = set()
    for index, device in enumerate(devices):
        device.host = f"{net}.{1 + index // 250}.{1 + index % 250}"
        told = [_identity(reply) for replies in device.replies.values() for reply in replies]
        own = next((found for found in told if found), None)
        name = own if own and own not in taken else _name(device.case, index, taken)
        device.miner_id = name
        taken.add(name)
        for key, replies in device.replies.items():
            device.replies[key] = [reply for reply in replies if _identity(reply) in {None, own}] or replies


def _name(case: str, index: int, taken: set[str]) -> str:
    """Return ``case`` as an inventory takes it: its own characters, its length, once."""
    plain = _NO_NAME.sub("-", case).lstrip("._:@-")[:MAX_MINER_ID_BYTES]
    return plain if plain and plain not in taken else f"device-{index + 1}"


def _identity(reply: bytes) -> str | None:
    found = _MAC.search(reply) or _SERIAL.search(reply) or _DNA.search(reply)
    return found[1].decode().lower() if found else None


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What to serve and how; ``out`` receives inventory.csv, with ``dialect`` for every device where one is given."""

    folder: Path
    net: str = "127.30"
    port: int = 4028
    nul: bool = True
    out: Path | None = None
    control: tuple[str, int] | None = None
    dialect: str | None = None


class ReplayedDevices(Service):
    """Recorded devices on their addresses, as an async context manager.

    Raises (on construction):
        BadInput: an option makes no sense, or the manifest is broken.
    Raises (on entering):
        SimulatorError: an address is taken, or the inventory cannot be written.
    """

    def __init__(self, options: ReplayOptions, clock: Clock) -> None:
        check_net(options.net)
        check_range("--port", options.port, 1, LAST_PORT)
        self._options = options
        self._clock = clock
        self.devices = load_devices(options.folder, options.net)
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.StreamWriter] = set()
        routes = {("GET", "/health"): self._on_health, ("GET", "/devices"): self._on_devices}
        self.control = ControlServer(*options.control, routes) if options.control else None

    async def open(self) -> None:
        """Open every socket and write the inventory."""
        allow_files(len(self.devices) * 2)
        for device in self.devices:
            await self._listen(device)
        if self.control is not None:
            await self.control.start()
        if self._options.out is not None:
            self._write_inventory(self._options.out)

    async def close(self) -> None:
        """Close every socket."""
        for server in self._servers:
            server.close()
        for writer in tuple(self._open):
            writer.transport.abort()
        if self.control is not None:
            await self.control.close()

    async def _listen(self, device: RecordedDevice) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._open.add(writer)
            try:
                async with asyncio.timeout(_IDLE_S):
                    await self._serve(device, reader, writer)
            except (OSError, TimeoutError):
                writer.transport.abort()
            finally:
                self._open.discard(writer)
                writer.close()

        listening = bind(device.host, self._options.port)
        self._servers.append(await asyncio.start_server(serve, sock=listening))

    async def _serve(self, device: RecordedDevice, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await _read_request(reader)
        device.asked += 1
        when = int(self._clock.now().timestamp())
        try:
            reply = device.answer(parse_request(data, ""), when)
        except Malformed as fault:
            reply = device.refuse(fault, when)
        writer.write(reply + (b"\x00" if self._options.nul else b""))
        await writer.drain()

    def _write_inventory(self, out: Path) -> None:
        rows = [self._row(index, device) for index, device in enumerate(self.devices)]
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_csv(out / "inventory.csv", MINER_FIELDS, rows)
        except OSError as error:
            raise SimulatorError(
                f"cannot write the inventory to {out}: {error.strerror}; give another folder with --out"
            ) from None

    def _row(self, index: int, device: RecordedDevice) -> tuple[object, ...]:
        dialect = self._options.dialect or device.dialect
        place = (device.host, self._options.port, dialect, device.model, "", "REPLAY", index + 1)
        return (device.miner_id, *place, "", "")

    async def _on_health(self, _fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"ok": True, "devices": len(self.devices)}

    async def _on_devices(self, _fields: Mapping[str, Any]) -> dict[str, Any]:
        fields = ("miner_id", "case", "firmware", "model", "dialect", "lacks", "asked")
        return {"devices": [{name: getattr(device, name) for name in fields} for device in self.devices]}


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    data = b""
    while chunk := await reader.read(_REQUEST_BYTES):
        data += chunk
        if not data.lstrip().startswith(b"{") or data.count(b"{") <= data.count(b"}") or len(data) > _REQUEST_BYTES:
            break
    return data
