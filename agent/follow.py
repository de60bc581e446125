"""Miners followed to where the network has put them, and passwords to what the vault holds now, while the agent runs.

    lost (silent, or somebody else answers) for a while --> the site's own ranges swept, gently
        --> its own name answers at one other address --> noted in learned.json --> polled and switched there

Invariants: only a miner that is lost is moved, only to where its own name answers, and no miner is added or renamed;
every order still reads the identity afresh. Without ranges nothing is swept.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from agent.aside import on_disk
from agent.cgminer.client import Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.discover.look import Looker
from agent.discover.shown import Look
from agent.discover.standing import Standing, judge, remembered
from agent.discover.sweep import Manners, Sweep
from agent.discover.targets import hosts_of
from agent.errors import BadInput
from agent.inventory.learned import Learned, path_in
from agent.settings import Settings
from agent.vault import Vault
from sitelink.clock import Clock
from sitelink.inventory import MinerEntry
from sitelink.miners import RPC_PORT, WEB_PORT
from sitelink.types import MinerState, Reading, Reason

_LOG: Final = logging.getLogger(__name__)
_LOOK_S: Final = 5.0
_LOST: Final = frozenset({Reason.UNREACHABLE, Reason.TIMEOUT, Reason.WRONG_DEVICE})
LOST_FOR_S: Final = 150.0
"""A reboot or one lost round is no reason to search."""
BETWEEN_SWEEPS_S: Final = 600.0
_GENTLE: Final = Manners(at_once=8, knocks_per_s=20.0)
SweepOf = Callable[[Sequence[str]], Coroutine[Any, Any, tuple[Look, ...]]]
Mended = Callable[[Sequence[str]], Awaitable[None]]


class Reachable(Protocol):
    """A miner as the daemon reaches it; both may be changed while it runs."""

    address: Address
    credentials: Credentials | None

    @property
    def dialect(self) -> str:
        """Return the dialect, ``auto`` as long as it was never found out."""
        ...


class Follower:
    """Keeps the daemon's devices at their miners' addresses and under their passwords."""

    def __init__(
        self,
        listed: Sequence[MinerEntry],
        devices: Mapping[str, Reachable],
        vault: Vault,
        state_dir: Path,
        hosts: Sequence[str],
        latest: Callable[[str], Reading | None],
        sweep: SweepOf,
        clock: Clock,
        mended: Mended,
    ) -> None:
        """``listed`` is the inventory as its file has it, ``hosts`` those of the site's ranges, empty for none.

        ``mended`` is told for which miners other passwords count now; it must not raise.
        """
        self._listed = listed
        self._devices = devices
        self._vault = vault
        self._state_dir = state_dir
        self._hosts = tuple(hosts)
        self._latest = latest
        self._sweep = sweep
        self._clock = clock
        self._mended = mended
        self._lost_since: dict[str, float] = {}
        self._next_sweep_mono = float("-inf")
        self._noted = self._stamp()

    async def run(self) -> None:
        """Follow until cancelled; what others write is taken up also during a sweep, which may take half an hour."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._again(self.take_up))
            tasks.create_task(self._again(self.search))

    async def _again(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await step()

    async def take_up(self) -> None:
        """Take up what another process has written: passwords, and addresses learned by a person's own sweep."""
        if await on_disk(self._vault.refresh):
            if self._vault.problem is not None:
                _LOG.error("vault: %s; miners keep the passwords they have", self._vault.problem)
            else:
                await self._show_passwords()
        if self._stamp() != self._noted:
            self._noted = self._stamp()
            self._place(Learned.load(self._state_dir))

    async def search(self) -> None:
        """Look in the site's own ranges for the miners that have been lost for a while, if it is time again."""
        now_mono = self._clock.monotonic()
        lost = self._lost()
        self._lost_since = {name: self._lost_since.get(name, now_mono) for name in lost}
        gone = {name for name, since in self._lost_since.items() if now_mono - since >= LOST_FOR_S}
        if not gone or not self._hosts or now_mono < self._next_sweep_mono:
            return
        self._next_sweep_mono = now_mono + BETWEEN_SWEEPS_S
        held = {device.address.host for name, device in self._devices.items() if name not in lost}
        looks = await self._sweep([host for host in self._hosts if host not in held])
        # As it stands after the sweep: another process may have noted more.
        now = learned = Learned.load(self._state_dir)
        sightings = judge(looks, learned.applied(self._listed), learned)
        listed = {entry.miner_id: entry for entry in self._listed}
        for each in sightings:
            if each.standing is Standing.MOVED and each.entry is not None and each.entry.miner_id in gone:
                now = now.moved(listed[each.entry.miner_id], each.look.host, self._clock.now())
        await self._note(remembered(now, sightings))

    async def _note(self, learned: Learned) -> None:
        try:
            await on_disk(partial(learned.save, self._state_dir))
        except OSError as error:
            _LOG.warning("follow: what was learned cannot be noted: %s; it counts until the next start", error)
        self._noted = self._stamp()
        self._place(learned)

    def _place(self, learned: Learned) -> None:
        for entry in learned.applied(self._listed):
            device = self._devices.get(entry.miner_id)
            address = Address(entry.host, entry.port)
            if device is not None and device.address != address:
                _LOG.info(
                    "follow: miner %s is looked for at %s now, no longer at %s", entry.miner_id, address, device.address
                )
                device.address = address

    async def _show_passwords(self) -> None:
        changed = []
        for entry in self._listed:
            device = self._devices.get(entry.miner_id)
            if device is not None:
                found = self._vault.credentials(entry, device.dialect)
                if found != device.credentials:
                    device.credentials = found
                    changed.append(entry.miner_id)
        await self._mended(changed)

    def _lost(self) -> frozenset[str]:
        lost: set[str] = set()
        for entry in self._listed:
            reading = self._latest(entry.miner_id)
            if reading is not None and reading.state is MinerState.UNKNOWN and reading.reason in _LOST:
                lost.add(entry.miner_id)
        return frozenset(lost)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = path_in(self._state_dir).stat()
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns)


