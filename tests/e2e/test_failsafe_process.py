"""The failsafe beside a real daemon that lives, hangs, is killed, starts: miners end up as the technician wants them."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.local_curtail.records import MinerRecord, miner_of
from agent.local_socket import SOCKET_NAME
from agent.lock import FAILSAFE, StateLock, holder_of
from agent.storage import connect_read_only
from sitelink.clock import SystemClock
from sitelink.types import Outcome, Verb
from tests.e2e.test_agent_process import Stage, complete, stage, until

__all__ = ["stage"]
pytestmark = pytest.mark.slow


def chosen(stage: Stage, count: int = 4) -> tuple[str, ...]:
    """Live miners that can be switched."""
    able = [place for place in stage.site.places if place.model.dialect in {"luxos", "whatsminer", "avalon"}]
    alive = [place.miner_id for place in able if not stage.site.miners[place.miner_id].dead]
    return tuple(alive[:count])


def state_dir(stage: Stage) -> Path:
    return stage.folder / "state"


async def failsafe(stage: Stage, *arguments: str) -> tuple[int, str]:
    code, output, errors = await stage.tool("failsafe", *arguments, "--config", str(stage.config))
    return code, output + errors


async def started(stage: Stage, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "agent", "failsafe", *arguments, "--config", str(stage.config)],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # A job in a shell's background ignores Ctrl-C, and so do all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def records(stage: Stage) -> dict[str, MinerRecord]:
    with closing(connect_read_only(state_dir(stage) / "agent.db")) as file:
        return {name: miner_of(text) for name, text in file.execute("SELECT miner_id, record FROM curtail_miners")}


def all_off(stage: Stage, miners: tuple[str, ...]) -> Callable[[], bool]:
    return lambda: not any(stage.hashing(name) for name in miners)


def all_on(stage: Stage, miners: tuple[str, ...]) -> Callable[[], bool]:
    return lambda: all(stage.hashing(name) for name in miners)


def judged(stage: Stage, verb: Verb, miners: tuple[str, ...]) -> bool:
    acks = [ack for ack in stage.cloud.items()[1] if ack.verb is verb and ack.outcome is not Outcome.EXPIRED]
    return {ack.miner_id for ack in acks} >= set(miners)


async def test_a_living_daemon_does_the_work_and_a_killed_one_is_done_without(stage: Stage) -> None:
    await stage.start()
    await until(lambda: complete(stage))
    miners = chosen(stage)
    code, told = await failsafe(stage, "off", "--miner", *miners, "--for", "1h")
    assert "by the daemon" in told
    assert all_off(stage, miners)()
    assert code == 0, told
    code, told = await failsafe(stage, "status", "--miner", *miners)
    assert code == 0
    assert f"{len(miners)} miners: {len(miners)} idle" in told
    _, told = await failsafe(stage, "release")
    assert "released: failsafe-" in told
    await until(all_on(stage, miners))
    at_work = await started(stage, "off", "--miner", *miners, "--for", "1h")
    await until(lambda: any(not stage.hashing(name) for name in miners))
    await stage.end(signal.SIGKILL)
    code, told = await ended(at_work)
    assert code in {0, 1}, told
    await until(all_off(stage, miners), 20)
    assert "miners, 64 at a time" in told, "the killed daemon's work was gone on with"
    await stage.start()
    await asyncio.sleep(3)
    assert all_off(stage, miners)(), "the next daemon keeps to the override"
    await failsafe(stage, "on", "--miner", *miners)
    assert all_on(stage, miners)()
    assert "Traceback" not in stage.told()


async def test_a_row_newer_than_the_daemon_and_a_killed_command_keep_no_order_from_the_others(stage: Stage) -> None:
    await stage.start()
    await until(lambda: complete(stage))
    miners = chosen(stage)
    with (stage.folder / "inventory.csv").open("a") as inventory:
        inventory.write("02:ee:00:00:00:01,127.0.0.1,9,luxos,S19,,,0,3000,100,80\n")
    code, told = await failsafe(stage, "off", "--miner", *miners, "02:ee:00:00:00:01")
    assert (code, all_off(stage, miners)()) == (1, True), told
    assert f"stop: {len(miners)} miners, by the daemon" in told
    assert "not proven off: 02:ee:00:00:00:01" in told
    code, told = await failsafe(stage, "status", "--miner", *miners, "02:ee:00:00:00:01")
    assert code == 1
    assert "systemctl restart ballast-agent" in told
    at_work = await started(stage, "on", "--miner", *miners)
    await until(lambda: any(stage.hashing(name) for name in miners))
    at_work.kill()
    await at_work.wait()
    await until(all_on(stage, miners))
    assert "defect" not in stage.told()
    assert "Traceback" not in stage.told()


async def test_a_hung_daemon_is_named_and_only_ended_on_request(stage: Stage) -> None:
    await stage.start()
    await until(lambda: complete(stage))
    miners = chosen(stage)
    assert stage.process is not None
    stage.process.send_signal(signal.SIGSTOP)
    code, told = await failsafe(stage, "off", "--miner", *miners)
    assert (code, all_on(stage, miners)()) == (1, True)
    assert "says nothing for 3 s: it is hung" in told
    assert "--take-over" in told
    code, told = await failsafe(stage, "status", "--miner", *miners)
    assert "the daemon does not answer" in told, "looking needs no lock"
    assert code == 0
    code, told = await failsafe(stage, "off", "--miner", *miners, "--take-over", "--for", "1h")
    assert "SIGKILL" in told
    assert code == 0, told
    assert all_off(stage, miners)()
    assert await stage.process.wait() == -signal.SIGKILL
    stage.process = None
    kept = records(stage)
    assert all(kept[name].touched and kept[name].baseline_w for name in miners)
    await stage.start()
    await until(lambda: judged(stage, Verb.STOP, miners))
    acks = [ack for ack in stage.cloud.items()[1] if ack.order_id.startswith("failsafe-") and ack.verb is Verb.STOP]
    assert {ack.outcome for ack in acks} <= {Outcome.COMPLETE, Outcome.UNVERIFIED}
    await failsafe(stage, "release", "--all")
    await until(all_on(stage, miners))
    assert "Traceback" not in stage.told()


async def test_without_a_daemon_ever_the_next_one_verifies_and_restores_when_its_time_is_over(stage: Stage) -> None:
    _, told = await failsafe(stage, "off", "--mw", "0.008", "--for", "20s")
    assert "MW asked for:" in told
    off = tuple(name for name, record in records(stage).items() if record.touched)
    assert off
    assert all_off(stage, off)()
    asked = float(told.split(" MW asked for")[0].rsplit("\n", 1)[-1])
    became = float(told.split(" miners, ")[1].split(" MW")[0])
    assert asked <= became < asked + 0.0075, "at most one miner too many"
    await stage.start()
    await until(all_on(stage, off), 60)
    await until(lambda: judged(stage, Verb.START, off))
    assert "Traceback" not in stage.told()


async def test_two_technicians_at_once_and_a_daemon_that_starts_meanwhile(stage: Stage) -> None:
    miners = chosen(stage)
    with StateLock(state_dir(stage), FAILSAFE):  # somebody is at work
        other = await started(stage, "off", "--miner", *miners, "--for", "1h")
        await stage.start()
        await until(lambda: "drives this site's miners; starting once it has ended" in stage.told())
        assert other.stdout is not None
        assert b"is at work here; waiting for it" in await other.stdout.readline()
    code, told = await ended(other)
    assert code in {0, 1}, told
    await until(all_off(stage, miners))
    await until(lambda: complete(stage))
    assert "another agent runs" not in stage.told()


async def test_ctrl_c_leaves_what_was_sent_in_the_books(stage: Stage) -> None:
    at_work = await started(stage, "off", "--all", "--for", "1h")
    await until(lambda: any(record.touched for record in _known(stage).values()))
    at_work.send_signal(signal.SIGINT)
    code, told = await ended(at_work)
    assert code == 130, told
    assert "interrupted:" in told
    assert "Traceback" not in told
    sent = {name for name, record in records(stage).items() if record.touched}
    hashing = [place.miner_id for place in stage.site.places if stage.hashing(place.miner_id)]
    stopped = {place.miner_id for place in stage.site.places} - set(hashing)
    able = {name for name in stopped if not stage.site.miners[name].dead}
    assert able <= sent, "nobody is off whom the books do not know"
    _, told, _ = await stage.tool("journal", "--config", str(stage.config), "--last", "500")
    assert told.count("  sending  ") >= len(sent)


async def test_a_daemon_that_is_only_starting_is_waited_for_and_one_without_a_door_is_hung(stage: Stage) -> None:
    """A holder that never listens: for its first seconds it may be reading its database, later it is hung."""
    miners = chosen(stage, 1)
    holding = (
        "import sys, time; from pathlib import Path; from agent.lock import StateLock\n"
        "with StateLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(90)"
    )
    holder = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", holding, str(state_dir(stage))], stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    await holder.stdout.readline()
    clock = SystemClock()
    asked_s = clock.monotonic()
    code, told = await failsafe(stage, "off", "--miner", *miners)
    assert (code, "holds the lock and listens to nobody" in told) == (1, True), told
    assert clock.monotonic() - asked_s > 15
    code, told = await failsafe(stage, "off", "--miner", *miners, "--take-over")
    assert code == 0, told
    assert await holder.wait() == -signal.SIGTERM
    assert all_off(stage, miners)()


def _known(stage: Stage) -> dict[str, MinerRecord]:
    """The records, none as long as the file or its tables are being made."""
    try:
        return records(stage)
    except (BadInput, sqlite3.OperationalError):
        return {}


async def test_a_stale_socket_and_a_broken_database_keep_nobody_from_stopping(stage: Stage) -> None:
    state_dir(stage).mkdir(exist_ok=True)
    import socket

    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(state_dir(stage) / SOCKET_NAME))
    (state_dir(stage) / "agent.db").write_bytes(os.urandom(100_000))
    miners = chosen(stage)
    code, told = await failsafe(stage, "off", "--miner", *miners)
    assert code == 0, told
    assert "takes nothing" in told
    assert all_off(stage, miners)()
    assert holder_of(state_dir(stage)) is not None
