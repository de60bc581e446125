"""The daemon's local socket against real connections: what a failsafe asks, what a stranger sends, who is let in."""

import asyncio
import itertools
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import local_requests, local_server, local_socket
from agent.errors import Permanent, Refused, SessionBusy, TimedOut, Unreachable
from agent.failsafe import by_daemon
from agent.failsafe.by_daemon import ByDaemon
from agent.failsafe.sights import show
from agent.local_curtail.heat import HeatLimit, HeatRules
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.schema import schema
from agent.local_curtail.site import LocalCurtail
from agent.local_requests import LocalRequests
from agent.local_socket import CAP_BYTES, SOCKET_NAME, Conversation, Garbage
from agent.precedence import Precedence
from agent.site_files import SiteFiles
from agent.storage import StorageFull, in_transaction
from sitelink.clock import SystemClock
from sitelink.inventory import MinerEntry
from sitelink.signing import KeyRing
from sitelink.types import Fallback, MinerState, Reading, Reason, Verb
from sitelink.units import Celsius, TeraHashPerSecond, Watts
from tests.unit.agent.storage_fakes import InlineWriter
from tests.veiled import Veiled

pytestmark = pytest.mark.agent


@dataclass
class Seen:
    state: MinerState
    power_w: Watts
    reason: Reason = Reason.NONE
    hashrate_ths: TeraHashPerSecond | None = None
    uptime_s: int | None = None
    shown_s: tuple[float, float] | None = None


@dataclass
class FakeControl:
    miner_id: str
    off: bool = False
    stops: int = 0

    async def identity(self) -> str:
        return self.miner_id

    async def stop(self) -> None:
        self.off = True
        self.stops += 1

    async def start(self) -> None:
        self.off = False

    async def observe(self) -> Seen:
        return Seen(MinerState.IDLE, Watts(50)) if self.off else Seen(MinerState.HASHING, Watts(3000))


class Full(InlineWriter):
    """A disk that can be filled: whatever changes a row fails then."""

    full = False

    async def run(self, work):
        before = self.connection.total_changes

        def guarded(connection: sqlite3.Connection) -> object:
            result = work(connection)
            if self.full and connection.total_changes != before:
                raise StorageFull("agent.db: database or disk is full; free some disk space")
            return result

        return in_transaction(self.connection, guarded)


class Outbox:
    def append_in(self, connection: sqlite3.Connection, body: object) -> object:
        return None


