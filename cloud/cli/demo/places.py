"""Ports and loopback networks of one demo, held against every other demo for as long as it plays.

    127.0.0.1:BASE          held open; BASE+1 ... are this demo's own
    127.N.0.1:4028          held open; 127.N.1.1 ... are where its miners listen

Invariant: whoever holds the first place owns the whole block, so that two demos that start together never meet. The
ports lie below those that the kernel gives to outgoing connections.
"""

import random
import socket
from typing import Final

_LOWEST_PORT: Final = 20_000
_BLOCKS: Final = 375
_BLOCK_PORTS: Final = 32
_MINER_PORT: Final = 4028


class NoPlace(Exception):
    """Nothing is free here; the message says what to do."""


class Places:
    """What one demo holds until ``close``."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"places-{seed}")  # noqa: S311 - spreads demos apart, nothing secret
        self._held: list[socket.socket] = []

    def ports(self, count: int) -> list[int]:
        """Return ``count`` free ports (fewer than a block) of 127.0.0.1.

        Raises:
            NoPlace: every block is taken.
        """
        for block in self._shuffled(range(_BLOCKS)):
            base = _LOWEST_PORT + block * _BLOCK_PORTS
            if self._hold("127.0.0.1", base):
                free = [port for port in range(base + 1, base + _BLOCK_PORTS) if _is_free("127.0.0.1", port)]
                if len(free) >= count:
                    return free[:count]
        raise NoPlace(f"no ports from {_LOWEST_PORT} on are free on 127.0.0.1; end what listens there")

    def networks(self, count: int) -> list[str]:
        """Return ``count`` prefixes ``127.N`` on whose miner port nothing listens.

        Raises:
            NoPlace: too few are free.
        """
        found: list[str] = []
        for number in self._shuffled(range(20, 250)):
            network = f"127.{number}"
            if _is_free(f"{network}.1.1", _MINER_PORT) and self._hold(f"{network}.0.1", _MINER_PORT):
                found.append(network)
            if len(found) == count:
                return found
        raise NoPlace(
            f"port {_MINER_PORT} is free on no loopback network 127.20 to 127.249; end the programme that listens there"
        )

    def close(self) -> None:
        """Let go of everything."""
        while self._held:
            self._held.pop().close()

    def _shuffled(self, numbers: range) -> list[int]:
        return self._rng.sample(numbers, len(numbers))

    def _hold(self, host: str, port: int) -> bool:
        try:
            self._held.append(socket.create_server((host, port)))
        except OSError:
            return False
        return True


def _is_free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True
