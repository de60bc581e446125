"""The command line: ``ballast-sim site | link | market | replay``.

Each command prints one JSON line when ready, then serves until SIGTERM.

Invariant: every failure is one line on stderr naming the cause and the next step; exit code 2 for bad input, 1 for
failure, 0 after SIGTERM or SIGINT.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime
from pathlib import Path
from typing import Any, NoReturn

from simulator.bounds import check_net, check_range, parse_listener, parse_target
from simulator.errors import BadInput, SimulatorError
from simulator.link import LinkProxy
from simulator.market import MOST_INTERVALS, MarketFeed, MarketOptions
from simulator.prices import (
    MAX_SPIKE_USD_PER_MWH,
    MIN_SPIKE_USD_PER_MWH,
    Curve,
    RecordedHours,
    SyntheticDay,
    read_hours,
)
from simulator.replay import ReplayedDevices, ReplayOptions, load_devices
from simulator.roster import ALL_DIALECTS, DIALECTS, RosterOptions
from simulator.site import SimulatedSite, SiteOptions
from sitelink.clock import SystemClock
from sitelink.inventory import DIALECTS as INVENTORY_DIALECTS


def main(arguments: Sequence[str]) -> int:
    """Run ``arguments`` and return the exit code."""
    try:
        options = _parser().parse_args(arguments)
        code: int = asyncio.run(options.run(options))
    except BadInput as error:
        print(f"ballast-sim: {error}", file=sys.stderr)
        return 2
    except SimulatorError as error:
        print(f"ballast-sim: {error}", file=sys.stderr)
        return 1
    return code


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ballast-sim", description="Simulated mining sites, networks and markets.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_site(commands.add_parser("site", help="miners and meters of one site"))
    _add_link(commands.add_parser("link", help="a TCP proxy that can be cut, slow or half-open"))
    _add_market(commands.add_parser("market", help="a price feed, synthetic or from an ERCOT file"))
    _add_replay(commands.add_parser("replay", help="recorded replies of real devices"))
    return parser


def _add_site(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--site-id", default="pecos-1")
    add("--miners", type=int, default=250)
    add("--seed", type=int, default=7)
    add("--net", default="127.20", help="first two bytes of the miners' addresses")
    add("--port", type=int, default=4028, help="the miners' TCP port")
    add("--web-port", type=int, default=8080, help="the port of the miners' web pages")
    add("--framed-port", type=int, default=4433, help="the port of Whatsminer's API v3")
    add("--control", default="127.0.0.1:0", help="HOST:PORT of the control port")
    add("--meters", default="", help="HOST:PORT of the meters; default NET.0.1:5020")
    add("--out", type=Path, default=None, help="folder for inventory.csv, meters.csv and truth.json")
    add("--dialects", default=",".join(DIALECTS), help="comma-separated, or all; default the five commonest")
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
        web_port=options.web_port,
        framed_port=options.framed_port,
        dialects=_dialects(options.dialects),
        dead=options.dead,
        liars=options.liars,
        feeder_size=options.feeder_size,
    )
    meters = parse_listener("--meters", options.meters) if options.meters else ("", 5020)
    site = SimulatedSite(
        SiteOptions(
            roster=roster,
            out=options.out,
            control=parse_listener("--control", options.control),
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


def _dialects(text: str) -> tuple[str, ...]:
    if text.strip() == "all":
        return ALL_DIALECTS
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _add_link(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", required=True, help="HOST:PORT to accept at")
    parser.add_argument("--to", required=True, help="HOST:PORT to connect to")
    parser.add_argument("--control", default="127.0.0.1:0", help="HOST:PORT of the control port")
    parser.set_defaults(run=_run_link)


async def _run_link(options: argparse.Namespace) -> int:
    proxy = LinkProxy(
        parse_listener("--listen", options.listen),
        parse_target("--to", options.to),
        parse_listener("--control", options.control),
    )
    return await serve(
        proxy,
        lambda: {
            "control": proxy.control.url if proxy.control else None,
            "listen": f"{proxy.host}:{proxy.port}",
        },
    )


def _add_market(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--control", default="127.0.0.1:0", help="HOST:PORT of the feed")
    add("--market", default="", help="name of the market; default the file's, or SIM")
    add("--prices", type=Path, default=None, help="ERCOT hourly CSV; default a synthetic day")
    add("--day", default="", help="day of the file to play, 2024-05-08; default the one with the highest price")
    add("--interval-s", type=int, default=900, help="seconds an interval lasts")
    add("--start", default="", help="time of the first interval, 2026-05-08T20:00:00+00:00; default now")
    add("--horizon", type=int, default=48, help="intervals published ahead")
    add("--seed", type=int, default=7)
    add("--spike-after", type=int, default=None, help="intervals before the spike; default 8, with --prices 1")
    add("--spike-intervals", type=int, default=4, help="length of the synthetic spike; 0 for none")
    add("--spike-price", type=float, default=950.0, help="height of the synthetic spike in USD/MWh, 500 or more")
    add("--check", action="store_true", help="only say whether these prices can be played, and what they are")
    parser.set_defaults(run=_run_market)


async def _run_market(options: argparse.Namespace) -> int:
    if options.check:
        print(json.dumps({"source": _curve(options).source}))
        return 0
    market = MarketOptions(
        market=options.market or (options.prices.stem if options.prices else "SIM"),
        interval_s=options.interval_s,
        start=_start_time(options.start),
        horizon=options.horizon,
        control=parse_listener("--control", options.control),
    )
    feed = MarketFeed(market, _curve(options), SystemClock())
    return await serve(feed, lambda: {"control": feed.control.url, "prices": feed.url, "start": feed.start.isoformat()})


def _curve(options: argparse.Namespace) -> Curve:
    check_range("--spike-after", options.spike_after or 0, 0, MOST_INTERVALS, "intervals")
    check_range("--spike-intervals", options.spike_intervals, 0, MOST_INTERVALS, "intervals")
    if options.prices is None:
        check_range("--spike-price", options.spike_price, MIN_SPIKE_USD_PER_MWH, MAX_SPIKE_USD_PER_MWH, "USD/MWh")
        after = 8 if options.spike_after is None else options.spike_after
        return SyntheticDay(options.seed, options.interval_s, after, options.spike_intervals, options.spike_price)
    lead = 1 if options.spike_after is None else options.spike_after
    try:
        day = date.fromisoformat(options.day) if options.day else None
    except ValueError:
        raise BadInput(f"--day: {options.day!r} is not a date; write it as 2024-05-08") from None
    return RecordedHours(options.prices.name, read_hours(options.prices), day, lead, options.interval_s)


def _start_time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        start = None
    if start is None or start.tzinfo is None:
        raise BadInput(f"--start: {text!r} is not a time with its zone; write it as 2026-05-08T20:00:00+00:00")
    return start


def _add_replay(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder with MANIFEST.csv and the recorded replies")
    add("--net", default="127.30", help="first two bytes of the devices' addresses")
    add("--port", type=int, default=4028)
    add("--out", type=Path, default=None, help="folder for inventory.csv")
    add("--dialect", choices=INVENTORY_DIALECTS, help="dialect of every device in inventory.csv; default its own")
    add("--check", action="store_true", help="only say whether DIR can be replayed, and how many devices it holds")
    add("--no-nul", action="store_true", help="send recordings without a NUL behind them")
    add("--control", default="127.0.0.1:0", help="HOST:PORT of the control port")
    parser.set_defaults(run=_run_replay)


async def _run_replay(options: argparse.Namespace) -> int:
    check_net(options.net)
    if options.check:
        print(json.dumps({"devices": len(load_devices(options.folder, options.net))}))
        return 0
    replay = ReplayedDevices(
        ReplayOptions(
            folder=options.folder,
            net=options.net,
            port=options.port,
            nul=not options.no_nul,
            out=options.out,
            control=parse_listener("--control", options.control),
            dialect=options.dialect,
        ),
        SystemClock(),
    )
    return await serve(
        replay, lambda: {"control": replay.control.url if replay.control else None, "devices": len(replay.devices)}
    )


async def serve(service: AbstractAsyncContextManager[Any], ready: Callable[[], dict[str, Any]]) -> int:
    """Enter ``service``, print the ready line, and leave it at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with service:
        print(json.dumps({"ready": True, **ready()}), flush=True)
        await stop.wait()
    return 0
