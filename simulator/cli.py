"""The command line: ``ballast-sim site``. Prints one JSON line when ready, then serves until SIGTERM.

Invariant: every failure is one line on stderr naming the cause and the next step; exit code 2 for bad input, 1 for
failure, 0 after SIGTERM or SIGINT.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from simulator.errors import BadInput, SimulatorError
from simulator.roster import DIALECTS, RosterOptions
from simulator.site import SimulatedSite, SiteOptions
from sitelink.clock import SystemClock


def main(arguments: Sequence[str]) -> int:
    """Run ``arguments`` and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = asyncio.run(options.run(options))
    except BadInput as error:
        print(f"ballast-sim: {error}", file=sys.stderr)
        return 2
    except SimulatorError as error:
        print(f"ballast-sim: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ballast-sim", description="Simulated mining sites, networks and markets.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_site(commands.add_parser("site", help="miners and meters of one site"))
    return parser


def _add_site(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--site-id", default="pecos-1")
    add("--miners", type=int, default=250)
    add("--seed", type=int, default=7)
    add("--net", default="127.20", help="first two bytes of the miners' addresses")
    add("--port", type=int, default=4028, help="the miners' TCP port")
    add("--control", default="127.0.0.1:0", help="HOST:PORT of the control port")
    add("--meters", default="", help="HOST:PORT of the meters; default NET.0.1:5020")
    add("--out", type=Path, default=None, help="folder for inventory.csv, meters.csv and truth.json")
    add("--dialects", default=",".join(DIALECTS), help="comma-separated; default all five")
    add("--dead", type=float, default=0.05, help="share of miners without power")
    add("--liars", type=float, default=0.02, help="share of miners that lie")
    add("--feeder-size", type=int, default=10, help="miners a feeder")
    add("--time-scale", type=float, default=1.0, help="simulated seconds a real second")
    add("--whatsminer-password", default="admin")
    parser.set_defaults(run=_run_site)


async def _run_site(options: argparse.Namespace) -> int:
    roster = RosterOptions(
        site_id=options.site_id,
        miners=options.miners,
        seed=options.seed,
        net=options.net,
        port=options.port,
        dialects=tuple(name.strip() for name in options.dialects.split(",") if name.strip()),
        dead=options.dead,
        liars=options.liars,
        feeder_size=options.feeder_size,
    )
    meters = parse_address("--meters", options.meters) if options.meters else ("", 5020)
    site = SimulatedSite(
        SiteOptions(
            roster=roster,
            out=options.out,
            control=parse_address("--control", options.control),
            meters_host=meters[0],
            meters_port=meters[1],
            time_scale=options.time_scale,
            whatsminer_password=options.whatsminer_password,
        ),
        SystemClock(),
    )
    return await serve(
        site, lambda: {"control": site.control.url if site.control else None, "miners": len(site.places)}
    )


async def serve(service: AbstractAsyncContextManager[Any], ready: Any) -> int:
    """Enter ``service``, print the ready line, and leave it at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with service:
        print(json.dumps({"ready": True, **ready()}), flush=True)
        await stop.wait()
    return 0


def parse_address(option: str, text: str) -> tuple[str, int]:
    """Return (host, port) of ``HOST:PORT``.

    Raises:
        BadInput: it is something else.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise BadInput(f"{option}: {text!r} is not HOST:PORT; give an address such as 127.0.0.1:8900")
    return host, int(port)
