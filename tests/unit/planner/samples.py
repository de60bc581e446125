"""Small fleets and horizons for the planner's tests."""

from datetime import UTC, datetime, timedelta

from cloud.planner.model import FleetMiner, Group, Problem, Rules, Slot
from sitelink.types import Interval
from sitelink.units import TeraHashPerSecond, UsdPerMegawattHour, UsdPerPetahashDay, Watts

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
HASHPRICE = UsdPerPetahashDay(50.0)


def miner(name: str, power_w: float = 3500.0, hashrate_ths: float = 200.0, model: str = "M") -> FleetMiner:
    return FleetMiner(name, model, Watts(power_w), TeraHashPerSecond(hashrate_ths))


def group(name: str, miners: list[FleetMiner], **times: datetime) -> Group:
    return Group(name, tuple((item,) for item in miners), **times)


def slots(
    prices: list[float | None],
    caps: list[float | None] | None = None,
    constant_w: float = 0.0,
    step: timedelta = QUARTER,
) -> tuple[Slot, ...]:
    caps = caps or [None] * len(prices)
    return tuple(
        Slot(
            Interval(START + step * place, START + step * (place + 1)),
            None if price is None else UsdPerMegawattHour(price),
            None if cap is None else Watts(cap),
            Watts(constant_w),
        )
        for place, (price, cap) in enumerate(zip(prices, caps, strict=True))
    )


def problem(prices: list[float | None], groups: list[Group], rules: Rules | None = None, **more: object) -> Problem:
    return Problem(slots(prices, **more), tuple(groups), rules or Rules(HASHPRICE))
