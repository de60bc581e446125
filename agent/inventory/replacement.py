"""Another miner at a place, a new control board, a miner sent away and taken back. Pure.

    swap   OLD out, NEW in: the place (feeder, rack, position, outlet, credentials) stays, the nameplate is asked anew
    board  the same miner under a new name: all but the name stays
    rma    out: the row goes, and is kept in the history; back: it returns to its place, or to the one now given

Invariants: no figure of one miner is ever taken for another's; nobody is put where somebody stands, nor into another
rack on the feeder of its former one, unless somebody of that rack hangs on it: its stop would be weighed on that meter.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.errors import BadInput
from agent.inventory.changes import Change, What, in_place_of
from sitelink.inventory import MinerEntry, miner_of, row_of
from sitelink.miners import AUTO
from sitelink.rows import BadList

Made = tuple[tuple[Change, ...], tuple[MinerEntry, ...]]


def swap(rows: Sequence[MinerEntry], old_id: str, new_id: str, said: Mapping[str, str], *, board: bool) -> Made:
    """Return the change that puts ``new_id`` where ``old_id`` stands, and the rows after it.

    ``said`` holds what is known of the new miner, by column; ``board`` means it is the same miner with another
    control board.

    Raises:
        BadInput: the old miner is not in the inventory, the new one is, a value is wrong, or another rack is given
            and nobody knows its feeder.
    """
    was = _named(rows, old_id)
    if any(entry.miner_id.lower() == new_id.lower() for entry in rows):
        raise BadInput(f"{new_id}: is in the inventory already; swap one that is not, or correct the row by import")
    bare = {"host": was.host, "port": str(was.port), "dialect": AUTO, "web_port": str(was.web_port), "position": "0"}
    _check_feeder(rows, row_of(was), said)
    own = row_of(was) if board else {**dict.fromkeys(row_of(was), ""), **bare}
    now = in_place_of(entry_of({**own, **said, "miner_id": new_id}), was)
    return (Change(What.SWAPPED, was, now),), tuple(now if entry is was else entry for entry in rows)


def take_out(rows: Sequence[MinerEntry], miner_id: str) -> Made:
    """Return the change that sends a miner away, and the rows without it. Raises BadInput when it is not there."""
    was = _named(rows, miner_id)
    return (Change(What.RMA_OUT, was, None),), tuple(entry for entry in rows if entry is not was)


def put_back(rows: Sequence[MinerEntry], row: Mapping[str, Any], said: Mapping[str, str]) -> Made:
    """Return the change that takes a miner back whose row was ``row``, and the rows with it.

    ``said`` holds what differs now, by column.

    Raises:
        BadInput: it is in the inventory already, a value is wrong, or another rack is given and nobody knows its
            feeder.
    """
    if any(entry.miner_id.lower() == str(row["miner_id"]).lower() for entry in rows):
        raise BadInput(f"{row['miner_id']}: is in the inventory already; nothing is to be taken back")
    _check_feeder(rows, row, said)
    now = entry_of({**row, **said})
    return (Change(What.RMA_BACK, None, now),), (*rows, now)


def entry_of(row: Mapping[str, Any]) -> MinerEntry:
    """Return the miner of a row. Raises BadInput with every field that is wrong."""
    try:
        return miner_of({name: str(value) for name, value in row.items()})
    except BadList as error:
        raise BadInput("; ".join(complaint.partition(": ")[2] for complaint in error.complaints)) from None


def _check_feeder(rows: Sequence[MinerEntry], row: Mapping[str, Any], said: Mapping[str, str]) -> None:
    """Raise BadInput where a miner goes to another rack and only its former place says on which feeder it hangs."""
    rack, feeder = said.get("rack", ""), str(row.get("feeder_id", ""))
    if not rack or not feeder or "feeder_id" in said or rack.lower() == str(row.get("rack", "")).lower():
        return
    there = {entry.feeder_id for entry in rows if entry.rack.lower() == rack.lower()}
    if feeder not in there:
        hang = f"its miners hang on {', '.join(sorted(filter(None, there)))}" if any(there) else "no miner there tells"
        raise BadInput(
            f"--feeder-id: it is missing: {feeder} is that of rack {row.get('rack') or '(none)'}, "
            f"and of rack {rack} {hang}; write the feeder whose meter measures the new place"
        )


def _named(rows: Sequence[MinerEntry], miner_id: str) -> MinerEntry:
    for entry in rows:
        if entry.miner_id.lower() == miner_id.lower():
            return entry
    raise BadInput(f"{miner_id}: is not in the inventory; write the id as the inventory has it")
