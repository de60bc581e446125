import itertools
from collections import Counter

import pytest

from simulator import noise
from simulator.roster import ALL_DIALECTS, CONTROLLABLE, DIALECTS, LIARS, RosterOptions, build_roster


def roster(miners: int = 250, **more: object):
    return build_roster(RosterOptions("pecos-1", miners, 7, **more))


def test_the_seed_alone_decides():
    assert roster(dead=0.05, liars=0.02) == roster(dead=0.05, liars=0.02)
    assert roster() != build_roster(RosterOptions("pecos-1", 250, 8))


def test_two_sites_share_no_identity():
    other = {place.miner_id for place in build_roster(RosterOptions("pecos-2", 250, 7))}
    assert not other & {place.miner_id for place in roster()}


@pytest.mark.parametrize("miners", [1, 3, 5, 20, 250, 5000])
def test_identities_and_addresses_are_unique_and_on_loopback(miners):
    places = roster(miners)
    assert len({place.miner_id for place in places}) == len({place.host for place in places}) == len(places) == miners
    assert all(place.host.startswith("127.20.") for place in places)


def test_all_dialects_stand_on_site():
    assert set(Counter(place.model.dialect for place in roster(5))) == set(DIALECTS)
    assert {place.model.dialect for place in roster(dialects=("avalon",))} == {"avalon"}


def test_feeders_hold_consecutive_miners():
    places = roster(25, feeder_size=10)
    assert [len(list(group)) for group in _groups(places)] == [10, 10, 5]
    assert len({(place.rack, place.position) for place in places}) == 25


def _groups(places):
    feeders = Counter(place.feeder_id for place in places)
    return [range(count) for count in feeders.values()]


@pytest.mark.parametrize("miners", [20, 50, 250])
def test_liars_are_alive_controllable_and_of_both_kinds(miners):
    liars = [place for place in roster(miners, dead=0.05, liars=0.02) if place.liar]
    assert {place.liar for place in liars} == set(LIARS)
    assert all(not place.dead and place.model.dialect in CONTROLLABLE for place in liars)


def test_shares_of_dead_and_liars_are_met():
    places = roster(250, dead=0.05, liars=0.02)
    assert sum(place.dead for place in places) == round(250 * 0.05)
    assert sum(place.liar is not None for place in places) == 5


def test_efficiency_spreads_over_what_sites_have():
    figures = [place.actual_w / place.actual_ths for place in roster()]
    assert 15 < min(figures) < 18
    assert 32 < max(figures) < 36


def test_noise_is_a_pure_function_within_bounds():
    key = noise.key("a", 1)
    assert key == noise.key("a", 1) != noise.key("a", 2)
    values = [noise.smooth(key, seconds / 3, 20.0) for seconds in range(3000)]
    assert all(-1 <= value <= 1 for value in values)
    assert max(values) > 0.8
    assert min(values) < -0.8
    assert max(abs(after - before) for before, after in itertools.pairwise(values)) < 0.04


# -------------------------------------------------------------------- further dialects


def test_a_default_site_is_what_it_was_before_others_could_be_asked_for():
    places = roster(250, dead=0.05, liars=0.02)
    assert set(Counter(place.model.dialect for place in places)) == set(DIALECTS)
    first = places[0]
    assert (first.model.dialect, first.model.name) == ("antminer", "Antminer S21")
    assert first.mac == "02:a3:f0:00:00:00"


def test_further_dialects_stand_there_when_asked_for_and_never_repeat_an_address():
    places = roster(60, dialects=ALL_DIALECTS)
    assert set(Counter(place.model.dialect for place in places)) == set(ALL_DIALECTS)
    assert len({(place.host, place.port) for place in places}) == len({place.mac for place in places}) == 60


def test_ports_are_one_a_protocol():
    for place in roster(60, dialects=ALL_DIALECTS, port=1, web_port=2, framed_port=3):
        expected = {"whatsminer-v3": (3, 2, 1), "epic": (1, 1, 1)}.get(place.model.dialect, (1, 2, 1))
        assert (place.port, place.web_port, place.rpc_port) == expected


def test_liars_on_another_site_are_whoever_takes_orders():
    liars = [place for place in roster(200, dialects=ALL_DIALECTS, liars=0.5) if place.liar]
    spoken = {place.model.dialect for place in liars}
    assert {"antminer", "vnish", "braiins-rest", "whatsminer-v3"} <= spoken
    assert not {"hiveon", "epic", "bitaxe", "goldshell"} & spoken
