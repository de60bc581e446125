"""Price spikes: stretches in which somebody in the fleet loses money. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from cloud.planner.model import FleetMiner, Price, Signal, SignalKind, SkipReason
from sitelink.types import Interval
from sitelink.units import UsdPerMegawattHour, UsdPerPetahashDay


def strike(miners: Iterable[FleetMiner], hashprice: UsdPerPetahashDay) -> UsdPerMegawattHour | None:
    """Return the lowest break-even of miners that can be stopped; None when nobody can."""
    edges = [
        miner.breakeven(hashprice)
        for miner in miners
        if miner.skip in {None, SkipReason.NOT_HASHING, SkipReason.NOT_SEEN} and miner.hashrate_ths > 0
    ]
    return min(edges, default=None)


def find_spikes(
    site_id: str, prices: Sequence[tuple[Price, datetime]], strike_price: UsdPerMegawattHour | None
) -> tuple[Signal, ...]:
    """Return one signal for each unbroken stretch above ``strike_price``; ``prices`` carry when each was first seen."""
    found: list[Signal] = []
    if strike_price is None:
        return ()
    for price, seen_at in sorted(prices, key=lambda item: item[0].interval.start):
        if price.price_usd_per_mwh <= strike_price:
            continue
        last = found[-1] if found else None
        if last is not None and last.interval.end == price.interval.start:
            interval = Interval(last.interval.start, price.interval.end)
            found[-1] = _spike(site_id, interval, min(last.received_at, seen_at))
        else:
            found.append(_spike(site_id, price.interval, seen_at))
    return tuple(found)


def _spike(site_id: str, interval: Interval, received_at: datetime) -> Signal:
    name = f"price-{interval.start:%Y%m%dT%H%M%SZ}"
    return Signal(name, site_id, SignalKind.PRICE_SPIKE, interval, None, received_at)


def merge_spikes(known: Sequence[Signal], found: Sequence[Signal]) -> tuple[tuple[Signal, ...], tuple[str, ...]]:
    """Return (spikes to write, ids to withdraw): a spike that moved keeps its id and when it was first received."""
    left = {signal.signal_id: signal for signal in known}
    write: list[Signal] = []
    for spike in found:
        kin = next((item for item in left.values() if _overlap(item.interval, spike.interval)), None)
        if kin is None:
            write.append(spike)
            continue
        del left[kin.signal_id]
        if kin.interval != spike.interval:
            write.append(Signal(kin.signal_id, spike.site_id, spike.kind, spike.interval, None, kin.received_at))
    return tuple(write), tuple(left)


def _overlap(first: Interval, second: Interval) -> bool:
    return first.start < second.end and second.start < first.end
