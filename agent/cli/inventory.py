"""The list of miners: inventory import, export, swap, rma, history, follow. Nothing claims a miner by itself."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.cli.shared import Commands, settings_of, takes_config
from agent.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.inventory.book import Author, InventoryBook
    from agent.inventory.changes import Change
    from agent.inventory.learned import Learned
    from agent.settings import Settings
    from sitelink.inventory import MinerEntry

    Making = Callable[[tuple[MinerEntry, ...]], tuple[Sequence[Change], Sequence[MinerEntry]]]

_STDOUT: Final = "-"
_TRIES: Final = 40
_PAUSE_S: Final = 0.25
_LEAST_SERIAL: Final = 4
_AS_ALLOWED: Final = 0o666
"""A list of miners is no secret: it is as open as its writer's umask lets it be."""
_SAID: Final = {"host", "port", "dialect", "model", "nameplate_w", "nameplate_ths", "rack", "position", "feeder_id"}


def add(commands: Commands) -> None:
    """Add the commands."""
    inventory = commands.add_parser("inventory", help="change, copy and look back at the list of miners")
    actions = inventory.add_subparsers(required=True, metavar="ACTION")

    taken = actions.add_parser("import", help="take the rows of a CSV file into the inventory")
    _takes_author(taken, _import)
    taken.add_argument("file", type=Path, metavar="FILE")
    taken.add_argument("--dry-run", action="store_true", help="show what would change, row by row; change nothing")
    taken.add_argument("--remove", action="store_true", help="remove the miners that FILE does not name")

    given = actions.add_parser("export", help="write the inventory as a CSV file")
    takes_config(given, _export)
    given.add_argument("file", nargs="?", default=_STDOUT, metavar="FILE", help="a new file; - or none: stdout")
    given.add_argument("--as-found", action="store_true", help="with the addresses learned since")

    _add_replacements(actions)

    follow = actions.add_parser("follow", help="search for miners whose address has changed; renames and adds none")
    takes_config(follow, _follow)
    follow.add_argument("targets", nargs="*", metavar="RANGE", help="where to search ([site] ranges of the settings)")
    follow.add_argument("--dry-run", action="store_true", help="show who has moved; note nothing")

    history = actions.add_parser("history", help="show what became of a miner or a rack")
    takes_config(history, _history)
    history.add_argument("name", nargs="?", default="", metavar="ID|RACK")
    history.add_argument("--json", action="store_true", help="print one JSON object a line")


def _add_replacements(actions: Commands) -> None:
    swap = actions.add_parser("swap", help="put another miner, or a new control board, where one stands")
    _takes_author(swap, _swap)
    swap.add_argument("old", metavar="OLD_ID")
    swap.add_argument("new", metavar="NEW_ID")
    swap.add_argument("--board", action="store_true", help="the same miner, with another control board: all else stays")
    swap.add_argument("--unseen", action="store_true", help="do not ask who answers at its address")
    _takes_facts(swap)

    rma = actions.add_parser("rma", help="send a miner away for repair, or take it back")
    _takes_author(rma, _rma)
    rma.add_argument("miner", metavar="ID")
    way = rma.add_mutually_exclusive_group(required=True)
    way.add_argument("--out", action="store_true", help="it leaves its place and the inventory")
    way.add_argument("--back", action="store_true", help="it returns to its place, or to the one given")
    _takes_facts(rma)


def _takes_author(parser: argparse.ArgumentParser, command: Any) -> None:
    takes_config(parser, command)
    parser.add_argument("--reason", default="", help="why, for the history")
    parser.add_argument("--by", default="", metavar="NAME", help="who, for the history (whoever is logged in)")


def _takes_facts(parser: argparse.ArgumentParser) -> None:
    for name in sorted(_SAID):
        parser.add_argument("--" + name.replace("_", "-"), help=f"{name} as in inventory.csv, where it differs")


def _import(options: argparse.Namespace) -> int:
    from agent.inventory.changes import merge

    settings = settings_of(options)
    book = _book(settings)
    if options.file.resolve() == book.path.resolve():
        raise BadInput(f"{options.file}: is the inventory itself; give the file whose rows it is to take")
    told = _told(options.file)
    outcome = merge(book.entries(), told, remove=options.remove)
    complaints = [
        *(f"{options.file.name}: {each}" for each in outcome.complaints),
        *_protected(settings, outcome.result),
    ]
    if complaints:
        return _refuse(complaints)
    changes = outcome.changes
    if changes and not options.dry_run:

        def taken(present: "tuple[MinerEntry, ...]") -> "tuple[Sequence[Change], Sequence[MinerEntry]]":
            again = merge(present, told, remove=options.remove)
            return again.changes, again.result

        changes = _made(book, taken, _author(options))
    _show(changes, len(outcome.result))
    for line in _unmetered(settings, outcome.result):
        print(f"note: {line}")
    if options.dry_run:
        print("nothing was changed: this was a dry run")
    elif changes:
        _say_done(book)
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


