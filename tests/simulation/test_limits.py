"""A site's own limits bind whatever is ordered: by plan, command, fallback or hand, each way, through restarts."""

import asyncio
import zlib
from datetime import timedelta

import pytest

from agent.local_curtail.heat import HeatLimit, HeatRules
from agent.local_curtail.ramp import RampRules
from agent.local_curtail.silence import CapRule, DeadMeter, PriceRule, Steps, TemperatureRule
from sitelink.orders import write_command
from sitelink.types import Command, Domain, Fallback, NoticeCode, Outcome, Verb
from sitelink.units import Watts
from tests.simulation.history import ORDER_KEY, Crash, Play, Schedule, at, curtail, make_plan, play
from tests.simulation.invariants import violations
from tests.simulation.test_directed import until
from tests.simulation.world import POLL_S, SimMiner, Site

LOAD_W = 3500.0
"""What each miner counts for in the simulation's inventory."""


def fleet(count: int, *, start_s: float = 20.0, end_s: float = 400.0, feeders: int = 3) -> Schedule:
    miners = [SimMiner(f"m{n:02d}", f"F{n % feeders}", 3400.0) for n in range(count)]
    window = curtail("c1", start_s, end_s, [miner.miner_id for miner in miners])
    plan = make_plan(2, [window], end_s=end_s + 800)
    return Schedule(7, miners, {f"F{n}" for n in range(feeders)}, [(3.0, plan)], [], [], [], [], [], end_s + 300.0)


def most_in(played: Play, verb: str, span_s: float) -> float:
    """Return the most load told ``verb`` for the first time, or again, within ``span_s``."""
    sent = sorted(now_s for now_s, _, given in played.world.device_log if given == verb)
    return max((sum(first <= other < first + span_s for other in sent) * LOAD_W for first in sent), default=0.0)


async def least_w(played: Play, since_s: float, until_s: float) -> float:
    """Return the least that the site has drawn in a while."""
    await until(played, since_s)
    drawn = []
    while played.world.now_s < until_s:
        drawn.append(sum(played.world.feeder_w(feeder) for feeder in {m.feeder_id for m in played.schedule.miners}))
        await asyncio.sleep(0.5)
    return min(drawn)


def told(played: Play, code: NoticeCode) -> list[tuple[str, str]]:
    return [(notice.subject, notice.detail) for notice in played.world.outbox()[1] if notice.code is code]


