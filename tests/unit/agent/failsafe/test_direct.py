import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.cgminer.observation import Observation
from agent.errors import AccessDenied, BadInput, TimedOut
from agent.failsafe import direct as module
from agent.failsafe import ledger as ledger_module
from agent.failsafe import readings as readings_module
from agent.failsafe import settling as settling_module
from agent.failsafe.direct import Failsafe
from agent.failsafe.ledger import Intent, Ledger
from agent.failsafe.sights import Around, show
from agent.local_curtail import overrides, policy
from agent.local_curtail.heat import HeatLimit, HeatRules
from agent.local_curtail.records import Phase, miner_of
from agent.local_curtail.schema import schema
from agent.storage import connect, in_transaction
from sitelink.clock import ManualClock
from sitelink.inventory import MinerEntry
from sitelink.types import MeterSample, MinerState, Reason, Verb
from sitelink.units import Watts

ROOT = Path(__file__).parents[4]
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Seen:
    state: MinerState
    power_w: Watts
    reason: Reason = Reason.NONE
    hashrate_ths: float | None = None
    uptime_s: int | None = None
    shown_s: tuple | None = None


@dataclass
class FakeControl:
    liar: bool = False
    off: bool = False
    orders: list = field(default_factory=list)
    name: str = ""

    async def identity(self):
        return self.name

    async def stop(self):
        self.off = True

    async def start(self):
        self.off = False

    async def observe(self):
        return Seen(MinerState.IDLE, Watts(50)) if self.off else Seen(MinerState.HASHING, Watts(3000))


class FakeMeter:
    def __init__(self, controls):
        self.controls = controls

    async def read(self):
        power = sum(50 if control.off and not control.liar else 3000 for control in self.controls)
        return MeterSample("meter", T0, Watts(power))


def entry(name, dialect="luxos", feeder="F1"):
    return MinerEntry(name, "127.0.0.1", 4028, dialect, "S19", feeder, "R1", 1, Watts(3000), None)