@dataclass
class Daemon:
    folder: Path
    requests: LocalRequests
    curtail: LocalCurtail
    controls: dict[str, FakeControl]
    writer: Full
    told: list[str] = field(default_factory=list)

    def asking(self) -> ByDaemon:
        return ByDaemon(self.folder, FLEET, self.told.append)

    def look(self) -> int:
        """Look at all miners and show that; return the exit code."""
        return show(*self.asking().look(FLEET), self.told.append)

    async def ask(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.ask_now, document)

    def ask_now(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        conversation = Conversation(self.folder)
        try:
            return [dict(answer) for answer in conversation.ask(document)]
        finally:
            conversation.close()


def entry(name: str, dialect: str = "luxos") -> MinerEntry:
    return MinerEntry(name, "127.0.0.1", 4028, dialect, "S19", "F1", "R1", 1, Watts(3000), TeraHashPerSecond(100.0))


HEAT = HeatRules(HeatLimit(board_c=Celsius(75.0)))
FLEET = (entry("m1"), entry("m2"), entry("m3", "hiveon"))


def _is_open(path: Path) -> bool:
    return path.exists() and path.stat().st_mode & 0o777 == 0o600


@asynccontextmanager
async def daemon(folder: Path) -> AsyncIterator[Daemon]:
    clock = SystemClock()
    writer = Full()
    in_transaction(writer.connection, schema)
    controls = {name.miner_id: FakeControl(name.miner_id) for name in FLEET}
    rules = SiteRules("s", "a", frozenset(), 14400.0, Watts(0), Fallback.RUN, 0.0, device_deadline_s=5.0, heat=HEAT)
    rng = random.Random(3)
    now = clock.now()
    curtail = LocalCurtail(
        rules=rules,
        miners=tuple(SiteMiner(one.miner_id, "", one.nameplate_w, one.dialect == "luxos") for one in FLEET),
        writer=writer,
        outbox=Outbox(),
        clock=clock,
        ids=lambda: f"{rng.getrandbits(64):x}",
        order_keys=KeyRing(()),
        time_keys=KeyRing(()),
        controls=controls.__getitem__,
        feeder_meters={},
        latest=lambda _: None,
        precedence=Precedence(clock),
        files=SiteFiles(folder),
        secrets=Veiled(),
    )
    reading = Reading("m1", now, MinerState.HASHING, power_w=Watts(3000), hashrate_ths=TeraHashPerSecond(90.0))
    requests = LocalRequests(
        folder, curtail, FLEET, frozenset({"m3"}), {"m1": reading}.get, dict, clock, "9.9", os.getpid()
    )
    await curtail.load()
    tasks = [asyncio.create_task(requests.run()), asyncio.create_task(curtail.run())]
    try:
        async with asyncio.timeout(5):
            while not _is_open(folder / SOCKET_NAME):
                await asyncio.sleep(0.01)
        yield Daemon(folder, requests, curtail, controls, writer)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_off_is_driven_and_proven_by_the_daemon_and_on_brings_back(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        off = here.asking().switch
        code = await asyncio.to_thread(off, Verb.STOP, FLEET[:2], timedelta(hours=1), "failsafe-1", everything=False)
        assert code == 0, here.told
        assert [here.controls[name].off for name in ("m1", "m2", "m3")] == [True, True, False]
        assert any("off, by its own figure of power (power_below_idle)" in line for line in here.told)
        on = here.asking().switch
        code = await asyncio.to_thread(on, Verb.START, FLEET[:2], timedelta(hours=1), "failsafe-2", everything=False)
        assert code == 0
        assert not here.controls["m1"].off


async def test_who_is_too_hot_is_not_started_by_hand_and_that_is_said_at_once(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        here.curtail._thermometers._heat["m1"].hold(SystemClock().monotonic())
        on = here.asking().switch
        code = await asyncio.to_thread(on, Verb.START, FLEET[:1], timedelta(hours=1), "failsafe-1", everything=False)
        assert code == 1
        assert any("it is too hot to run: look at its fans" in line for line in here.told), here.told
        assert here.curtail.too_hot("m1")


async def test_the_same_order_asked_twice_is_taken_once(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        request = {"ask": "override", "id": "f-1", "verb": "stop", "miners": ["m1"], "seconds": 60}
        await asyncio.gather(here.ask(request), here.ask(request))
        assert len(await here.curtail.overrides()) == 1
        assert here.controls["m1"].stops == 1


async def test_all_names_the_miner_that_cannot_be_switched(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        code = await asyncio.to_thread(
            here.asking().switch, Verb.STOP, FLEET, timedelta(hours=1), "failsafe-1", everything=True
        )
        assert code == 1
        assert here.told[-1] == "not proven off: m3"


async def test_a_release_of_one_leaves_the_others_and_hands_it_to_the_plan(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        await here.ask({"ask": "override", "id": "f-1", "verb": "stop", "miners": None, "seconds": 60})
        assert await asyncio.to_thread(here.asking().release, ["m1"]) == 0
        assert "released: f-1" in here.told
        (left,) = await here.curtail.overrides()
        assert left.override.miner_ids == {"m2", "m3"}
        async with asyncio.timeout(10):
            while here.controls["m1"].off:
                await asyncio.sleep(0.05)
        assert here.controls["m2"].off
        await asyncio.to_thread(here.asking().release, None)
        assert await here.curtail.overrides() == ()


async def test_a_full_disk_keeps_no_order_back_and_it_is_written_once_there_is_room(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        here.writer.full = True
        answers = await here.ask({"ask": "override", "id": "f-1", "verb": "stop", "miners": ["m1"], "seconds": 60})
        assert "keeps to this order only as long as it lives" in answers[1]["say"]
        assert [answer["proof"] for answer in answers if "miner" in answer] == ["yes"]
        assert here.controls["m1"].off
        released = await here.ask({"ask": "release", "miners": None})
        assert released[-1] == {"result": {"released": ["f-1"]}}
        async with asyncio.timeout(10):
            while here.controls["m1"].off:
                await asyncio.sleep(0.05)
        await here.ask({"ask": "override", "id": "f-2", "verb": "stop", "miners": ["m2"], "seconds": 60})
        here.writer.full = False
        async with asyncio.timeout(10):
            while not (rows := here.writer.connection.execute("SELECT override_id FROM curtail_overrides").fetchall()):
                await asyncio.sleep(0.05)
        assert ("f-2",) in rows


async def test_an_order_that_another_takes_over_is_told_at_once(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:

        async def silent() -> Seen:
            await asyncio.sleep(2)
            raise TimedOut("no answer")

        here.controls["m1"].observe = silent  # type: ignore[method-assign]
        off = asyncio.create_task(
            here.ask({"ask": "override", "id": "f-1", "verb": "stop", "miners": ["m1"], "seconds": 60})
        )
        async with asyncio.timeout(5):
            while here.curtail.ruling("m1") != "f-1":
                await asyncio.sleep(0.01)
        await here.ask({"ask": "release", "miners": ["m1"]})
        answers = await asyncio.wait_for(off, 5)
        assert "no longer under this order" in answers[2]["what"]


async def test_a_disk_that_does_not_answer_makes_it_hung_though_it_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_requests, "_STORE_S", 0.2)
    async with daemon(tmp_path) as here:
        stuck = asyncio.Event()

        async def never(_: object) -> None:
            await stuck.wait()

        here.writer.run = never  # type: ignore[method-assign, assignment]
        with pytest.raises(TimedOut, match=r"waits for its disk for more than 0\.2 s"):
            await asyncio.to_thread(
                here.asking().switch, Verb.STOP, FLEET[:1], timedelta(hours=1), "f-1", everything=False
            )
        with pytest.raises(TimedOut):
            await asyncio.to_thread(here.asking().release, None)
        stuck.set()


async def test_figures_plan_and_journal_are_told(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        figures, fixed = await asyncio.to_thread(here.asking().figures)
        assert (figures["m1"].hashrate_ths, fixed) == (90.0, {"m3"})
        await here.ask({"ask": "override", "id": "f-1", "verb": "stop", "miners": ["m1"], "seconds": 60})
        (answer,) = await here.ask({"ask": "plan"})
        assert answer["result"]["overrides"][0]["override_id"] == "f-1"
        assert answer["result"]["applies"] == [{"verb": "stop", "cause": "override", "miners": 1}]
        events = [answer["event"] for answer in await here.ask({"ask": "journal", "last": 10}) if "event" in answer]
        kinds = [event["event"] for event in events]
        assert [kind for kind in kinds if kind in {"ordered", "complete"}] == ["ordered", "complete"]
        assert "curtailment_started" in kinds


async def test_a_look_reads_each_miner_now(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        assert await asyncio.to_thread(here.look) == 0
        assert sum("hashing    3000 W" in line for line in here.told) == 3
        assert here.told[-1] == "3 miners: 3 hashing"


async def test_a_look_tells_who_lies_from_the_books_and_which_overrides_hold(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:

        async def deaf() -> None:
            here.controls["m1"].stops += 1

        figures = itertools.count()

        async def runs_on() -> Seen:
            return Seen(MinerState.HASHING, Watts(3000 + next(figures) % 5))

        here.controls["m1"].stop = deaf  # type: ignore[method-assign]
        here.controls["m1"].observe = runs_on  # type: ignore[method-assign]
        off = here.asking().switch
        await asyncio.to_thread(off, Verb.STOP, FLEET[:2], timedelta(hours=1), "failsafe-1", everything=False)
        sights, around = await asyncio.to_thread(here.asking().look, FLEET)
        assert around.codes() == {"m1": ("ack_without_effect",)}
        assert [item["override_id"] for item in around.overrides] == ["failsafe-1"]
        here.told.clear()
        assert show(sights, around, here.told.append) == 0
        line = next(line for line in here.told if line.startswith("m1"))
        assert "LIAR: it said ok to its stop and hashes on" in line
        assert "failsafe off --miner m1 again" in line


async def test_a_daemon_that_tells_no_doubts_is_of_an_earlier_version(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:

        async def earlier(_: object) -> Any:
            yield {"result": {}}

        here.requests._server._asks = {**here.requests._server._asks, "look": earlier}
        _, around = await asyncio.to_thread(here.asking().look, FLEET)
        assert around.doubts is None


async def test_a_look_at_one_that_answers_but_is_not_known_says_so_and_what_to_do(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:

        async def closed() -> Seen:
            return Seen(MinerState.UNKNOWN, Watts(0), Reason.ACCESS_DENIED)

        here.controls["m1"].observe = closed  # type: ignore[method-assign]
        assert await asyncio.to_thread(here.look) == 1
        line = next(line for line in here.told if line.startswith("m1"))
        assert "unknown" in line
        assert "credentials set luxos" in line
        assert here.told[-2:] == ["3 miners: 2 hashing, 1 unknown", "unknown, so they may draw full power: m1"]
        assert "proven" not in "\n".join(here.told)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"\n", "no JSON object"),
        (b"GET / HTTP/1.1\r\n\r\n", "no JSON object"),
        (b"\x16\x03\x01\x02\x00\x01\x00\xff\n", "no JSON object"),
        (b"[" * 100_000 + b"\n", "no JSON object"),
        (b"[]\n", "no JSON object"),
        (b"{}\n", "it knows no 'None'"),
        (b'{"ask":"reboot"}\n', "it knows no 'reboot'"),
        (b'{"ask":"override","id":"x","verb":"explode","seconds":1}\n', "verb: write stop or start"),
        (b'{"ask":"override","id":"x","verb":"stop","seconds":NaN}\n', "seconds: write a number"),
        (b'{"ask":"override","id":"x","verb":"stop","seconds":true}\n', "seconds: write a number"),
        (b'{"ask":"override","id":"x","verb":"stop","seconds":1e9}\n', "at most 604800"),
        (b'{"ask":"override","id":"../x","verb":"stop","seconds":1}\n', "id: write letters"),
        (b'{"ask":"override","id":"x","verb":"stop","seconds":1,"miners":[]}\n', "miners: write a list"),
        (
            b'{"ask":"override","id":"x","verb":"stop","seconds":1,"miners":["m9"]}\n',
            "m9: the running daemon does not know it",
        ),
        (b'{"ask":"journal","last":0}\n', "last: write a whole number"),
        (b"x" * (CAP_BYTES + 10), "limit"),
    ],
)
async def test_garbage_is_told_and_changes_nothing(tmp_path: Path, line: bytes, told: str) -> None:
    async with daemon(tmp_path) as here:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME))
        writer.write(line)
        async with asyncio.timeout(5):
            answer = json.loads(await reader.readline())
        assert told in answer["error"]["message"]
        writer.close()
        assert await here.curtail.overrides() == ()
        assert (await asyncio.to_thread(here.asking().hello))["version"] == "9.9"


async def test_those_that_ask_nothing_make_room_for_who_asks(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        idle = [await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME)) for _ in range(12)]
        async with asyncio.timeout(2):
            code = await asyncio.to_thread(
                here.asking().switch, Verb.STOP, FLEET[:1], timedelta(hours=1), "f-1", everything=False
            )
        assert code == 0, here.told
        for _, writer in idle:
            writer.close()


async def test_watchers_at_all_places_keep_no_order_out(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        never = asyncio.Event()

        async def silent() -> Seen:
            await never.wait()
            raise TimedOut("no answer")

        here.controls["m2"].observe = silent  # type: ignore[method-assign]
        look = b'{"ask":"look","miners":["m2"]}\n'
        watchers = [await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME)) for _ in range(8)]
        for _, writer in watchers:
            writer.write(look)
        for reader, _ in watchers:
            assert b"beat" in await asyncio.wait_for(reader.readline(), 5)
        with pytest.raises(SessionBusy, match="8 others are being answered"):
            await asyncio.to_thread(here.asking().look, FLEET[:1])
        assert (await asyncio.to_thread(here.asking().hello))["miners"] == 3
        code = await asyncio.to_thread(
            here.asking().switch, Verb.STOP, FLEET[:1], timedelta(hours=1), "f-1", everything=False
        )
        assert code == 0, here.told
        for _, writer in watchers:
            writer.close()


async def test_a_row_newer_than_the_daemon_keeps_no_stop_from_the_others(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        newer = (*FLEET[:2], entry("m9"))
        asking = ByDaemon(tmp_path, newer, here.told.append)
        code = await asyncio.to_thread(asking.switch, Verb.STOP, newer, timedelta(hours=1), "f-1", everything=False)
        assert (code, here.controls["m1"].off, here.controls["m2"].off) == (1, True, True)
        told = "\n".join(here.told)
        assert "stop: 2 miners, by the daemon" in told
        assert "does not know it" in next(line for line in here.told if line.startswith("m9"))
        assert "not proven off: m9" in told
        (kept,) = await here.curtail.overrides()
        assert kept.override.miner_ids == {"m1", "m2"}
        here.told.clear()
        await asyncio.to_thread(asking.switch, Verb.STOP, newer, timedelta(hours=1), "f-2", everything=True)
        assert "does not know it" in next(line for line in here.told if line.startswith("m9"))
        here.told.clear()
        assert await asyncio.to_thread(lambda: show(*asking.look(newer), here.told.append)) == 1
        assert "does not know it" in next(line for line in here.told if line.startswith("m9"))


async def test_an_order_that_is_not_taken_is_not_said_to_be(tmp_path: Path) -> None:
    async with daemon(tmp_path) as here:
        asking = ByDaemon(tmp_path, (entry("m9"),), here.told.append)
        with pytest.raises(Refused, match="m9: the running daemon does not know it"):
            await asyncio.to_thread(
                asking.switch, Verb.STOP, (entry("m9"),), timedelta(hours=1), "f-1", everything=False
            )
        assert here.told == []
        assert await here.curtail.overrides() == ()


async def test_how_far_it_is_and_whom_it_waits_for_is_said_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_daemon, "_EVERY_BEATS", 1)
    async with daemon(tmp_path) as here:

        async def silent() -> Seen:
            async with asyncio.timeout(10):
                while "  1 of 2 miners done; waiting for m2" not in here.told:
                    await asyncio.sleep(0.05)
            raise TimedOut("no answer")

        here.controls["m2"].observe = silent  # type: ignore[method-assign]
        await asyncio.to_thread(here.asking().switch, Verb.STOP, FLEET[:2], timedelta(hours=1), "f-1", everything=False)
        assert "  1 of 2 miners done; waiting for m2" in here.told


@pytest.mark.parametrize(
    "ask", ['{"ask":"look","miners":null}', '{"ask":"override","id":"f","verb":"stop","miners":null,"seconds":60}']
)
def test_a_client_killed_in_the_middle_is_no_defect_of_ours_on_uvloop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ask: str
) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def talk() -> None:
        async with daemon(tmp_path) as here:

            async def slow() -> Seen:
                await asyncio.sleep(1.3)
                return Seen(MinerState.HASHING, Watts(3000))

            for control in here.controls.values():
                control.observe = slow  # type: ignore[method-assign]
            for wait_s in (0.0, 0.05, 1.1):
                client = await asyncio.to_thread(_killed_client, tmp_path, ask, wait_s)
                assert client == -9
            await asyncio.sleep(2.5)
            assert (await asyncio.to_thread(here.asking().hello))["miners"] == 3

    uvloop.run(talk())
    assert [record.message for record in caplog.records if "defect" in record.message] == []


def _killed_client(folder: Path, ask: str, wait_s: float) -> int:
    """A process that asks and is killed without hanging up."""
    script = (
        "import os, signal, socket, sys, time\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(sys.argv[2].encode() + b'\\n')\n"
        "time.sleep(float(sys.argv[3])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(folder / SOCKET_NAME), ask, str(wait_s)], check=False
    ).returncode


async def test_a_folder_in_the_sockets_place_is_said_and_the_door_opens_once_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local_server, "_NO_DOOR_S", 0.05)
    stray = tmp_path / SOCKET_NAME / "backup"
    stray.mkdir(parents=True)

    async def cleared() -> None:
        while "cannot be made" not in caplog.text:
            await asyncio.sleep(0.02)
        stray.rmdir()

    clearing = asyncio.create_task(cleared())
    async with daemon(tmp_path) as here:
        assert (await asyncio.to_thread(here.asking().hello))["miners"] == 3
    await clearing
    assert "move away what lies there" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_client_that_does_not_read_or_hangs_up_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_server, "_SEND_S", 0.3)
    async with daemon(tmp_path) as here:
        deaf = socket.socket(socket.AF_UNIX)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.setblocking(False)
        deaf.connect(str(tmp_path / SOCKET_NAME))
        deaf.send(b'{"ask":"look","miners":null}\n')
        _, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME))
        writer.write(b'{"ask":"override","id":"f-1","verb":"stop","miners":["m1"],"seconds":60}\n')
        writer.close()
        async with asyncio.timeout(10):
            while not here.controls["m1"].off:
                await asyncio.sleep(0.05)
        deaf.close()


