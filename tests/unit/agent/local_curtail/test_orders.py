"""Commands beside the policy: begun durably, seen to their end, once what is once, rack by rack what is firmware."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.cgminer.control.driver import Result, Wanted
from agent.errors import AccessDenied, Garbled, Refused, Transient, UnsupportedDevice, WrongDevice
from agent.local_curtail import orders as module
from agent.local_curtail.books import Books
from agent.local_curtail.chain import Chain
from agent.local_curtail.orders import Orders
from agent.local_curtail.ramp import SitePace
from agent.local_curtail.reach import Reach
from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.schema import schema
from agent.local_curtail.site_time import SiteTime
from agent.local_curtail.staging import staged
from agent.precedence import Precedence
from sitelink.clock import ManualClock
from sitelink.orders import write_time
from sitelink.signing import KeyRing, PrivateKey
from sitelink.types import Command, Domain, Evidence, Fallback, Outcome, SignedTime, Verb
from sitelink.units import Watts
from tests.unit.agent.storage_fakes import Crash, CrashPoint, InlineWriter
from tests.veiled import Veiled

pytestmark = pytest.mark.agent

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = PrivateKey.generate()
DONE = Result(Outcome.COMPLETE, Evidence.DEVICE_STATE, "as_ordered")
FAILED = Result(Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "not_shown")
SHA = "0" * 64


class Told:
    """One miner's control: ``answers`` are given in turn, an exception is raised; the last one stays."""

    def __init__(self) -> None:
        self.answers: list[object] = [DONE]
        self.carried: list[tuple[Verb, dict[str, str], str]] = []
        self.kept = "former"
        self.gate: asyncio.Event | None = None
        self.refuses_before_sending = False

    async def identity(self) -> str: ...
    async def stop(self) -> None: ...
    async def start(self) -> None: ...
    async def observe(self) -> object: ...

    async def carry_out(
        self, wanted: Wanted, keep: Callable[[str], Awaitable[None]], *, kept: str = "", deadline_s: float | None = None
    ) -> Result:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        self.carried.append((wanted.verb, dict(wanted.parameters), kept))
        await keep(kept or self.kept)
        if self.gate is not None:
            await self.gate.wait()
        return answer


class Images:
    def __init__(self) -> None:
        self.there = True
        self.read = 0
        self.logs: list[tuple[str, str, bytes]] = []

    async def image(self, file: str, sha256: str) -> bytes:
        self.read += 1
        if not self.there:
            raise Refused("image_missing", "none")
        return b"image"

    async def keep_logs(self, miner_id: str, command_id: str, content: bytes) -> None:
        self.logs.append((miner_id, command_id, content))


@dataclass
class Rig:
    racks: dict[str, str] = field(default_factory=lambda: {"m1": "A", "m2": "A", "m3": "B"})
    max_step_w: float = 0.0
    never_touch: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.writer = InlineWriter()
        self.clock = ManualClock(T0)
        self.controls = {name: Told() for name in self.racks}
        self.files = Images()
        self.veiled = Veiled()
        self.writer.connection.execute("CREATE TABLE acks (command, miner, outcome, reason)")
        self.commands: tuple[Command, ...] = ()

    async def life(self) -> Orders:
        """One process."""
        await self.writer.run(schema)
        site_time = SiteTime(self.writer, self.clock, "s", KeyRing((KEY.public_bytes,)))
        signed = SignedTime("s", "n", self.clock.now())
        await site_time.learn(KEY.sign(Domain.TIME, write_time(signed)), self.clock.monotonic(), self.clock.monotonic())
        self.books = Books(self.writer, self, lambda: "id", site_time)
        await self.books.load()
        rules = SiteRules("s", "a", self.never_touch, 3600.0, Watts(self.max_step_w), Fallback.RUN, 0.0)
        miners = {name: SiteMiner(name, "F", Watts(3000), True, rack) for name, rack in self.racks.items()}
        reach = Reach(self.controls.__getitem__, 8, Precedence(self.clock))
        orders = Orders(
            self.writer,
            self.books,
            reach,
            self.files,
            miners,
            rules,
            self.clock,
            site_time,
            self.veiled,
            SitePace(rules.pace),
            Chain(lambda: "id"),
        )
        await orders.load()
        return orders

    def append_in(self, connection: sqlite3.Connection, body: object) -> None:
        rows = [(ack.order_id, ack.miner_id, ack.outcome.value, ack.reason) for ack in body.acks]
        connection.executemany("INSERT INTO acks VALUES (?, ?, ?, ?)", rows)

    @property
    def acks(self) -> list[tuple[str, str, Outcome, str]]:
        rows = self.writer.connection.execute("SELECT * FROM acks")
        return [(command, miner, Outcome(outcome), reason) for command, miner, outcome, reason in rows]

    async def once(self, orders: Orders) -> None:
        """One round, all its work done."""
        chosen = await orders.round(self.commands)
        orders._in_flight |= {task.key for task in chosen}
        await asyncio.gather(*(orders._work_on(task) for task in chosen))

    def order(self, verb: Verb, *miners: str, minutes: float = 10, name: str = "k", **parameters: str) -> None:
        now = self.clock.now()
        until = now + timedelta(minutes=minutes)
        order = Command(
            name, "s", "a", 1, len(self.commands) + 1, now, until, verb, miners, "why", tuple(parameters.items())
        )
        self.commands = (*self.commands, order)

    def pass_s(self, seconds: float) -> None:
        self.clock.advance(seconds)


