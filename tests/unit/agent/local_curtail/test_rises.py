"""Whose word explains a rise, and who is looked at when."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from agent.errors import Unreachable
from agent.local_curtail import rises as module
from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.rises import Rises
from agent.local_curtail.rules import SiteMiner
from sitelink.clock import ManualClock
from sitelink.types import Evidence, MeterSample, MinerState, Outcome, Reading, Reason, Verb
from sitelink.units import Watts

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PROVEN = MinerRecord(
    "m0", Verb.STOP, "c1", 1, "price", Phase.DONE, baseline_w=Watts(3400), feeder_before_w=Watts(3400),
    feeder_spread_w=Watts(10), power_w=Watts(40), outcome=Outcome.COMPLETE, evidence=Evidence.FEEDER_METER,
    reason="power_below_idle",
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    state: MinerState
    power_w: Watts | None
    reason: Reason = Reason.NONE
    hashrate_ths: float | None = None
    uptime_s: int | None = None
    shown_s: tuple | None = None


IDLE, RUNS = Seen(MinerState.IDLE, Watts(40)), Seen(MinerState.HASHING, Watts(3400))


@dataclass
class Rig:
    """One feeder: what its meter shows in turn, and what its miners say; None is silence."""

    monkeypatch: pytest.MonkeyPatch
    says: dict
    polled: dict = field(default_factory=dict)
    shown_w: float = 40.0
    looked_at: list = field(default_factory=list)
    acks: list = field(default_factory=list)

    def __post_init__(self):
        self.monkeypatch.setattr(module, "_APART_S", 0.0)
        self.miners = {"m0": PROVEN}
        self.clock = ManualClock(NOON, 10.0)
        self.beats = 0
        sites = {name: SiteMiner(name, "F1", Watts(3400), True) for name in self.says}
        self.rises = Rises(
            self, self, {"F1": self}, lambda _: tuple(self.says), sites, self.clock, 0.15, self.polled.get
        )

    async def read(self):
        self.beats += 1
        return MeterSample("meter", NOON, Watts(self.shown_w + self.beats % 2))

    async def observe(self, name):
        self.looked_at.append(name)
        if self.says[name] is None:
            raise Unreachable("no connection")
        return self.says[name]

    async def apply(self, build):
        entry = build()
        self.miners.update({record.miner_id: record for record in entry.miners})
        self.acks += [verdict.reason for _, verdict in entry.acks]
        return bool(entry.miners)

    async def check(self, shown_w):
        self.shown_w = shown_w
        self.looked_at.clear()
        return await self.rises.check("F1", Watts(shown_w))


async def test_a_rise_that_nobody_explains_takes_the_proof_back(monkeypatch):
    rig = Rig(monkeypatch, {"m0": IDLE})
    assert not await rig.check(40)
    assert await rig.check(3400)
    back = rig.miners["m0"]
    assert (back.outcome, back.evidence, back.reason, back.phase) == (
        Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_clouded", Phase.DONE,
    )  # fmt: skip
    assert "draws 0.0034 MW more" in back.detail
    assert rig.acks == ["feeder_clouded"]


async def test_less_than_half_a_miner_says_nothing(monkeypatch):
    rig = Rig(monkeypatch, {"m0": IDLE})
    await rig.check(40)
    assert not await rig.check(1700)
    assert rig.miners["m0"] == PROVEN
    assert rig.looked_at == []


async def test_one_that_hashes_is_left_to_the_sweep(monkeypatch):
    rig = Rig(monkeypatch, {"m0": IDLE})
    await rig.check(40)
    rig.says["m0"] = RUNS
    assert await rig.check(3400)
    assert rig.miners["m0"] == PROVEN


async def test_one_that_was_gone_is_not_waited_for_and_explains_once_it_answers(monkeypatch):
    gone = Reading("m1", NOON, MinerState.UNKNOWN, reason=Reason.UNREACHABLE)
    rig = Rig(monkeypatch, {"m0": IDLE, "m1": None}, {"m1": gone})
    await rig.check(40)
    assert set(rig.looked_at) == {"m0"}
    rig.says["m1"] = RUNS
    assert not await rig.check(3440)
    assert set(rig.looked_at) == {"m0", "m1"}
    assert rig.miners["m0"] == PROVEN
    # What it draws belongs to the level now.
    assert not await rig.check(3440)
    assert rig.looked_at == []
    assert await rig.check(6800)
    assert rig.acks == ["feeder_clouded"]


async def test_one_that_falls_silent_may_have_come_on_and_one_that_always_was_explains_nothing(monkeypatch):
    rig = Rig(monkeypatch, {"m0": IDLE, "m1": IDLE})
    await rig.check(80)
    rig.says["m1"] = None
    assert not await rig.check(3440)
    assert rig.miners["m0"] == PROVEN
    silent = Rig(monkeypatch, {"m0": IDLE, "m1": None})
    await silent.check(40)
    assert await silent.check(3440)


async def test_one_that_falls_silent_on_its_way_up_explains_all_of_it_and_no_more(monkeypatch):
    rig = Rig(monkeypatch, {"m0": IDLE, "m1": IDLE})
    await rig.check(80)
    rig.says["m1"] = None
    for shown_w in (2000, 3440, 4600):
        assert not await rig.check(shown_w)
    assert await rig.check(6800)


async def test_one_that_says_it_is_off_is_given_a_minute_to_show_that_it_came_on(monkeypatch):
    rig = Rig(monkeypatch, {"m0": IDLE, "m1": IDLE})
    await rig.check(80)
    for _ in range(2):
        assert not await rig.check(3440)
        rig.clock.advance(29)
    rig.clock.advance(5)
    assert await rig.check(3440)


async def test_an_order_that_has_changed_meanwhile_keeps_its_new_state(monkeypatch):
    rig = Rig(monkeypatch, {"m0": IDLE})
    await rig.check(40)
    observe = rig.observe

    async def ended(name):
        rig.miners["m0"] = replace(PROVEN, verb=Verb.START, outcome=None)
        return await observe(name)

    rig.observe = ended
    assert not await rig.check(3400)
    assert rig.acks == []


async def test_without_a_level_both_the_records_and_all_words_must_leave_it_unexplained(monkeypatch):
    rig = Rig(monkeypatch, {"m0": IDLE})
    assert await rig.check(3400), "its feeder draws as before it was stopped"
    constant = Rig(monkeypatch, {"m0": IDLE})
    constant.miners["m0"] = replace(PROVEN, feeder_before_w=Watts(8400))
    assert not await constant.check(5040), "a load of the feeder's own was there before"
    neighbour = Rig(monkeypatch, {"m0": IDLE, "m1": RUNS})
    assert not await neighbour.check(3440), "its neighbour has come on since, and says so"
