"""What the commands that change the list of miners share: who did it and why, whose turn it is, what may not go."""

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final

from agent.cli.shared import takes_config
from agent.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.inventory.book import Author, InventoryBook
    from agent.inventory.changes import Change
    from agent.settings import Settings
    from sitelink.inventory import MinerEntry

    Making = Callable[[tuple[MinerEntry, ...]], tuple[Sequence[Change], Sequence[MinerEntry]]]

_TRIES: Final = 40
_PAUSE_S: Final = 0.25


def takes_author(parser: argparse.ArgumentParser, command: Any) -> None:
    """Let ``parser`` run ``command`` on a settings file, and ask who changes the list and why."""
    takes_config(parser, command)
    parser.add_argument("--reason", default="", help="why, for the history")
    parser.add_argument("--by", default="", metavar="NAME", help="who, for the history (whoever is logged in)")


def book_of(settings: "Settings") -> "InventoryBook":
    """Return the site's list of miners with its history."""
    from agent.inventory.book import InventoryBook
    from sitelink.clock import SystemClock

    return InventoryBook(settings.site.inventory, settings.site.state_dir, SystemClock())


def made_in_turn(book: "InventoryBook", change: "Making", author: "Author") -> "tuple[Change, ...]":
    """Make a change once nobody else is at one. Raises as ``InventoryBook.make``."""
    from agent.errors import SessionBusy
    from agent.failsafe.fence import pause

    for tried in range(_TRIES):
        try:
            return book.make(change, author)
        except SessionBusy:
            if not tried:
                print("another command changes the inventory; waiting for it to end (Ctrl-C gives up)", file=sys.stderr)
            pause(_PAUSE_S)
    return book.make(change, author)


def protected(settings: "Settings", result: "Sequence[MinerEntry]") -> list[str]:
    """Return why the agent would not start with these rows: a miner that no order may touch is gone."""
    from agent.fleet import untouchable

    try:
        untouchable(settings, tuple(result))
    except BadInput as error:
        return [str(error)]
    return []


def refuse_unprotected(settings: "Settings", result: "Sequence[MinerEntry]") -> None:
    """Raise BadInput where the agent would not start with these rows."""
    complaints = protected(settings, result)
    if complaints:
        raise BadInput(complaints[0])


def author_of(options: argparse.Namespace) -> "Author":
    """Return who makes the change and why, as ``takes_author`` asked."""
    from agent.inventory.book import Author

    return Author(options.by or _login(), options.reason)


def _login() -> str:
    """Return who sits at the terminal, whatever account the command runs as; else that account."""
    import os
    import pwd

    try:
        return os.getlogin()
    except OSError:
        pass
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def say_done(book: "InventoryBook") -> None:
    """Say that the list was changed, and what is left to do."""
    from agent.inventory.book import backup_of

    print(
        f"{book.path} was changed; the one before is {backup_of(book.path).name}; "
        "a running agent takes it up when it is restarted: systemctl restart ballast-agent"
    )
