"""Stops sent at once are weighed against their feeder's meter: no liar is ever cleared, honest ones are where it can."""

import random
from dataclasses import dataclass
from itertools import combinations

import pytest

from agent.failsafe.weighing import SEES_AT_ONCE, Weighing
from agent.local_curtail.claims import Knot, Sample
from agent.local_curtail.evidence import FeederBefore, MeterWord
from agent.local_curtail.member import Member
from agent.local_curtail.rules import SiteMiner
from sitelink.types import MinerState, Reason
from sitelink.units import Watts

pytestmark = pytest.mark.agent
IDLE_W, LOAD_W = 50.0, 3300.0


@dataclass(frozen=True)
class Seen:
    state: MinerState
    power_w: Watts | None
    reason: Reason = Reason.NONE
    hashrate_ths: None = None
    uptime_s: None = None
    shown_s: None = None


@dataclass
class Miner:
    """One miner as it is: what it draws before and after, and what it says of both (None: nothing)."""

    name: str
    drew_w: float = LOAD_W
    draws_w: float = IDLE_W
    said_w: float | None = LOAD_W
    says_w: float | None = IDLE_W
    nameplate_w: float = LOAD_W
    stopped: bool = True
    earlier_w: float | None = None
    """What it said when it was first read idle, where it was not looked at again."""

    def member(self) -> Member:
        load_w = Watts(self.nameplate_w if self.said_w is None else self.said_w)
        member = Member(SiteMiner(self.name, "F1", Watts(self.nameplate_w), True), load_w, load_w, 0.15)
        if not self.stopped:
            member.look(Seen(MinerState.HASHING, self.said_w), 20.0, 20.1)
            return member
        member.sent(1.0)
        if self.earlier_w is not None:
            member.look(Seen(MinerState.IDLE, Watts(self.earlier_w)), 5.0, 5.1)
            return member
        member.look(Seen(MinerState.IDLE, self.says_w), 5.0, 5.1)
        member.look(Seen(MinerState.IDLE, self.says_w), 20.0, 20.1)
        return member


def liar(name: str, **fields: float | None) -> Miner:
    return Miner(name, draws_w=float(fields.pop("drew_w", LOAD_W) or 0), **fields)  # type: ignore[arg-type]


def weighed(miners: list[Miner], base_w: float = 0.0, spread_w: float = 0.0, noise: float = 0.0) -> Weighing:
    rng = random.Random(7)

    def shown(power_w: float) -> Watts:
        return Watts(power_w * (1 + rng.uniform(-noise, noise)))

    before = FeederBefore(shown(base_w + sum(miner.drew_w for miner in miners)), Watts(spread_w))
    left_w = base_w + sum(miner.draws_w for miner in miners)
    tell = {miner.name for miner in miners if miner.said_w is not None}
    weighing = Weighing("F1", before, [miner.member() for miner in miners], tell)
    weighing.samples += [Sample(10.0, shown(left_w)), Sample(10.25, shown(left_w))]
    weighing.judge()
    return weighing


def cleared(weighing: Weighing) -> set[str]:
    return {member.miner.miner_id for member in weighing.members if weighing.word(member) is MeterWord.CLEARED}


def words(weighing: Weighing) -> set[MeterWord]:
    return {weighing.word(member) for member in weighing.members}


def fleet(count: int, bias: float = 1.0) -> list[Miner]:
    return [Miner(f"m{place}", said_w=LOAD_W * bias) for place in range(count)]


@pytest.mark.parametrize(("count", "bias"), [(1, 1.0), (10, 1.01), (100, 1.003), (150, 1.01), (150, 0.99)])
def test_devices_that_report_a_little_beside_the_meter_are_proven(count: int, bias: float) -> None:
    weighing = weighed(fleet(count, bias))
    assert (words(weighing), weighing.line()) == ({MeterWord.CLEARED}, "")


