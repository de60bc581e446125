from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.local_curtail.admission import Arrival, admit_command, admit_plan
from agent.local_curtail.evidence import Lie, MeterWord, StopFacts, judge_start, judge_stop
from agent.local_curtail.policy import Desired
from agent.local_curtail.ramp import Pace, Pacer, RampRules, SitePace, Switched, capped, longest_s
from agent.local_curtail.records import MinerRecord, miner_of, retarget, to_json
from agent.local_curtail.rules import SiteMiner, SiteRules
from sitelink.types import (
    ClockTrust,
    Command,
    Curtailment,
    CurtailmentCause,
    Evidence,
    Fallback,
    Interval,
    MinerState,
    Outcome,
    Ramp,
    Reason,
    SitePlan,
    Verb,
)
from sitelink.units import Watts

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = SiteRules("s", "a", frozenset({"m9"}), 3600.0, Watts(0), Fallback.RUN, 30.0)
MINERS = {name: SiteMiner(name, "F1", Watts(3500), name != "m8") for name in ("m1", "m2", "m8", "m9")}
NO_RAMP = Ramp(Watts(0), 0.0)


def at(seconds):
    return T0 + timedelta(seconds=seconds)


def window(name="c1", start=100, end=200, miners=("m1", "m2"), up=NO_RAMP):
    return Curtailment(name, CurtailmentCause.PRICE, Interval(at(start), at(end)), miners, NO_RAMP, up)


def plan(*windows, sequence=5, end=1000):
    return SitePlan("p", "s", "a", 1, sequence, 1, T0, Interval(T0, at(end)), Fallback.RUN, windows)


def admit(order, held=None, now=T0, trust=ClockTrust.SYNCED, payload=b"new"):
    return admit_plan(order, payload, held, RULES, MINERS, now, trust)


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (replace(plan(window()), site_id="other"), "wrong_site"),
        (replace(plan(window()), agent_id="clone"), "wrong_agent"),
        (plan(window(end=1200)), "ends_before_release"),
        (replace(plan(), valid=Interval(at(301), at(1000))), "not_yet_valid"),
        (plan(window(up=Ramp(Watts(3500), 900.0))), "ends_before_release"),
        (plan(window(miners=("m1", "zz"))), "unknown_miners"),
        (plan(window(miners=("m8",))), "not_controllable"),
        (plan(window(), window("c2", 150, 300)), "overlapping_windows"),
        (plan(window(), window("c1", 300, 400)), "overlapping_windows"),
        (plan(window(miners=("m1", "m1"))), "overlapping_windows"),
        (plan(window(), end=210, sequence=5), "expired"),
        (plan(window(), sequence=4), "older_than_held"),
        (plan(window(), sequence=3), "older_than_held"),
    ],
)
def test_a_plan_is_refused_with_a_stable_code(order, code):
    held = (1, 4, b"held") if order.sequence < 5 else None
    code = "sequence_reused" if order.sequence == 4 else code
    with pytest.raises(Refused) as refusal:
        admit(order, held, now=at(500) if code == "expired" else T0)
    assert refusal.value.code == code


def test_a_plan_is_taken_once_and_windows_may_touch():
    order = plan(window(), window("c2", 200, 300))
    assert admit(order) is Arrival.NEW
    assert admit(order, (1, 5, b"new")) is Arrival.DUPLICATE
    assert admit(plan(window(), end=210), now=at(9000), trust=ClockTrust.UNTRUSTED) is Arrival.NEW


