"""The firmwares a simulated miner can speak: one module each, found by name in ``DIALECTS``."""

from simulator.dialects.antminer import Antminer
from simulator.dialects.avalon import Avalon
from simulator.dialects.braiins import Braiins
from simulator.dialects.luxos import LuxOs
from simulator.dialects.rpc import Dialect
from simulator.dialects.whatsminer import WhatsMiner


def build_dialects(whatsminer_password: str = "admin") -> dict[str, Dialect]:  # noqa: S107 - the factory default
    """Return every dialect by its name in inventory.csv."""
    spoken: tuple[Dialect, ...] = (LuxOs(), WhatsMiner(whatsminer_password), Avalon(), Antminer(), Braiins())
    return {dialect.name: dialect for dialect in spoken}
