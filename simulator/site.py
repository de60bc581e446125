r"""A whole simulated site in one process: devices, meters, control port and the files that describe them.

Invariants: everything listens on loopback; the files name exactly what listens; leaving the context closes every
socket. The same options and the same clock give the same replies.

      SiteOptions -> roster -> Miner x n -> DeviceListener 127.20.x.y:4028, :8080
                                       \-> MeterBank -> Modbus TCP
"""

import asyncio
import csv
import json
import resource
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from simulator.bounds import LAST_PORT, check_net, check_range, check_site_id
from simulator.contactors import Contactors
from simulator.dialects import build_firmwares
from simulator.errors import BadInput, SimulatorError
from simulator.faults import BadFault, parse_fault
from simulator.httpd import ControlServer, RequestError
from simulator.listener import DeviceListener
from simulator.meters import METER_FAULTS, MeterBank, ModbusServer
from simulator.miner import Miner, SiteTime
from simulator.orders import OrderLog
from simulator.roster import ALL_DIALECTS, TAKE_ORDERS, Place, RosterOptions, build_roster
from simulator.service import Service
from sitelink.clock import Clock
from sitelink.inventory import METER_FIELDS, MINER_FIELDS
from sitelink.units import Watts

_FILES_BESIDE = 512
_MOST_CONNECTIONS = 4096  # open at once, whatever the number of devices
_MOST_MINERS = 60_000
_TIME_SCALES = (0.001, 10_000)
_LOOK_S = 0.02
_WHATSMINERS = ("whatsminer", "whatsminer-v3")
_METERS_A_GATEWAY = 16
"""Meters behind one address; the next ones are behind the next address."""
_HOUSE_W, _HOUSE_SHARE = 2500.0, 0.008


@dataclass(frozen=True, slots=True)
class SiteOptions:
    """What to simulate. ``control`` None leaves out the control port; ``meters_host`` empty means ``net``.0.1."""

    roster: RosterOptions
    out: Path | None = None
    control: tuple[str, int] | None = None
    meters_host: str = ""
    meters_port: int = 5020
    time_scale: float = 1.0
    whatsminer_password: str = "admin"  # noqa: S105 - the factory default


def check_options(options: SiteOptions) -> None:
    """Refuse what cannot be simulated.

    Raises:
        BadInput: names the option, the cause and what to give instead.
    """
    roster = options.roster
    unknown = [name for name in roster.dialects if name not in ALL_DIALECTS]
    if unknown or not roster.dialects:
        named = f"unknown dialect {unknown[0]!r}" if unknown else "no dialect"
        raise BadInput(f"--dialects: {named}; give some of {','.join(ALL_DIALECTS)}")
    check_site_id("--site-id", roster.site_id)
    check_range("--miners", roster.miners, 1, _MOST_MINERS)
    check_range("--feeder-size", roster.feeder_size, 1, _MOST_MINERS, "miners")
    check_range("--port", roster.port, 1, LAST_PORT)
    check_range("--web-port", roster.web_port, 1, LAST_PORT)
    check_range("--framed-port", roster.framed_port, 1, LAST_PORT)
    if len({roster.port, roster.web_port, roster.framed_port}) < 3:
        raise BadInput("--port, --web-port, --framed-port: two are the same; give each protocol a port of its own")
    check_range("--time-scale", options.time_scale, *_TIME_SCALES)
    for name, share in (("--dead", roster.dead), ("--liars", roster.liars)):
        if not 0 <= share <= 1:
            raise BadInput(f"{name}: {share} is not a share; give 0 to 1")
    check_net(roster.net)


