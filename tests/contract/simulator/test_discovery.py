"""Discovery on a simulated site of every firmware: found by answer, named by name, told from the inventory by who."""

import random
from dataclasses import replace

from agent.cgminer.client import Deadlines
from agent.cgminer.credentials import Credentials
from agent.discover.look import Looker
from agent.discover.shown import Look
from agent.discover.standing import Standing, judge, missing
from agent.discover.sweep import Manners, Sweep
from agent.inventory import load_inventory
from agent.inventory.learned import Learned
from simulator.roster import ALL_DIALECTS
from sitelink.types import MinerState
from tests.contract.simulator.world import site

PATIENT = Deadlines(connect_s=5, first_byte_s=10, total_s=20)
MANNERS = Manners(at_once=8, knocks_per_s=10_000, host_s=60)
OLDER_API_FIRST = {"whatsminer-v3": "whatsminer"}
"""Speaks both; which one is asked for orders is the inventory's to say."""
NAMELESS = {"innosilicon"}
"""Says neither MAC nor serial over what is read of it."""


async def looks_of(opened, *, log_in: bool, password: str | None = None, known: bool = True) -> dict[str, Look]:
    """Look at all; logging in means as its own user, by its own password or the one given, if any is ``known``."""
    places = [miner.place for miner in opened.miners.values()]
    kept = {miner.place.host: miner.kept for miner in opened.miners.values()}

    def credentials_of(host: str, dialect: str) -> Credentials | None:
        return Credentials(kept[host].user, password or kept[host].password) if known else None

    web_port = next(place.web_port for place in places if place.web_port != place.port)
    looker = Looker(PATIENT, places[0].rpc_port, web_port, credentials_of if log_in else None)
    found = await Sweep(looker, MANNERS, random.Random(1)).run([place.host for place in places])
    return {look.host: look for look in found}


async def test_every_firmware_is_found_by_what_it_answers_and_goes_by_its_own_name(tmp_path):
    async with site(3 * len(ALL_DIALECTS), dialects=ALL_DIALECTS, dead=0.05, out=tmp_path) as opened:
        looks = await looks_of(opened, log_in=True)
        wrong = []
        for miner in opened.miners.values():
            place, look = miner.place, looks.get(miner.place.host)
            if miner.dead:
                wrong += [f"{place.host}: dead, and found"] if look is not None and look.observation else []
                continue
            seen = None if look is None else look.observation
            dialect = OLDER_API_FIRST.get(place.model.dialect, place.model.dialect)
            if seen is None or seen.dialect != dialect or seen.state is not MinerState.HASHING:
                wrong.append(f"{place.model.dialect}: {seen and (seen.dialect, seen.state)} {look and look.notes}")
            elif dialect not in NAMELESS and not {place.mac, place.serial} & set(look.names):
                wrong.append(f"{place.model.dialect}: calls itself {look.names}, {look.notes}")
        assert "\n".join(sorted(set(wrong))) == ""
        inventory = load_inventory(tmp_path / "inventory.csv")
        standings = {each.look.host: each.standing for each in judge(list(looks.values()), inventory, Learned())}
        named = [host for host, look in looks.items() if look.names]
        assert {standings[host] for host in named} == {Standing.KNOWN}


async def test_after_the_network_has_dealt_its_addresses_anew_everybody_has_moved_and_nobody_is_new(tmp_path):
    async with site(40, out=tmp_path, dead=0.05) as opened:
        looks = await looks_of(opened, log_in=True)
        listed = load_inventory(tmp_path / "inventory.csv")
        hosts = [entry.host for entry in listed]
        elsewhere = [replace(entry, host=host) for entry, host in zip(listed, hosts[1:] + hosts[:1], strict=True)]
        sightings = judge(list(looks.values()), elsewhere, Learned())
        alive = [each for each in sightings if each.look.names]
        assert {each.standing for each in alive} == {Standing.MOVED}
        assert {each.entry.miner_id for each in alive if each.entry} == {
            miner.place.miner_id for miner in opened.miners.values() if not miner.dead
        } - {each.miner_id for each in missing(sightings, elsewhere, hosts)}
        assert not [each for each in sightings if each.standing is Standing.NEW]


async def test_without_a_password_no_miner_is_logged_in_to(tmp_path):
    async with site(3 * len(ALL_DIALECTS), dialects=ALL_DIALECTS, out=tmp_path) as opened:
        looks = await looks_of(opened, log_in=False)
        antminers = [m.place.host for m in opened.miners.values() if m.place.model.dialect == "antminer"]
        assert antminers
        for host in antminers:
            assert looks[host].observation is not None
            assert looks[host].names or any("--log-in" in note for note in looks[host].notes)
        listed = load_inventory(tmp_path / "inventory.csv")
        standings = {each.standing for each in judge(list(looks.values()), listed, Learned())}
        assert standings <= {Standing.KNOWN, Standing.UNNAMED}, "who keeps its name back has replaced nobody"


async def test_a_right_password_is_called_refused_of_no_firmware_and_a_factory_one_is_called_out(tmp_path):
    async with site(3 * len(ALL_DIALECTS), dialects=ALL_DIALECTS, out=tmp_path) as opened:
        looks = await looks_of(opened, log_in=True)
        refused = {look.observation.dialect for look in looks.values() if look.opened_by}
        assert refused == set()
        rest = [looks[m.place.host] for m in opened.miners.values() if m.place.model.dialect == "braiins-rest"]
        assert rest
        assert {look.notes for look in rest} == {("warning: answers to a factory password; give it another",)}
        for miner in opened.miners.values():
            miner.kept.password = "its own"
        wrong = await looks_of(opened, log_in=True, password="another")
        rest = [wrong[m.place.host] for m in opened.miners.values() if m.place.model.dialect == "braiins-rest"]
        assert all("refuses the password of its group" in look.notes[0] for look in rest)


async def test_with_a_login_asked_for_and_no_password_at_hand_the_advice_is_to_enter_one(tmp_path):
    async with site(2, dialects=("hiveon",), out=tmp_path) as opened:
        macs = {miner.place.host: miner.place.mac for miner in opened.miners.values()}
        listed = [replace(each, miner_id=macs[each.host]) for each in load_inventory(tmp_path / "inventory.csv")]
        looks = await looks_of(opened, log_in=True, known=False)
        sightings = judge(list(looks.values()), listed, Learned())
        notes = [note for each in sightings for note in (*each.notes, *each.look.notes)]
        assert notes
        for note in notes:
            assert "--log-in" not in note
            assert "ballast-agent credentials set hiveon" in note
