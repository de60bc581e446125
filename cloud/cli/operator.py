"""``ballast operator reset EMAIL``: a new one-time password, for who lost theirs and can reach this machine."""

import argparse
from typing import Any

from cloud.cli.session import add_config, open_database
from cloud.identity import service


def register(commands: Any) -> None:
    """Declare the commands."""
    operator = commands.add_parser("operator", help="give an operator a new one-time password")
    actions = operator.add_subparsers(dest="action", required=True, metavar="ACTION")
    reset = actions.add_parser("reset", help="print a new one-time password and end all sessions")
    add_config(reset)
    reset.add_argument("email", metavar="EMAIL", nargs="?", help="default: the configured operator_email")
    reset.set_defaults(run=_reset)


def _reset(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, settings, principal), database.unit_of_work(principal) as uow:
        print(service.reset_password(uow, arguments.email or settings.operator_email))
    return 0
