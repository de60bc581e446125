"""The library runs apart: hung, dead or babbling it costs its own question; its verdict of a miner is not heard."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cgminer.client import DEFAULT_DEADLINES, Address
from agent.cgminer.credentials import Credentials
from agent.errors import Garbled, TimedOut, Transient, Unreachable
from agent.exotic import ExoticDevice, Reader
from agent.exotic.figures import observation_of
from simulator.roster import RosterOptions
from simulator.site import SimulatedSite, SiteOptions
from sitelink.clock import ManualClock, SystemClock
from sitelink.types import MinerState, PowerSource, Reason

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Make = Callable[[str], Reader]
PREAMBLE = """
import json, sys, time
def say(d): print(json.dumps(d), flush=True)
say({"ready": True})
"""


@pytest.fixture
async def reader() -> AsyncIterator[Make]:
    made = []

    def make(program: str, deadline_s: float = 5.0) -> Reader:
        made.append(Reader(ManualClock(NOW), (sys.executable, "-c", program), deadline_s))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def started(asking: Reader) -> Reader:
    """Return it with its worker up, whose start would be counted to the first question."""
    await asking._working()
    return asking


async def test_an_answer_belongs_to_its_question_whatever_the_order(reader: Make) -> None:
    program = (
        PREAMBLE
        + """
asked = [json.loads(sys.stdin.readline()) for _ in range(3)]
for question in reversed(asked):
    print("the library says something of its own")
    say({"id": 99, "data": {"host": "nobody"}})
    say({"id": question["id"], "data": {"host": question["host"], "access": question["access"]}})
sys.stdin.read()
"""
    )
    asking = reader(program)
    access = Credentials("root", "secret")
    found = await asyncio.gather(*(asking.ask(f"10.0.0.{place}", access) for place in range(3)))
    assert found == [{"host": f"10.0.0.{place}", "access": ["root", "secret"]} for place in range(3)]


async def test_a_hung_library_is_killed_and_the_next_question_starts_another(reader: Make) -> None:
    asking = await started(reader(PREAMBLE + "time.sleep(60)", 0.5))
    with pytest.raises(TimedOut, match=r"no answer within 0\.5 s; the exotic reader is restarted"):
        await asking.ask("10.0.0.1")
    with pytest.raises(Transient, match="started again in a few seconds"):
        await asking.ask("10.0.0.1")
    asking._clock.advance(6)
    assert await started(asking)


FAKE_LIBRARY = """
import asyncio, os, sys, types
class Miner:
    async def get_data(self, exclude): return self
    def model_dump(self): return {"worker": os.getpid()}
class Factory:
    async def get_miner(self, host):
        if host != "alive": await asyncio.sleep(60)
        return Miner()
library, data = types.ModuleType("pyasic_rs"), types.ModuleType("pyasic_rs.data")
library.MinerFactory, library.data, data.DataField = Factory, data, types.SimpleNamespace(Chips=0)
sys.modules.update({"pyasic_rs": library, "pyasic_rs.data": data})
from agent.exotic import worker
worker._PATIENCE_S = 0.8
asyncio.run(worker.serve())
"""


async def test_more_hanging_miners_than_places_cost_their_own_reading_and_no_worker(reader: Make) -> None:
    asking = await started(reader(FAKE_LIBRARY, 1.0))
    first = await asking.ask("alive")
    dead = await asyncio.gather(*(asking.ask(f"10.0.0.{place}") for place in range(17)), return_exceptions=True)
    assert [type(error) for error in dead] == [Unreachable] * 16 + [TimedOut]
    assert await asking.ask("alive") == first


async def test_a_question_lost_beside_answered_ones_ends_no_worker(reader: Make) -> None:
    program = (
        PREAMBLE
        + """
import os
for line in sys.stdin:
    question = json.loads(line)
    if question["host"] != "lost": say({"id": question["id"], "data": {"worker": os.getpid()}})
"""
    )
    asking = await started(reader(program, 0.5))
    lost = asyncio.create_task(asking.ask("lost"))
    await asyncio.sleep(0.2)
    first = await asking.ask("10.0.0.1")
    with pytest.raises(TimedOut, match="check the miner's address"):
        await lost
    assert await asking.ask("10.0.0.1") == first


HANGING_HOSTS = (
    PREAMBLE
    + """
import threading
def go(question):
    time.sleep(0.8); say({"id": question["id"], "error": "no answer within 0.8 s"})
