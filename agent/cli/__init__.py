"""``ballast-agent``: one module a group of commands.

Invariants: bad input is one line on stderr that says where, what and what to do, with exit code 2 and nothing changed;
a failure is one line with exit code 1. Each command imports what it needs when it runs, so that ``failsafe`` and
``poll`` work where grpc is broken or missing, and so that no command waits for the imports of another.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from agent.cli import credentials, discover, doctor, failsafe, inventory, journal, look, plan, service
from agent.cli.shared import BAD_INPUT, FAILED, complain
from agent.errors import AgentError, BadInput

_COLUMNS: Final = 80
_CHOICE: Final = re.compile(r"argument ([^:]+): invalid choice: (.+) \(choose from (.+)\)")
_GROUPS: Final = (service, look, failsafe, plan, journal, doctor, credentials, discover, inventory)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 bad input."""
    try:
        options = parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except BadInput as error:
        return complain(error, BAD_INPUT)
    except AgentError as error:
        return complain(error, FAILED)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return FAILED


class _Formatter(argparse.HelpFormatter):
    """As wide as the terminal; argparse would load shutil, with every archive format, to ask for that."""

    def __init__(self, prog: str, indent_increment: int = 2, max_help_position: int = 24, width: int = 0) -> None:
        super().__init__(prog, indent_increment, max_help_position, width or _columns() - 2)


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": _Formatter, **options})

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{_plain(message)}; see {self.prog} --help")


def _plain(message: str) -> str:
    """Return argparse's complaint in plain words."""
    choice = _CHOICE.fullmatch(message)
    if choice is not None:
        return f"{choice[1]}: {choice[2]} is not known; write one of {choice[3].replace(chr(39), '')}"
    return message.removeprefix("argument ")


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


def parser() -> argparse.ArgumentParser:
    """Return the whole command line."""
    whole = _Parser(prog="ballast-agent", description="The site agent of Ballast.")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for group in _GROUPS:
        group.add(commands)
    return whole
