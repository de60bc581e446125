"""Which miners a technician's words mean: never one that may not be touched, never more than one too many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadInput
from agent.failsafe.choice import Choice, Figures, Skip, members, pick
from sitelink.inventory import MinerEntry
from sitelink.types import MinerState, Verb
from sitelink.units import TeraHashPerSecond, Watts


def entry(name: str, power_w: float | None = 3000, ths: float | None = 100, rack: str = "R1") -> MinerEntry:
    nameplate_w = None if power_w is None else Watts(power_w)
    nameplate_ths = None if ths is None else TeraHashPerSecond(ths)
    return MinerEntry(name, "h", 1, "luxos", "S19", "F1", rack, 1, nameplate_w, nameplate_ths)


def runs(power_w: float | None = None, ths: float | None = None) -> Figures:
    live_w = None if power_w is None else Watts(power_w)
    return Figures(MinerState.HASHING, live_w, None if ths is None else TeraHashPerSecond(ths))


IDLE = Figures(MinerState.IDLE, Watts(30))


def names(verb: Verb, asked_w: float, fleet: list[MinerEntry], figures: dict[str, Figures], *spared: str) -> list[str]:
    picked = pick(verb, Watts(asked_w), fleet, figures, set(spared))
    return [one.miner_id for one in picked.entries]


def test_off_takes_the_least_efficient_first_by_what_they_do_now() -> None:
    fleet = [entry("old"), entry("new", 3000, 150), entry("weak", 3000, 150)]
    figures = {"old": runs(), "new": runs(3100, 150), "weak": runs(3000, 20)}
    assert names(Verb.STOP, 1, fleet, figures) == ["weak"], "live figures go before the nameplate"
    assert names(Verb.STOP, 3001, fleet, figures) == ["weak", "old"]
    assert names(Verb.STOP, 9100, fleet, figures) == ["weak", "old", "new"]
    with pytest.raises(
        BadInput, match=r"0\.0092 MW is more than runs here and may be stopped; write at most 0\.0091, or"
    ):
        names(Verb.STOP, 9200, fleet, figures)


def test_who_is_idle_silent_spared_or_of_unknown_power_is_not_counted() -> None:
    fleet = [entry("idle"), entry("silent"), entry("spared"), entry("dark", None, None), entry("plain")]
    figures = {"idle": IDLE, "spared": runs(3000, 10), "dark": runs(), "plain": runs(3000, 100)}
    picked = pick(Verb.STOP, Watts(1000), fleet, figures, {"spared"})
    assert [one.miner_id for one in picked.entries] == ["plain"]
    assert picked.skipped == {
        "idle": Skip.NO_CHANGE,
        "silent": Skip.SILENT,
        "spared": Skip.FIXED,
        "dark": Skip.UNKNOWN_POWER,
    }
    first, second = picked.lines(Verb.STOP, Watts(1000))
    assert first == "0.001 MW asked for: 1 of 1 miners, 0.003 MW, the least efficient first: plain"
    assert second == (
        "left out: 1 never touched, or not switchable, 1 not answering, 1 already so, or of unknown state, "
        "1 of unknown power"
    )


def test_who_has_no_known_efficiency_comes_last() -> None:
    fleet = [entry("dark", 3000, None), entry("best", 3000, 200)]
    assert names(Verb.STOP, 3001, fleet, {"dark": runs(3000), "best": runs(3000, 200)}) == ["best", "dark"]


def test_on_takes_the_most_efficient_and_never_more_than_asked_for() -> None:
    fleet = [entry("old", 3500, 100), entry("new", 3000, 150), entry("small", 1000, 20), entry("runs")]
    figures = {"old": IDLE, "new": IDLE, "small": IDLE, "runs": runs(3000, 100)}
    assert names(Verb.START, 4200, fleet, figures) == ["new", "small"], "one that does not fit is passed over"
    with pytest.raises(BadInput, match="the smallest idle miner draws 1000 W"):
        names(Verb.START, 900, fleet, figures)
    with pytest.raises(BadInput, match="no miner is idle"):
        names(Verb.START, 900, fleet, {"runs": runs()})


loads = st.lists(st.tuples(st.floats(100, 9000), st.floats(1, 300), st.booleans()), min_size=1, max_size=40)


@given(loads, st.floats(1, 300_000))
def test_off_reaches_what_was_asked_for_and_is_less_than_one_miner_above(
    drawn: list[tuple[float, float, bool]], asked_w: float
) -> None:
    fleet = [entry(f"m{place}") for place in range(len(drawn))]
    figures = {f"m{place}": runs(power_w, ths) for place, (power_w, ths, _) in enumerate(drawn)}
    spared = {f"m{place}" for place, (_, _, spare) in enumerate(drawn) if spare}
    try:
        picked = pick(Verb.STOP, Watts(asked_w), fleet, figures, spared)
    except BadInput:
        assert sum(power_w for power_w, _, spare in drawn if not spare) < asked_w
        return
    chosen = [figures[one.miner_id] for one in picked.entries]
    powers = [one.power_w or 0.0 for one in chosen]
    assert sum(powers) >= asked_w - 1e-6
    assert sum(powers[:-1]) < asked_w
    assert not spared & {one.miner_id for one in picked.entries}
    worst = [(one.power_w or 0) / (one.hashrate_ths or 1) for one in chosen]
    assert worst == sorted(worst, reverse=True)


def test_racks_and_miners_are_named_as_the_inventory_has_them() -> None:
    fleet = (entry("02:aa", rack="A"), entry("02:bb", rack="B"), entry("02:cc", rack="B"))

    def chosen(choice: Choice) -> list[str]:
        return [one.miner_id for one in members(choice, fleet, "inventory.csv")]

    assert chosen(Choice(racks=("B",))) == ["02:bb", "02:cc"]
    assert chosen(Choice(racks=("b",))) == ["02:bb", "02:cc"]
    assert chosen(Choice(racks=("A,", "b"))) == chosen(Choice(racks=("A, B",))) == ["02:aa", "02:bb", "02:cc"]
    assert chosen(Choice(miners=("02:BB,02:aa",))) == ["02:bb", "02:aa"]
    assert chosen(Choice(miners=("02:BB", "02:aa", "02:bb"))) == ["02:bb", "02:aa"]
    assert chosen(Choice(everything=True)) == ["02:aa", "02:bb", "02:cc"]
    assert not Choice()
    with pytest.raises(BadInput, match=r"--rack: 'C' is not in inventory.csv; its racks are A, B"):
        chosen(Choice(racks=("C",)))
    with pytest.raises(BadInput, match="--miner: '02:dd' is not in inventory"):
        chosen(Choice(miners=("02:dd",)))


def test_a_rack_with_a_comma_in_its_name_is_one_rack() -> None:
    fleet = (entry("02:aa", rack="A,1"), entry("02:bb", rack="1"))
    found = members(Choice(racks=("a,1",)), fleet, "inventory.csv")
    assert [one.miner_id for one in found] == ["02:aa"]
