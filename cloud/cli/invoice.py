"""``ballast invoice``: contract, issue, list, check, export."""

import argparse
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from uuid import UUID

from cloud.billing import audit, queries, service
from cloud.billing.service import billing_policy
from cloud.cli.session import add_action, open_database
from cloud.cli.signal import read_time, read_window
from cloud.core.errors import BadInput
from cloud.infra.db import UnitOfWork
from cloud.infra.sites import require_site
from sitelink.types import Interval


def register(commands: Any) -> None:
    """Declare the commands."""
    invoice = commands.add_parser("invoice", help="issue, check and export invoices")
    actions = invoice.add_subparsers(dest="action", required=True, metavar="ACTION")
    contract = add_action(actions, "contract", "set a site's energy rate from a moment on", _contract)
    contract.add_argument("site_id", metavar="SITE")
    contract.add_argument("--rate", required=True, metavar="USD_PER_KWH")
    contract.add_argument("--timezone", default="UTC", help="where months begin (default: %(default)s)")
    contract.add_argument("--from", dest="start", metavar="TIME", help="ISO time with zone (default: always)")
    contract.add_argument("--credit", metavar="USD_PER_MWH", help="provisional credit for verified curtailment")
    issue = add_action(actions, "issue", "issue the energy invoice of a site", _issue)
    issue.add_argument("site_id", metavar="SITE")
    issue.add_argument("--month", metavar="YYYY-MM", help="a calendar month in the time zone of its contract")
    issue.add_argument("--from", dest="start", metavar="TIME", help="ISO time with zone")
    issue.add_argument("--to", dest="end", metavar="TIME", help="ISO time with zone")
    listed = add_action(actions, "list", "show issued invoices", _list)
    listed.add_argument("site_id", metavar="SITE", nargs="?")
    check = add_action(actions, "check", "recompute an invoice from its evidence", _check)
    check.add_argument("invoice", metavar="INVOICE", help="id or number")
    export = add_action(actions, "export", "write the bundle that `python -m verifier` checks", _export)
    export.add_argument("invoice", metavar="INVOICE", help="id or number")
    export.add_argument("--out", type=Path, required=True, metavar="BUNDLE.JSON")


def _contract(arguments: argparse.Namespace) -> int:
    rate = _decimal(arguments.rate, "--rate")
    credit = None if arguments.credit is None else _decimal(arguments.credit, "--credit")
    start = datetime(1970, 1, 1, tzinfo=UTC) if arguments.start is None else read_time(arguments.start, "--from")
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        service.set_contract(uow, arguments.site_id, rate, arguments.timezone, start, credit)
    print(f"site {arguments.site_id}: {rate} USD/kWh from {start.isoformat()}")
    return 0


def _issue(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, settings, principal), database.unit_of_work(principal) as uow:
        period = _period(uow, arguments)
        invoice_id = service.issue_energy_invoice(uow, arguments.site_id, period, billing_policy(settings))
        view = queries.invoice(uow, invoice_id, evidence_limit=0)
    for line in view.lines:
        print(f"{line.description}: {line.quantity} {line.unit} x {line.rate} = {line.amount}")
    for credit in view.credits:
        worth = "no credit agreed" if credit.amount is None else f"{credit.amount}"
        print(f"provisional, not in the total: curtailment {credit.curtailment_id}, {credit.status}, {worth}")
    print(f"invoice {view.invoice.number} ({invoice_id}): {view.invoice.total}")
    return 0


def _period(uow: UnitOfWork, arguments: argparse.Namespace) -> Interval:
    if arguments.month is not None:
        if arguments.start or arguments.end:
            raise BadInput("--month: give either a month, or --from and --to")
        return service.contract_month(uow, arguments.site_id, arguments.month)
    if not arguments.start or not arguments.end:
        raise BadInput("invoice: give --month, or --from and --to")
    return read_window(arguments.start, arguments.end)


def _list(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        if arguments.site_id is not None:
            require_site(uow, arguments.site_id)
        for item in queries.invoices(uow, arguments.site_id):
            period = f"{item.period.start.isoformat()} to {item.period.end.isoformat()}"
            print(f"{item.number}  {item.invoice_id}  {item.site_id}  {period}  {item.total}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, settings, principal), database.unit_of_work(principal) as uow:
        check = audit.recompute(uow, _invoice_id(uow, arguments.invoice), billing_policy(settings))
    for line in check.differences:
        print(f"DIFFERENCE {line}")
    for line in check.late:
        print(f"later: {line}")
    print(f"stated {check.stated}, recomputed {check.recomputed}: {'agrees' if check.agrees else 'DIFFERS'}")
    return 0 if check.agrees else 1


def _export(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        document = service.export(uow, _invoice_id(uow, arguments.invoice))
    try:
        arguments.out.write_bytes(document)
    except OSError as error:
        raise BadInput(f"{arguments.out}: {error.strerror}; give --out a writable file") from None
    print(f"{arguments.out}: {len(document)} bytes; check it anywhere: python -m verifier {arguments.out}")
    return 0


def _invoice_id(uow: UnitOfWork, text: str) -> UUID:
    """Return the id of an invoice given by id or number."""
    if text.isascii() and text.isdigit():
        return queries.invoice_id(uow, int(text))
    try:
        return UUID(text)
    except ValueError:
        raise BadInput(f"invoice: {text!r} is neither an id nor a number; ballast invoice list shows them") from None


def _decimal(text: str, option: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise BadInput(f"{option}: {text!r} is not a number; write such as 0.0725") from None