async def test_an_order_reaches_each_miner_with_what_it_says_and_ends_with_one_ack() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.order(Verb.LIMIT, "m1", "m2", "m1", power_w="2500")
    await rig.once(orders)
    await rig.once(orders)
    assert rig.controls["m1"].carried == [(Verb.LIMIT, {"power_w": "2500"}, "")]
    assert sorted(rig.acks) == [
        ("k", "m1", Outcome.COMPLETE, "as_ordered"),
        ("k", "m2", Outcome.COMPLETE, "as_ordered"),
    ]


async def test_the_passwords_of_pools_lie_on_the_disk_sealed_and_only_until_the_order_has_ended() -> None:
    rig = Rig()
    orders = await rig.life()
    pools = '[{"url": "stratum+tcp://a.example:1", "user": "u", "password": "hush"}]'
    rig.controls["m1"].kept = '{"pools": [{"pass": "hush-before"}]}'
    rig.controls["m1"].answers = [Transient("away"), DONE]
    rig.order(Verb.POOLS, "m1", pools=pools)
    rig.controls["m1"].gate = asyncio.Event()
    await rig.once(orders)
    rig.pass_s(60)
    working = asyncio.create_task(rig.once(orders))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    while not rig.controls["m1"].carried:
        await asyncio.sleep(0)
    dump = "\n".join(rig.writer.connection.iterdump())
    assert ("veiled:parameters" in dump, "veiled:kept" in dump, "hush" in dump) == (True, True, False)
    rig.controls["m1"].gate.set()
    await working
    assert rig.controls["m1"].carried == [(Verb.POOLS, {"pools": pools}, "")]
    assert "veiled" not in "\n".join(rig.writer.connection.iterdump())


