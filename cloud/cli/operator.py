"""``ballast operator add | reset EMAIL``: a one-time password, for who is new or lost theirs, from this machine."""

import argparse
from typing import Any

from cloud.cli.session import add_config, open_database
from cloud.identity import service


def register(commands: Any) -> None:
    """Declare the commands."""
    operator = commands.add_parser("operator", help="add an operator, or give one a new one-time password")
    actions = operator.add_subparsers(dest="action", required=True, metavar="ACTION")
    reset = actions.add_parser("reset", help="print a new one-time password and end all sessions")
    add_config(reset)
    reset.add_argument("email", metavar="EMAIL", nargs="?", help="default: the configured operator_email")
    reset.set_defaults(run=_reset)
    add = actions.add_parser("add", help="make one more operator and print a one-time password")
    add_config(add)
    add.add_argument("email", metavar="EMAIL")
    add.set_defaults(run=_add)


def _reset(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, settings, principal), database.unit_of_work(principal) as uow:
        print(service.reset_password(uow, arguments.email or settings.operator_email))
    return 0


def _add(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        print(service.add_operator(uow, arguments.email))
    return 0
