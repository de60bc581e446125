"""Whose fall it was: never a liar cleared, never an honest miner accused, whatever the meter and the devices are like."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.local_curtail.attribution import explain, surplus, too_noisy, under_ceiling
from agent.local_curtail.claims import Claim, Knot, Sample
from sitelink.units import Watts

SEEDS = st.integers(0, 2**32)


class Fall:
    """How one miner truly falls, and what its looks show of it."""

    def __init__(self, rng, name, sent_s, *, lies, blow, mute):
        self.load_w = rng.uniform(2500, 4000)
        self.says = 1.0 if mute else rng.uniform(0.98, 1.02)
        self.lies, self.sent_s = lies, sent_s
        self.begins_s = sent_s + (rng.uniform(0.5, 4) if blow else rng.uniform(0, 0.4))
        self.takes_s = 0.001 if blow else rng.uniform(1.2, 3.5)
        knots, now_s = [Knot(sent_s, 0.0)], sent_s + 0.8
        while knots[-1].fallen_w < 0.98 * self.claims_w(99, mute=mute):
            unsure_s = rng.choice([0.0, 0.0, 0.1])
            seen_s = now_s + rng.uniform(-unsure_s, unsure_s)
            shown_w = self.claims_w(seen_s, mute=mute) * rng.uniform(0.99, 1.01)
            knots.append(Knot(now_s, shown_w, unsure_s))
            now_s += rng.uniform(0.4, 1.0)
        self.claim = Claim(name, Watts(self.load_w), tuple(knots), knots[-1].at_s + 0.02, measured=not mute)

    def claims_w(self, at_s, *, mute):
        if mute:  # it shows only whether it hashes, and that ends at once
            return self.load_w if at_s > self.begins_s else 0.0
        return self.says * self.shown_w(at_s)

    def shown_w(self, at_s):
        return 0.985 * self.load_w * min(1.0, max(0.0, (at_s - self.begins_s) / self.takes_s))

    def true_w(self, at_s):
        return 0.0 if self.lies else self.shown_w(at_s)


def played(seed):
    rng = random.Random(seed)
    blow, count = rng.random() < 0.5, rng.randint(1, 12)
    liars = set(rng.sample(range(count), min(count, rng.choice([0, 0, 1, 1, 2, 3]))))
    stagger_s, mutes = rng.choice([0.1, 0.3, 1.0]), rng.choice([0.0, 0.0, 0.2])
    falls = [
        Fall(rng, f"m{n}", stagger_s * n, lies=n in liars, blow=blow, mute=rng.random() < mutes) for n in range(count)
    ]
    scale, delay_s = rng.choice([1.0, 1.005, rng.uniform(0.96, 1.06)]), rng.choice([0.0, 0.0, rng.uniform(0, 5)])
    noise_w = rng.choice([5.0, 25.0])
    around_w = rng.uniform(0, 20_000)

    def shown_w(at_s):
        drawn_w = around_w + sum(fall.load_w - fall.true_w(at_s - delay_s) for fall in falls)
        return Watts(scale * drawn_w + rng.gauss(0, noise_w))

    before = [shown_w(-n / 4) for n in range(3)]
    end_s = max(fall.claim.idle_s for fall in falls) + rng.uniform(0, 9)
    samples = [Sample(n / 4, shown_w(n / 4)) for n in range(int(end_s * 4))]
    return falls, Watts(sum(before) / 3), samples, Watts(max(before) - min(before))


@settings(max_examples=100)
@given(SEEDS)
def test_no_liar_is_cleared(seed):
    falls, before_w, samples, spread_w = played(seed)
    claims = [fall.claim for fall in falls]
    explained, surely = explain(claims, before_w, samples, spread_w), surplus(claims, before_w, samples, spread_w)
    for fall in falls:
        if fall.lies:
            assert fall.claim.miner_id not in surely
            assert not explained.cleared(fall.claim.miner_id)


@settings(max_examples=100)
@given(SEEDS)
def test_no_honest_miner_is_accused_once_a_late_meter_has_told(seed):
    falls, before_w, samples, spread_w = played(seed)
    told_s = max(fall.claim.idle_s for fall in falls) + 6
    if samples and samples[-1].at_s >= told_s:
        explained = explain([fall.claim for fall in falls], before_w, samples, spread_w)
        assert not any(explained.accused(fall.claim.miner_id) for fall in falls if not fall.lies)


def alone(fallen_w, *, steps=12, lag=0):
    """One miner of 3,400 W that says it is off after a second; the meter's fall, a quarter second apart."""
    knots = (Knot(0.0, 0.0), Knot(0.4, 1340.0), Knot(0.8, 2680.0), Knot(1.0, 3350.0))
    claim = Claim("m1", Watts(3400), knots, 1.0)
    samples = [
        Sample(n / 4, Watts(30_000 - fallen_w * min(1.0, max(0.0, (n - lag) / 4)) + n % 2)) for n in range(steps)
    ]
    return claim, samples