async def test_stop_and_start_are_left_to_the_policy() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.order(Verb.STOP, "m1")
    await rig.once(orders)
    assert (rig.controls["m1"].carried, rig.acks) == ([], [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (WrongDevice("other"), "wrong_device"),
        (AccessDenied("code 45"), "access_denied"),
        (UnsupportedDevice("no such verb"), "unsupported"),
        (Garbled("noise"), "garbled"),
        (Refused("untuned_preset", "no"), "untuned_preset"),
    ],
)
async def test_what_will_not_help_to_repeat_ends_with_its_reason(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    orders = await rig.life()
    rig.controls["m1"].answers = [error]
    rig.order(Verb.BLINK, "m1", on="true")
    for _ in range(3):
        await rig.once(orders)
        rig.pass_s(120)
    assert rig.acks == [("k", "m1", Outcome.REFUSED, reason)]
    assert f"blink of m1: {reason}: {error}" in caplog.messages


async def test_a_silent_miner_is_asked_again_less_and_less_often_until_the_order_expires() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.controls["m1"].answers = [Transient("off")]
    rig.order(Verb.LIMIT, "m1", mode="low")
    asked = 0
    for _ in range(700):
        chosen = await orders.round(rig.commands)
        asked += len(chosen)
        await asyncio.gather(*(orders._work_on(task) for task in chosen))
        rig.pass_s(1)
    assert 8 <= asked <= 20
    assert rig.acks == [("k", "m1", Outcome.EXPIRED, "expired")]


async def test_what_has_begun_is_seen_to_its_end_though_its_command_has_expired() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.controls["m1"].gate = gate = asyncio.Event()
    rig.order(Verb.REBOOT, "m1", minutes=1)
    (task,) = await orders.round(rig.commands)
    orders._in_flight.add(task.key)
    working = asyncio.create_task(orders._work_on(task))
    await asyncio.sleep(0)
    rig.pass_s(120)
    rig.commands = ()
    assert await orders.round(rig.commands) == []
    gate.set()
    await working
    assert rig.acks == [("k", "m1", Outcome.COMPLETE, "as_ordered")]


async def test_a_kill_after_the_order_was_begun_hands_what_was_kept_to_the_next_life() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.controls["m1"].gate = asyncio.Event()
    rig.order(Verb.REBOOT, "m1")
    (task,) = await orders.round(rig.commands)
    working = asyncio.create_task(orders._work_on(task))
    await asyncio.sleep(0)
    working.cancel()  # the process is gone with the order sent
    await asyncio.gather(working, return_exceptions=True)
    rig.controls["m1"].gate = None
    rig.commands = ()  # and the command has long been dropped
    rig.pass_s(3600)
    await rig.once(await rig.life())
    assert [kept for _, _, kept in rig.controls["m1"].carried] == ["", "former"]
    assert rig.acks == [("k", "m1", Outcome.COMPLETE, "as_ordered")]


@pytest.mark.parametrize("point", [CrashPoint.BEFORE_COMMIT, CrashPoint.AFTER_COMMIT])
@pytest.mark.parametrize("write", range(5))
async def test_a_kill_at_any_write_ends_in_one_ack(point: CrashPoint, write: int) -> None:
    rig = Rig()
    orders = await rig.life()
    rig.order(Verb.LIMIT, "m1", power_w="2500")
    count = 0
    whole = rig.writer.run_now

    def doomed(work: Callable[[object], object]) -> object:
        nonlocal count
        rig.writer.crash_at = point if count == write else CrashPoint.NEVER
        count += 1
        return whole(work)

    rig.writer.run_now = doomed
    with suppress(Crash):
        await rig.once(orders)
    rig.writer.run_now = whole
    await rig.once(await rig.life())
    assert rig.acks == [("k", "m1", Outcome.COMPLETE, "as_ordered")]


async def test_the_same_command_again_ends_in_nothing() -> None:
    rig = Rig()
    rig.order(Verb.REBOOT, "m1")
    await rig.once(await rig.life())
    await rig.once(await rig.life())
    assert len(rig.controls["m1"].carried) == 1
    assert len(rig.acks) == 1


async def test_a_curtailed_miner_is_not_rebooted_but_may_blink() -> None:
    rig = Rig()
    orders = await rig.life()
    held = MinerRecord("m1", Verb.STOP, "curtailment", 1, "plan")
    rig.books._miners["m1"] = held
    rig.order(Verb.REBOOT, "m1", name="k1")
    await rig.once(orders)
    rig.order(Verb.BLINK, "m1", name="k2", on="true")
    await rig.once(orders)
    assert [verb for verb, _, _ in rig.controls["m1"].carried] == [Verb.BLINK]
    rig.books._miners["m1"] = MinerRecord("m1", Verb.START, "curtailment", 1, "released")
    await rig.once(orders)
    assert [verb for verb, _, _ in rig.controls["m1"].carried] == [Verb.BLINK, Verb.REBOOT]


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.START])
async def test_a_log_waits_while_its_miner_is_being_switched(verb: Verb) -> None:
    rig = Rig()
    orders = await rig.life()
    sent = MinerRecord("m1", verb, "curtailment", 1, "plan", phase=Phase.SENT)
    rig.books._miners["m1"] = sent
    rig.order(Verb.LOGS, "m1")
    await rig.once(orders)
    assert rig.controls["m1"].carried == []
    rig.books._miners["m1"] = replace(sent, phase=Phase.DONE, outcome=Outcome.UNVERIFIED)
    await rig.once(orders)
    assert [verb for verb, _, _ in rig.controls["m1"].carried] == [Verb.LOGS]


