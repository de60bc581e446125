"""What a dialect is: which commands to ask, where each field stands, and how to judge the state. Pure.

A field's readers are tried in order; the first that finds a value wins:

    "hashrate_ths": (first("summary", "GHS 5s", gigahash), first("summary", "MHS 5s", megahash))
                            section    key       unit

A command is CGMiner RPC, or names another wire by how it begins; such a reply is one row of the section of that name:

    "summary"      RPC             "/api/v1/summary"            GET on the web port
    "gql:paused"   GraphQL query   "v3:get.miner.status:pools"  Whatsminer's framed API: command and parameter

    "power_w": (at("/api/v1/summary", "miner.power_usage", power),)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agent.cgminer.credentials import Credentials
from agent.cgminer.observation import PoolShares
from agent.cgminer.sections import Reader, Sections, number
from sitelink.miners import WEB_PORT
from sitelink.types import MinerState, PowerSource, Reason
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts, terahash

_MAX_RPM = 60_000
_TEMPS = (-60.0, 250.0)
_MAX_POWER_W = 100_000.0


class Sensors(NamedTuple):
    """What a dialect finds in places that no single path names."""

    board_temps_c: tuple[Celsius, ...] = ()
    chip_temps_c: tuple[Celsius, ...] = ()
    fans_rpm: tuple[RevolutionsPerMinute, ...] = ()
    fans_percent: tuple[float, ...] = ()
    psu_fans_rpm: tuple[RevolutionsPerMinute, ...] = ()
    boards: int | None = None
    errors: tuple[str, ...] = ()


class Facts(NamedTuple):
    """What the state is judged from, beside the sections."""

    hashrate_ths: TeraHashPerSecond | None
    uptime_s: int | None
    sensors: Sensors


Verdict = tuple[MinerState, Reason]


@dataclass(frozen=True, slots=True)
class Commands:
    """What to ask a device of this dialect.

    ``poll`` is asked each time, joined into one request when ``joins``; ``idle`` only when the miner is not hashing,
    to learn why; ``static`` once an hour; ``identity`` when the device must prove who it is, in turn
    until one names it. ``instead`` says what is asked in place of a command that a device's firmware does not know.
    ``brief`` is what of the poll tells whether it hashes and what it draws; nothing means all of it.
    """

    poll: tuple[str, ...]
    idle: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    joins: bool = True
    instead: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    brief: tuple[str, ...] = ()

    @property
    def glance(self) -> tuple[str, ...]:
        """Return what a glance asks."""
        return self.brief or self.poll

    @property
    def every(self) -> tuple[str, ...]:
        """Return each command once, those asked only in place of others last."""
        others = (other for instead in self.instead.values() for other in instead)
        return tuple(dict.fromkeys((*self.static, *self.poll, *self.idle, *self.identity, *others)))


@dataclass(frozen=True, slots=True)
class Login:
    """How the pages below ``pages`` are opened with a user and a password.

    ``body`` of the credentials is posted to ``target``, as JSON or, where ``form``, as a form. The reply's ``token`` is
    then sent along in ``header`` (lower-case) behind ``prefix``: the value at that path, or the cookie of that name
    where the header is ``cookie``. We log in once refused; where a page does not refuse but answers otherwise
    (``first``), before anything is asked. ``headers`` go with each request.
    """

    target: str
    body: Callable[[Credentials], Mapping[str, Any]]
    token: str
    header: str = "authorization"
    prefix: str = ""
    pages: str = "/"
    first: bool = False
    form: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """One dialect. ``web_port`` is the firmware's own, ``queries`` the GraphQL queries its commands name."""

    dialect: str
    commands: Commands
    fields: Mapping[str, tuple[Reader[Any], ...]]
    sensors: Callable[[Sections], Sensors]
    judge: Callable[[Sections, Facts], Verdict]
    power_source: PowerSource
    measures_power: Callable[[Sections], bool] | None = None
    """Whether this very device measures, where others of the dialect estimate."""
    pools: Callable[[Sections], tuple[PoolShares, ...]] | None = None
    """Where the pools' shares stand, for firmwares whose replies have no ``POOLS`` as CGMiner writes them."""
    logins: tuple[Login, ...] = ()
    web_port: int = WEB_PORT
    queries: Mapping[str, str] = field(default_factory=dict)

    def power_source_of(self, sections: Sections) -> PowerSource:
        """Return where the power figure in ``sections`` comes from."""
        if self.measures_power is not None and self.measures_power(sections):
            return PowerSource.DEVICE
        return self.power_source


def megahash(value: Any) -> TeraHashPerSecond | None:
    """Return a figure in MH/s."""
    return hashrate(value, "MH")


def gigahash(value: Any) -> TeraHashPerSecond | None:
    """Return a figure in GH/s."""
    return hashrate(value, "GH")


def tera(value: Any) -> TeraHashPerSecond | None:
    """Return a figure in TH/s."""
    return hashrate(value, "TH")


def hashrate(value: Any, unit: str) -> TeraHashPerSecond | None:
    """Return a figure in ``unit``; negative ones are unknown."""
    found = number(value)
    return None if found is None or found < 0 else terahash(found, unit)


def power(value: Any) -> Watts | None:
    """Return a figure in W; ``-1`` is how firmwares say unknown."""
    found = number(value)
    return Watts(found) if found is not None and 0 <= found <= _MAX_POWER_W else None


def positive_power(value: Any) -> Watts | None:
    """Return a figure in W that is a limit or a rating, where 0 means there is none."""
    found = power(value)
    return found or None


def temperature(value: Any) -> Celsius | None:
    """Return a temperature; a sensor that reads beyond what silicon survives is no sensor."""
    found = value if type(value) is float else number(value)
    return Celsius(found) if found is not None and _TEMPS[0] <= found <= _TEMPS[1] else None


def live_temperature(value: Any) -> Celsius | None:
    """Return a temperature, where exactly 0 is how the firmware says that no sensor is there."""
    found = temperature(value)
    return found or None


def rpm(value: Any) -> RevolutionsPerMinute | None:
    """Return a fan speed, 0 included: a fan that stands still."""
    found = number(value)
    return RevolutionsPerMinute(int(found)) if found is not None and 0 <= found <= _MAX_RPM else None


def turning(value: Any) -> RevolutionsPerMinute | None:
    """Return a fan speed, where 0 is how the firmware says that no fan is there."""
    found = rpm(value)
    return found or None


def percent(value: Any) -> float | None:
    """Return a duty in percent."""
    found = number(value)
    return found if found is not None and 0 <= found <= 100 else None


def known(values: list[Any]) -> tuple[Any, ...]:
    """Return the values that are not None, in their order."""
    return tuple(value for value in values if value is not None)