class Running(ManualClock):
    """Runs on a little with each question; the wall clock stands."""

    def monotonic(self):
        self.mono += 0.01
        return self.mono


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Looks come after one another at once."""
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    monkeypatch.setattr(settling_module, "LOOK_S", 0.001)
    monkeypatch.setattr(settling_module, "_SETTLE_S", 1.0)
    monkeypatch.setattr(readings_module, "_SAMPLE_S", 0.0)


class Rig:
    """A failsafe over fake miners, with a ledger in a file of its own."""

    def __init__(self, tmp_path, controls, never_touch=()):
        self.told = []
        self.settings = SimpleNamespace(
            control=SimpleNamespace(idle_share=0.15, device_deadline_s=5.0),
            limits=SimpleNamespace(max_step_w=Watts(0), max_per_min_w=Watts(0)),
            database=tmp_path / "state" / "agent.db",
        )
        self.clock = Running(T0, 10.0)
        self.controls = controls
        self.never_touch = frozenset(never_touch)
        self.number = 0
        self.beside = ()
        self.heat = HeatRules(HeatLimit(board_c=75.0))

    def new_id(self):
        self.number += 1
        return f"id-{self.number}"

    async def switch(self, verb, entries, named=None, order_id="failsafe-1"):
        async with self.ledger() as ledger:
            await ledger.override(order_id, verb, named, timedelta(hours=4))
            return await self.failsafe(ledger).switch(verb, entries, order_id)

    async def status(self, entries):
        async with self.ledger(read_only=True) as ledger:
            return show(await self.failsafe(ledger).looks(entries), Around(), self.told.append)

    def ledger(self, *, read_only=False):
        feeders = {"F1": [*self.controls]}
        rest = (self.settings, self.clock, self.new_id, self.told.append)
        return Ledger(*rest, feeders=feeders, read_only=read_only)

    def failsafe(self, ledger):
        meters = {"F1": FakeMeter(list(self.controls.values()))}
        for name, control in self.controls.items():
            control.name = control.name or name
        rest = (self.settings, self.never_touch, self.controls, meters, self.clock, ledger, self.told.append)
        return Failsafe(*rest, fleet=tuple(entry(name) for name in self.beside), heat=self.heat)

    @property
    def out(self):
        return "\n".join(self.told)

    def rows(self, query):
        with closing(sqlite3.connect(self.settings.database)) as stored:
            return stored.execute(query).fetchall()

    def records(self):
        return {row[0]: miner_of(row[1]) for row in self.rows("SELECT miner_id, record FROM curtail_miners")}


async def test_off_leaves_an_override_and_proves_each_miner(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(), "m2": FakeControl()})
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2"))) == 0
    assert rig.out.count("off, its feeder's meter agrees") == 2
    stored = sqlite3.connect(rig.settings.database)
    (active,) = overrides.active(stored, rig.clock)
    assert (active.override.verb, active.override.miner_ids) == (Verb.STOP, None)
    rig.clock.step(-99_999)  # a stepped clock does not prolong it
    rig.clock.advance(4 * 3600)
    assert overrides.active(stored, rig.clock) == ()
    stored.close()


async def test_an_override_ends_by_the_wall_clock_after_a_reboot_and_a_released_one_never_comes_back(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl()})
    await rig.switch(Verb.STOP, (entry("m1"),))
    stored = sqlite3.connect(rig.settings.database, isolation_level=None)
    rig.clock.reboot("boot-2", T0 + timedelta(hours=3))
    assert len(overrides.active(stored, rig.clock)) == 1
    rig.clock.step(3600)
    assert overrides.active(stored, rig.clock) == ()
    rig.clock.step(-7200)
    assert overrides.release(stored, None, ("m1",), rig.clock) == ("failsafe-1",)
    rig.clock.reboot("boot-1", T0 - timedelta(days=30))
    assert overrides.active(stored, rig.clock) == ()
    stored.close()


async def test_what_was_done_stands_in_the_daemons_own_books(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(), "m2": FakeControl(off=True)})
    await rig.switch(Verb.STOP, (entry("m1"), entry("m2")))
    m1, m2 = rig.records()["m1"], rig.records()["m2"]
    assert (m1.verb, m1.order_id, m1.cause, m1.touched, m1.phase) == (
        Verb.STOP, "failsafe-1", policy.OVERRIDE, True, Phase.SENT
    )  # fmt: skip
    assert (m1.baseline_w, m1.feeder_before_w, m1.off_since) == (3000, 3050, T0)
    assert (m1.outcome, m2.baseline_w) == (None, None), "the daemon reads back itself"
    rig.clock.advance(60)
    await rig.switch(Verb.START, (entry("m1"),), frozenset({"m1"}), "failsafe-2")
    m1 = rig.records()["m1"]
    assert (m1.verb, m1.order_id, m1.touched, m1.off_since, m1.phase) == (
        Verb.START, "failsafe-2", False, None, Phase.WAITING
    )  # fmt: skip
    unsent = [(kind, json.loads(record)) for kind, record in rig.rows("SELECT kind, record FROM curtail_unsent")]
    assert [(one["order_id"], one["outcome"]) for kind, one in unsent if kind == "ack"] == [("failsafe-1", "expired")]
    events = rig.rows("SELECT event, miner_id FROM curtail_by_hand WHERE order_id = 'failsafe-2'")
    assert events == [("ordered", ""), ("sending", "m1"), ("proven", "m1"), ("ended", "")]


async def test_intents_that_come_together_share_a_wait_for_the_disk(tmp_path, monkeypatch):
    transactions = []
    real = ledger_module.in_transaction
    monkeypatch.setattr(ledger_module, "in_transaction", lambda *work: transactions.append(1) or real(*work))
    names = [f"m{number}" for number in range(256)]
    rig = Rig(tmp_path, {name: FakeControl() for name in names})
    assert await rig.switch(Verb.STOP, tuple(entry(name) for name in names)) == 0
    assert len(rig.records()) == len(names)
    assert len(rig.rows("SELECT 1 FROM curtail_by_hand")) == 2 * len(names) + 2, (
        "each sent, each found, one order, its end"
    )
    assert len(transactions) < 20


async def test_the_figures_of_a_stranger_are_not_shown_as_the_miners_own(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(), "m2": FakeControl(name="02:00:00:00:00:99")})
    assert await rig.status((entry("m1"), entry("m2"))) == 1
    line = next(line for line in rig.told if line.startswith("m2"))
    assert "02:00:00:00:00:99 answers where the inventory has m2" in line
    assert "unknown" in line
    assert "3000 W" not in line
    async with rig.ledger() as ledger:
        assert set(await rig.failsafe(ledger).figures((entry("m1"), entry("m2")))) == {"m1"}


async def test_an_intent_is_on_disk_before_its_order_is_sent(tmp_path):
    rig = Rig(tmp_path, {})
    seen = []

    class Looking(FakeControl):
        async def stop(self):
            seen.extend(record.touched for record in rig.records().values())
            await super().stop()

    rig.controls["m1"] = Looking()
    await rig.switch(Verb.STOP, (entry("m1"),))
    assert seen == [True]


async def test_a_miner_that_refused_is_not_taken_for_stopped(tmp_path):
    class Locked(FakeControl):
        async def stop(self):
            raise AccessDenied("its password is another; write it with credentials set")

    rig = Rig(tmp_path, {"m1": Locked()})
    assert await rig.switch(Verb.STOP, (entry("m1"),)) == 1
    m1 = rig.records()["m1"]
    assert (m1.touched, m1.off_since, m1.phase) == (False, None, Phase.WAITING)
    assert "credentials set" in rig.out
    told = rig.rows("SELECT event, detail FROM curtail_by_hand WHERE miner_id = 'm1'")
    assert [event for event, _ in told] == ["sending", "unproven"]
    assert told[-1][1].startswith("nothing was changed there: "), "the journal claims no order that never took effect"


@pytest.mark.parametrize("verb", [Verb.START, Verb.STOP])
@pytest.mark.parametrize("never_touch", [(), ("m1",)])
async def test_another_miner_that_answers_proves_nothing(tmp_path, verb, never_touch):
    """An outlet's order, or one of a firmware that asks no name, goes out unasked: what runs there may be a stranger."""
    rig = Rig(tmp_path, {"m1": FakeControl(name="another")}, never_touch)
    assert await rig.switch(verb, (entry("m1"),)) == 1
    assert "another answers where the inventory has m1" in rig.out or (never_touch and verb is Verb.STOP)
    assert ("unproven",) in rig.rows("SELECT event FROM curtail_by_hand")
    assert ("proven",) not in rig.rows("SELECT event FROM curtail_by_hand")