IMAGE = (("file", "fw.bin"), ("sha256", "0" * 64), ("version", "2"))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"site_id": "x"}, "wrong_site"), ({"signing_epoch": 0}, "older_epoch"), ({"expires_at": at(5)}, "expired"),
        ({"miner_ids": ("zz",)}, "unknown_miners"), ({"miner_ids": ("m9",)}, "never_touch"),
        ({"verb": Verb.LIMIT}, "bad_parameters"), ({"verb": Verb.REBOOT, "miner_ids": ("m9",)}, "never_touch"),
        ({"verb": Verb.FIRMWARE, "parameters": IMAGE, "approved_by": ("ann",)}, "two_people_needed"),
    ],
)  # fmt: skip
def test_a_command_is_refused_with_a_stable_code(changes, code):
    order = replace(Command("k", "s", "a", 1, 1, T0, at(100), Verb.STOP, ("m1",), "why"), **changes)
    with pytest.raises(Refused) as refusal:
        admit_command(order, RULES, MINERS, 1, at(50), ClockTrust.SYNCED)
    assert refusal.value.code == code


def test_a_site_takes_no_verb_that_it_does_not_allow():
    rules = replace(RULES, allowed_verbs=frozenset(Verb) - {Verb.STOP, Verb.PASSWORD})
    for verb in (Verb.STOP, Verb.PASSWORD):
        order = Command("k", "s", "a", 1, 1, T0, at(100), verb, ("m1",), "why")
        with pytest.raises(Refused, match="no " + verb.value) as refusal:
            admit_command(order, rules, MINERS, 1, at(50), ClockTrust.SYNCED)
        assert refusal.value.code == "verb_not_allowed"
    admit_command(Command("k", "s", "a", 1, 1, T0, at(100), Verb.START, ("m1",), "why"), rules, MINERS, 1, at(50),
                  ClockTrust.SYNCED)  # fmt: skip
    with pytest.raises(Refused) as refusal:
        admit_plan(plan(window()), b"new", None, rules, MINERS, T0, ClockTrust.SYNCED)
    assert refusal.value.code == "verb_not_allowed"
    assert admit_plan(plan(), b"new", None, rules, MINERS, T0, ClockTrust.SYNCED) is Arrival.NEW


def test_a_plan_that_the_sites_pace_cannot_end_in_time_is_refused():
    rules = replace(RULES, max_per_min_w=Watts(3500))
    with pytest.raises(Refused) as refusal:
        admit_plan(plan(window(end=950)), b"new", None, rules, MINERS, T0, ClockTrust.SYNCED)
    assert refusal.value.code == "ends_before_release"
    assert admit_plan(plan(window(end=940)), b"new", None, rules, MINERS, T0, ClockTrust.SYNCED) is Arrival.NEW


@pytest.mark.parametrize("verb", [Verb.REBOOT, Verb.LOGS, Verb.PASSWORD])
def test_an_order_beside_the_policy_needs_a_dated_clock(verb):
    order = Command("k", "s", "a", 1, 1, T0, at(100), verb, ("m1",), "why")
    admit_command(order, RULES, MINERS, 1, at(50), ClockTrust.SYNCED)
    with pytest.raises(Refused) as refusal:
        admit_command(order, RULES, MINERS, 1, at(50), ClockTrust.UNTRUSTED)
    assert refusal.value.code == "clock_untrusted"


def test_an_order_beside_the_policy_may_name_a_miner_that_cannot_be_stopped():
    fixed = {**MINERS, "m1": replace(MINERS["m1"], controllable=False)}
    admit_command(
        Command("k", "s", "a", 1, 1, T0, at(100), Verb.REBOOT, ("m1",), "why"),
        RULES,
        fixed,
        1,
        at(50),
        ClockTrust.SYNCED,
    )


@dataclass(frozen=True)
class Seen:
    state: MinerState
    power_w: Watts | None
    reason: Reason = Reason.NONE
    hashrate_ths: float | None = None
    uptime_s: int | None = None


IDLE, HASHING = Seen(MinerState.IDLE, Watts(50)), Seen(MinerState.HASHING, Watts(3500))
HOT = Seen(MinerState.IDLE, Watts(50), Reason.THERMAL)
PART = Seen(MinerState.HASHING, Watts(1500))


def facts(seen, meter=MeterWord.NONE, **changes):
    return replace(StopFacts(Watts(3500), 0.15, True, True, seen, meter), **changes)