def allow_files(wanted: int) -> None:
    """Raise this process's limit of open files to hold ``wanted`` sockets.

    Raises:
        SimulatorError: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise SimulatorError(
                f"{wanted} devices need {needed} open files and the limit is {hard}; raise it with `ulimit -n {needed}`"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class SimulatedSite(Service):
    """One site, as an async context manager.

    Raises (on entering):
        BadInput: an option makes no sense.
        SimulatorError: an address is taken or the limit of open files too low.
    """

    def __init__(self, options: SiteOptions, clock: Clock) -> None:
        check_options(options)
        self._options = options
        roster = options.roster
        self.site_id = roster.site_id
        self.time = SiteTime(clock, options.time_scale)
        self.orders = OrderLog(options.time_scale)
        self.places: tuple[Place, ...] = build_roster(roster)
        passwords = dict.fromkeys(_WHATSMINERS, options.whatsminer_password)
        self.miners = {
            place.miner_id: Miner(place, roster.seed, self.time, self.orders, passwords.get(place.model.dialect))
            for place in self.places
        }
        firmwares = build_firmwares()
        self.listeners = {
            name: tuple(DeviceListener(*each) for each in firmwares[miner.place.model.dialect].speeches(miner))
            for name, miner in self.miners.items()
        }
        self._returns: set[asyncio.Task[None]] = set()
        feeders: dict[str, list[Miner]] = defaultdict(list)
        for miner in self.miners.values():
            feeders[miner.place.feeder_id].append(miner)
        house_w = _HOUSE_W + _HOUSE_SHARE * sum(place.model.nameplate_w for place in self.places)
        self.bank = MeterBank(roster.site_id, roster.seed, feeders, Watts(house_w), self.time)
        self.contactors = Contactors(m for m in self.miners.values() if m.place.model.dialect not in TAKE_ORDERS)
        meters_host = options.meters_host or f"{roster.net}.0.1"
        first = ip_address(meters_host)
        count = -(-len(self.bank.meters) // _METERS_A_GATEWAY)
        hosts = [str(first + n) for n in range(count)]
        self._gateways = [ModbusServer(self.bank, self.contactors, host, options.meters_port) for host in hosts]
        self.modbus = self._gateways[0]
        self.control = ControlServer(*options.control, self._routes()) if options.control else None

    async def open(self) -> None:
        """Open every socket and write the site's files."""
        ports = sum(len(ports) for ports in self.listeners.values())
        allow_files(ports + min(ports, _MOST_CONNECTIONS))
        for miner in self.miners.values():
            miner.on_reboot = self._watch_reboot
        for name in self.listeners:
            await self._apply(name)
        for gateway in self._gateways:
            await gateway.start()
        if self.control is not None:
            await self.control.start()
        if self._options.out is not None:
            self._write_files(self._options.out)

    async def close(self) -> None:
        """Close every socket."""
        for task in tuple(self._returns):
            task.cancel()
        for ports in self.listeners.values():
            for listener in ports:
                await listener.close()
        for gateway in self._gateways:
            await gateway.close()
        if self.control is not None:
            await self.control.close()
        await asyncio.sleep(0)  # aborted transports close their sockets in the next turn of the loop

    def truth(self) -> dict[str, Any]:
        """Return what really happens on site: true power and hash rate, who is dead, who lies."""
        now_s = self.time.seconds()
        miners = [
            {
                "miner_id": name,
                "dialect": miner.place.model.dialect,
                "feeder_id": miner.place.feeder_id,
                "model": miner.place.model.name,
                "dead": miner.dead,
                "liar": miner.liar,
                "fault": miner.fault.name if miner.fault else None,
                "hashing": miner.true_hashing(now_s),
                "power_w": round(miner.true_power_w(now_s), 1),
                "hashrate_ths": round(miner.true_hashrate_ths(now_s), 3),
                **miner.state(),
            }
            for name, miner in self.miners.items()
        ]
        site = next(meter for meter in self.bank.meters.values() if meter.kind == "site")
        return {"site_id": self.site_id, "miners": miners, "site_power_w": round(self.bank.true_power_w(site), 1)}

    def order_rows(self) -> list[dict[str, Any]]:
        """Return the device log: every order received, and when true power followed."""
        now_s = self.time.seconds()
        for miner in self.miners.values():
            miner.advance(now_s)
        return list(self.orders.rows(now_s))

    async def set_fault(self, miner_id: str, fault: str | None, seconds: float | None = None, detail: str = "") -> None:
        """Put ``fault`` on a miner, or take its fault away with None.

        Raises:
            RequestError: no such miner, or no such fault; nothing changed.
        """
        miner = self.miners.get(miner_id)
        if miner is None:
            raise RequestError(f"miner_id: no miner {miner_id!r} on this site; GET /truth lists them")
        try:
            miner.set_fault(parse_fault(fault, seconds, detail) if fault else None)
        except BadFault as error:
            raise RequestError(f"fault: {error}") from None
        await self._apply(miner_id)

    async def _apply(self, miner_id: str) -> None:
        for listener in self.listeners[miner_id]:
            await listener.apply()

    def _watch_reboot(self, miner: Miner) -> None:
        task = asyncio.get_running_loop().create_task(self._follow_reboot(miner))
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)

    async def _follow_reboot(self, miner: Miner) -> None:
        """Close the ports when the miner goes away and open them when it is back, by the site's own clock."""
        was_away = False
        while miner.back_in_s > 0 or was_away:
            if miner.away is not was_away:
                was_away = miner.away
                await self._apply(miner.place.miner_id)
            await asyncio.sleep(min(miner.back_in_s, _LOOK_S) or _LOOK_S)
        miner.advance(self.time.seconds())
        await self._apply(miner.place.miner_id)

    def _routes(self) -> dict[tuple[str, str], Any]:
        return {
            ("GET", "/health"): self._on_health,
            ("GET", "/truth"): self._on_truth,
            ("GET", "/orders"): self._on_orders,
            ("POST", "/fault"): self._on_fault,
        }

    async def _on_health(self, _fields: Mapping[str, Any]) -> dict[str, Any]:
        polls = sum(listener.polls for ports in self.listeners.values() for listener in ports)
        return {"ok": True, "site_id": self.site_id, "miners": len(self.miners), "replies": polls}

    async def _on_truth(self, _fields: Mapping[str, Any]) -> dict[str, Any]:
        return self.truth()

    async def _on_orders(self, _fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self.order_rows()

    async def _on_fault(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        fault, seconds = fields.get("fault"), fields.get("seconds")
        if not isinstance(fault, str | None):
            raise RequestError("fault: neither text nor null; give the name of a fault, or null to end it")
        if not isinstance(seconds, int | float | None):
            raise RequestError("seconds: not a number; leave it out or give one")
        if "meter_id" in fields:
            self._meter_fault(str(fields["meter_id"]), fault)
            return {"meter_id": fields["meter_id"], "fault": fault}
        miner_id = str(fields.get("miner_id", ""))
        await self.set_fault(miner_id, fault, seconds, str(fields.get("with", "")))
        return {"miner_id": miner_id, "fault": fault}

    def _meter_fault(self, meter_id: str, fault: str | None) -> None:
        try:
            self.bank.set_fault(meter_id, fault)
        except KeyError as error:
            raise RequestError(
                f"no meter or meter fault {error}; meters stand in meters.csv, faults are {', '.join(METER_FAULTS)}"
            ) from None

    def _write_files(self, out: Path) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._write_inventory(out / "inventory.csv")
            write_csv(out / "meters.csv", METER_FIELDS, [self._meter_row(name) for name in self.bank.meters])
            (out / "truth.json").write_text(json.dumps(self.truth(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise SimulatorError(
                f"cannot write the site's files to {out}: {error.strerror}; give another folder with --out"
            ) from None

    def _write_inventory(self, path: Path) -> None:
        """Write the miners, with the contactors before those that have one."""
        rows = [_inventory_row(place) for place in self.places]
        if len(self.contactors):
            host, port = self.modbus.host, self.modbus.port
            outlets = [self.contactors.url(miner, host, port) for miner in self.miners.values()]
            rows = [(*row, outlet) for row, outlet in zip(rows, outlets, strict=True)]
        fields = (*MINER_FIELDS, "web_port", *(("outlet",) if len(self.contactors) else ()))
        write_csv(path, fields, rows)

    def _meter_row(self, meter_id: str) -> tuple[object, ...]:
        meter = self.bank.meters[meter_id]
        gateway = self._gateways[list(self.bank.meters).index(meter_id) // _METERS_A_GATEWAY]
        url = f"modbus://{gateway.host}:{gateway.port}/{meter.unit}?register={meter.register}"
        return meter.meter_id, meter.kind, meter.feeder_id, url


def _inventory_row(place: Place) -> tuple[object, ...]:
    return (
        place.miner_id,
        place.host,
        place.port,
        place.model.dialect,
        place.model.name,
        place.feeder_id,
        place.rack,
        place.position,
        round(place.model.nameplate_w),
        round(place.model.nameplate_ths, 2),
        place.web_port,
    )


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Write one CSV file with ``header``."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