@pytest.mark.parametrize("verb", [Verb.START, Verb.STOP])
async def test_one_whose_name_is_closed_to_us_is_not_taken_at_the_lists_word(tmp_path, verb):
    class Closed(FakeControl):
        async def identity(self):
            raise AccessDenied("names neither MAC nor serial; the rest is closed to us: give its group credentials")

    rig = Rig(tmp_path, {"m1": Closed()})
    assert await rig.switch(verb, (entry("m1"),)) == 1
    assert "give its group credentials" in rig.out


async def test_what_was_sent_before_an_interruption_is_recorded(tmp_path):
    class Stuck(FakeControl):
        async def observe(self):
            await asyncio.Event().wait()

    rig = Rig(tmp_path, {"m1": FakeControl(), "m2": Stuck()})
    task = asyncio.create_task(rig.switch(Verb.STOP, (entry("m1"), entry("m2"))))
    async with asyncio.timeout(10):
        while not rig.controls["m1"].off:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "interrupted: 1 of 2 miners were ordered" in rig.out
    assert set(rig.records()) == {"m1"}
    assert ("sending", "m1") in rig.rows("SELECT event, miner_id FROM curtail_by_hand")


async def test_a_lie_is_caught_by_the_feeder_and_an_unswitchable_miner_is_named(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(liar=True), "m2": FakeControl(), "m3": FakeControl()})
    entries = (entry("m1"), entry("m2"), entry("m3", "hiveon", "F2"))
    assert await rig.switch(Verb.STOP, entries, frozenset({"m1", "m2", "m3"})) == 1
    assert "feeder F1 fell by 2950 W, its miners claim 5900 W: it still draws about 2950 W" in rig.out
    assert "not proven off: m1, m2, m3" in rig.out
    assert "waiting for the meter of F1 to show the fall, 1 s at most" in rig.out
    assert not rig.controls["m3"].off


