"""Credit is bounded by the meter and by confirmed miners, whatever the evidence."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cloud.planner.metering import mean_before_w, mean_power_w, sum_samples
from cloud.planner.model import Planned
from cloud.planner.verification import (
    Claim,
    Compliance,
    Fitting,
    Measured,
    Status,
    Verification,
    claim,
    name_liars,
    verify,
)
from cloud.planner.verification_document import read_verification, write_verification
from sitelink.types import Ack, Curtailment, CurtailmentCause, Evidence, Interval, Outcome, Ramp, Verb
from sitelink.units import Watts
from tests.unit.planner.samples import QUARTER, START

GAP = timedelta(seconds=60)
WINDOW = Interval(START, START + QUARTER)
BEFORE = Interval(START - timedelta(seconds=120), START)
FITTINGS = {f"m{n}": Fitting(f"F{n % 2}", Watts(3500.0)) for n in range(5)}


def order(name: str = "c", window: Interval = WINDOW) -> Planned:
    ramp = Ramp(Watts(0.0), 1.0)
    return Planned(
        Curtailment(name, CurtailmentCause.PRICE, window, tuple(FITTINGS), ramp, ramp), Watts(17500.0), START
    )


def ack(
    name: str,
    outcome: Outcome = Outcome.COMPLETE,
    reason: str = "power_below_idle",
    second: int = 20,
    before: float | None = 3500.0,
) -> Ack:
    moment = START + timedelta(seconds=second)
    power = None if before is None else Watts(before)
    return Ack(f"{name}-{second}", "c", 1, name, Verb.STOP, outcome, Evidence.FEEDER_METER, reason, moment, power)


def measured(samples: list[tuple[float, float]]) -> Measured:
    """Read from a curtailment, or the first of several, that begins at ``START``."""
    site = [(START + timedelta(seconds=second), power) for second, power in samples]
    return Measured(site, {}, True, BEFORE, timedelta(seconds=60), GAP)


def weigh(own: Claim, samples: list[tuple[float, float]], others: tuple[Claim, ...] = ()) -> Verification:
    return verify(own, others, [], (), measured(samples), FITTINGS, Compliance(START, None, None, None))


outcomes = st.lists(st.sampled_from(list(Outcome)), min_size=5, max_size=5)
powers = st.lists(st.floats(0, 40_000, allow_nan=False), min_size=10, max_size=120)


@given(outcomes, powers, st.sets(st.sampled_from(sorted(FITTINGS))))
def test_credit_never_exceeds_meter_or_confirmed_miners(
    ends: list[Outcome], site: list[float], noticed: set[str]
) -> None:
    acks = [ack(name, end) for name, end in zip(FITTINGS, ends, strict=True)]
    liars = name_liars(order(), acks, frozenset(noticed))
    own = claim(order(), acks, liars, FITTINGS)
    assert not set(own.power_w) & set(liars)
    samples = [(-150 + place * 10.0, power) for place, power in enumerate(site)]
    verdict = verify(own, (), acks, liars, measured(samples), FITTINGS, Compliance(START, None, None, None))
    for item in verdict.intervals:
        if item.delivered_w is not None:
            assert item.meter_w is not None
            assert verdict.baseline_w is not None
            assert 0 <= item.delivered_w <= own.total_w + 1e-6
            assert item.delivered_w <= max(0.0, verdict.baseline_w - item.meter_w) + 1e-6
    assert (verdict.verified_mwh is None) == (verdict.status is Status.UNVERIFIED)
    assert read_verification(write_verification(verdict)) == verdict


@given(st.integers(0, 5), st.integers(0, 5), st.floats(0, 40_000), st.integers(0, 899), st.integers(1, 900))
def test_overlapping_curtailments_share_the_meter_and_never_count_it_twice(
    first: int, second: int, drop: float, later_s: int, long_s: int
) -> None:
    names = list(FITTINGS)
    later = START + timedelta(seconds=later_s)
    one = Claim(order("a"), dict.fromkeys(names[:first], Watts(3500.0)))
    two = Claim(
        order("b", Interval(later, later + timedelta(seconds=long_s))), dict.fromkeys(names[:second], Watts(3500.0))
    )
    samples = [(s, 50_000.0 if s < 0 else 50_000.0 - drop) for s in range(-150, 2000, 10)]
    credited: dict[Interval, float] = {}
    for item in (*weigh(one, samples, (two,)).intervals, *weigh(two, samples, (one,)).intervals):
        credited[item.interval] = credited.get(item.interval, 0.0) + (item.delivered_w or 0.0)
    assert all(power <= drop + 1e-6 for power in credited.values())
    assert all(before.end <= after.start for before, after in pairwise(sorted(credited, key=lambda item: item.start)))


def test_the_last_word_of_a_miner_counts() -> None:
    acks = [
        ack("m0", second=10),
        ack("m0", Outcome.PARTIAL, "still_warm", 50),
        ack("m1", Outcome.PARTIAL, "x", 10),
        ack("m1", second=50),
    ]
    assert set(claim(order(), acks, (), FITTINGS).power_w) == {"m1"}


def test_a_liar_stays_one_though_it_acks_again() -> None:
    acks = [ack("m0", Outcome.UNVERIFIED, "still_hashing", 10), ack("m0", second=50)]
    assert name_liars(order(), acks, frozenset()) == ("m0",)


def test_a_miner_without_a_known_baseline_counts_with_its_nameplate() -> None:
    assert claim(order(), [ack("m0", before=None)], (), FITTINGS).power_w == {"m0": 3500.0}
    assert claim(order(), [ack("m0", before=None)], (), {}).power_w == {}
    assert claim(order(), [ack("m0", before=None)], (), {"m0": Fitting("F0", None)}).power_w == {}


def test_a_verdict_keeps_what_confirmed_the_stops_it_credits() -> None:
    weak = replace(ack("m1"), evidence=Evidence.DEVICE_STATE)
    acks = [weak, ack("m0"), ack("m2"), ack("m3", Outcome.UNVERIFIED)]
    own = claim(order(), acks, ("m2",), FITTINGS)
    compliance = Compliance(START, None, None, None)
    verdict = verify(own, (), acks, ("m2",), measured([(-10, 1.0)]), FITTINGS, compliance)
    assert list(verdict.evidence.items()) == [(Evidence.FEEDER_METER, 1), (Evidence.DEVICE_STATE, 1)]
    document = write_verification(verdict)
    assert read_verification(document) == verdict
    del document["evidence"]
    assert read_verification(document).evidence == {}


def test_no_site_meter_no_figure() -> None:
    meters = Measured((), {}, False, BEFORE, timedelta(seconds=60), GAP)
    verdict = verify(
        claim(order(), [ack("m0")], (), FITTINGS), (), [], (), meters, FITTINGS, Compliance(START, None, None, None)
    )
    assert (verdict.status, verdict.verified_mwh) == (Status.UNVERIFIED, None)
    assert "no site meter" in verdict.reason


def test_means_are_time_weighted_and_silence_is_unknown() -> None:
    at = [
        (START + timedelta(seconds=second), power) for second, power in ((0, 10.0), (10, 20.0), (30, 20.0), (200, 0.0))
    ]
    assert mean_power_w(at, Interval(START, START + timedelta(seconds=20)), GAP) == 17.5
    assert mean_power_w(at, Interval(START + timedelta(seconds=60), START + timedelta(seconds=120)), GAP) is None
    assert mean_power_w([], WINDOW, GAP) is None
    assert mean_before_w(at, Interval(START, START + timedelta(seconds=40)), GAP) == 18.75


def test_meters_add_up_where_all_are_known() -> None:
    first = [(START + timedelta(seconds=s), 10.0) for s in (0, 10, 20, 400)]
    second = [(START + timedelta(seconds=s), float(s)) for s in (0, 20, 390)]
    assert [power for _, power in sum_samples([first, second], GAP)] == [10.0, 20.0, 30.0]
    assert sum_samples([], GAP) == ()
