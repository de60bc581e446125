"""Which driver controls which firmware: the one table of what can be told to a miner."""

from collections.abc import Callable, Mapping
from typing import Final

from agent.cgminer.control.antminer import Antminer
from agent.cgminer.control.avalon import Avalon
from agent.cgminer.control.braiins import Braiins
from agent.cgminer.control.braiins_rest import BraiinsRest
from agent.cgminer.control.cgminer import CgMiner
from agent.cgminer.control.driver import Driver
from agent.cgminer.control.luxos import LuxOs
from agent.cgminer.control.vnish import Vnish
from agent.cgminer.control.whatsminer import Whatsminer
from agent.cgminer.control.whatsminer_v3 import WhatsminerV3
from sitelink.types import Verb

_DRIVERS: Final[Mapping[str, Callable[[], Driver]]] = {
    "antminer": Antminer,
    "avalon": Avalon,
    "braiins": Braiins,
    "braiins-rest": BraiinsRest,
    "cgminer": CgMiner,
    "luxos": LuxOs,
    "vnish": Vnish,
    "whatsminer-v3": WhatsminerV3,
}

_POWER_UNSEEN: Final = frozenset({"cgminer"})
"""Firmwares whose own stop no figure of power proves."""


def driver_of(dialect: str, whatsminer_password: str = "") -> Driver | None:
    """Return a new driver for one miner of ``dialect``, None where we can tell it nothing.

    ``whatsminer_password`` opens a Whatsminer for which no credentials are known.
    """
    if dialect == "whatsminer":
        return Whatsminer(whatsminer_password)
    made = _DRIVERS.get(dialect)
    return None if made is None else made()


def controllable(dialect: str) -> bool:
    """Return whether miners of this dialect can be stopped and started by us."""
    driver = driver_of(dialect)
    return driver is not None and {Verb.STOP, Verb.START} <= driver.verbs


def stops_before_outlet(dialect: str) -> bool:
    """Return whether miners of this dialect are stopped by their firmware even where a switch stands before them.

    Plain CGMiner's are not: their stop shows no power, and the switch proves that it takes it all.
    """
    return controllable(dialect) and dialect not in _POWER_UNSEEN


def controllable_dialects() -> tuple[str, ...]:
    """Return the dialects whose miners can be stopped and started by us, in order of name."""
    return tuple(sorted(filter(controllable, (*_DRIVERS, "whatsminer"))))