def _swap(options: argparse.Namespace) -> int:
    from agent.inventory.replacement import swap

    settings = settings_of(options)
    book = _book(settings)
    if not options.reason:
        raise BadInput("--reason: it is missing; write why, for whoever reads the history")

    if options.unseen:
        _refuse_no_id(options.new)
    said = _said(options) if options.unseen else _seen(options, book.entries())
    if not options.board:
        said = {**_its_own(book, options.new), **said}

    def swapped(rows: "tuple[MinerEntry, ...]") -> "tuple[Sequence[Change], Sequence[MinerEntry]]":
        changes, result = swap(rows, options.old, options.new, said, board=options.board)
        _refuse_unprotected(settings, result)
        return changes, result

    (change,) = _made(book, swapped, _author(options))
    print(f"{change.entry.miner_id} stands where {options.old} stood: {_place(change.entry)}")
    if change.entry.nameplate_w is None:
        print("its nameplate is not known: no plan counts on it until nameplate_w is written (inventory import)")
    _say_done(book)
    return 0


def _refuse_no_id(text: str) -> None:
    """Raise BadInput where ``text`` can be no miner's id: nobody has seen one that is so called."""
    from sitelink.miner_ids import is_mac

    if not is_mac(text) and (len(text) < _LEAST_SERIAL or not any(letter.isdigit() for letter in text)):
        raise BadInput(
            f"NEW_ID: {text!r} is no MAC address, and no serial number that we know of; write what its label says"
        )


def _its_own(book: "InventoryBook", miner_id: str) -> dict[str, str]:
    """Return what the miner's own last row told of it, where it stood here before: its nameplate, model, firmware."""
    row = book.history.last_row(miner_id)
    return {name: row[name] for name in ("nameplate_w", "nameplate_ths", "model", "dialect") if row.get(name)}


def _seen(options: argparse.Namespace, rows: "Sequence[MinerEntry]") -> dict[str, str]:
    """Return what is said of the new miner, with its dialect and model as it tells them at its address.

    Raises:
        BadInput: another miner answers there.
    """
    import asyncio
    import random

    from agent.cgminer.client import Deadlines
    from agent.discover.look import Looker
    from agent.discover.standing import plain
    from agent.discover.sweep import Manners, Sweep

    said = _said(options)
    was = next((entry for entry in rows if entry.miner_id.lower() == options.old.lower()), None)
    host = said.get("host") or (was.host if was else "")
    port = said.get("port") or (str(was.port) if was else "")
    if was is None or not port.isdecimal():
        return said  # the swap itself says what is wrong
    manners = Manners(at_once=1)
    looker = Looker(Deadlines(connect_s=manners.connect_s), int(port), was.web_port)
    looks = asyncio.run(Sweep(looker, manners, random.Random()).run([host]))  # noqa: S311 - spreads knocks
    look = looks[0] if looks else None
    if look is None or look.observation is None or not look.names:
        why = f"nobody at {host} tells a name" if look is None or look.asked else look.notes[0]
        print(f"note: {why}, so it was not seen there; the agent checks it before each order")
        return said
    if options.new.lower() not in look.names:
        raise BadInput(
            f"{look.names[0]} answers at {host}, not {options.new}; correct the id, give its --host, or say --unseen"
        )
    told = {} if options.board else {"dialect": look.observation.dialect, "model": plain(look.observation.model)}
    return {**told, **said}


def _rma(options: argparse.Namespace) -> int:
    from agent.inventory.changes import What
    from agent.inventory.replacement import put_back, take_out

    settings = settings_of(options)
    book = _book(settings)
    author, said = _author(options), _said(options)
    listed = {entry.miner_id.lower() for entry in book.entries()}
    row = book.history.last_row(options.miner)
    if options.out and options.miner.lower() not in listed and row:
        book.note(What.RMA_OUT, row["miner_id"], author)
        print(f"{row['miner_id']}: noted as sent away; it stood in no place any more")
        return 0
    if options.back and not row and options.miner.lower() not in listed:
        raise BadInput(f"{options.miner}: the history has no row of it; add it with inventory import")

    def made(rows: "tuple[MinerEntry, ...]") -> "tuple[Sequence[Change], Sequence[MinerEntry]]":
        done = (
            take_out(rows, options.miner) if options.out else put_back(rows, row or {"miner_id": options.miner}, said)
        )
        _refuse_unprotected(settings, done[1])
        return done

    (change,) = _made(book, made, author)
    print(f"{change.entry.miner_id}: {'sent away from' if options.out else 'back at'} {_place(change.entry)}")
    _say_done(book)
    return 0


