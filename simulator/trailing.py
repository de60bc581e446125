r"""Figures that trail what a miner does: firmware that refreshes them seldom, or shows averages. Pure.

    trailing_snapshot   power and hash rate as they were at the last refresh, one every N seconds
    trailing_average    their mean over the last N seconds

Invariants: only power and hash rate trail, with what a firmware says of hashing by its hash rate; what an order has
made of the miner (asleep, its uptime) is told at once, and a boot leaves nothing older than itself. Without such a
fault the figures are those of this moment.
"""

from typing import TYPE_CHECKING, NamedTuple

from simulator import noise

if TYPE_CHECKING:
    from simulator.miner import Miner

_POINTS = 100


class Figures(NamedTuple):
    """Power and hash rate as shares of nameplate, and the moment they are shown as of (simulated seconds)."""

    share: float
    hash_share: float
    at_s: float


def figures(miner: "Miner", now_s: float) -> Figures:
    """Return the figures that ``miner``, advanced to ``now_s``, shows then."""
    fault = miner.fault
    if fault is None or fault.seconds <= 0:
        return _at(miner, now_s)
    if fault.kind == "trailing_snapshot":
        return _at(miner, max(_refreshed_s(miner, fault.seconds, now_s), miner.booted_s))
    if fault.kind == "trailing_average":
        return _mean(miner, max(now_s - fault.seconds, miner.booted_s), now_s)
    return _at(miner, now_s)


def _at(miner: "Miner", at_s: float) -> Figures:
    leg = miner.shown.leg(at_s)
    return Figures(leg.share(at_s), leg.hash_share(at_s), at_s)


def _refreshed_s(miner: "Miner", every_s: float, now_s: float) -> float:
    """Return when the figures were last refreshed; each miner has its own moments."""
    own_s = (noise.at(miner.noise_key, 31) + 1.0) / 2 * every_s
    return now_s - (now_s - own_s) % every_s


def _mean(miner: "Miner", since_s: float, now_s: float) -> Figures:
    step_s = (now_s - since_s) / _POINTS
    points = [_at(miner, since_s + (number + 0.5) * step_s) for number in range(_POINTS)]
    return Figures(
        sum(point.share for point in points) / _POINTS, sum(point.hash_share for point in points) / _POINTS, now_s
    )
