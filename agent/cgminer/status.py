"""The STATUS part of a reply, in each of the forms firmwares give it. Pure.

cgminer   {"STATUS":[{"STATUS":"S","When":..,"Code":11,"Msg":"Summary"}], ..}
btminer   {"STATUS":"S","When":..,"Code":131,"Msg":{..}}
framed    {"code":0,"when":..,"msg":"ok" or {..},"desc":".."}       (Whatsminer API v3; 0 is success)
"""

from dataclasses import dataclass
from typing import Any, Final

from agent.errors import AccessDenied

_ACCEPTED: Final = frozenset("SIW")
_FAILURES: Final = frozenset("EF")
_ACCESS_DENIED: Final = frozenset({45, -4})
_INVALID_COMMAND: Final = frozenset({14, -2})
"""CGMiner's code and the framed API's."""
_SHOWN: Final = 120
_ALLOW_US: Final = "allow this gateway in the miner's api-allow list"


@dataclass(frozen=True, slots=True)
class Status:
    """How a device judged a request: letter S, I, W, E or F ("" when it says nothing), code, message, its clock."""

    letter: str
    code: int | None
    message: str
    when: int | None

    @classmethod
    def of(cls, document: object) -> "Status":
        """Return the status of a decoded reply; everything is empty when it has none."""
        holder = document if isinstance(document, dict) else {}
        status = holder.get("STATUS")
        if isinstance(status, list):
            first = status[0] if status else None
            holder = first if isinstance(first, dict) else {}
        elif isinstance(status, dict):
            holder = status
        elif status is None and "code" in holder and "msg" in holder:
            return cls._framed(holder)
        letter, message = holder.get("STATUS"), holder.get("Msg")
        return cls(
            letter=letter if isinstance(letter, str) else "",
            code=_whole(holder.get("Code")),
            message=message if isinstance(message, str) else "",
            when=_whole(holder.get("When")),
        )

    @classmethod
    def _framed(cls, holder: dict[str, Any]) -> "Status":
        code, message = _whole(holder["code"]), holder["msg"]
        return cls(
            letter="S" if code == 0 else "E",
            code=code,
            message=message if isinstance(message, str) else "",
            when=_whole(holder.get("when")),
        )

    @property
    def accepted(self) -> bool:
        """Return whether the device took the request; on Avalon I is success as well as S."""
        return self.letter in _ACCEPTED

    @property
    def is_error(self) -> bool:
        """Return whether the device says that this is no answer: what stands beside it is no figure."""
        return self.letter in _FAILURES

    @property
    def unknown_command(self) -> bool:
        """Return whether the firmware does not know the command."""
        return self.code in _INVALID_COMMAND

    @property
    def denied(self) -> bool:
        """Return whether the device does not allow it to us."""
        return self.code in _ACCESS_DENIED

    @property
    def failed(self) -> bool:
        """Return whether the device could not answer now, where it knows the command and allows it to us."""
        return self.letter in _FAILURES and self.code not in _INVALID_COMMAND | _ACCESS_DENIED

    @property
    def text(self) -> str:
        """Return code and message for people, on one line and not longer than a line."""
        message = self.message[:_SHOWN]
        return f"code {self.code} {message!r}" if self.code is not None else repr(message or "no status")

    def raise_if_denied(self, where: object, fix: str = _ALLOW_US) -> None:
        """Raise AccessDenied, with what to do about it, when the device refuses this client."""
        if self.denied:
            raise AccessDenied(f"{where}: access denied ({self.text}); {fix}")


def _whole(value: Any) -> int | None:
    if type(value) is int:
        return value if abs(value) < 2**63 else None
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
        return int(value)
    return None
