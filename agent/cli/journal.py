"""What was ordered, sent, proven and found at the site, with reasons: journal."""

import argparse
from typing import TYPE_CHECKING, Any, Final

from agent.cli.shared import FAILED, Commands, settings_of, takes_config
from agent.errors import BadInput

if TYPE_CHECKING:
    from agent.at_site import Site

_MOST: Final = 10_000
_SHORT: Final = 16


def add(commands: Commands) -> None:
    """Add the commands."""
    journal = commands.add_parser("journal", help="show what was ordered, sent, proven and found")
    takes_config(journal, _journal)
    journal.add_argument("--last", default="50", metavar="N", help="how many lines (50)")
    journal.add_argument("--json", action="store_true", help="print one JSON object a line")
    what = journal.add_mutually_exclusive_group()
    what.add_argument("--chain", action="store_true", help="show the entries of the hash chain as they were written")
    what.add_argument(
        "--verify", action="store_true", help="check every entry of the chain; exit 1 if one does not fit"
    )


def _journal(options: argparse.Namespace) -> int:
    import json

    from agent.at_site import Site
    from sitelink.clock import SystemClock

    count = int(options.last) if options.last.isdecimal() and len(options.last) < len(str(_MOST)) + 1 else 0
    if not 0 < count <= _MOST:
        raise BadInput(f"--last: {options.last!r} does not fit; write a whole number from 1 to {_MOST}")
    site = Site(settings_of(options), SystemClock())
    if options.verify:
        return _verify(site, as_json=options.json)
    if options.chain:
        _show_chain(site, count, as_json=options.json)
        return 0
    for event in site.history(count):
        print(json.dumps(event) if options.json else _line(event))
    return 0


def _line(event: dict[str, Any]) -> str:
    whom = event["miner_id"] or "-"
    return f"{event['at'][:19]}  {event['event']:<20}  {event['order_id'] or '-':<26}  {whom:<18}  {event['what']}"


def _show_chain(site: "Site", count: int, *, as_json: bool) -> None:
    import json

    from agent.local_curtail.moments import moment_of

    for entry in site.entries(count):
        at = moment_of(entry.at_us).isoformat(timespec="milliseconds")
        if as_json:
            hashes = {"previous": entry.previous.hex(), "hash": entry.hash.hex()}
            fields = {name: getattr(entry, name) for name in ("chain", "seq", "trust", "kind", "subject", "detail")}
            print(json.dumps({**fields, "at": at, **hashes}))
        else:
            subject = entry.subject or "-"
            print(
                f"{entry.seq:>8}  {at[:23]}  {entry.trust:<9}  {entry.kind:<20}  {subject:<22}  "
                f"{entry.hash.hex()[:_SHORT]}  {entry.detail}"
            )


def _verify(site: "Site", *, as_json: bool) -> int:
    import json

    found = site.journal()
    head = found.head
    if as_json:
        where = {} if head is None else {"chain": head.chain, "seq": head.seq, "hash": head.hash.hex()}
        counts = {"entries": found.entries, "chains": found.chains, "carried": 0 if head is None else head.carried_seq}
        print(json.dumps({"whole": not found.faults, "faults": found.faults, **counts, **where}))
        return FAILED if found.faults else 0
    for fault in found.faults:
        print(f"broken    {fault}")
    if head is None:
        print("empty     no entry has been written yet")
        return FAILED if found.faults else 0
    word = "broken" if found.faults else "whole"
    kept = f"{found.entries} entries kept, numbers {head.pruned_seq + 1} to {head.seq}"
    print(f"{word:<8}  {kept}; chain {head.chain}, last hash {head.hash.hex()[:_SHORT]}")
    waits = head.seq - head.carried_seq
    print(f"carried   to number {head.carried_seq}; {waits} entries wait to be handed to the link")
    return FAILED if found.faults else 0
