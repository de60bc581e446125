"""Fleets and horizons of the plan bench: a real price day when the data is there, else a synthetic one with a spike."""

import csv
import math
import random
from datetime import UTC, datetime, timedelta

from cloud.planner.model import FleetMiner, Group, Problem, Rules, Slot
from sitelink.types import Interval
from sitelink.units import TeraHashPerSecond, UsdPerMegawattHour, UsdPerPetahashDay, Watts
from tests.bench.report import shared_folder

START = datetime(2024, 8, 20, 5, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
HASHPRICE = UsdPerPetahashDay(50.0)
SLOTS = 96


def day_prices(seed: int) -> tuple[list[float], str]:
    """Return 96 quarter-hour prices of 2024-08-20 at HB_SOUTH (spike to 4,858 USD/MWh), else a synthetic day."""
    path = shared_folder() / "markets" / "ercot_hb_south_15min_2024H2.csv"
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["interval_start"].startswith("2024-08-20")]
        if len(rows) == SLOTS:
            return [float(row["HB_SOUTH_RTM"]) for row in rows], "HB_SOUTH 2024-08-20"
    draw = random.Random(seed)
    wave = [35 + 25 * math.sin(place / SLOTS * 2 * math.pi) + draw.gauss(0, 8) for place in range(SLOTS)]
    return [4000.0 if 74 <= place < 80 else price for place, price in enumerate(wave)], "synthetic"


def case(classes: int, miners: int, prices: list[float], seed: int) -> Problem:
    """Return ``miners`` in ``classes`` with minimum times, a longest off time, a cap window, import limit and ramp."""
    draw = random.Random(seed)
    groups = []
    for kind in range(classes):
        power, rate = draw.uniform(2800, 5600), draw.uniform(90, 270)
        members = range(miners * kind // classes, miners * (kind + 1) // classes)
        units = tuple(
            (FleetMiner(f"m{place:07d}", f"k{kind}", Watts(power), TeraHashPerSecond(rate)),) for place in members
        )
        groups.append(Group(f"k{kind:03d}", units))
    full_w = sum(group.unit_power_w * len(group.units) for group in groups)
    slots = tuple(
        Slot(
            Interval(START + QUARTER * place, START + QUARTER * (place + 1)),
            UsdPerMegawattHour(price),
            Watts(full_w * 0.4) if 60 <= place < 68 else None,
            Watts(full_w * 0.02),
        )
        for place, price in enumerate(prices)
    )
    rules = Rules(
        HASHPRICE,
        min_up=QUARTER * 4,
        min_down=QUARTER * 2,
        max_off=QUARTER * 24,
        import_limit_w=Watts(full_w * 0.97),
        ramp_w=Watts(full_w * 0.35),
    )
    groups.sort(key=lambda group: -group.unit_power_w / group.unit_hashrate_ths)
    return Problem(slots, tuple(groups), rules)