def sent_to(played: Play, verb: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for now_s, name, given in played.world.device_log:
        if given == verb:
            found.setdefault(name, now_s)
    return found


def command(verb: Verb, miner_ids, *, start_s: float, end_s: float, sequence: int = 5):
    order = Command(
        f"k{sequence}", "site-1", "agent-1", 1, sequence, at(start_s), at(end_s), verb, tuple(miner_ids), "by order"
    )
    return ORDER_KEY.sign(Domain.COMMAND, write_command(order))


@pytest.mark.parametrize("crashes", [False, True])
def test_no_more_than_the_sites_megawatts_a_minute_go_off_or_come_back(crashes):
    schedule = fleet(12)
    schedule.house = {"max_per_min_w": Watts(4 * LOAD_W)}
    if crashes:
        schedule.crashes = [
            Crash(Site("stop", 3, after=True), 15.0, 3.0, cold=False),
            Crash(Site("start", 2, after=True), 395.0, 3.0, cold=False),
        ]
    played = play(schedule)
    assert played.errors == []
    assert played.lives == (3 if crashes else 1)
    for verb in ("stop", "start"):
        assert {name for _, name, given in played.world.device_log if given == verb} == set(played.world.miners)
        # What reaches a device was let go up to a look and a write before.
        assert most_in(played, verb, 58.0) <= 4 * LOAD_W
    _, notices = played.world.outbox()
    told = [notice.detail for notice in notices if notice.code is NoticeCode.LIMIT_APPLIED]
    assert told == [
        "max_mw_per_min: stopping its 12 miners takes 120 s; max_mw_per_min: starting its 12 miners takes 120 s"
    ]
    assert {notice.subject for notice in notices if notice.code is NoticeCode.CURTAILMENT_RESTORED} == {"c1"}


def test_a_command_is_held_to_the_same_pace_and_those_that_were_silent_come_no_faster():
    schedule = fleet(12)
    schedule.plans = []
    schedule.house = {"max_per_min_w": Watts(4 * LOAD_W)}
    for miner in schedule.miners:
        miner.dead.append((15.0, 60.0))  # a switch is down as the order comes: each is tried in vain

    async def order(played: Play) -> None:
        await until(played, 10)
        await played.agent.journal.accept(command(Verb.STOP, played.world.miners, start_s=20, end_s=400))

    played = play(schedule, order)
    assert played.errors == []
    assert {name for _, name, given in played.world.device_log if given == "stop"} == set(played.world.miners)
    assert most_in(played, "stop", 58.0) <= 4 * LOAD_W
    assert most_in(played, "start", 58.0) <= 4 * LOAD_W


def test_a_stop_by_hand_waits_for_no_limit_and_what_follows_waits_for_it():
    schedule = fleet(12, start_s=30.0)
    schedule.house = {"max_per_min_w": Watts(2 * LOAD_W)}

    async def by_hand(played: Play) -> None:
        await until(played, 20)
        await played.agent.override("failsafe-1", Verb.STOP, [f"m{n:02d}" for n in range(6)], timedelta(hours=1))

    played = play(schedule, by_hand)
    sent = sorted((now_s, name) for now_s, name, given in played.world.device_log if given == "stop")
    assert sent[5][0] < 25
    assert sent[6][0] >= 79, "six went at once: for a minute the plan's own have no room"


def test_a_start_by_hand_keeps_to_the_pace():
    schedule = fleet(8, end_s=300.0)
    schedule.house = {"max_per_min_w": Watts(2 * LOAD_W)}
    schedule.plans = []

    async def by_hand(played: Play) -> None:
        await until(played, 20)
        await played.agent.override("failsafe-1", Verb.STOP, None, timedelta(seconds=60))
        await until(played, 60)
        await played.agent.override("failsafe-2", Verb.START, None, timedelta(hours=1))

    played = play(schedule, by_hand)
    assert most_in(played, "start", 58.0) <= 2 * LOAD_W
    assert all(miner.hashing for miner in played.world.miners.values())


def test_a_site_that_stops_nobody_refuses_a_plan_that_does_and_a_verb_it_does_not_take():
    schedule = fleet(3)
    schedule.house = {"allowed_verbs": frozenset({Verb.START, Verb.BLINK})}

    async def order(played: Play) -> None:
        await until(played, 10)
        for sequence, verb in enumerate((Verb.STOP, Verb.REBOOT), 5):
            await played.agent.journal.accept(command(verb, ["m00"], start_s=10, end_s=300, sequence=sequence))

    played = play(schedule, order)
    assert played.world.device_log == []
    _, notices = played.world.outbox()
    refused = [notice.detail.partition(":")[0] for notice in notices if notice.code.value.endswith("_refused")]
    assert refused == ["verb_not_allowed"] * 3
    assert not any(ack.outcome is Outcome.COMPLETE and ack.verb is Verb.STOP for ack in played.world.outbox()[0])


def test_an_order_with_a_slow_site_is_violated_by_nothing():
    schedule = fleet(6, end_s=260.0)
    schedule.house = {"max_per_min_w": Watts(3 * LOAD_W)}
    assert [line for line in violations(play(schedule)) if "left off" not in line] == []


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("metered", [False, True])
def test_a_site_never_draws_less_than_its_minimum_by_an_order(metered, crashes):
    schedule = fleet(10, start_s=45.0)
    schedule.site_meter = metered
    schedule.house = {"min_load_w": Watts(9000.0)}
    if crashes:
        schedule.crashes = [Crash(Site("stop", 3, after=True), 40.0, 3.0, cold=False)]
    seen = {}

    async def watch(played: Play) -> None:
        seen["least_w"] = await least_w(played, 40, 390)

    played = play(schedule, watch)
    assert violations(played) == []
    assert seen["least_w"] >= 9000.0
    assert set(sent_to(played, "stop")) == {f"m{n:02d}" for n in range(7)}, "the last to be stopped stay on"
    assert told(played, NoticeCode.LIMIT_APPLIED) == [
        ("c1", "min_load: 3 more miners stay on: the site is to draw 9 kW")
    ]


def test_who_is_dead_or_lies_counts_nothing_for_the_minimum():
    schedule = fleet(10, start_s=45.0)
    schedule.house = {"min_load_w": Watts(9000.0)}
    schedule.miners[9].dead.append((0.0, 1e9))
    schedule.miners[8].hashing = False
    seen = {}

    async def watch(played: Play) -> None:
        seen["least_w"] = await least_w(played, 40, 390)

    played = play(schedule, watch)
    assert seen["least_w"] >= 9000.0
    assert {f"m{n:02d}" for n in range(5)} <= set(sent_to(played, "stop")) <= {f"m{n:02d}" for n in (*range(5), 8)}


HOT = {"heat": HeatRules(HeatLimit(board_c=75.0))}


def test_a_miner_too_hot_is_stopped_at_once_held_until_it_has_cooled_and_counts_as_no_curtailment():
    schedule = fleet(6, start_s=100.0, end_s=200.0)
    schedule.house = HOT
    schedule.miners[4].temps = [(0.0, 60.0), (50.0, 80.0), (300.0, 60.0)]
    played = play(schedule)
    assert played.errors == []
    assert 50 <= sent_to(played, "stop")["m04"] <= 50 + 20 + 5
    assert told(played, NoticeCode.HEAT_TRIPPED) == [("m04", "board 80 C, limit 75 C")]
    assert told(played, NoticeCode.HEAT_CLEARED) == [("m04", "board 60 C, limit 75 C")]
    starts = [now_s for now_s, name, verb in played.world.device_log if (name, verb) == ("m04", "start")]
    assert len(starts) == 1
    assert 300 <= starts[0] <= 300 + 20 + 5, "the plan released it at 200; it was hot"
    acks = [ack for ack in played.world.outbox()[0] if ack.miner_id == "m04"]
    assert {ack.order_id for ack in acks} == {"heat"}
    assert "heat" not in {subject for code in NoticeCode for subject, _ in told(played, code)}


def test_a_start_never_goes_to_a_hot_miner_not_by_hand_and_not_after_a_kill():
    schedule = fleet(3, start_s=20.0, end_s=100.0)
    schedule.house = HOT
    schedule.miners[1].temps = [(0.0, 60.0), (70.0, 90.0), (240.0, 50.0)]
    schedule.crashes = [Crash(None, 96.0, 3.0, cold=False), Crash(None, 150.0, 3.0, cold=False)]

    async def by_hand(played: Play) -> None:
        await until(played, 120)
        await played.agent.override("failsafe-1", Verb.START, None, timedelta(hours=1))

    played = play(schedule, by_hand)
    assert played.errors == []
    assert played.lives == 3
    starts = [now_s for now_s, name, verb in played.world.device_log if (name, verb) == ("m01", "start")]
    assert starts
    assert min(starts) >= 240
    assert sent_to(played, "start")["m00"] < 110
    assert len(told(played, NoticeCode.HEAT_TRIPPED)) == 1


@pytest.mark.parametrize("false_c", [255.0, 0.0, -1.0, 120.0])
def test_one_false_figure_trips_nothing(false_c):
    schedule = fleet(3, start_s=300.0, end_s=320.0)
    schedule.house = HOT
    schedule.miners[1].temps = [(0.0, 60.0), (55.0, false_c), (76.0, 60.0), (140.0, false_c), (141.0, 60.0)]
    if false_c == 120.0:
        schedule.miners[1].temps = [(0.0, 60.0), *[(at_s, temp) for at_s, temp in _spikes(schedule.miners[1])]]
    played = play(schedule)
    assert played.errors == []
    assert told(played, NoticeCode.HEAT_TRIPPED) == []
    assert min(sent_to(played, "stop").values()) >= 299


def _spikes(miner: SimMiner) -> list[tuple[float, float]]:
    """A figure that is there when the poller looks and gone a moment later."""
    phase_s = zlib.crc32(miner.miner_id.encode()) % POLL_S
    return [(40.0 + phase_s, 120.0), (40.0 + phase_s + 0.3, 60.0)]


def test_heat_waits_for_no_ramp_no_minimum_and_no_disk():
    schedule = fleet(6, start_s=300.0, end_s=320.0)
    schedule.house = {**HOT, "min_load_w": Watts(1e6), "max_per_min_w": Watts(LOAD_W)}
    for miner in schedule.miners:
        miner.temps = [(0.0, 60.0), (60.0, 90.0)]

    async def fill(played: Play) -> None:
        await until(played, 50)
        played.world.disk_full = True
        await until(played, 120)
        played.world.disk_full = False

    played = play(schedule, fill)
    assert played.errors == []
    stopped = sent_to(played, "stop")
    assert set(stopped) == set(played.world.miners)
    assert max(stopped.values()) <= 60 + 20 + 5


def test_a_rack_is_held_by_its_median():
    schedule = fleet(4, start_s=300.0, end_s=320.0)
    schedule.house = {"heat": HeatRules(rack_c=75.0)}
    schedule.racks = {miner.miner_id: "A" for miner in schedule.miners}
    for miner, temp_c in zip(schedule.miners, (90.0, 85.0, 80.0, 40.0), strict=True):
        miner.temps = [(0.0, 50.0), (60.0, temp_c), (200.0, 45.0)]
    played = play(schedule)
    assert played.errors == []
    assert set(sent_to(played, "stop")) == set(played.world.miners)
    assert max(sent_to(played, "stop").values()) <= 60 + 2 * 20 + 5
    assert [subject for subject, _ in told(played, NoticeCode.HEAT_TRIPPED)] == ["A"]
    assert [subject for subject, _ in told(played, NoticeCode.HEAT_CLEARED)] == ["A"]
    assert all(miner.hashing for miner in played.world.miners.values())


class Prices:
    """An agent's prices, by the second of the history."""

    def __init__(self, steps: list[tuple[float, float | None]]) -> None:
        self._steps = steps

    def price_at(self, now) -> float | None:
        return next((price for since_s, price in reversed(self._steps) if at(since_s) <= now), None)

    def temp_c(self) -> float | None:
        return None


def silent_site(rule, *, count: int = 8) -> Schedule:
    """A site whose plan ends at 60 s, and which hears nothing more."""
    schedule = fleet(count)
    schedule.plans = [(3.0, make_plan(2, [], end_s=60.0))]
    schedule.cuts = [(10.0, 1e9)]
    schedule.house = {"silence": rule}
    schedule.end_s = 400.0
    return schedule


def off_at(played: Play) -> set[str]:
    played.world.settle()
    return {miner.miner_id for miner in played.world.miners.values() if not miner.hashing}


async def offs(played: Play, *moments: float) -> list[set[str]]:
    found = []
    for moment in moments:
        await until(played, moment)
        found.append(off_at(played))
    return found


@pytest.mark.parametrize("crashes", [False, True])
def test_a_silent_site_follows_its_own_prices(crashes):
    schedule = silent_site(PriceRule(Steps(((80.0, 0.5), (150.0, 1.0)))))
    schedule.outside = Prices([(0.0, 20.0), (100.0, 100.0), (160.0, 200.0), (220.0, 20.0), (330.0, None)])
    if crashes:
        schedule.crashes = [Crash(None, 130.0, 3.0, cold=False), Crash(None, 215.0, 3.0, cold=False)]
    seen = {}

    async def watch(played: Play) -> None:
        seen["off"] = await offs(played, 95, 128, 190, 300, 395)

    played = play(schedule, watch)
    assert played.errors == []
    half = {f"m{n:02d}" for n in range(4)}
    assert seen["off"] == [set(), half, set(played.world.miners), set(), set()]
    reasons = [detail for _, detail in told(played, NoticeCode.FALLBACK_STARTED)]
    assert reasons == [f"fallback_prices_{code}_plan_expired" for code in ("low", "high", "low", "unknown_run")]


def test_a_silent_site_sheds_by_temperature_with_hysteresis():
    schedule = silent_site(TemperatureRule(Steps(((70.0, 0.5),), back_by=5.0)))
    for miner in schedule.miners:
        miner.temps = [(0.0, 60.0), (100.0, 71.0), (160.0, 66.0), (240.0, 64.0)]
    seen = {}

    async def watch(played: Play) -> None:
        seen["off"] = await offs(played, 95, 150, 230, 290)

    played = play(schedule, watch)
    assert played.errors == []
    half = {f"m{n:02d}" for n in range(4)}
    assert seen["off"] == [set(), half, half, set()]


@pytest.mark.parametrize("crashes", [False, True])
def test_a_silent_site_keeps_under_its_import_cap_by_its_own_meter(crashes):
    rule = CapRule(Watts(15_000.0), Watts(1000.0), Watts(0.0), 15.0)
    schedule = silent_site(rule)
    schedule.site_meter = True
    schedule.silent_meters = [("site", 220.0, 300.0)]
    schedule.miners[0].liar = "ack_without_effect"  # who is told first sheds nothing: the meter shows it
    if crashes:
        schedule.crashes = [Crash(Site("stop", 2, after=True), 55.0, 3.0, cold=False)]
    seen = {}

    async def watch(played: Play) -> None:
        await until(played, 180)
        seen["w"] = [played.world.site_w()]
        await until(played, 290)
        seen["w"].append(sum(miner.true_power_w(290.0) for miner in played.world.miners.values()))
        seen["off"] = len(off_at(played))

    played = play(schedule, watch)
    assert played.errors == []
    assert max(seen["w"]) <= 15_000.0
    assert min(seen["w"]) >= 15_000.0 - 1000.0 - 2 * LOAD_W, "no more is shed than the cap asks for"
    reasons = [detail for _, detail in told(played, NoticeCode.FALLBACK_STARTED)]
    assert "fallback_import_cap_meter_dead_nameplate_plan_expired" in reasons
    assert reasons[-1].startswith("fallback_import_cap_over")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (PriceRule(Steps(((80.0, 1.0),)), Fallback.STOP), "fallback_prices_unknown_stop_clock_untrusted"),
        (TemperatureRule(Steps(((50.0, 1.0),))), "fallback_temperature_high_clock_untrusted"),
        (CapRule(Watts(1.0), Watts(0.0), Watts(0.0), 15.0, DeadMeter.STOP),
         "fallback_import_cap_meter_dead_stop_clock_untrusted"),
    ],
)  # fmt: skip
def test_a_cold_boot_without_clock_and_link_follows_the_rule_and_says_so(rule, why):
    schedule = silent_site(rule, count=4)
    for miner in schedule.miners:
        miner.temps = [(0.0, 60.0)]
    schedule.plans = [(3.0, make_plan(2, [], end_s=4000.0))]
    schedule.crashes = [Crash(None, 100.0, 5.0, cold=True)]
    schedule.outside = Prices([(0.0, 500.0)])
    seen = {}

    async def watch(played: Play) -> None:
        seen["off"] = await offs(played, 100, 200)

    played = play(schedule, watch)
    assert played.errors == []
    assert seen["off"] == [set(), set(played.world.miners)], "before the boot its plan held, which stops nobody"
    assert [detail for _, detail in told(played, NoticeCode.FALLBACK_STARTED)] == [why]
    assert [detail for _, detail in told(played, NoticeCode.CLOCK_TRUST_CHANGED)][-1].endswith("-> untrusted")


