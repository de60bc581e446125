"""What was ordered, sent, proven and found at the site, with reasons: journal."""

import argparse
from typing import Any, Final

from agent.cli.shared import Commands, settings_of, takes_config
from agent.errors import BadInput

_MOST: Final = 10_000


def add(commands: Commands) -> None:
    """Add the commands."""
    journal = commands.add_parser("journal", help="show what was ordered, sent, proven and found")
    takes_config(journal, _journal)
    journal.add_argument("--last", default="50", metavar="N", help="how many lines (50)")
    journal.add_argument("--json", action="store_true", help="print one JSON object a line")


def _journal(options: argparse.Namespace) -> int:
    import json

    from agent.at_site import Site
    from sitelink.clock import SystemClock

    count = int(options.last) if options.last.isdecimal() and len(options.last) < len(str(_MOST)) + 1 else 0
    if not 0 < count <= _MOST:
        raise BadInput(f"--last: {options.last!r} does not fit; write a whole number from 1 to {_MOST}")
    for event in Site(settings_of(options), SystemClock()).history(count):
        print(json.dumps(event) if options.json else _line(event))
    return 0


def _line(event: dict[str, Any]) -> str:
    whom = event["miner_id"] or "-"
    return f"{event['at'][:19]}  {event['event']:<20}  {event['order_id'] or '-':<26}  {whom:<18}  {event['what']}"
