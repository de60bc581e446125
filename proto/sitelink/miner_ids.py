"""What a miner is called: by its own MAC, or by its own serial number. Pure.

Invariant: one MAC has one form, however it was written; whether a name is a MAC is answered here alone.
"""

import re
from typing import Final

MAX_MINER_ID_BYTES: Final = 48
_MAC: Final = re.compile(
    r"[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}", re.IGNORECASE
)


def is_mac(name: str) -> bool:
    """Return whether ``name`` is a MAC address, however it is written: ``aa:bb:..``, ``AA-BB-..``, ``aabb.ccdd.eeff``.

    Twelve digits without anything between them may be a serial number, and count as one.
    """
    return _MAC.fullmatch(name) is not None


def canonical(miner_id: str) -> str:
    """Return a miner's id as everything of ours writes it: a MAC lower-case with colons, a serial as it is."""
    if not is_mac(miner_id):
        return miner_id
    digits = re.sub("[-:.]", "", miner_id).lower()
    return ":".join(digits[place : place + 2] for place in range(0, 12, 2))
