"""Miners that keep a state behind CGMiner's API: plain CGMiner, LuxOS and Avalon, as their vendors describe them."""

from typing import Any

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.control.carry_out import carry_out
from agent.cgminer.control.driver import Driver, Result, Wanted
from agent.cgminer.control.drivers import driver_of
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from sitelink.clock import SystemClock
from tests.contract.fake_miner import FakeMiner, status

SHORT = Deadlines(connect_s=1, first_byte_s=1, total_s=2)
ID = "62:f7:5e:00:00:01"
LATE_LOOKS = 3


def device_at(address: Address, dialect: str, credentials: Credentials | None = None) -> Device:
    return Device(address, dialect, SystemClock(), miner_id=ID, credentials=credentials, deadlines=SHORT)


async def order(
    device: Device, wanted: Wanted, *, kept: str = "", deadline_s: float = 0.4, driver: Driver | None = None
) -> tuple[Result, list[str]]:
    """Carry an order out, by ``driver`` or a new one; return how it ended, and what was kept before it was sent."""
    texts: list[str] = []

    async def keep(former: str) -> None:
        texts.append(former)

    driver = driver or driver_of(device.dialect)
    assert driver is not None
    result = await carry_out(driver, device, ID, wanted, keep=keep, deadline_s=deadline_s, kept=kept, look_s=0.01)
    return result, texts


class Pools:
    """CGMiner's pools: numbered anew after each removal, and one that works cannot be removed."""

    def __init__(self, *urls: str, escapes: bool = False) -> None:
        self.rows = [[url, "old.user", "oldpass"] for url in urls]
        self.working = 0
        self.switch_takes = 0
        self.escapes = escapes
        self.fewest = len(self.rows)

    def answers(self) -> dict[str, Any]:
        return {"pools": self.show, "addpool": self.add, "removepool": self.remove, "switchpool": self.switch}

    def show(self, _request: dict[str, Any]) -> object:
        rows = [
            {"POOL": n, "URL": url, "User": user, "Priority": n, "Status": "Alive", "Stratum Active": n == self.working}
            for n, (url, user, _) in enumerate(self.rows)
        ]
        return status(7, f"{len(rows)} Pool(s)", POOLS=rows)

    def add(self, request: dict[str, Any]) -> object:
        parts = self._parts(request["parameter"])
        if len(parts) != 3:
            return status(53, "Invalid addpool details", "E")
        self.rows.append(parts)
        return status(55, "Added pool")

    def remove(self, request: dict[str, Any]) -> object:
        number = int(request["parameter"])
        if number == self.working:
            if self.switch_takes:
                self.switch_takes -= 1
                if not self.switch_takes:
                    self.working = self.next
            if number == self.working:
                return status(66, "Cannot remove active pool", "E")
        del self.rows[number]
        self.working -= number < self.working
        self.fewest = min(self.fewest, len(self.rows))
        return status(68, "Removed pool")

    def switch(self, request: dict[str, Any]) -> object:
        self.next = int(request["parameter"])
        if not self.switch_takes:
            self.working = self.next
        return status(27, "Switching to pool")

    def _parts(self, parameter: str) -> list[str]:
        if not self.escapes:
            return parameter.split(",")
        kept = parameter.replace("\\\\", "\0").replace("\\,", "\1").split(",")
        return [part.replace("\0", "\\").replace("\1", ",") for part in kept]


class LuxOs:
    """LuxOS: one session, a config, profiles and ATM."""

    def __init__(self) -> None:
        self.session = ""
        self.profile, self.atm, self.ceiling = "default", True, "580MHz"
        self.curtailed, self.red, self.uptime_s = False, "auto", 5000
        self.pools = Pools("stratum+tcp://a.example:1", "stratum+tcp://b.example:1")
        self.effect = True
        self.lose_session = False
        self.told: list[str] = []
        self.miner = FakeMiner(
            {
                **self.pools.answers(),
                "config": lambda _: status(33, "config", CONFIG=[self._config()]),
                "summary": lambda _: status(11, "Summary", SUMMARY=[{"Elapsed": self.uptime_s, "GHS 5s": self._ghs()}]),
                "power": lambda _: status(311, "Power", POWER=[{"PSU": True, "Watts": self._watts()}]),
                "profiles": lambda _: status(320, "Profiles", PROFILES=PROFILES),
                "atm": lambda _: status(339, "ATM", ATM=[{"Enabled": self.atm, "MaxProfile": self.ceiling}]),
                "version": status(22, "version", VERSION=[{"LUXminer": "2025.1"}]),
                "events": status(357, "Events", EVENTS=[]),
                "logon": self._logon,
                "logoff": self._logoff,
                "session": lambda _: status(319, "Session information", SESSION=[{"SessionID": self.session}]),
                **dict.fromkeys(("curtail", "atmset", "profileset", "ledset", "rebootdevice"), self._order),
            }
        )

    def _config(self) -> dict[str, Any]:
        sleeping = "Sleep" if self.curtailed else "None"
        shown = {"MACAddr": ID, "Profile": self.profile, "CurtailMode": sleeping, "RedLed": self.red}
        return {**shown, "IsAtmEnabled": self.atm}

    def _watts(self) -> int:
        return 20 if self.curtailed else next(row["Watts"] for row in PROFILES if row["Profile Name"] == self.profile)

    def _ghs(self) -> float:
        return 0.0 if self.curtailed else 100_000.0

    def _logon(self, _request: dict[str, Any]) -> object:
        if self.session:
            return status(402, "Another session is active", "E")
        self.session = "s1"
        return status(316, "Session created", SESSION=[{"SessionID": self.session}])

    def _logoff(self, request: dict[str, Any]) -> object:
        if request["parameter"] != self.session:
            return status(318, "Invalid session", "E")
        self.session = ""
        return status(317, "Session terminated")

    def _order(self, request: dict[str, Any]) -> object:
        session, _, rest = request["parameter"].partition(",")
        if session != self.session or self.lose_session:
            return status(318, "Invalid session", "E")
        self.told.append(f"{request['command']} {rest}".strip())
        if self.effect:
            self._do(request["command"], rest)
        return status(1, "done")

    def _do(self, command: str, rest: str) -> None:
        match command:
            case "curtail":
                self.curtailed = rest == "sleep"
            case "profileset" if not self.atm:
                self.profile = rest
            case "ledset":
                self.red = rest.partition(",")[2]
            case "rebootdevice":
                self.uptime_s, self.session, self.curtailed = 4, "", False
            case "atmset":
                settings = dict(part.split("=") for part in rest.split(","))
                self.atm = settings["enabled"] == "true"
                self.ceiling = settings.get("max_profile", self.ceiling)


