"""Looking at devices: poll."""

import argparse
from typing import TYPE_CHECKING, Final

from agent.cli.shared import Commands, settings_of, takes_config
from agent.errors import AgentError, BadInput

if TYPE_CHECKING:
    from agent.cgminer.credentials import Credentials

_DEFAULT_PORT: Final = 4028
_PORTS: Final = 65_536


def add(commands: Commands) -> None:
    """Add the commands."""
    poll = commands.add_parser("poll", help="read one miner and show what it says")
    poll.add_argument("host", metavar="HOST[:PORT]")
    poll.add_argument("--dialect", default="auto", help="the firmware, as in inventory.csv, or auto")
    poll.add_argument("--json", action="store_true", help="print one JSON object")
    poll.add_argument("--raw", action="store_true", help="print the replies as they came, too")
    poll.add_argument(
        "--web-port", type=int, default=80, metavar="PORT", help="its web page's, if not the firmware's own"
    )
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

    if options.dialect not in DIALECTS:
        raise BadInput(f"--dialect: {options.dialect!r} is not known; write one of {', '.join(DIALECTS)}")
    if not 0 < options.web_port < _PORTS:
        raise BadInput(f"--web-port: {options.web_port} is no port; write one from 1 to {_PORTS - 1}")
    endpoint = parse_endpoint(options.host, _DEFAULT_PORT)
    asking = probe.probe(
        Address(endpoint.host, endpoint.port),
        options.dialect,
        DEFAULT_DEADLINES,
        web_port=options.web_port,
        credentials=_credentials(options),
    )
    try:
        found = asyncio.run(asking)
    except AgentError as error:
        raise BadInput(str(error)) from None
    if found.stranger is None or options.raw:
        print(probe.as_json(found, raw=options.raw) if options.json else probe.as_table(found))
        if options.raw and not options.json:
            print(probe.raw_replies(found))
    if found.stranger is not None:
        raise BadInput(found.stranger)
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
