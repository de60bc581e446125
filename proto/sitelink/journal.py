"""The journal's chain: what an entry's hash covers, and whether an entry follows from the one before. Pure.

    entry 1 (chain_began, previous = 32 zero bytes) <--hash-- entry 2 <--hash-- entry 3 ...

Invariants: ``hash`` covers every other field and the hash before, so no entry can be changed, dropped or moved without
every later one showing it; numbers go up by one. Nothing here needs a key: whoever has the entries can check them.
"""

import hashlib
import json
from typing import Final

from sitelink.types import JournalEntry

BEGAN: Final = "chain_began"
"""The kind of a chain's first entry; its detail says why it begins and what it follows."""
NOTHING_BEFORE: Final = bytes(32)
_DOMAIN: Final = "ballast/journal/v1"


def digest(entry: JournalEntry) -> bytes:
    """Return what ``entry.hash`` must be: SHA-256 of the hash before and the canonical JSON of the rest.

    Raises:
        TypeError, ValueError: a field is not what it should be, as in a broken file.
    """
    fields = [_DOMAIN, entry.chain, entry.seq, entry.at_us, entry.trust, entry.kind, entry.subject, entry.detail]
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(entry.previous + text.encode("utf-8")).digest()


def is_itself(entry: JournalEntry) -> bool:
    """Return whether ``entry`` is what its hash was made of."""
    try:
        return entry.hash == digest(entry)
    except (TypeError, ValueError):
        return False


def begins(entry: JournalEntry) -> bool:
    """Return whether ``entry`` is the first of a chain."""
    return entry.kind == BEGAN and entry.previous == NOTHING_BEFORE


def fault_of(entry: JournalEntry, before: JournalEntry | None) -> str:
    """Return why ``entry`` does not follow ``before`` (None: it must begin a chain), "" when it does."""
    if not is_itself(entry):
        return f"entry {entry.seq} is not what its hash was made of"
    if before is not None and entry.seq != before.seq + 1:
        return f"entries {before.seq + 1} to {entry.seq - 1} are missing"
    if before is None or before.chain != entry.chain:
        return "" if begins(entry) else f"entry {entry.seq} begins no chain, and what it follows is missing"
    if entry.previous != before.hash:
        return f"entry {entry.seq} follows another entry than {before.seq}"
    return ""