def _follow(options: argparse.Namespace) -> int:
    import asyncio
    import random

    from agent.discover.standing import Standing, judge, remembered
    from agent.discover.targets import hosts_of
    from agent.follow import gentle_sweep, ranges_of
    from agent.inventory import load_inventory
    from agent.inventory.learned import Learned
    from agent.vault import Vault
    from sitelink.clock import SystemClock

    settings = settings_of(options)
    hosts = hosts_of(options.targets) if options.targets else ranges_of(settings)
    if not hosts:
        raise BadInput(f"RANGE: none is given, and {settings.source.name} has no [site] ranges; write 10.0.0.0/22")
    listed, before = load_inventory(settings.site.inventory), Learned.load(settings.site.state_dir)
    print(f"searching {len(hosts):,} addresses, gently", file=sys.stderr)
    sweep = gentle_sweep(listed, Vault.open(settings), random.Random())  # noqa: S311 - spreads knocks, guards nothing
    sightings = judge(asyncio.run(sweep(hosts)), before.applied(listed), before)
    learned = remembered(before.only(listed), sightings)
    rows = {entry.miner_id: entry for entry in listed}
    for each in sightings:
        if each.entry is not None and each.standing in {Standing.MOVED, Standing.BOARD, Standing.DOUBLE}:
            print("; ".join((f"{each.entry.miner_id} answers at {each.look.host}:{each.look.port}", *each.notes)))
            if each.standing is Standing.MOVED:
                row = rows[each.entry.miner_id]
                learned = learned.moved(row, each.look.host, SystemClock().now())
    return _noted(settings, learned, before, dry_run=options.dry_run)


def _noted(settings: "Settings", learned: "Learned", before: "Learned", *, dry_run: bool) -> int:
    moved = sum(1 for name, found in learned.miners.items() if before.miners.get(name) != found)
    if dry_run:
        print(f"{moved} miners have moved; nothing was noted: this was a dry run")
        return 0
    try:
        learned.save(settings.site.state_dir)
    except OSError as error:
        raise BadInput(
            f"{settings.site.state_dir}: cannot be written: {error.strerror or error}; run as the user of the service"
        ) from None
    print(
        f"{moved} miners have moved; a running agent looks for them there within seconds" if moved else "nobody moved"
    )
    return 0


def _history(options: argparse.Namespace) -> int:
    from agent.inventory.history import History, as_table

    events = History(settings_of(options).site.state_dir).events(options.name)
    if options.json:
        for event in events:
            print(event.line().decode())
    elif events:
        print(as_table(events))
    else:
        print(f"nothing is known of {options.name}" if options.name else "nothing has happened yet")
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


def _made(book: "InventoryBook", change: "Making", author: "Author") -> "tuple[Change, ...]":
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


def _book(settings: "Settings") -> "InventoryBook":
    from agent.inventory.book import InventoryBook
    from sitelink.clock import SystemClock

    return InventoryBook(settings.site.inventory, settings.site.state_dir, SystemClock())


def _told(path: Path) -> "tuple[MinerEntry, ...]":
    """Return the rows of a file; every wrong one is said on stderr. Raises BadInput."""
    from agent.files import next_step, read_whole
    from sitelink.inventory import BadList, read_miners

    try:
        return read_miners(path.name, read_whole(path))
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


def _protected(settings: "Settings", result: "Sequence[MinerEntry]") -> list[str]:
    """Return why the agent would not start with these rows: a miner that no order may touch is gone."""
    from agent.fleet import untouchable

    try:
        untouchable(settings, tuple(result))
    except BadInput as error:
        return [str(error)]
    return []


def _refuse_unprotected(settings: "Settings", result: "Sequence[MinerEntry]") -> None:
    complaints = _protected(settings, result)
    if complaints:
        raise BadInput(complaints[0])


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


def _said(options: argparse.Namespace) -> dict[str, str]:
    return {name: getattr(options, name) for name in _SAID if getattr(options, name) is not None}


def _author(options: argparse.Namespace) -> "Author":
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


def _place(entry: "MinerEntry") -> str:
    return f"rack {entry.rack}, position {entry.position}" if entry.rack else "no known place"


def _say_done(book: "InventoryBook") -> None:
    from agent.inventory.book import backup_of

    print(
        f"{book.path} was changed; the one before is {backup_of(book.path).name}; "
        "a running agent takes it up when it is restarted: systemctl restart ballast-agent"
    )