async def test_never_touch_holds_and_a_broken_database_stops_nobody(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(), "m2": FakeControl()}, never_touch=("m2",))
    rig.settings.database.mkdir(parents=True)
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2"))) == 1
    assert rig.out.count("takes nothing") == 1
    assert "start these miners yourself afterwards" in rig.out
    assert (rig.controls["m1"].off, rig.controls["m2"].off) == (True, False)


async def test_a_disk_that_fills_in_the_middle_stops_nobody(tmp_path):
    controls = {f"m{n}": FakeControl() for n in range(5)}
    rig = Rig(tmp_path, controls)
    async with rig.ledger() as ledger:
        await ledger.override("failsafe-1", Verb.STOP, None, timedelta(hours=1))
        ledger._connection.execute("PRAGMA max_page_count = 1")
        ledger._connection.execute("PRAGMA wal_autocheckpoint = 1")
        size = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
        ledger._connection.execute(f"PRAGMA max_page_count = {size}")
        padded = {name: replace(entry(name), miner_id=name + "x" * 3000) for name in controls}
        rig.controls = {padded[name].miner_id: control for name, control in controls.items()}
        assert await rig.failsafe(ledger).switch(Verb.STOP, tuple(padded.values()), "failsafe-1") == 0
        assert not ledger.usable
    assert rig.out.count("takes nothing") == 1
    assert all(control.off for control in controls.values())


def corrupt(path, table):
    """Overwrite the page that holds `table`."""
    stored = connect(path)
    in_transaction(stored, schema)
    (root,) = stored.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    (size,) = stored.execute("PRAGMA page_size").fetchone()
    stored.close()
    content = bytearray(path.read_bytes())
    content[(root - 1) * size : root * size] = b"\xff" * size
    path.write_bytes(content)


@pytest.mark.parametrize("table", ["curtail_overrides", "curtail_miners", "curtail_clock"])
async def test_a_corrupt_page_keeps_no_order_back(tmp_path, table):
    rig = Rig(tmp_path, {"m1": FakeControl(off=True)})
    rig.settings.database.parent.mkdir()
    corrupt(rig.settings.database, table)
    assert await rig.switch(Verb.START, (entry("m1"),)) == 0
    assert "agent.db takes nothing" in rig.out
    assert not rig.controls["m1"].off


async def test_a_record_of_another_form_keeps_no_order_back(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl()})
    rig.settings.database.parent.mkdir()
    stored = connect(rig.settings.database)
    in_transaction(stored, schema)
    stored.execute("INSERT INTO curtail_miners VALUES ('m1', '{\"verb\": 7}')")
    stored.close()
    assert await rig.switch(Verb.STOP, (entry("m1"),)) == 0
    assert "agent.db takes nothing" in rig.out


async def test_beside_a_dead_meter_a_stop_stays_open_and_no_feeder_is_in_the_books(tmp_path, monkeypatch):
    async def silent(_):
        return MeterSample("meter", T0, None)

    monkeypatch.setattr(FakeMeter, "read", silent)
    rig = Rig(tmp_path, {"m1": FakeControl()})
    assert await rig.switch(Verb.STOP, (entry("m1"),)) == 1
    assert rig.controls["m1"].off
    assert (
        "feeder F1: its meter did not answer, so its stops stay open; look at that meter, or measure them at the rack"
        in rig.out
    )
    assert (rig.records()["m1"].feeder_before_w, rig.records()["m1"].baseline_w) == (None, 3000)


