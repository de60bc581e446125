"""What is secret in an order, the passwords of pools, and how it lies in ``agent.db``: sealed, as long as it is needed.

Invariant: what cannot be sealed is not stored at all, and what cannot be opened again is left out; no order waits for
a key, and none is stored in the open.
"""

from typing import Final, Protocol

from sitelink.types import Verb

SECRET_VERBS: Final = frozenset({Verb.POOLS})
"""The verbs whose parameters, and whatever they replace, hold passwords."""


class Secrets(Protocol):
    """Seals texts for the disk. ``about`` says of what they are; it must be the same when they are opened."""

    def sealed(self, text: str, about: str) -> str:
        """Return ``text`` sealed, empty where that cannot be done."""
        ...

    def opened(self, text: str, about: str) -> str:
        """Return what was sealed, empty where it cannot be opened; what never was sealed comes back as it is."""
        ...