PROFILES = [
    {"Profile Name": "310MHz", "Step": "-4", "Watts": 1500},
    {"Profile Name": "410MHz", "Step": "-2", "Watts": 2100},
    {"Profile Name": "default", "Step": "0", "Watts": 2800},
    {"Profile Name": "620MHz", "Step": "2", "Watts": 3300},
]


class Avalon:
    """An Avalon A or Q: ``ascset`` in its own time, everything else in brackets."""

    def __init__(self, product: str = "Avalon A1566", when: int = 986, *, newer: bool = False) -> None:
        self.product, self.when = product, when
        self.off, self.mode, self.led, self.password, self.uptime_s = False, 0, 0, "webpw", 5000
        self.places = [["stratum+tcp://old.example:1", "old", "x"]] * 3
        self.pending: list[list[str]] | None = None
        self.effect = True
        self.bare_only = False
        self.home_form, self.restarts, self.stays = False, True, False
        self.told: list[str] = []
        self.miner = FakeMiner(
            {
                "version": lambda _: status(
                    22, "v", when=self.when, VERSION=[{"PROD": product, "MAC": ID, "STM8": "1"}]
                ),
                "summary": lambda _: status(11, "s", when=self.when, SUMMARY=[{"Elapsed": self.uptime_s}]),
                "stats": lambda _: status(70, "s", when=self.when, STATS=[{"STATS": 0, "MM ID0": self._text()}]),
                "pools": lambda _: status(7, "p", POOLS=[self._pool(n) for n in range(3)]),
                "ascset": self._ascset,
                **({"setpool": self._setpool} if newer else {}),
            }
        )

    def _text(self) -> str:
        work = "In Idle" if self.off else "In Work"
        rate, watts = ("0.00", 40) if self.off else ("120000.00", 3200)
        return (
            f"Ver[x] DNA[0201] SYSTEMSTATU[Work: {work}, Hash Board: 3 ] Elapsed[{self.uptime_s}] GHSspd[{rate}] "
            f"WALLPOWER[{watts}] SoftOFF[{int(self.off)}] WORKMODE[{self.mode}] Led[{self.led}]"
        )

    def _pool(self, number: int) -> dict[str, Any]:
        url, user, _ = self.places[number]
        return {"POOL": number, "URL": url, "User": user, "Priority": number}

    def _setpool(self, request: dict[str, Any]) -> object:
        values = request["parameter"].split(",")
        if values[:2] != ["root", self.password]:
            return status(154, "setpool: wrong password", "E")
        self.told.append(f"setpool command {values[2]}")
        self._do("setpool", values)
        return status(155, "please reboot the miner")

    def _ascset(self, request: dict[str, Any]) -> object:
        unit, option, *values = request["parameter"].split(",")
        assert unit == "0"
        if self.bare_only and option in {"softoff", "softon"} and values:
            return status(120, f"ASC 0 set failed: {option}", "E")
        if option == "password" and values[0] != self.password:
            return status(120, "ASC 0 set failed: password error", "E")
        if option == "setpool" and values[:2] != ["root", self.password]:
            return status(120, "ASC 0 set failed: auth", "E")
        if option == "workmode" and (values[0] == "set") is not (self.home_form or "A1" not in self.product):
            return status(120, "ASC 0 set failed: workmode", "E")
        self.told.append(",".join((option, *values)))
        if self.effect:
            self._do(option, values)
        if option == "workmode" and values[0] != "set":
            return status(
                118, f"ASC 0 set info: WORKMODE[{self.mode if self.stays else values[0]}]", "I", when=self.when
            )
        return status(118, f"ASC 0 set info: success {option}", "I", when=self.when)

    def _do(self, option: str, values: list[str]) -> None:
        match option:
            case "softoff" | "softon":
                due = int(values[0].partition(":")[2]) if values else self.when
                if due - self.when <= 10:
                    self.off = option == "softoff"
            case "workmode":
                self.mode = int(values[-1])
            case "led":
                self.led = int(values[0].partition("-")[2])
            case "password":
                self.password = values[1]
            case "setpool":
                self.pending = self.pending or [list(place) for place in self.places]
                self.pending[int(values[2])] = values[3:]
            case "reboot":
                self.places, self.pending = self.pending or self.places, None
                self.uptime_s = 3 if self.restarts else self.uptime_s
