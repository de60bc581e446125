"""The site's two lists: which miners and which meters stand where, and where a miner was found since.

    inventory.csv    what the operator wrote; changed only by the operator's own commands
    learned.json     where a miner answers now, whose address the network has changed (learned.py)
    history.jsonl    who changed what, when, where and why (history.py)

Invariant: a learned address counts only as long as the inventory still has the one it was learned to replace.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.errors import BadInput
from agent.files import next_step, read_whole
from agent.inventory.learned import Learned
from sitelink.inventory import MeterEntry, MinerEntry, read_meters, read_miners, sound_miners, usable_miners
from sitelink.rows import BadList

_List = TypeVar("_List")


def load_inventory(path: Path) -> tuple[MinerEntry, ...]:
    """Return the miners listed in the CSV file at ``path``.

    Raises:
        BadInput: the file cannot be read, or a row is broken or doubled.
    """
    return _load(path, read_miners)


def load_usable(path: Path) -> tuple[tuple[MinerEntry, ...], tuple[str, ...]]:
    """Return the miners listed at ``path``, and a complaint about each outlet that had to be left out.

    Raises as ``load_inventory``, but for a wrong outlet.
    """
    return _load(path, usable_miners)


def load_as_found(path: Path, state_dir: Path) -> tuple[MinerEntry, ...]:
    """Return the miners of the inventory, each at the address where it was last found.

    A file of learned addresses that cannot be read counts as none. Raises as ``load_inventory``.
    """
    return Learned.load(state_dir).applied(load_inventory(path))


def load_sound(path: Path, state_dir: Path) -> tuple[tuple[MinerEntry, ...], tuple[str, ...]]:
    """Return the miners of the sound rows, where each was last found, and a complaint about each wrong row or outlet.

    Raises:
        BadInput: the file cannot be read.
    """
    try:
        entries, complaints = sound_miners(path.name, read_whole(path))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}; {next_step(error)}") from None
    return Learned.load(state_dir).applied(entries), complaints


def load_meters(path: Path) -> tuple[MeterEntry, ...]:
    """Return the meters listed in the CSV file at ``path``.

    Raises:
        BadInput: the file cannot be read, or a row is broken or doubled.
    """
    return _load(path, read_meters)


def _load(path: Path, read: Callable[[str, bytes], _List]) -> _List:
    try:
        return read(path.name, read_whole(path))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}; {next_step(error)}") from None
    except BadList as error:
        raise BadInput(str(error)) from None
