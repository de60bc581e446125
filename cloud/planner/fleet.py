"""Who is planned for, who is not and why, and which miners count as alike. Pure.

Invariants: only a miner that can be stopped, was seen lately, hashes and is no liar is planned for; everyone else has a
``SkipReason``. Liars and uncontrollable miners that draw power are constant load: a plan never counts on them. A miner
without a nameplate is never planned for, and its load is left out of every sum as unknown, not counted as zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import floor
from typing import Final

from cloud.hosting.model import MinerRow
from cloud.planner.model import FleetMiner, Group, SkipReason, UnratedMiner, stop_order
from sitelink.types import MinerState
from sitelink.units import Watts

MAX_GROUPS: Final = 50  # solve time depends on the number of groups only; near-equal ones are merged beyond this
_FIRST_BUCKET_J_PER_TH: Final = 0.5
_LOAD_ANYWAY: Final = frozenset({SkipReason.LIAR, SkipReason.UNCONTROLLABLE, SkipReason.NO_NAMEPLATE})


def select(rows: Iterable[MinerRow], now: datetime, seen_within: timedelta) -> tuple[FleetMiner, ...]:
    """Return every miner of known nameplate with its planning figures and, unless it is planned for, the reason."""
    return tuple(
        FleetMiner(
            miner_id=row.miner_id,
            model=row.model,
            power_w=row.nameplate_w,
            hashrate_ths=row.nameplate_ths,
            feeder_id=row.feeder_id,
            skip=_skip_reason(row, now, seen_within),
        )
        for row in rows
        if row.nameplate_w is not None and row.nameplate_ths is not None
    )


def select_unrated(rows: Iterable[MinerRow], now: datetime, seen_within: timedelta) -> tuple[UnratedMiner, ...]:
    """Return every miner that ``select`` leaves out because its nameplate is not known."""
    return tuple(
        UnratedMiner(row.miner_id, row.nameplate_w, _skip_reason(row, now, seen_within) or SkipReason.NO_NAMEPLATE)
        for row in rows
        if row.nameplate_w is None or row.nameplate_ths is None
    )


def _skip_reason(row: MinerRow, now: datetime, seen_within: timedelta) -> SkipReason | None:
    if row.liar:
        return SkipReason.LIAR
    if row.read_at is None or now - row.read_at > seen_within or row.state is MinerState.UNKNOWN:
        return SkipReason.NOT_SEEN
    if row.state is not MinerState.HASHING:
        return SkipReason.NOT_HASHING
    if not row.controllable:
        return SkipReason.UNCONTROLLABLE
    return None


def constant_w(miners: Iterable[FleetMiner], unrated: Iterable[UnratedMiner] = ()) -> Watts:
    """Return the known load that no plan can stop; ``count_unknown_load`` says how many miners it leaves out."""
    known = [miner.power_w for miner in unrated if miner.power_w is not None and miner.skip in _LOAD_ANYWAY]
    return Watts(sum(miner.power_w for miner in miners if miner.skip in _LOAD_ANYWAY) + sum(known))


def count_unknown_load(unrated: Iterable[UnratedMiner]) -> int:
    """Return how many miners draw power that nobody can put a figure on before it is read."""
    return sum(1 for miner in unrated if miner.power_w is None and miner.skip in _LOAD_ANYWAY)


def count_skipped(miners: Iterable[FleetMiner | UnratedMiner]) -> Mapping[str, int]:
    """Return how many miners are left out, by reason."""
    counts: dict[str, int] = {}
    for miner in miners:
        if miner.skip is not None:
            counts[miner.skip.value] = counts.get(miner.skip.value, 0) + 1
    return dict(sorted(counts.items()))


def alike(miners: Sequence[FleetMiner], earliest_stop: Mapping[str, datetime]) -> tuple[Group, ...]:
    """Return running groups by model, efficiency bucket and earliest stop, in stop order; at most ``MAX_GROUPS``.

    Where there would be more, buckets double until there are not; the last resort ignores the model.
    """
    bucket = _FIRST_BUCKET_J_PER_TH
    groups = _grouped(miners, earliest_stop, bucket, by_model=True)
    for by_model in (True, True, True, False, False, False, False):
        if len(groups) <= MAX_GROUPS:
            break
        bucket *= 2
        groups = _grouped(miners, earliest_stop, bucket, by_model=by_model)
    return groups


def _grouped(
    miners: Sequence[FleetMiner], earliest_stop: Mapping[str, datetime], bucket: float, *, by_model: bool
) -> tuple[Group, ...]:
    buckets: dict[tuple[float, str, datetime | None], list[FleetMiner]] = {}
    for miner in sorted(miners, key=stop_order):
        efficiency = floor(miner.efficiency_j_per_th / bucket) * bucket
        key = (efficiency, miner.model if by_model else "", earliest_stop.get(miner.miner_id))
        buckets.setdefault(key, []).append(miner)
    return tuple(
        Group(
            name=f"{model or 'any'} {efficiency:g} J/TH{'' if stop is None else f' from {stop.isoformat()}'}",
            units=tuple((miner,) for miner in members),
            earliest_stop=stop,
        )
        for (efficiency, model, stop), members in buckets.items()
    )
