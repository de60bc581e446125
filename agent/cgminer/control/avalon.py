"""Avalon: soft-off and soft-on, timed by the device's own clock.

Invariant: the moment sent is derived from the ``When`` the device has just told us; a clock of ours could lie decades
ahead of a device whose clock was never set, and its stop would never come.

Source: Canaan CGMiner API, ``ascset`` softoff and softon; success is STATUS I, code 118.
"""

from typing import Final

from agent.cgminer.device import Device
from agent.cgminer.status import Status
from agent.errors import Garbled, UnsupportedDevice

_SET_INFO: Final = 118
_SET_OK: Final = 119
_LEAD_S: Final = 2
"""``When`` is cut to whole seconds and the order needs its way; two seconds keep it from lying in the past."""


async def stop(device: Device) -> None:
    """Put the miner into soft-off. Raises Transient, Permanent or Refused; returning proves nothing."""
    await _switch(device, "softoff")


async def start(device: Device) -> None:
    """Bring the miner back with soft-on. Raises Transient, Permanent or Refused; returning proves nothing."""
    await _switch(device, "softon")


async def _switch(device: Device, action: str) -> None:
    when = Status.of(await device.ask("version")).when
    if when is None:
        raise Garbled(f"{device.address}: tells no time, so {action} cannot be timed; restart its CGMiner")
    status = Status.of(await device.ask("ascset", f"0,{action},1:{when + _LEAD_S}"))
    status.raise_if_denied(device.address)
    done = status.code == _SET_OK or (status.code == _SET_INFO and "success" in status.message.lower())
    if not (status.accepted and done):
        raise UnsupportedDevice(f"{device.address}: refuses {action}: {status.text}; update its firmware")
