"""What a miner reports at one instant, in no firmware's words. Pure: asking changes nothing.

Invariant: every figure follows from the miner's shown electronics, its noise and the time; power and hash rate may
trail (``trailing``).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator import noise
from simulator.physics import Phase
from simulator.trailing import figures
from sitelink.units import Celsius, TeraHashPerSecond, Watts

if TYPE_CHECKING:
    from simulator.miner import Miner

_SHARE_DIFFICULTY = 262_144
_MEASURING_SHARE = 0.0015
_HASHES_A_SHARE = _SHARE_DIFFICULTY * 2**32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a miner reports at one instant. Temperatures hold one figure a board; hash rates are TH/s."""

    when: int
    phase: Phase
    hashrate_ths: TeraHashPerSecond
    average_ths: TeraHashPerSecond
    ideal_ths: TeraHashPerSecond
    board_ths: tuple[TeraHashPerSecond, ...]
    power_w: Watts
    power_limit_w: Watts
    board_c: tuple[Celsius, ...]
    chip_c: tuple[Celsius, ...]
    air_c: Celsius
    fans_rpm: tuple[int, int, int, int]
    fan_percent: int
    elapsed_s: int
    running_s: int
    accepted: int
    rejected: int

    @property
    def hashing(self) -> bool:
        """Return whether boards do work."""
        return self.hashrate_ths > 0

    @property
    def switched_off(self) -> bool:
        """Return whether an order put the miner to sleep."""
        return self.phase in {Phase.STOPPING, Phase.IDLE}


def take(miner: "Miner", now_s: float) -> Snapshot:
    """Return what ``miner``, advanced to ``now_s``, reports then."""
    place, shown, boards = miner.place, miner.shown, miner.place.model.boards
    key, heat, air_c = miner.noise_key, shown.heat(now_s), miner.time.ambient_c()
    seen = figures(miner, now_s)
    rate = TeraHashPerSecond(place.actual_ths * seen.hash_share * wobble(key ^ 2, seen.at_s, 0.012))
    hottest = tuple(
        air_c + heat * (34.0 + 2.5 * noise.at(key, board) + 0.8 * noise.smooth(key + board, now_s, 30))
        for board in range(boards)
    )
    hashed_s, elapsed_s = miner.hashed_s(now_s), max(int(now_s - miner.booted_s), 0)
    accepted, rejected = _shares(miner, hashed_s)
    since_s = shown.running_s(now_s)
    limit_w = miner.kept.limit_w
    return Snapshot(
        when=miner.device_time(),
        phase=shown.phase(now_s),
        hashrate_ths=rate,
        average_ths=TeraHashPerSecond(place.actual_ths * hashed_s / max(now_s - miner.booted_s, 1.0)),
        ideal_ths=TeraHashPerSecond(place.model.nameplate_ths * miner.level),
        board_ths=_split(key, rate, boards, seen.at_s),
        power_w=Watts(place.actual_w * seen.share * _measured(key, seen.at_s)),
        power_limit_w=place.model.nameplate_w if limit_w is None else limit_w,
        board_c=tuple(Celsius(round(figure, 1)) for figure in hottest),
        chip_c=tuple(Celsius(round(figure + 14.0 * heat, 1)) for figure in hottest),
        air_c=Celsius(round(air_c, 1)),
        fans_rpm=_fans(key, heat, now_s),
        fan_percent=round(20 + 60 * min(heat, 1.3)),
        elapsed_s=elapsed_s,
        running_s=elapsed_s if since_s >= elapsed_s or since_s >= now_s else int(since_s),
        accepted=accepted,
        rejected=rejected,
    )


def wobble(stream: int, now_s: float, share: float) -> float:
    """Return a factor near 1 that wanders by ``share``."""
    return 1.0 + share * noise.smooth(stream, now_s, 20.0)


def _measured(key: int, at_s: float) -> float:
    """Return the factor of a power that a supply measures: it wanders, and wavers by watts from moment to moment."""
    return wobble(key ^ 3, at_s, 0.008) + _MEASURING_SHARE * noise.smooth(key ^ 5, at_s, 0.25)


def _split(key: int, rate: TeraHashPerSecond, boards: int, now_s: float) -> tuple[TeraHashPerSecond, ...]:
    weights = [1 + 0.03 * noise.smooth(key + 100 + board, now_s, 40.0) for board in range(boards)]
    return tuple(TeraHashPerSecond(rate * weight / sum(weights)) for weight in weights)


def _fans(key: int, heat: float, now_s: float) -> tuple[int, int, int, int]:
    base = 900 + 4300 * min(heat, 1.25)
    first, second, third, fourth = (
        int(base * (1 + 0.04 * noise.smooth(key + 200 + fan, now_s, 15.0))) // 60 * 60 for fan in range(4)
    )
    return first, second, third, fourth


def _shares(miner: "Miner", hashed_s: float) -> tuple[int, int]:
    found = int(miner.place.actual_ths * 1e12 * hashed_s / _HASHES_A_SHARE)
    rejected = found // (900 + miner.noise_key % 600)
    return found - rejected, rejected