async def test_no_more_than_the_sites_step_is_taken_off_at_once() -> None:
    rig = Rig(racks={f"m{number}": "A" for number in range(8)}, max_step_w=7000.0)
    orders = await rig.life()
    rig.order(Verb.REBOOT, *rig.racks, name="k1")
    rig.order(Verb.BLINK, *rig.racks, name="k2", on="true")
    chosen = await orders.round(rig.commands)
    assert sum(task.verb is Verb.REBOOT for task in chosen) == 2
    assert sum(task.verb is Verb.BLINK for task in chosen) == 6  # one order at a time a miner


async def test_a_miner_above_the_sites_step_still_gets_its_turn_alone() -> None:
    rig = Rig(max_step_w=100.0)
    orders = await rig.life()
    rig.order(Verb.REBOOT, "m1", "m2")
    assert len(await orders.round(rig.commands)) == 1


async def test_a_few_at_a_time() -> None:
    rig = Rig(racks={f"m{number:02}": "A" for number in range(40)})
    orders = await rig.life()
    rig.order(Verb.LIMIT, *rig.racks, mode="low")
    assert len(await orders.round(rig.commands)) == 16


FIRMWARE = {"file": "fw.bin", "sha256": SHA, "version": "2"}


async def test_new_firmware_goes_to_the_next_rack_once_the_first_is_whole() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.order(Verb.FIRMWARE, "m1", "m2", "m3", **FIRMWARE)
    assert [task.miner_id for task in await orders.round(rig.commands)] == ["m1", "m2"]
    await rig.once(orders)
    assert rig.controls["m3"].carried == []
    await rig.once(orders)
    assert {ack[1]: ack[2] for ack in rig.acks} == dict.fromkeys(("m1", "m2", "m3"), Outcome.COMPLETE)


async def test_one_image_is_read_once_for_a_whole_rack_and_let_go_at_the_end() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.order(Verb.FIRMWARE, "m1", "m2", **FIRMWARE)
    await rig.once(orders)
    assert (rig.files.read, orders._image) == (1, None)


async def test_whose_turn_it_is_is_worked_out_once_a_round_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(racks={f"m{number:04}": f"R{number // 20}" for number in range(500)})
    orders = await rig.life()
    rig.order(Verb.FIRMWARE, *rig.racks, minutes=600, **FIRMWARE)
    asked = []
    monkeypatch.setattr(module, "staged", lambda *given: asked.append(1) or staged(*given))
    await orders.round(rig.commands)
    await orders.round(rig.commands)
    assert len(asked) == 2


async def test_what_ended_long_ago_is_forgotten_in_memory_too() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.order(Verb.BLINK, "m1", name="old", on="true")
    await rig.once(orders)
    rig.commands = ()
    rig.pass_s(8 * 86_400)
    rig.order(Verb.BLINK, "m1", name="new", on="true")
    await rig.once(orders)
    assert [command for command, _ in orders._tasks] == ["new"]


async def test_a_rack_that_is_not_whole_holds_the_others_back_with_a_reason() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.controls["m2"].answers = [FAILED]
    rig.order(Verb.FIRMWARE, "m1", "m2", "m3", **FIRMWARE)
    for _ in range(3):
        await rig.once(orders)
    assert rig.controls["m3"].carried == []
    assert ("k", "m3", Outcome.REFUSED, "rack_before_failed") in rig.acks


