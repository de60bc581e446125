"""Who is planned for, who is not and why, and which miners count as alike. Pure.

Invariants: only a miner that can be stopped, was seen lately, hashes and is no liar is planned for; everyone else has a
``SkipReason``. Liars, uncontrollable miners and those that nobody could read lately are constant load, at their
nameplate: a plan never counts on them, and never takes an unknown draw for none. A miner without a nameplate is never
planned for, and its load is left out of every sum as unknown, not counted as zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from math import floor
from typing import Final

from cloud.hosting.model import MinerRow
from cloud.planner.model import FleetMiner, Group, SkipReason, UnratedMiner, stop_order
from sitelink.types import MinerState
from sitelink.units import Watts

MAX_GROUPS: Final = 50  # solve time depends on the number of groups only; near-equal ones are merged beyond this
_FIRST_BUCKET_J_PER_TH: Final = 0.5
_KEEP_MODELS_UNTIL: Final = 3
_MERGE_STOPS_AFTER: Final = 5
_LOAD_ANYWAY: Final = frozenset(
    {SkipReason.LIAR, SkipReason.UNCONTROLLABLE, SkipReason.NO_NAMEPLATE, SkipReason.NOT_SEEN}
)


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

    Where there would be more, buckets double until there are not; then the model is ignored, then earliest stops are
    merged too, and the latest of a group holds for all of it.
    """
    ordered = sorted(miners, key=stop_order)
    for doublings in count():
        bucket = _FIRST_BUCKET_J_PER_TH * 2**doublings
        stop_step_s = 0 if doublings < _MERGE_STOPS_AFTER else 60 * 2 ** (doublings - _MERGE_STOPS_AFTER)
        groups = _grouped(ordered, earliest_stop, bucket, stop_step_s, by_model=doublings <= _KEEP_MODELS_UNTIL)
        if len(groups) <= MAX_GROUPS:
            return groups
    raise AssertionError("unreachable: at last all efficiencies and all stops share a bucket")


def _grouped(
    ordered: Sequence[FleetMiner],
    earliest_stop: Mapping[str, datetime],
    bucket: float,
    stop_step_s: int,
    *,
    by_model: bool,
) -> tuple[Group, ...]:
    buckets: dict[tuple[float, str, datetime | int | None], list[FleetMiner]] = {}
    for miner in ordered:
        efficiency = floor(miner.efficiency_j_per_th / bucket) * bucket
        stop = earliest_stop.get(miner.miner_id)
        merged = stop if stop is None or not stop_step_s else int(stop.timestamp()) // stop_step_s
        buckets.setdefault((efficiency, miner.model if by_model else "", merged), []).append(miner)
    groups = []
    for (efficiency, model, _), members in buckets.items():
        stops = [earliest_stop[miner.miner_id] for miner in members if miner.miner_id in earliest_stop]
        stop = max(stops, default=None)
        name = f"{model or 'any'} {efficiency:.15g} J/TH{'' if stop is None else f' from {stop.isoformat()}'}"
        groups.append(Group(name, tuple((miner,) for miner in members), earliest_stop=stop))
    return tuple(groups)
