"""``ballast signal``: add, list, withdraw, import-prices."""

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from cloud.analytics import service as analytics
from cloud.analytics.ercot import read_ercot
from cloud.cli.session import add_action, open_database
from cloud.core.errors import BadInput
from cloud.core.times import kept_moment
from cloud.infra.sites import require_site
from cloud.planner import queries, service
from cloud.planner.model import SignalKind
from sitelink.types import Interval
from sitelink.units import Megawatts, watts


def register(commands: Any) -> None:
    """Declare the commands."""
    signal = commands.add_parser("signal", help="tell the planner about grid events and prices")
    actions = signal.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = add_action(actions, "add", "ask a site to stay under a cap for a window", _add_signal)
    add.add_argument("site_id", metavar="SITE")
    add.add_argument("--kind", choices=[SignalKind.MUST_SHED.value, SignalKind.MANUAL.value], default="must_shed")
    add.add_argument("--from", dest="start", required=True, metavar="TIME", help="ISO time with zone")
    add.add_argument("--to", dest="end", required=True, metavar="TIME", help="ISO time with zone")
    add.add_argument("--cap-mw", type=float, required=True, help="the most the site may draw; 0 stops all it can")
    listed = add_action(actions, "list", "show the signals whose window is not over", _list)
    listed.add_argument("site_id", metavar="SITE")
    withdraw = add_action(actions, "withdraw", "take a signal back", _withdraw)
    withdraw.add_argument("site_id", metavar="SITE")
    withdraw.add_argument("signal_id", metavar="SIGNAL")
    prices = add_action(actions, "import-prices", "store the prices of an ERCOT file", _import_prices)
    prices.add_argument("file", type=Path, metavar="FILE.CSV")
    prices.add_argument("--column", default="rtm_lmp", help="the price column (default: %(default)s)")


def read_time(text: str, option: str) -> datetime:
    """Return the time in ``text``.

    Raises:
        BadInput: it is no ISO time, has no zone, or is out of range.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{option}: {text!r} is not a time; write such as 2026-08-20T18:00:00-05:00") from None
    if moment.tzinfo is None:
        raise BadInput(f"{option}: {text!r} has no zone; add one, such as Z or -05:00")
    return kept_moment(moment, option)


def read_window(start_text: str, end_text: str) -> Interval:
    """Return the window between two times.

    Raises:
        BadInput: a time is malformed, or the window does not end after it starts.
    """
    start, end = read_time(start_text, "--from"), read_time(end_text, "--to")
    if end <= start:
        raise BadInput(f"--to: {end_text} is not after --from {start_text}")
    return Interval(start, end)


def _add_signal(arguments: argparse.Namespace) -> int:
    window = read_window(arguments.start, arguments.end)
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        signal = service.add_signal(
            uow, arguments.site_id, SignalKind(arguments.kind), window, watts(Megawatts(arguments.cap_mw))
        )
    print(f"signal {signal.signal_id} taken; the next planning round acts on it")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        require_site(uow, arguments.site_id)
        for signal in queries.signals(uow, arguments.site_id):
            cap = "" if signal.cap_w is None else f", at most {signal.cap_w / 1e6:g} MW"
            window = f"{signal.interval.start.isoformat()} to {signal.interval.end.isoformat()}"
            print(f"{signal.signal_id}  {signal.kind.value}  {window}{cap}")
    return 0


def _withdraw(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        service.withdraw_signal(uow, arguments.site_id, arguments.signal_id)
    print(f"signal {arguments.signal_id} withdrawn")
    return 0


def _import_prices(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, settings, principal):
        publication = read_ercot(arguments.file, settings.market, arguments.column, database.clock.now())
        with database.unit_of_work(principal) as uow:
            report = analytics.collect(uow, publication)
    print(f"{report.market}: {report.intervals} intervals read, {report.changed} new or changed")
    return 0
