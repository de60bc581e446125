"""How many files and sockets this process may have open: each miner that is talked to is one."""

import resource
import sys
from typing import Final

_OTHERS: Final = 64
"""What the daemon has open beside miners and meters: the database, the link, name look-ups, the log."""


def wanted_by_daemon(polled: int, ordered: int, meters: int) -> int:
    """Return how many may be open at times: ``polled`` miners, ``ordered`` looked at and told, ``meters``, others."""
    return polled + 2 * ordered + meters + _OTHERS


def open_files(needed: int) -> int:
    """Raise this process's limit of open files towards ``needed``, as far as the system lets it.

    Returns:
        How many of ``needed`` it may open: fewer when the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _count(soft)
    wanted = min(needed, _count(hard))
    if allowed < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return allowed
        allowed = wanted
    return min(needed, allowed)


def _count(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