@pytest.mark.parametrize("count", [1, SEES_AT_ONCE])
def test_a_few_of_a_feeder_that_draws_on_are_proven(count: int) -> None:
    assert words(weighed(fleet(count), base_w=200_000)) == {MeterWord.CLEARED}


def test_where_somebody_still_draws_nobody_who_may_be_the_one_is_proven() -> None:
    weighing = weighed([*fleet(9), liar("m9")])
    assert words(weighing) == {MeterWord.CLOUDED}
    assert "feeder F1 fell by 29250 W, its miners claim 32500 W" in weighing.line()
    assert "it still draws about 3250 W that no miner owns up to, as much as one of its miners drew" in weighing.line()


def test_the_excess_names_whose_load_it_is_and_clears_whom_it_cannot_be() -> None:
    small = Miner("small", 1200.0, 1200.0, 1200.0, nameplate_w=1200.0)
    large = Miner("large", 9000.0, said_w=9000.0, nameplate_w=9000.0)
    weighing = weighed([small, large])
    assert cleared(weighing) == {"large"}
    assert "about 1150 W that no miner owns up to, as much as small drew" in weighing.line()


def test_an_excess_that_fits_nobody_is_told_as_it_is() -> None:
    line = weighed([*fleet(9), Miner("m9", draws_w=5050.0)]).line()
    assert "about 5000 W that no miner owns up to; measure" in line


def test_a_feeder_too_large_to_see_one_miner_clears_nobody_and_says_what_helps() -> None:
    figureless = [Miner(f"m{place}", said_w=None, says_w=None) for place in range(40)]
    weighing = weighed(figureless, base_w=100_000)
    assert words(weighing) == {MeterWord.CLOUDED}
    assert (
        "its meter cannot tell 40 of them from the others; measure those marked open at the rack, or" in weighing.line()
    )
    assert f"at most {SEES_AT_ONCE} at a time" in weighing.line()


def test_a_miner_too_small_for_its_meter_is_named_and_holds_back_no_other() -> None:
    tiny = Miner("bitaxe", 18.0, 0.0, None, None, nameplate_w=18.0)
    weighing = weighed([*fleet(7), tiny], base_w=60_000, noise=0.0005)
    assert cleared(weighing) == {f"m{place}" for place in range(7)}
    assert weighing.line().endswith("cannot tell bitaxe from the others; measure those marked open at the rack")


@pytest.mark.parametrize("others", [0, 3])
def test_a_liar_without_a_figure_is_its_nameplates_load_and_is_accused_where_nothing_fell(others: int) -> None:
    running = [Miner(f"n{place}", draws_w=LOAD_W, stopped=False) for place in range(others)]
    weighing = weighed([liar("s19", said_w=None, says_w=None), *running])
    assert weighing.word(weighing.members[0]) is MeterWord.ACCUSED
    assert "claim 3300 W: it still draws about 3300 W that no miner owns up to, as much as s19 drew" in weighing.line()


def test_miners_that_went_on_falling_after_they_were_read_hide_no_liar() -> None:
    honest = [Miner(f"m{place}", earlier_w=480.0) for place in range(11)]
    assert cleared(weighed([*honest, liar("liar")], base_w=50_000)) == set()


def test_a_miner_that_hashes_on_after_its_order_is_no_cloud_once_it_was_looked_at() -> None:
    deaf = Miner("deaf", draws_w=LOAD_W)
    weighing = weighed([Miner("m1"), deaf])
    (member,) = [member for member in weighing.members if member.miner.miner_id == "deaf"]
    member.known, member.knots = None, [Knot(1.0, 0.0)]
    for began_s, less_w in ((19.0, 0.0), (20.0, 2.0), (21.0, 1.0)):  # its figures are new at each look
        member.look(Seen(MinerState.HASHING, Watts(LOAD_W - less_w)), began_s, began_s + 0.1)
    for other in weighing.members:
        other.looked_s = 21.0
    weighing.judge()
    assert cleared(weighing) == {"m1"}
    assert weighing.word(member) is MeterWord.NONE


