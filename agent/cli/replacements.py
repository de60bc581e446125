"""What becomes of the miners on the list: inventory swap, rma, follow, history. Nothing claims a miner by itself."""

import argparse
import sys
from typing import TYPE_CHECKING, Final

from agent.cli.book import author_of, book_of, made_in_turn, refuse_unprotected, say_done, takes_author
from agent.cli.shared import Commands, settings_of, takes_config
from agent.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.inventory.book import InventoryBook
    from agent.inventory.changes import Change
    from agent.inventory.learned import Learned
    from agent.settings import Settings
    from sitelink.inventory import MinerEntry

_LEAST_SERIAL: Final = 4
_SAID: Final = {"host", "port", "dialect", "model", "nameplate_w", "nameplate_ths", "rack", "position", "feeder_id"}


def add(actions: Commands) -> None:
    """Add the actions of ``inventory``."""
    _add_exchanges(actions)

    follow = actions.add_parser("follow", help="search for miners whose address has changed; renames and adds none")
    takes_config(follow, _follow)
    follow.add_argument("targets", nargs="*", metavar="RANGE", help="where to search ([site] ranges of the settings)")
    follow.add_argument("--dry-run", action="store_true", help="show who has moved; note nothing")

    history = actions.add_parser("history", help="show what became of a miner or a rack")
    takes_config(history, _history)
    history.add_argument("name", nargs="?", default="", metavar="ID|RACK")
    history.add_argument("--json", action="store_true", help="print one JSON object a line")


def _add_exchanges(actions: Commands) -> None:
    swap = actions.add_parser("swap", help="put another miner, or a new control board, where one stands")
    takes_author(swap, _swap)
    swap.add_argument("old", metavar="OLD_ID")
    swap.add_argument("new", metavar="NEW_ID")
    swap.add_argument("--board", action="store_true", help="the same miner, with another control board: all else stays")
    swap.add_argument("--unseen", action="store_true", help="do not ask who answers at its address")
    _takes_facts(swap)

    rma = actions.add_parser("rma", help="send a miner away for repair, or take it back")
    takes_author(rma, _rma)
    rma.add_argument("miner", metavar="ID")
    way = rma.add_mutually_exclusive_group(required=True)
    way.add_argument("--out", action="store_true", help="it leaves its place and the inventory")
    way.add_argument("--back", action="store_true", help="it returns to its place, or to the one given")
    _takes_facts(rma)


def _takes_facts(parser: argparse.ArgumentParser) -> None:
    for name in sorted(_SAID):
        parser.add_argument("--" + name.replace("_", "-"), help=f"{name} as in inventory.csv, where it differs")


def _swap(options: argparse.Namespace) -> int:
    from agent.inventory.replacement import swap

    settings = settings_of(options)
    book = book_of(settings)
    if not options.reason:
        raise BadInput("--reason: it is missing; write why, for whoever reads the history")

    if options.unseen:
        _refuse_no_id(options.new)
    said = _said(options) if options.unseen else _seen(options, book.entries())
    if not options.board:
        said = {**_its_own(book, options.new), **said}

    def swapped(rows: "tuple[MinerEntry, ...]") -> "tuple[Sequence[Change], Sequence[MinerEntry]]":
        changes, result = swap(rows, options.old, options.new, said, board=options.board)
        refuse_unprotected(settings, result)
        return changes, result

    (change,) = made_in_turn(book, swapped, author_of(options))
    print(f"{change.entry.miner_id} stands where {options.old} stood: {_place(change.entry)}")
    if change.entry.nameplate_w is None:
        print("its nameplate is not known: no plan counts on it until nameplate_w is written (inventory import)")
    say_done(book)
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
    book = book_of(settings)
    author, said = author_of(options), _said(options)
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
        refuse_unprotected(settings, done[1])
        return done

    (change,) = made_in_turn(book, made, author)
    print(f"{change.entry.miner_id}: {'sent away from' if options.out else 'back at'} {_place(change.entry)}")
    say_done(book)
    return 0


def _said(options: argparse.Namespace) -> dict[str, str]:
    return {name: getattr(options, name) for name in _SAID if getattr(options, name) is not None}


def _place(entry: "MinerEntry") -> str:
    return f"rack {entry.rack}, position {entry.position}" if entry.rack else "no known place"


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