def test_who_wakes_under_a_rule_is_stopped_again():
    schedule = silent_site(PriceRule(Steps(((80.0, 1.0),))), count=3)
    schedule.outside = Prices([(0.0, 100.0)])
    schedule.miners[1].wakes, schedule.miners[1].wakes_at = True, [200.0]
    seen = {}

    async def watch(played: Play) -> None:
        seen["off"] = await offs(played, 199, 202, 250)

    played = play(schedule, watch)
    everyone = set(played.world.miners)
    assert seen["off"] == [everyone, everyone - {"m01"}, everyone]
    assert [subject for subject, _ in told(played, NoticeCode.SELF_WOKEN)] == ["m01"]


def test_a_step_waits_for_the_one_before_to_be_proven_and_a_feeder_that_does_not_follow_slows_but_never_stops():
    def seconds(liars: int, feedback_s: float) -> tuple[float, int]:
        schedule = fleet(8, feeders=1, end_s=300.0)
        names = [miner.miner_id for miner in schedule.miners]
        schedule.plans = [(3.0, make_plan(2, [curtail("c1", 20.0, 300.0, names, down=(2 * LOAD_W, 3.0))], end_s=900))]
        for miner in schedule.miners:
            miner.stop_delay_s = 5.0
        for miner in schedule.miners[:liars]:
            miner.liar = "ack_without_effect"
        schedule.house = {"ramps": RampRules(feedback_down_s=feedback_s)}
        played = play(schedule)
        assert played.errors == []
        stops = sent_to(played, "stop")
        return max(stops.values()) - min(stops.values()), len(stops)

    plain_s, blind = seconds(0, 0.0)
    proven_s, seen = seconds(0, 30.0)
    lying_s, all_the_same = seconds(2, 30.0)
    assert (blind, seen, all_the_same) == (8, 8, 8)
    assert plain_s < 15
    assert plain_s + 5 < proven_s < 60, "each step waits until the meter shows the one before, and no longer"
    assert proven_s + 10 < lying_s < 3 * 30 + 20, "and a step that is never seen for its deadline"


