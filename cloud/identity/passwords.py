"""Password storage: argon2id with 46 MiB, one pass, one lane; at most two computed at a time in a process.

Source: OWASP Password Storage Cheat Sheet (argon2id m=46 MiB, t=1, p=1).
"""

import secrets
import threading
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_HASHER: Final = PasswordHasher(time_cost=1, memory_cost=46 * 1024, parallelism=1)
_AT_ONCE: Final = threading.BoundedSemaphore(2)
# A hash of nothing anybody knows: an unknown account costs as much time as a known one.
_NOBODY: Final = _HASHER.hash(secrets.token_bytes(32))
_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"


def hash_password(password: str) -> str:
    """Return the encoded argon2id hash."""
    with _AT_ONCE:
        return _HASHER.hash(password)


def matches(encoded: str | None, password: str) -> bool:
    """Return whether ``password`` has this hash; None (no such account) takes as long and is False."""
    with _AT_ONCE:
        try:
            _HASHER.verify(encoded or _NOBODY, password)
        except (VerificationError, InvalidHashError):
            return False
    return encoded is not None


def is_outdated(encoded: str) -> bool:
    """Return whether the hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(encoded)


def one_time_password() -> str:
    """Return 20 random letters in groups (about 99 bits), without letters that look alike."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))
