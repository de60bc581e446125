"""Every verb of every firmware under every fault, on the simulator's real protocols: the endings, and the truth."""

from functools import cache

import pytest

from agent.cgminer.control.drivers import driver_of
from simulator.dialects import build_firmwares
from sitelink.types import Verb
from sitelink.verbs import ONCE
from tests.architecture.source import REPOSITORY
from tests.matrix.cells import Cell, firmwares, play
from tests.matrix.contactor import CONTACTOR
from tests.matrix.faults import FAULTS, Fault
from tests.matrix.page import play_all, section

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = REPOSITORY / "docs/control-matrix.md"
SILENT = {"dead", "black_holed", "no_accept", "slow_drip", "hang_up", "reset"}
LIES = {"reports_idle", "reports_idle_now"}
"""What no reading of a miner can tell from a stop; a feeder's meter can."""
TRAILING = {"figures refreshed every 10 s", "figures averaged over 10 s"}
SPELLED = {"split_chunks", "nul", "newline", "no_terminator", "slow_reply:0.5", "stuck_session", "expired_token"}
LATER = {"self_waking", "forgets_sleep", "keeps_sleep", "forgets_limit"}
"""What shows only afterwards: the next round finds it."""
HARMLESS = {"no fault", "already as wanted", "effect after 10 s", "its clock was never set"} | TRAILING
HARMLESS |= {fault.title for fault in FAULTS if fault.kind in SPELLED | LATER}
SURVIVED = {"half of the boards follow", "overheats as it is told"}
"""Where an order may well be carried out: a start with half of the boards, a stop that was told before the heat."""
IDLE_BEFORE = (Verb.STOP, "already as wanted")
"""What stands still before its stop is no load that the stop has shed."""
LOSES_UPDATES = {(name, "effect after 10 s") for name in ("avalon", "cgminer", "luxos")}
"""Where the simulator's delay makes each of several commands begin from the pools before the first of them."""
UNPROVEN = {
    ("cgminer", Verb.STOP): "unverified power_unknown",  # it shows no power, and the cells have no meter
    ("cgminer", Verb.BLINK): "unverified lamp_unknown",
    (CONTACTOR, Verb.STOP): "unverified power_unknown",  # nor does a coil
}
"""What no miner of the firmware can show by itself, whatever becomes of the order."""
ASKS_NOTHING_FIRST = (CONTACTOR, Verb.START)
"""Power is given back to a miner that has none, and so cannot say who it is; it is asked afterwards."""
_played: list[Cell] = []


async def cells_of(firmware: str) -> list[Cell]:
    """All cells are played together and once, whoever asks first: most of their time is waiting for silence."""
    if not _played:
        _played.extend(await play_all(firmwares()))
    return [cell for cell in _played if cell.firmware == firmware]


@cache
def committed() -> str:
    return PAGE.read_text("utf-8")


def test_every_controlled_firmware_of_the_simulator_stands_on_the_page() -> None:
    assert [line[3:] for line in committed().splitlines() if line.startswith("## ")] == list(firmwares())
    assert {name for name in build_firmwares() if driver_of(name)} | {CONTACTOR} == set(firmwares())


@pytest.mark.parametrize("firmware", firmwares())
async def test_the_page_says_what_happens(firmware: str) -> None:
    assert section(firmware, await cells_of(firmware)) in committed(), "run: python -m tests.matrix --write"


@pytest.mark.parametrize("firmware", firmwares())
async def test_complete_is_said_only_of_what_the_miner_really_did(firmware: str) -> None:
    untrue = [cell for cell in await cells_of(firmware) if cell.complete and not cell.kept_to]
    assert [cell for cell in untrue if cell.fault.kind not in LIES] == []
    assert all(cell.verb is Verb.STOP for cell in untrue)


@pytest.mark.parametrize("firmware", firmwares())
async def test_what_only_a_meter_can_tell_is_marked_on_the_page(firmware: str) -> None:
    lies = [cell for cell in await cells_of(firmware) if cell.fault.kind in LIES]
    assert len(lies) == 2
    marks = section(firmware, lies).count("**untrue**")
    assert marks == sum(cell.complete for cell in lies)


@pytest.mark.parametrize("firmware", firmwares())
async def test_without_a_fault_that_matters_every_verb_completes(firmware: str) -> None:
    cells = [cell for cell in await cells_of(firmware) if cell.fault.title in HARMLESS]
    ends = {(cell.verb, cell.fault.title): cell.ending for cell in cells if not cell.complete}
    lost = {(Verb.POOLS, title) for name, title in LOSES_UPDATES if name == firmware}
    assert ends.pop(IDLE_BEFORE) == "unverified already_idle"
    unproven = {(firmware, verb): what for (verb, _), what in ends.items() if (firmware, verb) in UNPROVEN}
    assert unproven == {pair: what for pair, what in UNPROVEN.items() if pair[0] == firmware}
    assert {end: what for end, what in ends.items() if end not in lost and (firmware, end[0]) not in UNPROVEN} == {}


