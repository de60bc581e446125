"""Looking at devices: poll."""

import argparse
from typing import TYPE_CHECKING

from agent.cli.shared import Commands, check_port, settings_of, takes_config
from agent.errors import BadInput, Garbled

if TYPE_CHECKING:
    from agent.cgminer.credentials import Credentials


def add(commands: Commands) -> None:
    """Add the commands."""
    poll = commands.add_parser("poll", help="read one miner and show what it says")
    poll.add_argument("host", metavar="HOST[:PORT]")
    poll.add_argument("--dialect", default="auto", help="the firmware, as in inventory.csv, or auto")
    poll.add_argument("--json", action="store_true", help="print one JSON object")
    poll.add_argument("--raw", action="store_true", help="print the replies as they came, too")
    poll.add_argument("--web-port", type=int, metavar="PORT", help="its web page's, if not the firmware's own")
    poll.add_argument(
        "--log-in", metavar="GROUP", help="open its pages with this credentials group of the agent's vault"
    )
    takes_config(poll, _poll)


def _poll(options: argparse.Namespace) -> int:
    import asyncio

    from agent import probe
    from agent.cgminer.client import DEFAULT_DEADLINES, Address
    from agent.settings import parse_endpoint
    from sitelink.inventory import DIALECTS
    from sitelink.miners import RPC_PORT, WEB_PORT

    if options.dialect not in DIALECTS:
        raise BadInput(f"--dialect: {options.dialect!r} is not known; write one of {', '.join(DIALECTS)}")
    web_port = WEB_PORT if options.web_port is None else options.web_port
    check_port("--web-port", web_port)
    endpoint = parse_endpoint(options.host, RPC_PORT)
    asking = probe.probe(
        Address(endpoint.host, endpoint.port),
        options.dialect,
        DEFAULT_DEADLINES,
        web_port=web_port,
        credentials=_credentials(options),
    )
    found = asyncio.run(asking)
    if found.stranger is None or options.raw:
        print(probe.as_json(found, raw=options.raw) if options.json else probe.as_table(found))
        if options.raw and not options.json:
            print(probe.raw_replies(found))
    if found.stranger is not None:
        raise Garbled(found.stranger)
    return 0


def _credentials(options: argparse.Namespace) -> "Credentials | None":
    """Return what the vault has for the group that ``--log-in`` names. Raises BadInput when it has nothing."""
    if options.log_in is None:
        return None
    from agent.vault import Vault

    found = Vault.open(settings_of(options)).group(options.log_in)
    if found is None:
        raise BadInput(
            f"--log-in: the vault has no password for group {options.log_in!r}; "
            f"keep one with: ballast-agent credentials set {options.log_in}"
        )
    return found
