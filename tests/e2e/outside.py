"""What must hold of real processes, seen from outside: the database file, what the cloud has, what the miners did."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from agent.local_curtail.chain import check, entries, head_of
from agent.storage import connect_read_only
from sitelink.journal import fault_of
from sitelink.types import JournalEntry


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