async def test_a_meter_that_never_answers_holds_up_no_order(tmp_path, monkeypatch):
    never = asyncio.Event()
    asked = []

    async def hung(_):
        asked.append(1)
        await never.wait()

    monkeypatch.setattr(FakeMeter, "read", hung)
    monkeypatch.setattr(readings_module, "_BEFORE_S", 0.05)
    rig = Rig(tmp_path, {"m1": FakeControl()})
    async with asyncio.timeout(5):
        assert await rig.switch(Verb.STOP, (entry("m1"),)) == 1
    assert rig.controls["m1"].off
    assert len(asked) == 1, "a meter that was silent before can prove nothing after, and is not asked"
    assert "its meter did not answer" in rig.out


async def test_a_lost_packet_at_the_first_look_leaves_nobody_running(tmp_path):
    class Lossy(FakeControl):
        looks = 0

        async def observe(self):
            self.looks += 1
            if self.looks == 1:
                raise TimedOut("no answer within 5 s")
            return await super().observe()

    rig = Rig(tmp_path, {"m1": Lossy()})
    assert await rig.switch(Verb.STOP, (entry("m1"),)) == 0
    assert rig.controls["m1"].off


async def test_one_miners_failure_is_its_own(tmp_path):
    class Exhausted(FakeControl):
        async def observe(self):
            raise OSError(24, "Too many open files")

    rig = Rig(tmp_path, {"m1": Exhausted(), "m2": FakeControl()})
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2"))) == 1
    assert rig.controls["m2"].off
    assert "failed: OSError(24, 'Too many open files')" in rig.out
    assert await rig.status((entry("m1"), entry("m2"))) == 1


def test_fewer_miners_at_a_time_where_few_files_may_be_open(monkeypatch):
    told = []
    monkeypatch.setattr(module, "open_files", lambda needed: 50)
    assert module.at_once(2, told.append) == 16
    assert "only 16 miners at a time; raise ulimit -Hn" in told[0]
    monkeypatch.setattr(module, "open_files", lambda needed: 10)
    assert module.at_once(2, told.append) == 1


async def test_on_brings_back_and_status_reads(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(off=True)})
    assert await rig.switch(Verb.START, (entry("m1"),)) == 0
    assert await rig.status((entry("m1"),)) == 0
    assert "hashing    3000 W" in rig.out


def test_it_needs_neither_grpc_nor_protobuf_nor_a_broker():
    code = (
        "import sys, agent.failsafe.run, agent.failsafe.alone\n"
        "bad = [n for n in sys.modules if n.split('.')[0] in {'grpc', 'paho', 'aiomqtt'} or n.startswith('google.protobuf')]\n"
        "sys.exit(', '.join(bad) or 0)"
    )
    path = f"{ROOT}:{ROOT / 'proto'}"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def test_a_release_with_a_broken_database_says_why_and_what_to_do(tmp_path):
    rig = Rig(tmp_path, {})
    rig.settings.database.parent.mkdir()
    rig.settings.database.write_bytes(b"not a database, but some bytes" * 200)
    async with rig.ledger() as ledger:
        with pytest.raises(BadInput, match=r"not a database.*systemctl start ballast-agent; then say this again"):
            await ledger.release(None, ["m1"])


class Slow(FakeControl):
    """Stops at once, and says so only after a few looks."""

    looks = 0

    async def observe(self):
        self.looks += 1
        if self.off and self.looks <= 2:
            return Seen(MinerState.HASHING, Watts(3000))
        return await super().observe()