def test_a_silent_meter_and_a_restless_one_say_so() -> None:
    weighing = weighed(fleet(2))
    for member in weighing.members:
        member.known = None
    weighing.samples.clear()
    weighing.judge()
    assert words(weighing) == {MeterWord.SILENT}
    assert (
        weighing.line()
        == "feeder F1: its meter did not answer, so its stops stay open; look at that meter, or measure them at the rack"
    )
    assert words(weighed(fleet(2), base_w=90_000, spread_w=2000)) == {MeterWord.NOISY}
    assert "it moved by 2000 W before the order" in weighed(fleet(2), base_w=90_000, spread_w=2000).line()


@pytest.mark.parametrize("seed", range(300))
def test_no_liar_is_ever_cleared(seed: int) -> None:
    """Any mix of loads, figures with errors of their own and nameplates that are off, liars, and others beside."""
    rng = random.Random(seed)
    scale, miners = rng.uniform(0.97, 1.05), []
    for place in range(rng.choice([1, 2, 5, 9, 12, 20, 60])):
        drew_w = rng.choice([1400.0, 3250.0, 3400.0, 5500.0])
        tells = rng.random() < 0.8
        said_w = drew_w / scale * rng.uniform(0.99, 1.01) if tells else None
        plate_w = drew_w * (1.0 if tells else rng.uniform(0.95, 1.05))
        miners.append(Miner(f"m{place}", drew_w, IDLE_W, said_w, IDLE_W if tells else None, plate_w))
    liars = rng.sample(miners, min(len(miners), rng.choice([1, 1, 2, 3])))
    for miner in liars:
        miner.draws_w = miner.drew_w
    running = [Miner(f"n{place}", draws_w=LOAD_W, stopped=False) for place in range(rng.choice([0, 3, 30]))]
    weighing = weighed([*miners, *running], rng.choice([0.0, 4000.0]), rng.choice([0.0, 50.0]), 0.001)
    assert cleared(weighing) & {miner.name for miner in liars} == set()


def test_every_pair_of_liars_among_six_is_left_open() -> None:
    for pair in combinations(range(6), 2):
        miners = fleet(6)
        for place in pair:
            miners[place].draws_w = LOAD_W
        assert cleared(weighed(miners)) & {f"m{place}" for place in pair} == set()


def beside_one_that_shows_it_runs(shown_w: list[float]) -> set[str]:
    """One says that it is off, the other was told as well and shows ``shown_w``; the feeder fell by one load."""
    quiet = Miner("quiet").member()
    running = Member(SiteMiner("other", "F1", Watts(LOAD_W), True), Watts(LOAD_W), Watts(LOAD_W), 0.15)
    running.sent(1.0)
    for place, power_w in enumerate(shown_w):
        running.look(Seen(MinerState.HASHING, Watts(power_w)), 4.0 + place, 4.1 + place)
    weighing = Weighing("F1", FeederBefore(Watts(2 * LOAD_W), Watts(0)), [quiet, running], {"quiet", "other"})
    last_s = 4.0 + len(shown_w) - 1
    weighing.samples += [Sample(last_s - 5.0 + n / 2, Watts(LOAD_W + IDLE_W)) for n in range(10)]
    quiet.look(Seen(MinerState.IDLE, Watts(IDLE_W)), last_s, last_s + 0.1)
    weighing.judge()
    return cleared(weighing)


def test_whose_figures_may_be_old_hides_no_liar_beside_it() -> None:
    """It may have stopped, and the other not: its figures have not changed since its order."""
    assert beside_one_that_shows_it_runs([LOAD_W] * 6) == set()


def test_whose_figures_are_seen_to_be_new_vouches_for_who_is_off_beside_it() -> None:
    assert beside_one_that_shows_it_runs([LOAD_W - n for n in range(6)]) == {"quiet"}
