"""The doctor's look at what the agent reads: inventory, meters, passwords, identity, database."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from agent.doctor.finding import Finding, bad, ok, unknown, warn
from agent.errors import BadInput
from agent.fleet import maps_of, switchable, untouchable
from agent.identity import Identity, certificate_life, load_identity
from agent.inventory import load_meters, load_usable
from agent.meters.register_maps import load_map
from agent.renewal import expired_step
from agent.settings import Settings
from agent.storage import connect_read_only
from agent.vault import Vault, group_of
from sitelink.clock import Clock
from sitelink.inventory import MeterEntry, MinerEntry
from sitelink.meter_source import ModbusSource

_WITH_PASSWORD: Final = frozenset(
    {"whatsminer", "whatsminer-v3", "antminer", "antminer-web", "braiins", "braiins-rest", "vnish"}
)
"""Firmwares that take no order without a password."""
_NAMED_BEHIND_LOGIN: Final = frozenset({"hiveon", "auradine", "blackminer", "hammer", "elphapex"})
"""Firmwares that tell their name only to who has the password: without one no outlet is opened before them."""
_REPAIR: Final = "restart the agent: it puts the file aside and saves what it can"
_READ_WHOLE_BYTES: Final = 256 * 1024**2


def inventory(settings: Settings) -> Iterator[Finding]:
    """Return what is wrong with the site's lists."""
    try:
        fleet, _ = load_usable(settings.site.inventory)  # which outlets it is without stands under outlets
        untouchable(settings, fleet)
    except BadInput as error:
        yield bad("inventory", str(error), "correct it; ballast-agent inventory import checks a list before it counts")
        return
    if not fleet:
        yield bad("inventory", f"{settings.site.inventory}: no miner is listed", "write one row for each miner")
        return
    yield ok("inventory", f"{len(fleet)} miners")
    fixed = Counter(entry.dialect for entry in fleet if not switchable(entry))
    if fixed:
        which = ", ".join(f"{count} {dialect}" for dialect, count in sorted(fixed.items()))
        yield warn("inventory", f"can be read and not switched: {which}", "give them an outlet, or use their breakers")
    bare = sum(entry.nameplate_w is None for entry in fleet)
    if bare:
        yield warn("inventory", f"{bare} miners without a nameplate: no plan counts on them", "fill in nameplate_w")
    yield from _passwords(settings, fleet)


def meters(settings: Settings) -> Iterator[Finding]:
    """Return what is wrong with the list of meters."""
    try:
        entries = load_meters(settings.site.meters)
    except BadInput as error:
        yield bad("meters", str(error), "correct it; without it stops rest on the devices' word alone")
        return
    if entries:
        yield ok("meters", f"{len(entries)} listed")
        yield from _register_maps(settings, entries)
    else:
        yield warn("meters", "none is listed: stops rest on the devices' word alone", "write one row for each feeder")


def _register_maps(settings: Settings, entries: tuple[MeterEntry, ...]) -> Iterator[Finding]:
    named = {entry.source.map_name for entry in entries if isinstance(entry.source, ModbusSource)} - {""}
    for name in sorted(named):
        try:
            load_map(name, maps_of(settings))
        except BadInput as error:
            yield bad("meters", str(error), "the agent does not start with it; the failsafe goes on without meters")


def identity(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Return whether this gateway is enrolled, and for how long."""
    try:
        found = load_identity(settings.identity_dir, settings.site.site_id)
    except BadInput as error:
        yield bad("identity", str(error), "ballast-agent enrol --token TOKEN; the failsafe works without")
    else:
        yield ok("identity", f"agent {found.agent_id} of site {found.site_id}")
        yield from _certificate(found, clock)


def _certificate(found: Identity, clock: Clock) -> Iterator[Finding]:
    life = certificate_life(found)
    if life is None:
        yield bad("certificate", "agent.crt is no certificate", expired_step(found.site_id))
        return
    until = f"number {found.generation}, {{}} {life.expires_at:%Y-%m-%d %H:%M} UTC"
    now = clock.now()
    if now >= life.expires_at:
        yield bad("certificate", until.format("expired"), expired_step(found.site_id))
    elif now - life.issued_at > (life.expires_at - life.issued_at) / 2:
        step = "its renewal fails: see link, and ballast-agent status; it runs by itself from a third of its life on"
        yield warn("certificate", until.format("holds until"), step)
    else:
        yield ok("certificate", until.format("holds until"))


def database(settings: Settings) -> Iterator[Finding]:
    """Return whether agent.db can be read whole, and whether one was put aside."""
    path = settings.database
    for broken in sorted(path.parent.glob(f"{path.name}.broken-*")):
        if broken.suffix not in {"-wal", "-shm"} and not broken.name.endswith(("-wal", "-shm")):
            yield warn("database", f"{broken.name}: put aside as broken", "check the disk; then keep or remove it")
    try:
        with closing(connect_read_only(path)) as connection:
            if path.stat().st_size <= _READ_WHOLE_BYTES:
                (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            else:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                answer = "ok"
    except BadInput as error:
        yield unknown("database", str(error))
    except sqlite3.Error as error:
        yield bad("database", f"{path}: {error}", _REPAIR)
    else:
        if answer == "ok":
            yield ok("database", f"{path.stat().st_size / 1024**2:,.1f} MB, sound")
        else:
            yield bad("database", f"{path}: {answer}", _REPAIR)


def _passwords(settings: Settings, fleet: tuple[MinerEntry, ...]) -> Iterator[Finding]:
    vault = Vault.open(settings)
    if vault.problem is not None:
        yield bad("passwords", vault.problem, "until then miners that need a password cannot be switched")
        return
    if vault.unsettled:
        names = ", ".join(sorted(vault.unsettled)[:3])
        what = f"{len(vault.unsettled)} miners have a new password or still the former one ({names}); both are tried"
        yield warn("passwords", what, "order password of them again: the same new one is sent, and read back")
    if vault.advice is not None:
        yield warn("passwords", "the vault is weaker than it could be", vault.advice)
    missing = Counter(group_of(entry) for entry in fleet if _needs_password(entry) and vault.credentials(entry) is None)
    for group, count in sorted(missing.items()):
        step = f"ballast-agent credentials set {group}"
        yield bad("passwords", f"{count} miners of group {group} have none: they cannot be switched", step)
    if not missing:
        yield ok("passwords", "each miner that needs one has one")


def _needs_password(entry: MinerEntry) -> bool:
    return entry.dialect in _WITH_PASSWORD or (bool(entry.outlet) and entry.dialect in _NAMED_BEHIND_LOGIN)
