"""Time, injected. ``SystemClock`` is the only caller of the system's clocks in the whole product.

Three clocks, never mixed:

    now()        wall clock, aware UTC; may step when it is set
    monotonic()  seconds since boot, suspend included; never steps, means nothing after a reboot
    boot_id()    names the boot that ``monotonic()`` belongs to
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """What code asks for the time."""

    def now(self) -> datetime:
        """Return the wall clock as aware UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds since boot."""
        ...

    def boot_id(self) -> str:
        """Return an identifier that changes with each boot."""
        ...


class SystemClock:
    """The machine's clocks (Linux: CLOCK_BOOTTIME and the kernel's boot id)."""

    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    def now(self) -> datetime:
        """Return the wall clock as aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since boot, suspend included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        """Return the kernel's boot id."""
        return self._boot_id


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when told to, for tests and simulation."""

    wall: datetime
    mono: float = 0.0
    boot: str = field(default="boot-1")

    def now(self) -> datetime:
        """Return the set wall clock."""
        return self.wall

    def monotonic(self) -> float:
        """Return the set monotonic time."""
        return self.mono

    def boot_id(self) -> str:
        """Return the set boot id."""
        return self.boot

    def advance(self, seconds: float) -> None:
        """Move wall and monotonic time forward together."""
        self.wall += timedelta(seconds=seconds)
        self.mono += seconds

    def step(self, seconds: float) -> None:
        """Step the wall clock alone, as a bad time server would."""
        self.wall += timedelta(seconds=seconds)

    def reboot(self, boot: str, wall: datetime) -> None:
        """Start a new boot whose wall clock reads ``wall``."""
        self.boot, self.wall, self.mono = boot, wall, 0.0
