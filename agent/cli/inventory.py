"""The list of miners: inventory import and export; what becomes of a miner on it is in ``replacements``."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.cli import replacements
from agent.cli.book import author_of, book_of, made_in_turn, protected, say_done, takes_author
from agent.cli.shared import Commands, settings_of, takes_config
from agent.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.inventory.changes import Change
    from agent.settings import Settings
    from sitelink.inventory import MinerEntry

_STDOUT: Final = "-"
_AS_ALLOWED: Final = 0o666
"""A list of miners is no secret: it is as open as its writer's umask lets it be."""


def add(commands: Commands) -> None:
    """Add the commands."""
    inventory = commands.add_parser("inventory", help="change, copy and look back at the list of miners")
    actions = inventory.add_subparsers(required=True, metavar="ACTION")

    taken = actions.add_parser("import", help="take the rows of a CSV file into the inventory")
    takes_author(taken, _import)
    taken.add_argument("file", type=Path, metavar="FILE")
    taken.add_argument("--dry-run", action="store_true", help="show what would change, row by row; change nothing")
    taken.add_argument("--remove", action="store_true", help="remove the miners that FILE does not name")

    given = actions.add_parser("export", help="write the inventory as a CSV file")
    takes_config(given, _export)
    given.add_argument("file", nargs="?", default=_STDOUT, metavar="FILE", help="a new file; - or none: stdout")
    given.add_argument("--as-found", action="store_true", help="with the addresses learned since")

    replacements.add(actions)


def _import(options: argparse.Namespace) -> int:
    from agent.inventory.changes import merge

    settings = settings_of(options)
    book = book_of(settings)
    if options.file.resolve() == book.path.resolve():
        raise BadInput(f"{options.file}: is the inventory itself; give the file whose rows it is to take")
    told, web_ports = _told(options.file)
    present = book.entries()
    _refuse_to_empty(options, present, told)
    outcome = merge(present, told, remove=options.remove, web_ports=web_ports)
    complaints = [
        *(f"{options.file.name}: {each}" for each in outcome.complaints),
        *protected(settings, outcome.result),
    ]
    if complaints:
        return _refuse(complaints)
    changes = outcome.changes
    if changes and not options.dry_run:

        def taken(present: "tuple[MinerEntry, ...]") -> "tuple[Sequence[Change], Sequence[MinerEntry]]":
            again = merge(present, told, remove=options.remove, web_ports=web_ports)
            return again.changes, again.result

        changes = made_in_turn(book, taken, author_of(options))
    _show(changes, len(outcome.result) + sum(each.now is None for each in changes))
    for line in _unmetered(settings, outcome.result):
        print(f"note: {line}")
    if options.dry_run:
        print("nothing was changed: this was a dry run")
    elif changes:
        say_done(book)
    return 0


def _export(options: argparse.Namespace) -> int:
    from agent.inventory import load_as_found, load_inventory
    from sitelink.inventory import write_miners

    site = settings_of(options).site
    entries = load_as_found(site.inventory, site.state_dir) if options.as_found else load_inventory(site.inventory)
    content = write_miners(entries)
    if options.file == _STDOUT:
        sys.stdout.write(content.decode())
        return 0
    write_new(Path(options.file), content)
    print(f"{len(entries)} miners written to {options.file}")
    return 0


def write_new(path: Path, content: bytes) -> None:
    """Write a file that must not be there yet. Raises BadInput."""
    from agent import files

    try:
        files.write_new(path, content, _AS_ALLOWED)
    except FileExistsError:
        raise BadInput(f"{path}: is there already; give another name, or remove it first") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}; {files.next_step(error)}") from None


def _refuse_to_empty(
    options: argparse.Namespace, present: "Sequence[MinerEntry]", told: "Sequence[MinerEntry]"
) -> None:
    """Raise BadInput where a file without a row would remove every miner: it was cut short, or is another's."""
    if options.remove and present and not told:
        raise BadInput(
            f"{options.file}: names no miner, so --remove would remove all {len(present)}; give the whole list, or "
            "send each away: ballast-agent inventory rma ID --out"
        )


def _told(path: Path) -> "tuple[tuple[MinerEntry, ...], frozenset[str]]":
    """Return the rows of a file, and whose writes a web port; every wrong one is said on stderr. Raises BadInput."""
    from agent.files import next_step, read_whole
    from sitelink.inventory import told_miners
    from sitelink.rows import BadList

    try:
        return told_miners(path.name, read_whole(path))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}; {next_step(error)}") from None
    except BadList as error:
        for complaint in error.complaints[:-1]:
            print(complaint, file=sys.stderr)
        raise BadInput(error.complaints[-1]) from None


def _refuse(complaints: "Sequence[str]") -> int:
    for complaint in complaints[:-1]:
        print(complaint, file=sys.stderr)
    raise BadInput(complaints[-1])


def _unmetered(settings: "Settings", result: "Sequence[MinerEntry]") -> list[str]:
    from agent.inventory import load_meters

    try:
        metered = {meter.feeder_id for meter in load_meters(settings.site.meters) if meter.kind == "feeder"}
    except BadInput:
        return []
    bare = sorted({entry.feeder_id for entry in result if entry.feeder_id} - metered) if metered else []
    return [f"no meter of {settings.site.meters.name} measures feeder {feeder}" for feeder in bare]


def _show(changes: "Sequence[Change]", total: int) -> None:
    width = max((len(each.entry.miner_id) for each in changes), default=0)
    for each in changes:
        other = f" (was {each.was.miner_id})" if each.was and each.was.miner_id != each.entry.miner_id else ""
        print(f"{each.what.value:<8}  {each.entry.miner_id:<{width}}{other}  {each.detail}")
    print(f"{len(changes)} of {total} miners change" if changes else f"no change: all {total} miners stand there so")
