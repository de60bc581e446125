"""How long to wait before trying again: doubling, capped, with jitter so that many sites do not return in step."""

import random


class Backoff:
    """Delays between attempts: ``first_s``, doubling up to ``cap_s``, each cut by up to half at random."""

    def __init__(self, rng: random.Random, first_s: float, cap_s: float) -> None:
        self._rng = rng
        self._first_s = first_s
        self._cap_s = cap_s
        self._failures = 0

    @property
    def failures(self) -> int:
        """Return how many attempts have failed since the last success."""
        return self._failures

    def failed(self) -> float:
        """Count a failure and return how many seconds to wait."""
        delay_s = min(self._cap_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return delay_s * self._rng.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """Begin again at the first delay."""
        self._failures = 0