async def test_one_rack_goes_first_however_many_commands_it_takes() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.order(Verb.FIRMWARE, "m1", "m2", name="rack-a", **FIRMWARE)
    rig.order(Verb.FIRMWARE, "m3", name="rack-b", **FIRMWARE)
    await rig.once(orders)
    assert rig.controls["m3"].carried == []
    await rig.once(orders)
    assert ("rack-b", "m3", Outcome.COMPLETE, "as_ordered") in rig.acks


async def test_a_rack_that_failed_ends_the_commands_that_waited_for_it_but_none_given_since() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.controls["m1"].answers = [FAILED]
    rig.order(Verb.FIRMWARE, "m1", "m2", name="rack-a", **FIRMWARE)
    rig.order(Verb.FIRMWARE, "m3", name="rack-b", **FIRMWARE)
    rig.pass_s(5)
    for _ in range(3):
        await rig.once(orders)
    assert ("rack-b", "m3", Outcome.REFUSED, "rack_before_failed") in rig.acks
    assert rig.controls["m3"].carried == []
    rig.pass_s(60)
    rig.order(Verb.FIRMWARE, "m3", name="rack-b again", **FIRMWARE)
    orders = await rig.life()  # whoever comes back knows it as well
    await rig.once(orders)
    assert ("rack-b again", "m3", Outcome.COMPLETE, "as_ordered") in rig.acks


async def test_what_has_begun_is_seen_to_its_end_though_another_command_goes_first() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.order(Verb.FIRMWARE, "m3", name="z", **FIRMWARE)
    rig.controls["m3"].gate = asyncio.Event()
    killed = asyncio.create_task(rig.once(orders))
    while not rig.controls["m3"].carried:
        await asyncio.sleep(0)
    killed.cancel()
    with suppress(asyncio.CancelledError):
        await killed
    rig.controls["m3"].gate = None
    rig.order(Verb.FIRMWARE, "m1", name="a", **FIRMWARE)  # of the same second, and before it by name
    orders = await rig.life()
    await rig.once(orders)
    assert ("z", "m3", Outcome.COMPLETE, "as_ordered") in rig.acks


async def test_an_image_that_is_not_there_is_refused_before_anything_is_sent() -> None:
    rig = Rig()
    rig.files.there = False
    orders = await rig.life()
    rig.order(Verb.FIRMWARE, "m1", **FIRMWARE)
    await rig.once(orders)
    assert rig.controls["m1"].carried == []
    assert rig.acks == [("k", "m1", Outcome.REFUSED, "image_missing")]


async def test_fetched_logs_are_kept_before_they_are_acknowledged() -> None:
    rig = Rig()
    orders = await rig.life()
    rig.controls["m1"].answers = [Result(Outcome.COMPLETE, Evidence.DEVICE_STATE, "logs_received", content=b"line")]
    rig.order(Verb.LOGS, "m1")
    await rig.once(orders)
    assert rig.files.logs == [("m1", "k", b"line")]
    assert rig.acks == [("k", "m1", Outcome.COMPLETE, "logs_received")]


async def test_a_miner_that_left_or_must_not_be_touched_is_answered_for() -> None:
    rig = Rig(never_touch=frozenset({"m2"}))
    orders = await rig.life()
    rig.order(Verb.BLINK, "gone", "m2", on="true")
    await rig.once(orders)
    assert sorted(rig.acks) == [
        ("k", "gone", Outcome.REFUSED, "not_in_inventory"),
        ("k", "m2", Outcome.REFUSED, "not_in_inventory"),
    ]


@asynccontextmanager
async def running(orders: Orders, rig: Rig) -> AsyncIterator[None]:
    task = asyncio.create_task(orders.run(lambda: rig.commands))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_runs_by_itself_and_a_defect_of_one_miner_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    orders = await rig.life()
    rig.controls["m1"].answers = [ZeroDivisionError("a bug")]
    rig.order(Verb.BLINK, "m1", "m2", on="true")
    async with running(orders, rig), asyncio.timeout(5):
        while not rig.acks:
            await asyncio.sleep(0.005)
    assert rig.acks == [("k", "m2", Outcome.COMPLETE, "as_ordered")]
    assert "defect of ours" in caplog.text