for line in sys.stdin: threading.Thread(target=go, args=(json.loads(line),), daemon=True).start()
"""
)


async def test_however_many_hang_each_question_ends_in_its_own_time_as_timed_out(reader: Make) -> None:
    """Ninety dead miners once took 17 s to be called so, and a third of them were called busy."""
    asking, loop = await started(reader(HANGING_HOSTS, 1.0)), asyncio.get_running_loop()

    async def one(place: int) -> tuple[type[Exception], float]:
        began = loop.time()
        with pytest.raises((Unreachable, TimedOut)) as caught:
            await asking.ask(f"10.0.0.{place}")
        return caught.type, loop.time() - began

    found = await asyncio.gather(*(one(place) for place in range(90)))
    assert max(took_s for _, took_s in found) < 1.6
    assert {kind for kind, _ in found[-16:]} == {TimedOut}
    with pytest.raises(Unreachable, match=r"no answer within 0\.8 s"):
        await asking.ask("10.0.0.1")  # the worker was none the worse for it


async def test_a_start_that_takes_longer_than_a_question_still_ends_in_a_worker(reader: Make) -> None:
    answers = 'for line in sys.stdin: q = json.loads(line); say({"id": q["id"], "data": {"host": q["host"]}})'
    program = f"import time\ntime.sleep(0.6)\n{PREAMBLE}{answers}"
    asking = reader(program, 0.4)
    with pytest.raises(TimedOut, match="still starting"):
        await asking.ask("10.0.0.1")
    async with asyncio.timeout(20):
        while True:
            with suppress(TimedOut):
                assert await asking.ask("10.0.0.1") == {"host": "10.0.0.1"}
                return


async def test_a_library_that_aborts_takes_its_questions_with_it_at_once(reader: Make) -> None:
    asking = reader(PREAMBLE + "import os\nsys.stdin.readline()\nos.abort()", deadline_s=30)
    async with asyncio.timeout(10):
        failed = await asyncio.gather(asking.ask("10.0.0.1"), asking.ask("10.0.0.2"), return_exceptions=True)
    assert [type(error) for error in failed] == [Transient, Transient]


async def test_a_library_that_is_not_there_says_so(reader: Make) -> None:
    with pytest.raises(Transient, match="has ended"):
        await reader("raise ModuleNotFoundError").ask("10.0.0.1")
    missing = Reader(ManualClock(NOW), ("/nowhere/python",))
    with pytest.raises(Transient, match="check the extra exotic"):
        await missing.ask("10.0.0.1")


@pytest.mark.parametrize(
    "answer",
    ['{"id": 1, "error": "LookupError: none"}', '{"id": 1, "data": null}', '{"id": 1, "data": [1]}', '{"id": 1}'],
)
async def test_an_answer_without_data_is_nobody_there(answer: str, reader: Make) -> None:
    program = PREAMBLE + f"sys.stdin.readline()\nprint({answer!r}, flush=True)\nsys.stdin.read()"
    with pytest.raises(Unreachable):
        await reader(program).ask("10.0.0.1")


@pytest.mark.parametrize("noise", ["x" * 100, "[" * 5000, '{"id": "1", "data": {}}', "\\xff\\x00", "[1]", "7"])
async def test_noise_answers_nobody(noise: str, reader: Make) -> None:
    program = PREAMBLE + f"sys.stdin.readline()\nprint({noise!r}, flush=True)\nsys.stdin.read()"
    asking = await started(reader(program, 0.5))
    with pytest.raises(TimedOut):
        await asking.ask("10.0.0.1")


async def test_a_line_without_end_ends_the_library(reader: Make) -> None:
    program = PREAMBLE + "sys.stdin.readline()\nwhile True: sys.stdout.write('x' * 65536)"
    async with asyncio.timeout(10):
        with pytest.raises(Transient):
            await reader(program, 8).ask("10.0.0.1")


@pytest.mark.slow
async def test_the_library_itself_reads_a_simulated_miner_and_misses_a_dead_one() -> None:
    roster = RosterOptions(site_id="exotic", miners=2, seed=4, net="127.219", dialects=("luxos",))
    async with SimulatedSite(SiteOptions(roster=roster, meters_port=0), SystemClock()) as site:
        asking = Reader(SystemClock())
        live, dead = site.places
        await site.set_fault(dead.miner_id, "black_holed")

        def device(host: str, miner_id: str) -> ExoticDevice:
            return ExoticDevice(
                Address(host), asking, SystemClock(), miner_id=miner_id, credentials=None, deadlines=DEFAULT_DEADLINES
            )

        try:
            seen = await device(live.host, live.miner_id).observe()
            assert await device(live.host, live.miner_id).identity() == live.miner_id
            assert await device(live.host, "02:00:00:00:00:99").identity() == live.mac
            assert (seen.state, seen.mac) == (MinerState.HASHING, live.mac)
            assert seen.hashrate_ths == pytest.approx(live.actual_ths, rel=0.05)
            assert seen.power_w == pytest.approx(live.actual_w, rel=0.05)
            assert len(seen.fans_rpm) == 4
            with pytest.raises(Transient):
                await device(dead.host, dead.miner_id).observe()
            assert (await device(live.host, live.miner_id).observe()).state is MinerState.HASHING
        finally:
            await asking.close()


async def test_a_miner_without_a_name_is_nobodys(reader: Make) -> None:
    program = PREAMBLE + "sys.stdin.readline()\nsay({'id': 1, 'data': {'mac': None}})\nsys.stdin.read()"
    device = ExoticDevice(
        Address("10.0.0.1"), reader(program), SystemClock(), miner_id="x", credentials=None, deadlines=DEFAULT_DEADLINES
    )
    with pytest.raises(Garbled):
        await device.identity()


def rate(value: object, unit: str = "TH/s") -> dict[str, object]:
    return {"value": value, "unit": unit, "algo": "SHA256"}


@pytest.mark.parametrize(
    ("data", "state"),
    [
        ({"hashrate": None, "wattage": None, "is_mining": True}, MinerState.UNKNOWN),
        ({"hashrate": None, "wattage": 3000.0, "is_mining": True}, MinerState.UNKNOWN),
        ({"hashrate": rate(0.0), "wattage": 3000.0, "is_mining": True}, MinerState.IDLE),
        ({"hashrate": rate(100.0), "is_mining": False}, MinerState.HASHING),
        ({"hashrate": rate("much"), "is_mining": True}, MinerState.UNKNOWN),
        ({"hashrate": rate(1, "furlong"), "is_mining": True}, MinerState.UNKNOWN),
        ({"hashrate": 5, "operating_state": "hashing"}, MinerState.UNKNOWN),
    ],
)
def test_the_librarys_verdict_is_not_heard(data: dict[str, object], state: MinerState) -> None:
    seen = observation_of(data)
    assert seen.state is state
    assert (seen.reason is Reason.NONE) == (state is MinerState.HASHING)


def test_all_that_the_library_tells_is_taken() -> None:
    seen = observation_of(
        {
            "mac": "02:A1:04:00:00:00", "serial_number": "SN1", "hostname": "h", "firmware_version": "1.2",
            "device_info": {"make": "Auradine", "model": "AT1500"}, "hashrate": rate(150000, "GH/s"),
            "expected_hashrate": rate(160.0), "wattage": 2000, "uptime": 77,
            "fans": [{"position": 0, "rpm": 5280.0}, {"position": 1, "rpm": None}], "psu_fans": [{"rpm": 6000.0}],
            "hashboards": [{"board_temperature": 60.5, "inlet_chip_temperature": 50.0, "outlet_chip_temperature": 70.0}],
            "tuning_target": {"type": "power", "value": 2000.0},
            "pools": [{"pools": [{"accepted_shares": 5, "rejected_shares": 1}, {"accepted_shares": None}]}],
        }
    )  # fmt: skip
    assert (seen.identities, seen.model, seen.firmware) == (("02:a1:04:00:00:00", "sn1"), "Auradine AT1500", "1.2")
    assert (seen.hashrate_ths, seen.expected_ths, seen.power_w, seen.power_limit_w) == (150.0, 160.0, 2000.0, 2000.0)
    assert (seen.fans_rpm, seen.psu_fans_rpm, seen.board_temps_c, seen.chip_temps_c) == (
        (5280,),
        (6000,),
        (60.5,),
        (50.0, 70.0),
    )
    assert ([pool.accepted for pool in seen.pools], seen.uptime_s, seen.boards) == ([5, None], 77, 1)
    assert seen.power_source is PowerSource.ESTIMATE


json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
KEYS = ("hashrate", "wattage", "fans", "hashboards", "pools", "device_info", "mac", "uptime", "tuning_target")


@given(st.dictionaries(st.sampled_from(KEYS), json_like))
def test_no_document_raises(data: dict[str, object]) -> None:
    observation_of(data)