@pytest.mark.parametrize(
    ("known", "outcome", "evidence", "reason", "lie"),
    [
        (facts(IDLE, MeterWord.CLEARED), Outcome.COMPLETE, Evidence.FEEDER_METER, "power_below_idle", Lie.NONE),
        (facts(IDLE, MeterWord.ACCUSED), Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_did_not_drop",
         Lie.REPORTS_IDLE),
        (facts(IDLE, MeterWord.CLOUDED), Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_clouded", Lie.NONE),
        (facts(IDLE, MeterWord.FELL_MORE), Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_clouded", Lie.NONE),
        (facts(IDLE, MeterWord.NOISY), Outcome.UNVERIFIED, Evidence.DEVICE_POWER, "feeder_too_noisy", Lie.NONE),
        (facts(IDLE, MeterWord.SILENT), Outcome.UNVERIFIED, Evidence.DEVICE_POWER, "feeder_meter_silent", Lie.NONE),
        (facts(IDLE), Outcome.COMPLETE, Evidence.DEVICE_POWER, "power_below_idle", Lie.NONE),
        (facts(Seen(MinerState.IDLE, None)), Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "power_unknown", Lie.NONE),
        (facts(IDLE, was_hashing=False), Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "already_idle", Lie.NONE),
        (facts(HOT), Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "thermal", Lie.NONE),
        (facts(HOT, MeterWord.CLEARED), Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "thermal", Lie.NONE),
        (facts(HOT, MeterWord.ACCUSED), Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "thermal", Lie.NONE),
        (facts(HOT, was_hashing=False), Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "already_idle", Lie.NONE),
        (facts(replace(HOT, reason=Reason.FAULT)), Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "fault", Lie.NONE),
        (facts(replace(HOT, reason=Reason.COMMANDED)), Outcome.COMPLETE, Evidence.DEVICE_POWER, "power_below_idle",
         Lie.NONE),
        (facts(HASHING, MeterWord.CLOUDED), Outcome.UNVERIFIED, Evidence.DEVICE_POWER, "still_hashing",
         Lie.ACK_WITHOUT_EFFECT),
        (facts(HASHING, MeterWord.FELL_MORE), Outcome.UNVERIFIED, Evidence.DEVICE_POWER, "still_hashing", Lie.NONE),
        (facts(Seen(MinerState.HASHING, Watts(3200)), MeterWord.CLOUDED), Outcome.UNVERIFIED, Evidence.DEVICE_POWER,
         "not_down_yet", Lie.NONE),
        (facts(HASHING, acked=False), Outcome.UNVERIFIED, Evidence.DEVICE_POWER, "no_reply", Lie.NONE),
        (facts(PART), Outcome.PARTIAL, Evidence.DEVICE_POWER, "power_above_idle", Lie.NONE),
        (facts(PART, MeterWord.CLEARED), Outcome.PARTIAL, Evidence.FEEDER_METER, "power_above_idle", Lie.NONE),
        (facts(PART, MeterWord.ACCUSED), Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_did_not_drop",
         Lie.REPORTS_IDLE),
        (facts(PART, MeterWord.CLOUDED), Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_clouded", Lie.NONE),
        (facts(Seen(MinerState.UNKNOWN, Watts(50)), was_hashing=False), Outcome.UNVERIFIED, Evidence.NONE,
         "state_unknown", Lie.NONE),
        (facts(Seen(MinerState.UNKNOWN, None)), Outcome.UNVERIFIED, Evidence.NONE, "state_unknown", Lie.NONE),
        (facts(None, MeterWord.CLEARED), Outcome.UNVERIFIED, Evidence.NONE, "unreachable", Lie.NONE),
    ],
)  # fmt: skip
def test_a_stop_is_judged_by_what_is_read_back(known, outcome, evidence, reason, lie):
    verdict = judge_stop(known)
    assert (verdict.outcome, verdict.evidence, verdict.reason, verdict.lie) == (outcome, evidence, reason, lie)


def test_a_start_is_seen_by_state_by_reason_or_by_rising_power():
    assert judge_start(HASHING, None, Watts(3500)).reason == "hashing"
    starting = Seen(MinerState.UNKNOWN, None, Reason.STARTING)
    assert judge_start(starting, None, Watts(3500)).reason == "starting"
    assert judge_start(Seen(MinerState.UNKNOWN, Watts(2000)), Watts(50), Watts(3500)).reason == "power_rising"
    assert judge_start(IDLE, Watts(50), Watts(3500)) is None


def take(pacer: Pacer, name: str, load_w: float, now_s: float) -> bool:
    fits = pacer.fits(Watts(load_w), now_s)
    if fits:
        pacer.take(name, Watts(load_w), now_s)
    return fits


def test_a_ramp_lets_one_step_through_and_gives_a_dead_miners_place_back():
    pacer = Pacer(Ramp(Watts(7000), 10.0))
    assert [take(pacer, name, 3500, 0.0) for name in ("m1", "m2", "m3")] == [True, True, False]
    pacer.refund("m2")
    assert take(pacer, "m3", 3500, 1.0)
    assert not take(pacer, "m4", 3500, 9.9)
    assert take(pacer, "m4", 3500, 10.0)
    assert take(Pacer(Ramp(Watts(1000), 10.0)), "big", 3500, 0.0)


@pytest.mark.parametrize(
    ("step_w", "step_s", "held_w", "held_s"),
    [
        (0, 0.0, 5000, 10.0),  # no ramp of its own
        (9000, 20.0, 5000, 20.0),  # slow, but in too large steps
        (9000, 3.0, 5000, 10.0),  # too large and too fast
        (4000, 3.0, 4000, 8.0),  # small steps, too fast
        (4000, 0.001, 4000, 8.0),  # as good as no ramp
        (4000, 0.0, 5000, 10.0),  # a step of no length is none
        (4000, 9.0, 4000, 9.0),  # slower than the limit
    ],
)
def test_a_site_limit_holds_a_ramp_to_its_size_and_pace(step_w, step_s, held_w, held_s):
    assert capped(Ramp(Watts(step_w), step_s), Watts(5000)) == Ramp(Watts(held_w), held_s)
    assert capped(Ramp(Watts(step_w), step_s), Watts(0)) == Ramp(Watts(step_w), step_s)


def test_a_sites_pace_names_the_limit_that_slows_the_most():
    loads = [Watts(3500)] * 10
    pace = Pace(Watts(7000), Watts(17500))
    assert pace.slowing(NO_RAMP, loads) == "max_mw_per_min"
    assert pace.longest_s(NO_RAMP, loads) == 60.0
    assert pace.slowing(NO_RAMP, loads[:4]) == "max_step_w"
    assert pace.longest_s(NO_RAMP, loads[:4]) == 10.0
    assert pace.slowing(Ramp(Watts(3500), 60.0), loads) == "", "slower by itself"
    assert pace.longest_s(Ramp(Watts(3500), 60.0), loads) == 540.0
    assert Pace().slowing(NO_RAMP, loads) == ""
    assert Pace().longest_s(NO_RAMP, loads) == 0.0


def test_a_step_is_longer_by_the_chance_of_its_miners_name_and_never_shorter():
    ramp = Ramp(Watts(3500), 10.0)
    free = []
    for name in ("m1", "m2", "m3", "m4"):
        pacer = Pacer(ramp, [Switched(name, 0.0, Watts(3500))], 0.5)
        assert not pacer.fits(Watts(3500), 10.0 - 1e-6)
        assert pacer.fits(Watts(3500), 15.0)
        free.append(next(tenth / 10 for tenth in range(100, 151) if Pacer(ramp, [Switched(name, 0.0, Watts(3500))], 0.5).fits(
            Watts(3500), tenth / 10)))  # fmt: skip
    assert len(set(free)) > 1


def test_a_ramp_up_that_waits_for_its_steps_must_still_end_in_time():
    slow = replace(
        RULES, ramps=RampRules(jitter_up=0.5, feedback_up_s=30.0, first_models=frozenset({"fan"}), first_wait_s=20.0)
    )
    wide = plan(window(up=Ramp(Watts(3500), 10.0), end=950), end=1000)
    assert admit_plan(wide, b"new", None, replace(RULES, ramps=RampRules(jitter_up=1.0)), MINERS, T0, ClockTrust.SYNCED)
    assert admit_plan(wide, b"new", None, slow, MINERS, T0, ClockTrust.SYNCED) is Arrival.NEW
    with pytest.raises(Refused) as refusal:
        admit_plan(plan(window(up=Ramp(Watts(3500), 10.0), end=951), end=1000), b"new", None, slow, MINERS, T0,
                   ClockTrust.SYNCED)  # fmt: skip
    assert refusal.value.code == "ends_before_release"
    assert RampRules(jitter_up=0.5).slowest_up(NO_RAMP) == NO_RAMP
    assert [RampRules(0.1, 0.2, 3.0, 4.0).jitter(verb) for verb in (Verb.STOP, Verb.START)] == [0.1, 0.2]
    assert [RampRules(0.1, 0.2, 3.0, 4.0).feedback_s(verb) for verb in (Verb.STOP, Verb.START)] == [3.0, 4.0]


switches = st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(100.0, 9000.0)), max_size=60)


@given(switches, st.floats(1000.0, 40_000.0), st.floats(1000.0, 80_000.0), st.lists(st.floats(0.0, 59.0), max_size=5))
def test_no_window_holds_more_than_the_sites_pace_but_one_miner_alone(steps, step_w, minute_w, before):
    pace = SitePace(Pace(Watts(step_w), Watts(minute_w)))
    sent = [(-ago_s, Watts(3500)) for ago_s in before]
    pace.remember(Verb.STOP, [Switched(f"b{n}", at_s, load_w) for n, (at_s, load_w) in enumerate(sent)])
    sent, now_s = [], 0.0
    for number, (after_s, load_w) in enumerate(steps):
        now_s += after_s
        assert pace.fits(Verb.START, Watts(load_w), now_s), "each way for itself"
        if pace.fits(Verb.STOP, Watts(load_w), now_s):
            pace.take(Verb.STOP, f"m{number}", Watts(load_w), now_s)
            if number % 7 == 6:
                pace.refund(Verb.STOP, f"m{number}")
            else:
                sent.append((now_s, load_w))
    for limit_w, span_s in ((step_w, 10.0), (minute_w, 60.0)):
        for at_s, _ in sent:
            within = [load_w for other_s, load_w in sent if at_s <= other_s < at_s + span_s - 1e-6]
            assert len(within) == 1 or sum(within) <= limit_w + 1e-6


def test_a_ramps_length_counts_its_steps():
    assert longest_s(Ramp(Watts(7000), 10.0), [Watts(3500)] * 5) == 20.0


def test_a_record_passed_on_keeps_its_proof_and_one_broken_off_is_closed():
    proven = replace(
        MinerRecord("m1", Verb.STOP, "c1", 1, "price"), outcome=Outcome.COMPLETE, reason="power_below_idle",
        evidence=Evidence.FEEDER_METER, touched=True, sent_at=T0,
    )  # fmt: skip
    assert miner_of(to_json(proven)) == proven
    passed = retarget(proven, Desired("m1", Verb.STOP, "c2", "price"), 2)
    assert passed.carries == proven.verdict
    assert passed.closes is None
    released = retarget(proven, Desired("m1", Verb.START, "c1", "released"), 2)
    assert released.record.touched
    assert released.record.outcome is None
    broken_off = retarget(replace(proven, outcome=None), Desired("m1", Verb.START, "c1", "released"), 2)
    assert broken_off.closing.outcome is Outcome.EXPIRED