@pytest.mark.parametrize("firmware", firmwares())
async def test_each_fault_of_the_page_is_felt(firmware: str) -> None:
    cells = await cells_of(firmware)
    sound = {cell.verb: cell.ending for cell in cells if cell.fault.title == "no fault"}
    felt = {cell.fault.title for cell in cells if cell.ending != sound[cell.verb]}
    # After a kill all is to end as without; a lie shows in nothing but a meter.
    meant_to_be = {fault.title for fault in FAULTS if not fault.killed and fault.kind not in LIES}
    struck = {fault.title for fault in FAULTS for verb in sound if fault.strikes(firmware, verb)} & meant_to_be
    assert struck - felt - HARMLESS == set()


@pytest.mark.parametrize(
    ("firmware", "fault"),
    [(name, fault) for name in firmwares() for fault in FAULTS if name not in fault.firmwares],
    ids=lambda value: value.title if isinstance(value, Fault) else value,
)
async def test_a_dash_stands_only_where_the_fault_makes_no_difference(firmware: str, fault: Fault) -> None:
    sound = {cell.verb: cell.ending for cell in await cells_of(firmware) if cell.fault.title == "no fault"}
    assert (await play(firmware, Verb.STOP, fault)).ending == sound[Verb.STOP]


@pytest.mark.parametrize(
    ("firmware", "verb", "fault"),
    [(*pair, fault) for fault in FAULTS for pair in sorted(fault.spared)],
    ids=lambda value: value.title if isinstance(value, Fault) else str(value),
)
async def test_what_a_fault_spares_ends_as_without_it(firmware: str, verb: Verb, fault: Fault) -> None:
    sound = {cell.verb: cell.ending for cell in await cells_of(firmware) if cell.fault.title == "no fault"}
    assert verb not in sound or (await play(firmware, verb, fault)).ending == sound[verb]


@pytest.mark.parametrize("firmware", firmwares())
async def test_no_fault_passes_as_if_there_were_none(firmware: str) -> None:
    cells = [cell for cell in await cells_of(firmware) if cell.complete]
    sound = {cell.verb: cell.ending for cell in cells if cell.fault.title == "no fault"}
    passed = [cell for cell in cells if cell.fault.title not in HARMLESS | SURVIVED and not cell.fault.killed]
    passed = [cell for cell in passed if cell.fault.kind not in LIES]
    assert {(cell.verb, cell.fault.title) for cell in passed if cell.ending == sound[cell.verb]} == set()


@pytest.mark.parametrize("firmware", firmwares())
async def test_a_miner_that_stopped_itself_was_not_stopped_by_us(firmware: str) -> None:
    hot = [cell for cell in await cells_of(firmware) if cell.fault.kind == "overheated" and cell.verb is Verb.STOP]
    assert len(hot) == 2
    assert [cell for cell in hot if cell.complete and not cell.received] == []


@pytest.mark.parametrize("firmware", firmwares())
async def test_a_miner_that_is_not_ours_or_does_not_answer_gets_no_order(firmware: str) -> None:
    cells = await cells_of(firmware)
    strangers = [cell for cell in cells if cell.fault.kind == "wrong_identity"]
    at_once = [cell for cell in cells if not cell.fault.late and (firmware, cell.verb) != ASKS_NOTHING_FIRST]
    assert {cell.ending for cell in at_once if cell in strangers} == {"not sent: wrong_device"}
    assert not [cell for cell in strangers if cell.complete]
    assert [cell for cell in cells if cell.ending.startswith("not sent") and cell.received] == []
    silent = [cell for cell in at_once if cell.fault.kind in SILENT]
    assert {cell.ending for cell in silent} <= {"not sent: unreachable", "not sent: timeout"}


@pytest.mark.parametrize("firmware", firmwares())
async def test_what_is_done_once_is_received_at_most_once(firmware: str) -> None:
    changing = ONCE - {Verb.LOGS}  # some firmwares hand their logs out in several files
    assert [cell for cell in await cells_of(firmware) if cell.verb in changing and cell.orders > 1] == []


@pytest.mark.parametrize("firmware", firmwares())
async def test_a_denied_order_is_refused_and_not_repeated(firmware: str) -> None:
    denied = [cell for cell in await cells_of(firmware) if cell.fault.kind == "access_denied"]
    ends = {cell.verb: cell.ending for cell in denied if not cell.ending.endswith("access_denied")}
    assert {verb for verb in ends if verb is not Verb.LOGS} == set()  # logs may be open to everybody


@pytest.mark.parametrize("firmware", firmwares())
async def test_a_desired_state_survives_a_kill_at_any_step(firmware: str) -> None:
    killed = [cell for cell in await cells_of(firmware) if cell.fault.killed and cell.verb not in ONCE]
    ends = {(cell.verb, cell.fault.title): cell.ending for cell in killed if not cell.complete}
    assert {end: what for end, what in ends.items() if what != UNPROVEN.get((firmware, end[0]))} == {}