def ranges_of(settings: Settings) -> tuple[str, ...]:
    """Return the hosts of the site's ranges. Raises BadInput when a range is none."""
    try:
        return hosts_of(settings.site.ranges)
    except BadInput as error:
        raise BadInput(f"{settings.source}: [site] ranges: {error}") from None


def follower_of(
    settings: Settings,
    listed: Sequence[MinerEntry],
    devices: Mapping[str, Reachable],
    vault: Vault,
    latest: Callable[[str], Reading | None],
    rng: random.Random,
    clock: Clock,
    mended: Mended,
) -> Follower:
    """Return the daemon's follower. Raises BadInput when a range of the settings is none."""
    sweep = gentle_sweep(listed, vault, rng)
    hosts = ranges_of(settings)
    return Follower(listed, devices, vault, settings.site.state_dir, hosts, latest, sweep, clock, mended)


def gentle_sweep(listed: Sequence[MinerEntry], vault: Vault, rng: random.Random) -> SweepOf:
    """Return what sweeps hosts as a daemon may: few at a time, on the ports that most of ``listed`` have.

    Where a firmware tells its name only to who logs in, it is shown its group's password.
    """
    ports = Counter((entry.port, entry.web_port) for entry in listed).most_common(1) or [((RPC_PORT, WEB_PORT), 1)]
    port, web_port = ports[0][0]
    looker = Looker(Deadlines(connect_s=_GENTLE.connect_s), port, web_port, lambda _, dialect: vault.group(dialect))

    async def sweep(hosts: Sequence[str]) -> tuple[Look, ...]:
        return await Sweep(looker, _GENTLE, rng).run(hosts)

    return sweep
