"""Looking at devices: poll."""

import argparse
from typing import Final

from agent.cli.shared import Commands
from agent.errors import AgentError, BadInput

_DEFAULT_PORT: Final = 4028


def add(commands: Commands) -> None:
    """Add the commands."""
    poll = commands.add_parser("poll", help="read one miner and show what it says")
    poll.add_argument("host", metavar="HOST[:PORT]")
    poll.add_argument("--dialect", default="auto", help="the firmware, as in inventory.csv, or auto")
    poll.add_argument("--json", action="store_true", help="print one JSON object")
    poll.add_argument("--raw", action="store_true", help="print the replies as they came, too")
    poll.set_defaults(command=_poll)


def _poll(options: argparse.Namespace) -> int:
    import asyncio

    from agent import probe
    from agent.cgminer.client import DEFAULT_DEADLINES, Address
    from agent.settings import parse_endpoint
    from sitelink.inventory import DIALECTS

    if options.dialect not in DIALECTS:
        raise BadInput(f"--dialect: {options.dialect!r} is not known; write one of {', '.join(DIALECTS)}")
    endpoint = parse_endpoint(options.host, _DEFAULT_PORT)
    try:
        found = asyncio.run(probe.probe(Address(endpoint.host, endpoint.port), options.dialect, DEFAULT_DEADLINES))
    except AgentError as error:
        raise BadInput(str(error)) from None
    if found.stranger is None or options.raw:
        print(probe.as_json(found, raw=options.raw) if options.json else probe.as_table(found))
        if options.raw and not options.json:
            print(probe.raw_replies(found))
    if found.stranger is not None:
        raise BadInput(found.stranger)
    return 0
