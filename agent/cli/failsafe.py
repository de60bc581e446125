"""Stopping and starting miners at the site itself, whatever else is dead: failsafe."""

import argparse
import math
import sys
from typing import TYPE_CHECKING, Final

from agent.cli.shared import Commands, duration_of, settings_of, takes_config, watched
from agent.errors import BadInput

if TYPE_CHECKING:
    from agent.failsafe.choice import Choice

_MOST_MW: Final = 10_000.0


def add(commands: Commands) -> None:
    """Add the commands."""
    failsafe = commands.add_parser("failsafe", help="stop or start miners without cloud, link or daemon")
    takes_config(failsafe, _failsafe)
    failsafe.add_argument("action", choices=("off", "on", "status", "release"))
    which = failsafe.add_mutually_exclusive_group()
    which.add_argument("--all", dest="everything", action="store_true", help="every miner of the site")
    which.add_argument("--rack", nargs="+", metavar="RACK", help="the miners of these racks")
    which.add_argument("--miner", nargs="+", metavar="ID", help="only these miners")
    which.add_argument("--mw", metavar="X", help="off: at least X MW, the least efficient first; on: at most X MW")
    failsafe.add_argument(
        "--for", dest="duration", default="4h", metavar="2h", help="how long the daemon keeps to it (4h)"
    )
    failsafe.add_argument("--take-over", action="store_true", help="end a daemon that is hung, and go on without it")
    failsafe.add_argument("--json", action="store_true", help="status: print one JSON object a look")
    failsafe.add_argument("--watch", action="store_true", help="status: look again and again until Ctrl-C")


def _failsafe(options: argparse.Namespace) -> int:
    from agent.failsafe.run import Order, run_failsafe

    if options.json and options.action != "status":
        raise BadInput("--json: only status is told so; leave it out")
    if options.watch and options.action != "status":
        raise BadInput("--watch: only status can be watched; leave it out")
    order = Order(options.action, _choice(options), duration_of(options.duration), options.take_over, options.json)
    settings = settings_of(options)
    return watched(lambda: run_failsafe(settings, order, sys.stdout), again=options.watch)


def _choice(options: argparse.Namespace) -> "Choice":
    from agent.failsafe.choice import Choice
    from sitelink.units import Megawatts, watts

    load_w = None if options.mw is None else watts(Megawatts(_megawatts(options.mw)))
    return Choice(options.everything, tuple(options.rack or ()), tuple(options.miner or ()), load_w)


def _megawatts(text: str) -> float:
    try:
        load_mw = float(text)
    except ValueError:
        load_mw = math.nan
    if not 0 < load_mw <= _MOST_MW:
        raise BadInput(f"--mw: {text!r} is no load; write megawatts, for example 2.5")
    return load_mw
