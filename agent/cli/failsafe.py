"""Stopping and starting miners with everything else dead: failsafe."""

import argparse
import sys

from agent.cli.shared import Commands, duration_of, settings_of, takes_config


def add(commands: Commands) -> None:
    """Add the commands."""
    failsafe = commands.add_parser("failsafe", help="stop or start miners without cloud, link or daemon")
    takes_config(failsafe, _failsafe)
    failsafe.add_argument("action", choices=("off", "on", "status"))
    failsafe.add_argument("--miner", nargs="+", metavar="ID", help="only these miners")
    failsafe.add_argument(
        "--for", dest="duration", default="4h", metavar="2h", help="how long the daemon keeps to it (4h)"
    )


def _failsafe(options: argparse.Namespace) -> int:
    import asyncio

    from agent.failsafe import run_failsafe

    duration, miners = duration_of(options.duration), tuple(options.miner or ())
    return asyncio.run(run_failsafe(settings_of(options), options.action, miners, duration, sys.stdout))
