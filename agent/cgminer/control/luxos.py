"""LuxOS: logon, curtail, logoff.

Invariants: the device has one session for everybody, so ours is opened late, used once and always closed, whatever
happened between; a session in other hands is ``SessionBusy``, never taken over. A sleep ends at a reboot.

Source: docs.luxor.tech, LuxOS API: logon, curtail, logoff, session.
"""

import logging
from typing import Final

from agent.cgminer.control.driver import ReadBack, Wanted
from agent.cgminer.control.read_back import shows_started, shows_stopped
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.cgminer.status import Status
from agent.errors import AgentError, Garbled, SessionBusy, UnsupportedDevice
from sitelink.types import Verb

_LOG: Final = logging.getLogger(__name__)
_ACTIONS: Final = {Verb.STOP: "sleep", Verb.START: "wakeup"}


class LuxOs:
    """Control of one LuxOS miner."""

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what LuxOS can be told."""
        return frozenset(_ACTIONS)

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return nothing: a miner that wakes up is as it was."""
        return ""

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        await _curtail(device, _ACTIONS[wanted.verb])
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        seen = await device.observe()
        return shows_stopped(seen, before) if wanted.verb is Verb.STOP else shows_started(seen)


async def _curtail(device: Device, action: str) -> None:
    session = await _log_on(device)
    try:
        document = await device.ask("curtail", f"{session},{action}")
        status = Status.of(document)
        status.raise_if_denied(device.address)
        if not status.accepted and "already" not in status.message.lower():
            if "session" in status.message.lower():
                raise SessionBusy(f"{device.address}: lost its session: {status.text}; it is tried again")
            raise UnsupportedDevice(f"{device.address}: refuses curtail {action}: {status.text}; update its firmware")
    finally:
        await _log_off(device, session)


async def _log_on(device: Device) -> str:
    document = await device.ask("logon")
    status = Status.of(document)
    status.raise_if_denied(device.address)
    if not status.accepted:
        raise SessionBusy(f"{device.address}: gives no session: {status.text}; it is tried again")
    sessions = document.get("SESSION")
    first = sessions[0] if isinstance(sessions, list) and sessions else None
    name = first.get("SessionID") if isinstance(first, dict) else None
    if not isinstance(name, str) or not name:
        raise Garbled(f"{device.address}: logon names no session; check that LuxOS runs there")
    return name


async def _log_off(device: Device, session: str) -> None:
    try:
        await device.ask("logoff", session)
    except AgentError as error:
        _LOG.warning("%s: its session stays open until it expires after 60 s: %s", device.address, error)