@pytest.mark.parametrize("liars", [(), ("m1",), ("m4",)])
async def test_a_run_that_goes_on_from_a_killed_one_knows_what_the_feeder_drew_before(tmp_path, liars):
    names = [f"m{place}" for place in range(1, 7)]
    rig = Rig(tmp_path, {name: Slow(liar=name in liars) for name in names})
    async with rig.ledger() as ledger:  # killed: four are told to stop, nobody was looked at to the end
        killed = rig.failsafe(ledger)
        before = (await killed._settling._readings.before(["F1"]))["F1"]
        for name in names[:4]:
            await ledger.intend(Intent(name, Verb.STOP, "failsafe-0", Watts(3000), before))
            await rig.controls[name].stop()
    rig.controls["m1"].looks = 2  # this one reads off by now
    code = await rig.switch(Verb.STOP, tuple(entry(name) for name in names))
    assert "4 miners were told to stop already" in rig.out
    assert ("open" in rig.out, code) == (bool(liars), 1 if liars else 0), rig.out
    assert rig.records()["m1"].feeder_before_w == 18000


async def test_a_killed_run_of_other_miners_lends_its_fall_to_nobody(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(), "m2": FakeControl(liar=True)})
    async with rig.ledger() as ledger:
        before = (await rig.failsafe(ledger)._settling._readings.before(["F1"]))["F1"]
        await ledger.intend(Intent("m1", Verb.STOP, "failsafe-0", Watts(3000), before))
        await rig.controls["m1"].stop()
    assert await rig.switch(Verb.STOP, (entry("m2"),)) == 1
    assert "open" in rig.out


@dataclass
class Figureless(FakeControl):
    """A stock Antminer S19 Pro: its firmware tells no power."""

    async def observe(self):
        return replace(await super().observe(), power_w=None)


@pytest.mark.parametrize("neighbours", [0, 3])
async def test_a_liar_that_tells_no_power_is_not_proven_by_its_own_word(tmp_path, neighbours):
    names = [f"m{number}" for number in range(neighbours)]
    rig = Rig(tmp_path, {"liar": Figureless(liar=True)} | {name: FakeControl() for name in names})
    assert await rig.switch(Verb.STOP, (entry("liar"),)) == 1
    assert "0 of 1 miners proven off" in rig.out
    assert "it reads off, but its feeder draws as before: measure it at the rack (feeder_did_not_drop)" in rig.out
    assert "fell by 0 W, its miners claim 3000 W: it still draws about 3000 W that no miner owns up to" in rig.out
    assert rig.records()["liar"].baseline_w == 3000
    assert ("unproven", "liar") in rig.rows("SELECT event, miner_id FROM curtail_by_hand"), "not before its feeder told"


async def test_an_honest_one_that_tells_no_power_is_proven_by_its_meter_and_only_by_that(tmp_path):
    rig = Rig(tmp_path, {"m1": Figureless(), "m2": Figureless()})
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2", feeder="unmetered"))) == 1
    assert "off, its feeder's meter agrees" in rig.out
    assert "1 of 2 miners proven off" in rig.out
    assert (
        "m2  R1        unknown  unknown  open    it reads off, tells no power, and no meter vouches for it" in rig.out
    )


async def test_a_meter_that_fell_silent_vouches_for_nobody(tmp_path, monkeypatch):
    rig = Rig(tmp_path, {"m1": Figureless(), "m2": FakeControl()})
    real = FakeMeter.read

    async def dies(self):
        return await real(self) if not any(each.off for each in self.controls) else MeterSample("meter", T0, None)

    monkeypatch.setattr(FakeMeter, "read", dies)
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2"))) == 1
    assert "not proven off: m1, m2\n" in f"{rig.out}\n"
    assert "feeder F1: its meter did not answer" in rig.out


class Late(FakeMeter):
    """Shows what flowed some readings ago."""

    lag = 5

    def __init__(self, controls):
        super().__init__(controls)
        self.shown = []

    async def read(self):
        self.shown.append(await super().read())
        return self.shown[max(0, len(self.shown) - 1 - self.lag)]


async def test_a_feeder_that_shows_the_fall_late_is_read_until_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "FakeMeter", Late)
    rig = Rig(tmp_path, {"m1": FakeControl(), "m2": FakeControl()})
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2"))) == 0, rig.out
    assert "waiting for the meter of F1" in rig.out