def test_where_a_ramp_stands_survives_a_kill():
    schedule = fleet(8, feeders=1, end_s=300.0)
    names = [miner.miner_id for miner in schedule.miners]
    window = curtail("c1", 20.0, 300.0, names, down=(2 * LOAD_W, 10.0), up=(2 * LOAD_W, 10.0))
    schedule.plans = [(3.0, make_plan(2, [window], end_s=900))]
    schedule.house = {"ramps": RampRules(jitter_down=0.5, feedback_down_s=10.0)}
    schedule.crashes = [
        Crash(Site("stop", 3, after=True), 15.0, 1.0, cold=False),
        Crash(Site("start", 3, after=True), 295.0, 1.0, cold=False),
    ]
    played = play(schedule)
    assert violations(played) == []
    assert played.lives == 3
    for verb in ("stop", "start"):
        assert len(sent_to(played, verb)) == 8
        sent = sorted(sent_to(played, verb).values())
        assert all(third - first >= 9.0 for first, third in zip(sent, sent[2:], strict=False))


def test_fans_are_started_before_their_rack_and_stopped_after_it():
    schedule = fleet(6, feeders=3, end_s=200.0)
    schedule.racks = {f"m{n:02d}": "A" if n < 3 else "B" for n in range(6)}
    schedule.models = {"m00": "fan wall", "m03": "fan wall"}
    schedule.house = {"ramps": RampRules(first_models=frozenset({"fan wall"}), first_wait_s=20.0)}
    schedule.miners[3].dead.append((195.0, 1e9))  # the fans of the second rack never come
    played = play(schedule)
    assert played.errors == []
    stops, starts = sent_to(played, "stop"), sent_to(played, "start")
    for fan, others in (("m00", ("m01", "m02")), ("m03", ("m04", "m05"))):
        assert stops[fan] > max(stops[name] for name in others)
    assert starts["m00"] < min(starts["m01"], starts["m02"])
    assert 219 <= min(starts["m04"], starts["m05"]) <= 225, "they are waited for, and no longer than was said"


