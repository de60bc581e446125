"""Noise without state: a pure function of key and time, so the order in which devices are asked changes nothing.

Invariant: the same ``(key, seconds)`` always gives the same value, in every process.
"""

import hashlib

_MASK = (1 << 64) - 1
_SCALE = 2.0**-63


def key(*parts: object) -> int:
    """Return a 64-bit key for ``parts``; stable across interpreters, unlike ``hash``."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def at(noise_key: int, bucket: int) -> float:
    """Return the noise of one bucket, uniform in [-1, 1).

    Source: the SplitMix64 finaliser (Steele, Lea, Flood 2014).
    """
    mixed = (noise_key + bucket * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) * _SCALE - 1.0


def smooth(noise_key: int, seconds: float, period_s: float) -> float:
    """Return noise in [-1, 1) that wanders linearly from bucket to bucket of ``period_s``."""
    bucket, part = divmod(seconds / period_s, 1.0)
    before = at(noise_key, int(bucket))
    return before + (at(noise_key, int(bucket) + 1) - before) * part
