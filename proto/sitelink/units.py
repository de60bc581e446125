"""Units: the NewTypes used in every signature, and every conversion between units.

Invariant: no other module multiplies by a power of ten to change a unit.
"""

from datetime import timedelta
from typing import NewType

Watts = NewType("Watts", float)
Megawatts = NewType("Megawatts", float)
MegawattHours = NewType("MegawattHours", float)
TeraHashPerSecond = NewType("TeraHashPerSecond", float)
JoulesPerTeraHash = NewType("JoulesPerTeraHash", float)
Celsius = NewType("Celsius", float)
RevolutionsPerMinute = NewType("RevolutionsPerMinute", int)
UsdPerMegawattHour = NewType("UsdPerMegawattHour", float)
UsdPerPetahashDay = NewType("UsdPerPetahashDay", float)

_SECONDS_PER_HOUR = 3600.0
_HASHES_IN_TERA = {
    "H": 1e-12,
    "KH": 1e-9,
    "MH": 1e-6,
    "GH": 1e-3,
    "TH": 1.0,
    "PH": 1e3,
    "EH": 1e6,
}


def megawatts(power_w: Watts) -> Megawatts:
    """Return ``power_w`` in MW."""
    return Megawatts(power_w / 1e6)


def watts(power_mw: Megawatts) -> Watts:
    """Return ``power_mw`` in W."""
    return Watts(power_mw * 1e6)


def energy_mwh(power_w: Watts, duration: timedelta) -> MegawattHours:
    """Return the energy in MWh of a constant ``power_w`` over ``duration``."""
    return MegawattHours(power_w * duration.total_seconds() / _SECONDS_PER_HOUR / 1e6)


def terahash(value: float, unit: str) -> TeraHashPerSecond:
    """Return ``value`` given in ``unit`` per second (``H`` to ``EH``, any case) as TH/s.

    Raises:
        ValueError: the unit is not a hash rate unit.
    """
    scale = _HASHES_IN_TERA.get(unit.strip().upper().removesuffix("/S"))
    if scale is None:
        raise ValueError(f"unknown hash rate unit {unit!r}; expected one of {', '.join(_HASHES_IN_TERA)}")
    return TeraHashPerSecond(value * scale)


def efficiency_j_per_th(power_w: Watts, hashrate_ths: TeraHashPerSecond) -> JoulesPerTeraHash | None:
    """Return W per TH/s, which is J/TH; None when the hash rate is not positive."""
    if hashrate_ths <= 0:
        return None
    return JoulesPerTeraHash(power_w / hashrate_ths)


def breakeven_usd_per_mwh(hashprice: UsdPerPetahashDay, efficiency: JoulesPerTeraHash) -> UsdPerMegawattHour:
    """Return the electricity price at which a miner of this efficiency earns nothing.

    One PH/s draws ``1000 * efficiency`` W, so a day of it uses ``0.024 * efficiency`` MWh.

    Source: Luxor hashprice definition (USD per PH/s and day).
    """
    return UsdPerMegawattHour(hashprice / (efficiency * 0.024))


def hash_revenue_usd_per_h(hashprice: UsdPerPetahashDay, hashrate_ths: TeraHashPerSecond) -> float:
    """Return the gross mining revenue in USD of one hour at ``hashrate_ths``."""
    return hashprice * hashrate_ths / 1e3 / 24