def test_a_cold_boot_into_a_live_event_starts_nobody_before_it_knows_its_orders():
    schedule = fleet(4, end_s=300.0)
    schedule.crashes = [Crash(None, 100.0, 5.0, cold=True)]
    played = play(schedule)
    assert played.errors == []
    assert min(sent_to(played, "start").values()) >= 299, "the time came back two seconds after the boot"


def test_a_cold_boot_without_the_link_starts_its_miners_after_a_while():
    schedule = fleet(4, end_s=300.0)
    schedule.crashes = [Crash(None, 100.0, 5.0, cold=True)]
    schedule.cuts = [(90.0, 1e9)]
    played = play(schedule)
    assert played.errors == []
    starts = sent_to(played, "start")
    assert set(starts) == set(played.world.miners)
    assert 105 + 30 <= min(starts.values()) <= 105 + 30 + 5, "the grace of this site is 30 s"


def test_whom_a_plan_names_in_vain_and_who_was_off_too_long_is_told_once():
    schedule = fleet(4, end_s=300.0)
    schedule.never_touch = frozenset({"m01", "m02"})
    schedule.max_off_s = 100.0
    schedule.crashes = [Crash(None, 60.0, 3.0, cold=False)]
    played = play(schedule)
    assert played.errors == []
    assert set(sent_to(played, "stop")) == {"m00", "m03"}
    assert 120 <= min(sent_to(played, "start").values()) < 130
    assert told(played, NoticeCode.LIMIT_APPLIED) == [
        ("c1", "never_touch: 2 of its miners are left alone"), ("c1", "max_off: 2 miners run again: they were off for 100 s"),
    ]  # fmt: skip
