"""How far this site has come in the numbers of its orders, kept so that no replay is ever taken for news.

    1.1  1.2  1.3  1.4  1.5  |  2.1  2.2        (signing epoch . sequence)
                   ^floor             ^highest
    floor:   commands up to here have been forgotten; one of them that comes now is an old one
    highest: what the next hello tells the cloud; an order of an earlier epoch is an old one

Invariants: both only ever rise; they are raised in the transaction that stores, or forgets, the order itself, so they
are on disk before anything is done because of it. A database of an earlier version has neither: the highest is then
that of the orders kept.
"""

import sqlite3
from dataclasses import dataclass, replace

from agent.errors import Refused
from sitelink.orders import read_command
from sitelink.types import NO_ORDER, Command, OrderNumber


@dataclass(frozen=True, slots=True)
class Taken:
    """The highest number of any order taken, its plan or command id (empty: unknown), and the forgotten ones."""

    highest: OrderNumber = NO_ORDER
    order_id: str = ""
    floor: OrderNumber = NO_ORDER


def number_of(order: Command) -> OrderNumber:
    """Return where a command stands."""
    return OrderNumber(order.signing_epoch, order.sequence)


def taken(connection: sqlite3.Connection) -> Taken:
    """Return how far the site has come."""
    row = connection.execute(
        "SELECT signing_epoch, sequence, order_id, floor_epoch, floor_sequence FROM curtail_numbers"
    ).fetchone()
    if row is not None:
        return Taken(OrderNumber(row[0], row[1]), row[2], OrderNumber(row[3], row[4]))
    kept = connection.execute(
        "SELECT signing_epoch, sequence FROM curtail_plan UNION ALL SELECT signing_epoch, sequence"
        " FROM curtail_commands ORDER BY signing_epoch DESC, sequence DESC LIMIT 1"
    ).fetchone()
    return Taken() if kept is None else Taken(OrderNumber(*kept))


def raise_to(connection: sqlite3.Connection, number: OrderNumber, order_id: str) -> Taken:
    """Note that the order of this number is taken; return how far the site has come now."""
    before = taken(connection)
    if number < before.highest or (number == before.highest and before.order_id):
        return before
    return _keep(connection, replace(before, highest=number, order_id=order_id))


def forget(connection: sqlite3.Connection, numbers: list[OrderNumber]) -> Taken:
    """Note that the commands of these numbers are forgotten; return how far the site has come now."""
    before = taken(connection)
    return _keep(connection, replace(before, floor=max([before.floor, *numbers])))


def check_epoch(number: OrderNumber, so_far: Taken) -> None:
    """Return when an order of this number is not from before the newest signing epoch.

    Raises:
        Refused: older_epoch.
    """
    if number.signing_epoch < so_far.highest.signing_epoch:
        newest = so_far.highest.signing_epoch
        raise Refused("older_epoch", f"signing epoch {number.signing_epoch} has been closed by {newest}")


def check_floor(number: OrderNumber, so_far: Taken) -> None:
    """Return when a command that is not kept here cannot be one that was kept and forgotten.

    Raises:
        Refused: already_forgotten.
    """
    if number <= so_far.floor:
        raise Refused(
            "already_forgotten",
            f"commands up to {tuple(so_far.floor)} have been done with and forgotten, this is {tuple(number)};"
            " send it anew",
        )


def is_renumbered(command: Command, known: bytes) -> bool:
    """Return whether ``known``, a command taken before, is ``command`` under another number.

    A cloud that opens a new signing epoch, or a new key, numbers and signs anew what may not have arrived.
    """
    earlier = read_command(known)
    return replace(command, signing_epoch=earlier.signing_epoch, sequence=earlier.sequence) == earlier


def _keep(connection: sqlite3.Connection, so_far: Taken) -> Taken:
    connection.execute(
        "INSERT OR REPLACE INTO curtail_numbers (id, signing_epoch, sequence, order_id, floor_epoch, floor_sequence)"
        " VALUES (1, ?, ?, ?, ?, ?)",
        (*so_far.highest, so_far.order_id, *so_far.floor),
    )
    return so_far
