"""New firmware goes to one rack first, and to the next only when that one is whole. Pure.

    rack A  [x x x x]  all COMPLETE      --> rack B  [x x ? .]  one is not      --> racks C, D: never sent

Invariants: racks go in the order in which the command names their miners; nothing goes to a rack before every miner of
all racks before it is COMPLETE; one that is not holds back all that follow.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sitelink.types import Outcome


class Staged(NamedTuple):
    """Whose turn it is, and for whom it never comes."""

    now: tuple[str, ...]
    never: tuple[str, ...]


def staged(miner_ids: Sequence[str], rack_of: Mapping[str, str], ended: Mapping[str, Outcome]) -> Staged:
    """Return the miners that may be worked on now and those that must not be any more.

    ``ended`` holds how the order ended for each miner it has ended for. A miner without a rack is a rack of its own.
    """
    racks: dict[str, list[str]] = {}
    for miner_id in miner_ids:
        racks.setdefault(rack_of.get(miner_id) or f"\0{miner_id}", []).append(miner_id)
    halted = False
    never: list[str] = []
    for members in racks.values():
        open_ = [miner_id for miner_id in members if miner_id not in ended]
        if halted:
            never += open_
            continue
        if open_:
            return Staged(tuple(open_), ())
        halted = any(ended[miner_id] is not Outcome.COMPLETE for miner_id in members)
    return Staged((), tuple(never))
