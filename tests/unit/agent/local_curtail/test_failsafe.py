import io
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

from agent import failsafe as module
from agent.failsafe import Failsafe
from agent.local_curtail import overrides
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


@dataclass
class FakeControl:
    liar: bool = False
    off: bool = False
    orders: list = field(default_factory=list)

    async def identity(self):
        return "m"

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


def rig(tmp_path, controls, never_touch=()):
    out = io.StringIO()
    settings = SimpleNamespace(
        control=SimpleNamespace(idle_share=0.15, device_deadline_s=5.0),
        database=tmp_path / "state" / "agent.db",
    )
    clock = ManualClock(T0, 10.0)
    meters = {"F1": FakeMeter(list(controls.values()))}
    return Failsafe(settings, frozenset(never_touch), controls, meters, clock, out), clock, out, settings


async def test_off_leaves_an_override_and_proves_each_miner(tmp_path):
    controls = {"m1": FakeControl(), "m2": FakeControl()}
    failsafe, clock, out, settings = rig(tmp_path, controls)
    entries = (entry("m1"), entry("m2"))
    assert await failsafe.switch(Verb.STOP, entries, None, timedelta(hours=4)) == 0
    assert out.getvalue().count("feeder meter agrees") == 2
    stored = sqlite3.connect(settings.database)
    (active,) = overrides.active(stored, clock)
    assert (active.override.verb, active.override.miner_ids) == (Verb.STOP, None)
    clock.step(-99_999)  # a stepped clock does not prolong it
    clock.advance(4 * 3600)
    assert overrides.active(stored, clock) == ()
    stored.close()


async def test_a_lie_is_caught_by_the_feeder_and_an_unswitchable_miner_is_named(tmp_path):
    controls = {"m1": FakeControl(liar=True), "m2": FakeControl(), "m3": FakeControl()}
    failsafe, _, out, _ = rig(tmp_path, controls)
    entries = (entry("m1"), entry("m2"), entry("m3", "hiveon", "F2"))
    assert await failsafe.switch(Verb.STOP, entries, frozenset({"m1", "m2", "m3"}), timedelta(hours=1)) == 1
    assert "feeder F1 fell by 2950 W, its miners claim 5900 W: it still draws about 2950 W" in out.getvalue()
    assert "not proven off: m1, m2, m3" in out.getvalue()
    assert not controls["m3"].off


async def test_never_touch_holds_and_a_broken_database_stops_nobody(tmp_path):
    controls = {"m1": FakeControl(), "m2": FakeControl()}
    failsafe, _, out, settings = rig(tmp_path, controls, never_touch=("m2",))
    settings.database.mkdir(parents=True)
    assert await failsafe.switch(Verb.STOP, (entry("m1"), entry("m2")), None, timedelta(hours=1)) == 1
    assert "no override could be stored" in out.getvalue()
    assert (controls["m1"].off, controls["m2"].off) == (True, False)


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


async def test_a_corrupt_page_keeps_no_order_back(tmp_path):
    controls = {"m1": FakeControl(off=True)}
    failsafe, _, out, settings = rig(tmp_path, controls)
    settings.database.parent.mkdir()
    corrupt(settings.database, "curtail_overrides")
    assert await failsafe.switch(Verb.START, (entry("m1"),), None, timedelta(hours=1)) == 0
    assert await failsafe.status((entry("m1"),)) == 0
    warning, *_ = out.getvalue().splitlines()
    assert "no override could be stored" in warning
    assert "agent.db: database disk image is malformed); a daemon may undo this: stop it" in warning
    assert "overrides: unknown" in out.getvalue()
    assert not controls["m1"].off


async def test_status_says_that_it_may_not_look(tmp_path, monkeypatch):
    failsafe, _, out, settings = rig(tmp_path, {"m1": FakeControl()})

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    assert await failsafe.status((entry("m1"),)) == 0
    assert f"overrides: unknown ({settings.database}: cannot be opened: Permission denied; check" in out.getvalue()


async def test_one_miners_failure_is_its_own(tmp_path):
    class Exhausted(FakeControl):
        async def observe(self):
            raise OSError(24, "Too many open files")

    controls = {"m1": Exhausted(), "m2": FakeControl()}
    failsafe, _, out, _ = rig(tmp_path, controls)
    assert await failsafe.switch(Verb.STOP, (entry("m1"), entry("m2")), None, timedelta(hours=1)) == 1
    assert controls["m2"].off
    assert "failed: OSError(24, 'Too many open files')" in out.getvalue()
    assert await failsafe.status((entry("m1"), entry("m2"))) == 1


def test_fewer_miners_at_a_time_where_few_files_may_be_open(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(module, "open_files", lambda needed: 50)
    assert module._at_once(2, out) == 16
    assert "only 16 miners at a time; raise ulimit -Hn" in out.getvalue()
    monkeypatch.setattr(module, "open_files", lambda needed: 10)
    assert module._at_once(2, out) == 1


async def test_on_brings_back_and_status_reads(tmp_path):
    controls = {"m1": FakeControl(off=True)}
    failsafe, _, out, _ = rig(tmp_path, controls)
    assert await failsafe.switch(Verb.START, (entry("m1"),), None, timedelta(hours=1)) == 0
    assert await failsafe.status((entry("m1"),)) == 0
    assert "override: start of all miners until" in out.getvalue()


def test_it_needs_neither_grpc_nor_protobuf_nor_a_broker():
    code = (
        "import sys, agent.failsafe\n"
        "bad = [n for n in sys.modules if n.split('.')[0] in {'grpc', 'paho', 'aiomqtt'} or n.startswith('google.protobuf')]\n"
        "sys.exit(', '.join(bad) or 0)"
    )
    path = f"{ROOT}:{ROOT / 'proto'}"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
