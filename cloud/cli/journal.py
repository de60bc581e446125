"""``ballast journal SITE``: what the site did, entry by entry, and whether the cloud's copy of it is whole."""

import argparse
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cloud.cli.session import add_config, open_database
from cloud.core.errors import BadInput
from cloud.hosting import journal
from cloud.infra.sites import require_site
from sitelink.types import JournalEntry

_MOST: Final = 100_000
_SHORT: Final = 16
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config(parser)
    parser.add_argument("site_id", metavar="SITE")
    parser.add_argument("--last", type=int, default=50, metavar="N", help="how many entries (default: %(default)s)")
    parser.add_argument("--verify", action="store_true", help="compute every hash anew; exit 1 if one does not fit")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    """Show the newest entries of the chain heard of last, or verify every chain of the site."""
    if not 0 < arguments.last <= _MOST:
        raise BadInput(f"--last: {arguments.last} does not fit; write a whole number from 1 to {_MOST}")
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        require_site(uow, arguments.site_id)
        known = journal.chains(uow, arguments.site_id)
        if arguments.verify:
            faults = journal.faults(uow, arguments.site_id)
            walked = {state.chain: journal.verify(uow, arguments.site_id, state.chain) for state in known}
            return _report(known, faults, walked, as_json=arguments.json)
        if known:
            newest = known[-1]
            after_seq = newest.last_seq - arguments.last
            for entry in journal.entries_after(uow, arguments.site_id, newest.chain, after_seq, arguments.last):
                print(_json(entry) if arguments.json else _line(entry))
    return 0


def _report(
    known: tuple[journal.ChainState, ...],
    faults: tuple[journal.Fault, ...],
    walked: dict[str, tuple[int, list[str]]],
    *,
    as_json: bool,
) -> int:
    """Print how each chain stands and return the exit code."""
    wrong = [fault for fault in faults if fault.mended_at is None]
    broken = any(not state.whole or walked[state.chain][1] for state in known) or bool(wrong)
    if as_json:
        print(json.dumps({"whole": not broken, "chains": [_state(state, walked) for state in known]}))
        return int(broken)
    if not known:
        print("empty     no entry has come from this site yet")
    for state in known:
        count, found = walked[state.chain]
        word = "whole" if state.whole and not found else "broken"
        through = "not from its first entry" if state.through_seq is None else f"through number {state.through_seq}"
        print(f"{word:<8}  chain {state.chain}: {count} entries, whole {through} of {state.last_seq}")
        for fault in found:
            print(f"          {fault}")
    for told in faults:
        mended = "" if told.mended_at is None else f", mended {told.mended_at:%Y-%m-%d %H:%M:%S} UTC"
        print(f"{told.fault:<8}  chain {told.chain}: {told.detail}; seen {told.seen_at:%Y-%m-%d %H:%M:%S} UTC{mended}")
    return int(broken)


def _state(state: journal.ChainState, walked: dict[str, tuple[int, list[str]]]) -> dict[str, Any]:
    count, found = walked[state.chain]
    return {
        "chain": state.chain,
        "whole": state.whole and not found,
        "entries": count,
        "first_seq": state.first_seq,
        "through_seq": state.through_seq,
        "last_seq": state.last_seq,
        "faults": found,
    }


def _at(entry: JournalEntry) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=entry.at_us)).isoformat(timespec="milliseconds")[:23]
    except OverflowError:
        return str(entry.at_us)


def _line(entry: JournalEntry) -> str:
    whom = entry.subject or "-"
    return (
        f"{entry.seq:>8}  {_at(entry)}  {entry.trust:<9}  {entry.kind:<20}  {whom:<22}  {entry.hash.hex()[:_SHORT]}  "
        f"{entry.detail}"
    )


def _json(entry: JournalEntry) -> str:
    fields = {name: getattr(entry, name) for name in ("chain", "seq", "trust", "kind", "subject", "detail")}
    return json.dumps({**fields, "at": _at(entry), "previous": entry.previous.hex(), "hash": entry.hash.hex()})
