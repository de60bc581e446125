"""What a run without a daemon has found, as local curtailment's books hold it. Pure.

    stop   a liar, new or known       judged and acknowledged as by the daemon, and told: LIAR_NAMED
           reads off, and no more     its reason: whom to measure on a feeder that disagrees
           proven off                 what stood against it is struck
    start  proven                     the miner is no longer ours
    feeder that draws too much        marked and told: FEEDER_DISAGREES; struck once nobody on it is open

Invariant: an outcome is given to liars alone, who stay what they are until they are proven off: of the others the
daemon on its return reads back each itself.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from agent.failsafe.weighing import Balance
from agent.findings import Finding, Proof
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.doubts import Difference, difference_of, difference_words, mark_of, open_stops
from agent.local_curtail.evidence import LIES, Lie
from agent.local_curtail.policy import OVERRIDE
from agent.local_curtail.records import MinerRecord, Phase
from sitelink.types import NoticeCode, Verb
from sitelink.units import Watts

LetGo = Callable[[str, str], bool]


def found_entry(books: Books, finding: Finding, verb: Verb, earlier: MinerRecord | None) -> Entry:
    """Return what changes once a miner was found so; ``earlier`` is its record before the run."""
    record = books.miners.get(finding.entry.miner_id)
    if record is None:
        return Entry()
    if finding.unsent or verb is Verb.START:
        return _given_back(record, finding, earlier)
    judged = finding.verdict
    if record.verb is not Verb.STOP or judged is None or (record.complete and not judged.lie):
        return Entry()
    if finding.proof is Proof.YES:
        stands = record.lie or record.reason
        return Entry(miners=[replace(record, lie=Lie.NONE, reason="")]) if stands else Entry()
    if judged.lie or record.lie:
        caught = replace(record.judged(judged, finding.after_w), acked=finding.acked)
        entry = Entry(miners=[caught], acks=[(caught, judged)])
        if judged.lie and judged.lie is not record.lie:
            entry.notices.append((NoticeCode.LIAR_NAMED, record.miner_id, LIES[judged.lie]))
        return entry
    is_open = finding.proof is Proof.OPEN
    return Entry(miners=[replace(record, reason=judged.reason)]) if is_open else Entry()


def feeder_entry(
    books: Books,
    feeder_id: str,
    names: Collection[str],
    balance: Balance | None,
    earlier: Mapping[str, MinerRecord | None],
    gone: LetGo,
    now: datetime,
) -> Entry:
    """Return what changes of a feeder's mark once its miners, ``names``, are as the books have them.

    ``balance`` is None where no meter has told; ``earlier`` are the records, before the run, of those it ordered;
    ``gone`` tells of an override and a miner whether it was released for that.
    """
    mark = mark_of(feeder_id)
    known = difference_of(books.mark(mark))
    left_open = _open(books, names, gone)
    if balance is None or not balance.excess_w:
        was_open = [name for name in names if (record := earlier.get(name)) is not None and open_stops([record])]
        over = known is not None and not left_open and (balance is not None or was_open)
        return Entry(marks={mark: ""}) if over else Entry()
    # Of whom this run did not look for a fall, what was found before stands beside what it found.
    stays = known is not None and not balance.claimed.issuperset(left_open)
    excess_w = Watts(balance.excess_w + (known.excess_w if known is not None and stays else 0.0))
    step = max(1, round(excess_w / balance.tolerated_w))
    if known is not None and known.step == step:
        return Entry()
    text = Difference(step, excess_w, now if known is None else known.since).text()
    notice = (NoticeCode.FEEDER_DISAGREES, feeder_id, difference_words(excess_w, left_open))
    return Entry(marks={mark: text}, notices=[notice])


def released_entry(books: Books, feeders: Mapping[str, Collection[str]], gone: LetGo) -> Entry:
    """Return what changes once overrides were released: the marks of feeders whose open stops are all ``gone``."""
    entry = Entry()
    for feeder_id, names in feeders.items():
        went = [record for record in _records(books, names) if _is_gone(record, gone)]
        if books.mark(mark_of(feeder_id)) and open_stops(went) and not _open(books, names, gone):
            entry.marks[mark_of(feeder_id)] = ""
    return entry


def joined(entries: Iterable[Entry]) -> Entry:
    """Return ``entries`` as one, to be written together."""
    whole = Entry()
    for entry in entries:
        whole.add(entry)
    return whole


def _open(books: Books, names: Collection[str], gone: LetGo) -> list[str]:
    return open_stops(record for record in _records(books, names) if not _is_gone(record, gone))


def _records(books: Books, names: Collection[str]) -> list[MinerRecord]:
    return [record for name in names if (record := books.miners.get(name)) is not None]


def _is_gone(record: MinerRecord, gone: LetGo) -> bool:
    return record.cause == OVERRIDE and gone(record.order_id, record.miner_id)


def _given_back(record: MinerRecord, finding: Finding, earlier: MinerRecord | None) -> Entry:
    """Return the record of a miner that nothing was sent to, or that was proven to run."""
    if finding.unsent:
        touched = earlier is not None and earlier.touched
        off_since = None if earlier is None else earlier.off_since
        return Entry(miners=[replace(record, phase=Phase.WAITING, touched=touched, off_since=off_since)])
    if finding.proof is not Proof.YES:
        return Entry()
    return Entry(miners=[replace(record, phase=Phase.WAITING, touched=False, off_since=None)])