async def test_a_miner_that_wakes_while_its_feeder_is_waited_for_is_not_proven(tmp_path, monkeypatch):
    class Waking(FakeControl):
        async def observe(self):
            seen = await super().observe()
            self.off = False
            return seen

    rig = Rig(tmp_path, {"m1": Waking(), "m2": FakeControl()})
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2"))) == 1
    # Since when it draws again nobody knows, so what is left on the meter may be the other's.
    assert "not proven off: m1, m2\n" in f"{rig.out}\n"
    assert "still hashes" in rig.out


async def test_a_run_after_one_that_ended_or_was_released_goes_on_from_none(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(), "m2": FakeControl(liar=True), "m3": FakeControl()})
    await rig.switch(Verb.STOP, (entry("m1"),), order_id="failsafe-1")
    await rig.switch(Verb.STOP, (entry("m1"), entry("m3")), order_id="failsafe-2")
    assert "going on" not in rig.out
    async with rig.ledger() as ledger:  # killed, then released: its figures are of no use either
        before = (await rig.failsafe(ledger)._settling._readings.before(["F1"]))["F1"]
        await ledger.intend(Intent("m2", Verb.STOP, "failsafe-3", Watts(3000), before))
        await ledger.override("failsafe-3", Verb.STOP, frozenset({"m2"}), timedelta(hours=1))
        await ledger.release(None, ("m1", "m2", "m3"))
    await rig.switch(Verb.STOP, (entry("m2"),), order_id="failsafe-4")
    assert "going on" not in rig.out


async def test_a_killed_run_after_one_that_ended_lends_no_figure_of_that(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(), "m2": FakeControl()})
    await rig.switch(Verb.STOP, (entry("m1"),), order_id="failsafe-1")
    rig.clock.advance(60)
    async with rig.ledger() as ledger:  # killed: m1 was off already, so nothing of it was measured
        await ledger.override("failsafe-2", Verb.STOP, None, timedelta(hours=1))
        await ledger.intend(Intent("m1", Verb.STOP, "failsafe-2"))
    await rig.switch(Verb.STOP, (entry("m1"),), order_id="failsafe-3")
    assert "going on" not in rig.out
    assert rig.records()["m1"].baseline_w == 3000, "what its feeder fell from stays known to the daemon"


async def test_a_liar_is_not_proven_by_asking_again(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(liar=True), "m2": FakeControl()})
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2"))) == 1
    rig.told.clear()
    rig.clock.advance(3600)
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2")), order_id="failsafe-2") == 1
    assert "0 of 2 miners proven off" in rig.out
    rig.controls["m1"].liar = False
    rig.told.clear()
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2")), order_id="failsafe-3") == 0, rig.out
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2")), order_id="failsafe-4") == 0, "off before"


class BehindAnOutlet(FakeControl):
    """Silent once its coil is off: nothing but the coil can be read."""

    async def observe(self):
        if not self.off:
            return Seen(MinerState.HASHING, Watts(3000))
        return Observation("antminer-web", MinerState.IDLE, Reason.COMMANDED, by_outlet=True)


@pytest.mark.parametrize(
    ("feeder", "liar", "code", "told"),
    [
        ("unmetered", False, 0, "yes     its outlet reads off (outlet_off)"),
        ("F1", False, 0, "yes     its outlet reads off, its feeder's meter agrees (outlet_off)"),
        ("F1", True, 1, "open    it reads off, but its feeder draws as before"),
    ],
)
async def test_where_only_a_coil_was_read_that_is_said(tmp_path, feeder, liar, code, told):
    rig = Rig(tmp_path, {"m1": BehindAnOutlet(liar=liar)})
    assert await rig.switch(Verb.STOP, (entry("m1", feeder=feeder),)) == code
    assert told in rig.out
    rig.told.clear()
    await rig.status((entry("m1", feeder=feeder),))
    assert "its outlet reads off" in rig.out


