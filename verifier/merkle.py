"""Merkle roots and inclusion proofs. Standard library only.

Source: RFC 6962, section 2.1 (SHA-256; 0x00 before a leaf, 0x01 before a node, so that neither passes for the other).
"""

import hashlib
from collections.abc import Sequence


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of one leaf's bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over ``leaves`` in order; the empty tree has the hash of nothing."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = _split(len(leaves))
    return _node(root(leaves[:split]), root(leaves[split:]))


def path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the audit path of leaf ``index``, from the leaf upwards.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    if len(leaves) == 1:
        return ()
    split = _split(len(leaves))
    if index < split:
        return (*path(leaves[:split], index), root(leaves[split:]))
    return (*path(leaves[split:], index - split), root(leaves[:split]))


def included(leaf: bytes, index: int, size: int, audit: Sequence[bytes], expected_root: bytes) -> bool:
    """Return whether ``audit`` proves that ``leaf`` is leaf ``index`` of ``size`` under ``expected_root``."""
    if not 0 <= index < size:
        return False
    found = _climb(leaf_hash(leaf), index, size, list(audit))
    return found == expected_root


def _climb(value: bytes, index: int, size: int, audit: list[bytes]) -> bytes | None:
    if size == 1:
        return value if not audit else None
    if not audit:
        return None
    split, sibling = _split(size), audit[-1]
    if index < split:
        left = _climb(value, index, split, audit[:-1])
        return None if left is None else _node(left, sibling)
    right = _climb(value, index - split, size - split, audit[:-1])
    return None if right is None else _node(sibling, right)


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << ((size - 1).bit_length() - 1)
