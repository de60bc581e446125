"""What was kept of a miner's configuration, read back from its text. Pure.

Invariant: a text that is no JSON object (none was kept, an older agent wrote it, a write was torn) says nothing and
raises nothing: an order is worth more than what it might restore.
"""

import json
from collections.abc import Mapping
from typing import Any


def kept_in(text: str) -> Mapping[str, Any]:
    """Return what ``text`` says, nothing where it says nothing."""
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}
