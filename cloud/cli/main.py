"""The command line itself: finds the command, runs it, turns errors into one line and an exit code.

Invariants: 0 done, 1 it failed, 2 what was typed or configured cannot be used (nothing changed); an error is one line
on stderr that names cause and remedy; modules of a command load only when it is asked for.
"""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from cloud.core.errors import BadInput, CloudError

# Command -> the module that declares it, and its line in the help.
COMMANDS: Final = {
    "up": ("cloud.cli.server", "run the whole control plane"),
    "serve": ("cloud.cli.server", "run the console and the site link only"),
    "worker": ("cloud.cli.server", "run the outbox and the periodic jobs only"),
    "signer": ("cloud.cli.signing", "run the signer only"),
    "site": ("cloud.cli.site", "create sites, import inventories, enrol and revoke agents"),
    "agents": ("cloud.cli.agents", "show sites' agents, approve their keys, shut them out"),
    "operator": ("cloud.cli.operator", "add an operator, or give one a new one-time password"),
    "plan": ("cloud.cli.plan", "show and make plans"),
    "order": ("cloud.cli.order", "tell miners to limit, reboot, blink, change pools, firmware ..."),
    "signal": ("cloud.cli.signal", "tell the planner about grid events"),
    "journal": ("cloud.cli.journal", "show and verify what a site did, entry by entry"),
    "invoice": ("cloud.cli.invoice", "issue, check and export invoices"),
    "broker": ("cloud.cli.broker", "write what an MQTT broker of the link needs"),
    "demo": ("cloud.cli.demo.command", "watch the whole story on this machine"),
}
_QUIET: Final = ("alembic", "httpx", "httpcore", "asyncio", "uvicorn")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the complaint and exit with code 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def run(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code."""
    parser = _parser(arguments)
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return int(parsed.run(parsed))
    except CloudError as error:
        print(f"ballast: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1
    except KeyboardInterrupt:
        return 130


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = OneLineParser(prog="ballast", description="Bitcoin mining sites, run as grid ballast.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=OneLineParser)
    asked = next((argument for argument in arguments if not argument.startswith("-")), "")
    wanted, _ = COMMANDS.get(asked, ("", ""))
    if wanted:
        _declare(wanted, asked, commands)
    for name, (module_name, summary) in COMMANDS.items():
        if module_name != wanted:
            commands.add_parser(name, help=summary)
    return parser


def _declare(module_name: str, name: str, commands: Any) -> None:
    """Let the module declare its commands: all of them by ``register``, or its one by ``add_arguments`` and ``run``."""
    module = importlib.import_module(module_name)
    if hasattr(module, "register"):
        module.register(commands)
    else:
        parser = commands.add_parser(name, help=COMMANDS[name][1])
        module.add_arguments(parser)
        parser.set_defaults(run=module.run)