async def test_a_neighbour_that_trips_meanwhile_clears_no_liar(tmp_path):
    class Tripping(Figureless):
        async def stop(self):
            await super().stop()
            rig.controls["trips"].off = True

    rig = Rig(tmp_path, {"liar": Tripping(liar=True), "trips": FakeControl(), "m0": FakeControl()})
    rig.beside = ("trips", "m0")
    assert await rig.switch(Verb.STOP, (entry("liar"),)) == 1
    assert "open    it reads off, but the meter cannot tell it from its neighbours" in rig.out


@pytest.mark.parametrize(("count", "code"), [(6, 0), (20, 1)])
async def test_beside_neighbours_that_run_on_a_few_are_told_apart_and_a_silent_one_holds_up_nothing(
    tmp_path, monkeypatch, count, code
):
    class Silent(FakeControl):
        async def observe(self):
            await asyncio.Event().wait()

    monkeypatch.setattr(settling_module, "_BESIDE_S", 0.05)
    names, beside = [f"m{number}" for number in range(count)], [f"n{number}" for number in range(20)]
    rig = Rig(tmp_path, {name: FakeControl() for name in (*names, *beside)} | {"silent": Silent(off=True)})
    rig.beside = (*beside, "silent")
    assert await rig.switch(Verb.STOP, tuple(entry(name) for name in names)) == code, rig.out
    if code:
        assert "its meter cannot tell 20 of them from the others" in rig.out


async def test_a_stranger_that_idles_where_a_miner_was_stopped_proves_nothing(tmp_path):
    class Swapped(FakeControl):
        async def stop(self):
            await super().stop()
            self.name = "another"

    rig = Rig(tmp_path, {"m1": Swapped(), "m2": FakeControl()})
    assert await rig.switch(Verb.STOP, (entry("m1"), entry("m2"))) == 1
    assert "another answers where the inventory has m1" in rig.out
    assert "not proven off: m1\n" in f"{rig.out}\n"


async def test_a_start_keeps_to_the_sites_pace_and_a_stop_does_not(tmp_path):
    rig = Rig(tmp_path, {f"m{n}": FakeControl() for n in range(4)})
    rig.settings.limits.max_step_w = Watts(6000)  # two in ten seconds
    entries = tuple(entry(name) for name in rig.controls)
    began_s = rig.clock.mono
    assert await rig.switch(Verb.STOP, entries) == 0
    assert rig.clock.mono - began_s < 9
    began_s = rig.clock.mono
    assert await rig.switch(Verb.START, entries, order_id="failsafe-2") == 0
    assert 10 <= rig.clock.mono - began_s < 20
    rig.told.clear()
    assert rig.records().keys() == set(rig.controls)


@dataclass(frozen=True)
class WarmSeen:
    state: MinerState
    power_w: Watts
    board_temps_c: tuple[float, ...]
    chip_temps_c: tuple[float, ...] = ()
    reason: Reason = Reason.NONE
    hashrate_ths: float | None = None
    uptime_s: int | None = None
    shown_s: tuple[float, float] | None = None


class WarmControl(FakeControl):
    """Shows one temperature after the other, the last one for good."""

    temps = ()

    async def observe(self):
        temp_c, self.temps = self.temps[0], self.temps[1:] or self.temps
        state = MinerState.IDLE if self.off else MinerState.HASHING
        return WarmSeen(state, Watts(50 if self.off else 3000), (temp_c,))


@pytest.mark.parametrize(
    ("temps", "started"), [((90.0, 91.0), False), ((90.0, 60.0), True), ((255.0, 60.0), True), ((60.0,), True)]
)
async def test_a_start_never_goes_to_a_miner_that_two_looks_find_too_hot(tmp_path, temps, started):
    control = WarmControl()
    control.off, control.temps = True, temps
    rig = Rig(tmp_path, {"m1": control})
    assert await rig.switch(Verb.START, (entry("m1"),)) == (0 if started else 1)
    assert control.off is not started
    assert ("too hot to run (board 91 C, limit 75 C)" in rig.out) is not started
