"""Avalon: soft-off and soft-on, timed by the device's own clock.

Invariant: the moment sent is derived from the ``When`` the device has just told us; a clock of ours could lie decades
ahead of a device whose clock was never set, and its stop would never come.

Source: Canaan CGMiner API, ``ascset`` softoff and softon; success is STATUS I, code 118.
"""

from typing import Final

from agent.cgminer.control.driver import ReadBack, Wanted
from agent.cgminer.control.read_back import shows_started, shows_stopped
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.cgminer.status import Status
from agent.errors import Garbled, UnsupportedDevice
from sitelink.types import Verb

_ACTIONS: Final = {Verb.STOP: "softoff", Verb.START: "softon"}

_SET_INFO: Final = 118
_SET_OK: Final = 119
_LEAD_S: Final = 2
"""``When`` is cut to whole seconds and the order needs its way; two seconds keep it from lying in the past."""


class Avalon:
    """Control of one Avalon miner."""

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what an Avalon can be told."""
        return frozenset(_ACTIONS)

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return nothing: a miner that comes back is as it was."""
        return ""

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        await _switch(device, _ACTIONS[wanted.verb])
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        seen = await device.observe()
        return shows_stopped(seen, before) if wanted.verb is Verb.STOP else shows_started(seen)


async def _switch(device: Device, action: str) -> None:
    when = Status.of(await device.ask("version")).when
    if when is None:
        raise Garbled(f"{device.address}: tells no time, so {action} cannot be timed; restart its CGMiner")
    status = Status.of(await device.ask("ascset", f"0,{action},1:{when + _LEAD_S}"))
    status.raise_if_denied(device.address)
    done = status.code == _SET_OK or (status.code == _SET_INFO and "success" in status.message.lower())
    if not (status.accepted and done):
        raise UnsupportedDevice(f"{device.address}: refuses {action}: {status.text}; update its firmware")
