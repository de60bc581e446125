"""What must hold of real processes, seen from outside: the database file, what the cloud has, what the miners did."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from agent.local_curtail.chain import check, entries, head_of
from agent.storage import connect_read_only
from sitelink.journal import fault_of
from sitelink.types import Batch, JournalEntry


def journal_faults(database: Path, arrived: Sequence[JournalEntry]) -> list[str]:
    """What is wrong with the journal of a site: in its file, and with what of it has ``arrived`` in the cloud."""
    with closing(connect_read_only(database)) as connection:
        found = [f"file: {fault}" for fault in check(connection).faults]
        kept, head = entries(connection, 0, 10**9), head_of(connection)
    found += [
        f"cloud: {fault}" for one, two in zip((None, *arrived), arrived, strict=False) if (fault := fault_of(two, one))
    ]
    if list(arrived) != kept[: len(arrived)]:
        found.append("cloud: what arrived is not what was written, once each and in order")
    if head is None or len(arrived) > head.carried_seq:
        found.append("cloud: more has arrived than was carried")
    return found


def buffer_faults(database: Path, stored: Mapping[tuple[str, int], Batch]) -> list[str]:
    """Whether every number given out is stored by the cloud, once, or still waits as sealed."""
    with closing(connect_read_only(database)) as connection:
        epochs = dict(connection.execute("SELECT epoch, next_seq FROM buffer_epochs"))
        kept = connection.execute(
            "SELECT e.epoch, b.first_seq, b.last_seq, b.settled_at_us IS NOT NULL, b.payload FROM buffer_batches b"
            " JOIN buffer_epochs e ON e.number = b.epoch_number"
        ).fetchall()
    found = []
    covered = Counter((epoch, n) for (epoch, _), one in stored.items() for n in range(one.first_seq, one.last_seq + 1))
    for epoch, first, last, settled, payload in kept:
        one = stored.get((epoch, first))
        if one is None and settled:
            found.append(f"settled, but the cloud lacks {first}")
        if one is not None and (one.payload, one.last_seq) != (payload, last):
            found.append(f"batch {first} is another in the cloud")
        if one is None:
            covered.update((epoch, n) for n in range(first, last + 1))
    wanted = Counter((epoch, n) for epoch, next_seq in epochs.items() for n in range(next_seq))
    if covered != wanted:
        found.append(f"{len(wanted - covered)} numbers are lost, {len(covered - wanted)} doubled")
    return found
