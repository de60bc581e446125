"""One outlet of a PDU that is switched over HTTP.

Invariant: a state that stands nowhere in the answer, or is neither on nor off, is an error: nobody may take it for off.
"""

import json
from typing import Any, Final

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.cgminer.sections import dig, number
from agent.cgminer.web import WebClient
from agent.errors import Garbled, UnsupportedDevice
from agent.outlets.profiles import Profile, Value, filled
from sitelink.units import Watts

_OK: Final = 200
_MOST_W: Final = 1e6


class PduOutlet:
    """Outlet ``number`` of the PDU at ``address``."""

    def __init__(
        self, profile: Profile, number: int, address: Address, credentials: Credentials | None, deadlines: Deadlines
    ) -> None:
        self._profile = profile
        self._number = number
        self._address = address
        self._web = WebClient(address, deadlines, credentials)

    async def switch(self, *, on: bool) -> None:
        """Switch it. Raises as ``WebClient.request``, and UnsupportedDevice when the PDU refuses."""
        profile = self._profile
        await self._asked(profile.on if on else profile.off, profile.on_body if on else profile.off_body)

    async def is_on(self) -> bool:
        """Return whether it is on. Raises as ``switch``, and Garbled when the answer does not say."""
        answer = await self._asked(self._profile.state)
        for place in self._profile.state_at:
            found = dig(answer, filled(place, self._number).split("."))
            if found is not None:
                return self._is_on(found)
        raise Garbled(f"{self._address}: tells no state of outlet {self._number}; check its number and profile")

    async def power_w(self) -> Watts | None:
        """Return what flows through it; None where it does not measure. Raises as ``switch``."""
        if not self._profile.power_at:
            return None
        answer = await self._asked(self._profile.state)
        found = number(dig(answer, filled(self._profile.power_at, self._number).split(".")))
        return Watts(found) if found is not None and 0 <= found < _MOST_W else None

    def close(self) -> None:
        """Close its connection."""
        self._web.close()

    def _is_on(self, found: Any) -> bool:
        if _same(found, self._profile.on_value):
            return True
        if _same(found, self._profile.off_value):
            return False
        raise Garbled(f"{self._address}: outlet {self._number} is neither on nor off; check its profile")

    async def _asked(self, request: str, body: str = "") -> Any:
        method, _, target = filled(request, self._number).partition(" ")
        sent = filled(body, self._number).encode()
        headers = {"content-type": "application/json"} if sent else None
        reply = await self._web.request(method, target, body=sent, headers=headers)
        if reply.status != _OK:
            raise UnsupportedDevice(
                f"{self._address}: answers {target} with status {reply.status}; check its number and profile"
            )
        try:
            return json.loads(reply.body)
        except (ValueError, RecursionError):
            raise Garbled(f"{self._address}: answers {target} with no JSON; check its profile") from None


def _same(found: Any, value: Value) -> bool:
    return type(found) is type(value) and found == value
