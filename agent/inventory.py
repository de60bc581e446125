"""The site's two lists: which miners and which meters stand where. Read at start, never written."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.errors import BadInput
from sitelink.inventory import BadList, MeterEntry, MinerEntry, read_meters, read_miners

_Entry = TypeVar("_Entry")


def load_inventory(path: Path) -> tuple[MinerEntry, ...]:
    """Return the miners listed in the CSV file at ``path``.

    Raises:
        BadInput: the file cannot be read, or a row is broken or doubled.
    """
    return _load(path, read_miners)


def load_meters(path: Path) -> tuple[MeterEntry, ...]:
    """Return the meters listed in the CSV file at ``path``.

    Raises:
        BadInput: the file cannot be read, or a row is broken or doubled.
    """
    return _load(path, read_meters)


def _load(path: Path, read: Callable[[str, bytes], tuple[_Entry, ...]]) -> tuple[_Entry, ...]:
    try:
        return read(path.name, path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}; give the path of a CSV file") from None
    except BadList as error:
        raise BadInput(str(error)) from None