async def test_a_stale_socket_is_replaced_and_only_its_owner_may_use_it(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / SOCKET_NAME))
    stale.close()
    with pytest.raises(Unreachable, match="nobody listens"):
        Conversation(tmp_path)
    async with daemon(tmp_path):
        assert (tmp_path / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_a_user_that_is_neither_ours_nor_root_is_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemon(tmp_path) as here:
        monkeypatch.setattr(local_server, "peer_uid", lambda _: 4242)
        with pytest.raises(Unreachable, match=r"hung up|went away"):
            await asyncio.to_thread(here.asking().hello)


async def test_a_stranger_that_listens_in_our_place_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_socket, "peer_uid", lambda _: 4242)
    async with daemon(tmp_path) as here:
        with pytest.raises(Permanent, match="a stranger listens there"):
            await asyncio.to_thread(here.asking().hello)


async def test_a_deep_state_dir_is_reached_all_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    async with daemon(deep) as here:
        assert (await asyncio.to_thread(here.asking().hello))["version"] == "9.9"
        assert (deep / SOCKET_NAME).is_socket()


def test_a_daemon_that_takes_nobody_in_or_says_nothing_is_hung(tmp_path: Path) -> None:
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(tmp_path / SOCKET_NAME))
    door.listen(0)
    waiting = Conversation(tmp_path, silence_s=0.2)
    with pytest.raises(TimedOut, match="says nothing for"):
        list(waiting.ask({"ask": "hello"}))
    with pytest.raises(TimedOut, match="takes no connection"):
        [Conversation(tmp_path, silence_s=0.2) for _ in range(10)]
    waiting.close()
    door.close()


@pytest.mark.parametrize("sent", [b"x" * (CAP_BYTES + 70_000), b"hello\n", b"[1]\n"])
async def test_an_answer_that_never_ends_or_is_no_object_is_garbage(tmp_path: Path, sent: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(sent)
        with suppress(OSError):
            await writer.drain()
        writer.close()

    def ask() -> None:
        conversation = Conversation(tmp_path, silence_s=2)
        try:
            list(conversation.ask({"ask": "hello"}))
        finally:
            conversation.close()

    async with await asyncio.start_unix_server(answer, str(tmp_path / SOCKET_NAME)):
        with pytest.raises(Garbage):
            await asyncio.to_thread(ask)
