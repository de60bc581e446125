"""The agent as a process: one a state folder, ended by SIGTERM, restarted by whoever supervises it.

Invariants: nothing starts on files that are wrong; when the database's state is unknown the process ends at once, and
the next reads what is there. Told to end it does, whatever hangs in it: by itself, or at the latest after
``_ENDS_WITHIN_S``, or at the second signal, as if killed, which loses nothing that was sealed.
"""

import asyncio
import gc
import logging
import os
import random
import signal
import uuid
from pathlib import Path
from typing import Final

from agent import loops
from agent.app import Agent, version
from agent.descriptors import open_files, wanted_by_daemon
from agent.fleet import check_extras, untouchable
from agent.follow import ranges_of
from agent.identity import Identity, load_identity
from agent.inventory import load_meters, load_usable
from agent.lock import Holder, StateLock
from agent.reserve import RESERVE_NAME, Reserve, ReservedWriter
from agent.settings import Settings
from agent.storage import StorageLost, ThreadWriter, on_loop, quarantine_if_broken, suspect
from agent.vault import Vault
from sitelink.clock import Clock, SystemClock
from sitelink.inventory import MeterEntry, MinerEntry

_LOG: Final = logging.getLogger(__name__)
_ENDS_WITHIN_S: Final = 10.0
"""Its unit gives it 20 s."""
_COLLECT_AFTER: Final = 20_000
"""New objects; the interpreter's own figure is 700."""


def run_agent(settings: Settings) -> None:
    """Run the agent of ``settings`` until SIGTERM or SIGINT. Blocks.

    Raises:
        BadInput: a file is wrong, the agent is not enrolled, or another one runs on the same ``state_dir``.
        StorageLost: the database's state is unknown; start again.
    """
    inventory, complaints = load_usable(settings.site.inventory)
    for complaint in complaints:
        _LOG.error("%s; going on without its outlet", complaint)
    ranges_of(settings)
    meters = load_meters(settings.site.meters)
    untouchable(settings, inventory)
    check_extras(settings, inventory)
    clock = SystemClock()
    with StateLock(settings.site.state_dir, waits=_say_who_is_at_work):
        identity = load_identity(settings.identity_dir, settings.site.site_id)
        _LOG.info("settings: %s", settings.redacted())
        _allow_files(settings, len(meters))
        broken = quarantine_if_broken(settings.database, clock.now().strftime("%Y%m%dT%H%M%S"))
        if broken is not None:
            _LOG.error("agent.db is broken and was moved to %s; starting with a new one", broken)
        try:
            loops.run(_run(settings, identity, inventory, meters, clock, broken))
        except StorageLost:
            suspect(settings.database)
            raise


async def _run(
    settings: Settings,
    identity: Identity,
    inventory: tuple[MinerEntry, ...],
    meters: tuple[MeterEntry, ...],
    clock: Clock,
    broken: Path | None,
) -> None:
    _end_when_told()
    plain = ThreadWriter(settings.database)
    writer = ReservedWriter(plain, Reserve(settings.site.state_dir / RESERVE_NAME))
    try:
        rng = random.Random()  # noqa: S311 - spreads polls and retries, guards nothing
        vault = Vault.open(settings)
        if vault.problem is not None:
            _LOG.error("vault: %s; miners that need a password cannot be switched until then", vault.problem)
        agent = Agent(settings, identity, inventory, meters, vault, writer, clock, rng, _new_id, on_loop, writer.bulk)
        await agent.load(broken)
        _spare_the_collector()
        _LOG.info("agent: version %s, %d miners, %d meters", version(), len(inventory), len(meters))
        await agent.run()
    except asyncio.CancelledError:
        _LOG.info("agent: told to end; everything sealed is kept")
    except BaseExceptionGroup as group:
        raise _only(group) from group
    finally:
        plain.close()


def _end_when_told() -> None:
    """Have SIGTERM and SIGINT cancel the task that asks for it, and end the process when that does not help."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    told = False

    def leave() -> None:
        left = sorted({one.get_name() for one in asyncio.all_tasks()})
        _LOG.error("agent: did not end; leaving at once, what is sealed is kept. Still at work: %s", ", ".join(left))
        logging.shutdown()
        os._exit(1)

    def end() -> None:
        nonlocal told
        if told:
            leave()
        told = True
        task.cancel()
        loop.call_later(_ENDS_WITHIN_S, leave)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)


def _spare_the_collector() -> None:
    """Have the garbage collector pass by what lives as long as we do, and come less often.

    It went over every object of the site again and again just while a burst of orders made many; what it finds there
    is little, for the requests to miners leave no cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])


def _allow_files(settings: Settings, meters: int) -> None:
    needed = wanted_by_daemon(settings.poll.concurrency, settings.control.concurrency, meters)
    allowed = open_files(needed)
    if allowed < needed:
        _LOG.warning(
            "agent: up to %d files and sockets are open at once, the system allows %d; raise LimitNOFILE in its unit "
            "or lower [poll] concurrency",
            needed,
            allowed,
        )


def _say_who_is_at_work(holder: Holder) -> None:
    _LOG.warning("agent: %s drives this site's miners; starting once it has ended", holder)


def _only(error: BaseException) -> BaseException:
    """Return what ended the agent: the first error inside nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _new_id() -> str:
    return uuid.uuid4().hex
