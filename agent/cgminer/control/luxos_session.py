"""The one session of a LuxOS miner, as far as it is ours.

    logon --> told under it --> logoff          was the last one left open? then session --> ours? --> told under that

Invariants:

* A session in other hands is ``SessionBusy``, never taken over: only one whose id we were given is used again.
* One that its logoff did not end, whether that went unanswered or was answered and ignored, is ours for as long as the
  miner names it: left alone it would lock us out for the 60 s until it expires.

Source: docs.luxor.tech, LuxOS API, "Session management": logon, session, logoff; ``session`` names the id to everybody.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from agent.cgminer.device import Device
from agent.cgminer.status import Status
from agent.errors import AgentError, Garbled, SessionBusy

_LOG: Final = logging.getLogger(__name__)


class LuxSession:
    """Holds the session for one change after the other."""

    def __init__(self) -> None:
        self._last = ""
        self._left_open = False

    @asynccontextmanager
    async def held(self, device: Device) -> AsyncIterator[str]:
        """Hold the device's session and give its id. Raises SessionBusy when it is in other hands."""
        self._last = await self._opened(device)
        self._left_open = True  # until its end is acknowledged, whatever comes between
        try:
            yield self._last
        finally:
            await self._log_off(device)

    async def _opened(self, device: Device) -> str:
        """Return our last session where it still lives, else a new one."""
        if self._left_open and await self._last_lives(device):
            return self._last
        try:
            return await _log_on(device)
        except SessionBusy:
            if self._left_open or not await self._last_lives(device):
                raise
            return self._last  # its logoff was acknowledged and not done

    async def _last_lives(self, device: Device) -> bool:
        return bool(self._last) and _named_in(await device.ask("session")) == self._last

    async def _log_off(self, device: Device) -> None:
        try:
            await device.ask("logoff", self._last)
        except AgentError as error:
            _LOG.warning("%s: its session stays open until it is used again or expires: %s", device.address, error)
        else:
            self._left_open = False  # a refusal means that it has ended already


async def _log_on(device: Device) -> str:
    document = await device.ask("logon")
    status = Status.of(document)
    status.raise_if_denied(device.address)
    if not status.accepted:
        raise SessionBusy(f"{device.address}: gives no session: {status.text}; it is tried again")
    name = _named_in(document)
    if not name:
        raise Garbled(f"{device.address}: logon names no session; check that LuxOS runs there")
    return name


def _named_in(document: Mapping[str, Any]) -> str:
    """Return the id that a session's document names, empty where it names none."""
    sessions = document.get("SESSION")
    first = sessions[0] if isinstance(sessions, list) and sessions else None
    name = first.get("SessionID") if isinstance(first, dict) else None
    return name if isinstance(name, str) else ""
