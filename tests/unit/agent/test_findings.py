"""What a verdict proves to a technician is one thing, whether the daemon's books or a failsafe without one judged."""

from dataclasses import replace

import pytest

from agent.findings import Finding, Proof, of_outlet, proof_of, table, verdict
from agent.local_curtail.evidence import Lie, MeterWord, StopFacts, Verdict, judge_stop
from agent.local_curtail.records import MinerRecord
from agent.local_requests import judged_answer
from sitelink.inventory import MinerEntry
from sitelink.types import Evidence, MinerState, Outcome, Reason, Verb
from sitelink.units import Watts
from tests.unit.agent.failsafe.test_weighing import Seen

pytestmark = pytest.mark.agent


def judged(meter: MeterWord, power_w: float | None) -> tuple[Verdict, Watts | None]:
    seen = Seen(MinerState.IDLE, None if power_w is None else Watts(power_w), Reason.COMMANDED)
    return judge_stop(StopFacts(Watts(3250), 0.15, True, True, seen, meter)), seen.power_w


@pytest.mark.parametrize(
    ("meter", "power_w", "proof"),
    [
        (MeterWord.NONE, 50.0, Proof.YES),
        (MeterWord.NONE, None, Proof.OPEN),
        (MeterWord.SILENT, 50.0, Proof.OPEN),
        (MeterWord.SILENT, None, Proof.OPEN),
        (MeterWord.CLEARED, None, Proof.YES),
        (MeterWord.CLEARED, 50.0, Proof.YES),
        (MeterWord.CLOUDED, 50.0, Proof.OPEN),
        (MeterWord.NOISY, 50.0, Proof.OPEN),
        (MeterWord.ACCUSED, None, Proof.OPEN),
    ],
)
def test_a_miner_that_reads_off_is_proven_by_its_meter_or_by_its_own_figure_never_by_none(
    meter: MeterWord, power_w: float | None, proof: Proof
) -> None:
    how, last_w = judged(meter, power_w)
    assert proof_of(Verb.STOP, how) is proof
    record = MinerRecord("m1", Verb.STOP, "failsafe-1", 0, "override").judged(how, last_w)
    assert judged_answer(record)["proof"] == proof.value
    behind = judged_answer(record, by_outlet=True)
    cut = meter in {MeterWord.NONE, MeterWord.SILENT, MeterWord.CLEARED}
    assert (behind["proof"] == "yes") is cut, "silent, and its coil off: only a meter speaks against that"
    assert behind["what"].startswith("its outlet reads off") is cut


def test_whoever_does_not_read_off_is_not_proven_and_a_caught_liar_never_by_its_word() -> None:
    running = judge_stop(StopFacts(Watts(3250), 0.15, True, True, Seen(MinerState.HASHING, None), MeterWord.NONE))
    assert proof_of(Verb.STOP, running) is Proof.NO
    assert of_outlet(running) == running
    idle = Verdict(Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "already_idle")
    assert proof_of(Verb.STOP, idle) is Proof.YES
    assert proof_of(Verb.STOP, replace(idle, lie=Lie.REPORTS_IDLE)) is Proof.OPEN
    assert proof_of(Verb.START, idle) is Proof.NO


def test_the_table_shows_unknown_as_unknown_and_names_who_is_missing() -> None:
    entry = MinerEntry("m1", "127.0.0.1", 4028, "luxos", "S19", "F1", "R1", 1, None, None)
    found = [Finding(entry, Proof.OPEN, "why", None, Watts(50))]
    assert table(found)[1] == "m1  R1        unknown     50 W  open    why"
    assert verdict(found, "proven off") == ["0 of 1 miners proven off", "not proven off: m1"]