def test_one_miner_alone_is_cleared_by_its_own_fall_and_accused_without_one():
    claim, samples = alone(3350)
    assert surplus([claim], Watts(30_000), samples, Watts(10)) == {"m1"}
    assert explain([claim], Watts(30_000), samples, Watts(10)).cleared("m1")
    claim, samples = alone(0)
    assert surplus([claim], Watts(30_000), samples, Watts(10)) == frozenset()
    assert explain([claim], Watts(30_000), [*samples, *(Sample(n / 4, samples[n % 2].power_w) for n in range(12, 60))],
                   Watts(10)).accused("m1")  # fmt: skip


def test_what_others_fall_after_they_read_idle_is_none_of_the_liars():
    """Idle is read below 15 %: ten that are caught there fall on by a miner's load together."""
    caught = [Claim(f"m{n}", Watts(3400), (Knot(0.0, 0.0), Knot(1.0, 2900.0)), 1.0) for n in range(9)]
    liar = Claim("liar", Watts(3400), (Knot(0.0, 0.0), Knot(1.0, 3350.0)), 1.0)
    samples = [Sample(n / 4, Watts(34_000 - (9 * 3350 if n >= 6 else 0))) for n in range(16)]
    assert "liar" not in surplus([*caught, liar], Watts(34_000), samples, Watts(10))


def test_a_device_whose_figures_trail_tells_nothing_of_when():
    """It fell at once and said so five seconds later; the liar beside it says that it fell at once."""
    late = Claim("late", Watts(3400), (Knot(0.0, 0.0), Knot(1.0, 0.0), Knot(4.9, 0.0), Knot(5.1, 3350.0)), 5.1)
    liar = Claim("liar", Watts(3400), (Knot(0.0, 0.0), Knot(0.4, 1340.0), Knot(0.8, 2680.0), Knot(1.1, 3350.0)), 1.1)
    samples = [Sample(n / 4, Watts(30_000 - (3350 if n >= 4 else 0) + n % 2)) for n in range(80)]
    assert "liar" not in surplus([late, liar], Watts(30_000), samples, Watts(10))
    assert not explain([late, liar], Watts(30_000), samples, Watts(10)).cleared("liar")


def test_half_a_miner_of_fall_clears_nobody():
    claim, samples = alone(1500)
    assert surplus([claim], Watts(30_000), samples, Watts(10)) == frozenset()
    assert not explain([claim], Watts(30_000), samples, Watts(10)).cleared("m1")


def test_nothing_is_said_of_a_claim_that_too_few_samples_bear_on():
    claim, samples = alone(3350, steps=5)
    explained = explain([claim], Watts(30_000), samples, Watts(10))
    assert not explained.cleared("m1")
    assert not explained.accused("m1")


def test_a_known_liar_leaves_its_neighbours_fall_to_them():
    liar = Claim("liar", Watts(3400), (Knot(0.0, 0.0), Knot(1.0, 3350.0)), 1.0, known=False)
    claim, samples = alone(3350)
    assert surplus([liar, claim], Watts(30_000), samples, Watts(10)) == {"m1"}


@pytest.mark.parametrize(
    ("before_w", "left_w", "certain_w", "off"),
    [
        (34_000, 500, 0, True),
        (34_000, 3900, 0, False),  # somebody draws a miner's load
        (34_000, 3900, 2700, True),  # and is seen to
        (1000, 500, 0, False),  # the meter never showed this miner
        (34_000, 1700, 0, False),
    ],
)
def test_what_is_left_bounds_what_each_can_draw(before_w, left_w, certain_w, off):
    assert under_ceiling(Watts(3400), Watts(before_w), Watts(left_w), Watts(certain_w)) is off


def test_a_restless_feeder_proves_nothing():
    assert too_noisy(Watts(1600), [Watts(3400), Watts(5000)])
    assert not too_noisy(Watts(1600), [Watts(5000)])


def test_a_miner_of_unknown_size_may_be_all_that_fell():
    """It reports no power and has no nameplate: of the others' falls its own leaves nothing to see."""
    knots = (Knot(0.0, 0.0), Knot(2.0, 3400.0))
    others = [Claim(f"m{n}", Watts(3400), knots, 2.0) for n in range(2)]
    samples = [Sample(12.5 + n / 4, Watts(13600 - 10200)) for n in range(8)]
    for sized, cleared in ((True, {"m0", "m1", "mute"}), (False, {"mute"})):
        mute = Claim("mute", Watts(3400), knots, 2.0, measured=False, sized=sized)
        assert surplus([*others, mute], Watts(13600), samples, Watts(20)) == cleared
