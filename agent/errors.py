"""What can go wrong at a site, sorted by what to do about it.

AgentError
  Transient   try again later        Unreachable (NoWay), TimedOut, SessionBusy, BrokenOff
  Permanent   do not try the same again   Garbled (Nameless), AccessDenied, TooLarge, UnsupportedDevice
  Refused     a rule said no; ``code`` is stable
  BadInput    a person wrote something wrong; the message names file, field, cause and what to do
"""


class AgentError(Exception):
    """The root of every error the agent raises on purpose."""


class Transient(AgentError):
    """It may work if tried again."""


class Unreachable(Transient):
    """No connection could be made, or it was reset."""


class NoWay(Unreachable):
    """This machine got nowhere: no such name, no network, no socket left. It says nothing of the device."""


class TimedOut(Transient):
    """The other side did not answer within its deadline."""


class SessionBusy(Transient):
    """The device has a session open with somebody else."""


class BrokenOff(Transient):
    """We ended it ourselves, for something that is worth more."""


class Permanent(AgentError):
    """Trying the same again will not help."""


class Garbled(Permanent):
    """The answer cannot be read."""


class Nameless(Garbled):
    """The device answers well, and its firmware tells no name by which it could be known."""


class AccessDenied(Permanent):
    """The device does not accept our right to ask."""


class TooLarge(Permanent):
    """The answer is longer than its cap."""


class UnsupportedDevice(Permanent):
    """The device, or what is asked of it, is not supported."""


class Refused(AgentError):
    """A rule said no. ``code`` is stable, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class WrongDevice(Refused):
    """Another miner answers at this address than the inventory says."""

    def __init__(self, message: str) -> None:
        super().__init__("wrong_device", message)


class BadInput(AgentError):
    """A file, option or argument is wrong; the message is one line naming where, what and what to do."""
