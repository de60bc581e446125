"""The demo's recorded devices: replies of real miners, replayed beside the simulated sites. Pure but for ``problem``.

    DIR --ballast-sim replay--> devices --agent, dialect auto--> the cloud's site ``captures``

Invariants: the recorded devices are read and never ordered: their site has no contract, and dialect and nameplate are
open, so no plan touches them. A device counts as read only when a stored reading shows its state.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cloud.cli.demo import checks

SITE_ID: Final = "captures"
DIALECT: Final = "auto"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded device as its replay knows it.

    ``lacks`` names the commands of which one would have to be recorded to show its state; it is empty where one is.
    ``asked`` counts the requests it got.
    """

    miner_id: str
    case: str
    lacks: str
    asked: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store holds of one device: its readings, and those among them that show its state."""

    readings: int
    known: int


@dataclass(frozen=True, slots=True)
class Captured:
    """The figures of the recorded devices: counts of devices, but for ``ordered``, which counts answers to orders."""

    devices: int
    readable: int
    read: int
    missed: int
    silent: int
    ordered: int

    def failures(self) -> tuple[str, ...]:
        """Return what did not hold, one plain line each."""
        wrong = (
            (self.read <= 0, "no recorded device was read"),
            (self.missed > 0, f"{self.missed} of {self.readable} readable recorded devices were not read"),
            (self.silent > 0, f"{self.silent} of {self.devices} recorded devices have no stored reading"),
            (self.ordered > 0, f"recorded devices were given {self.ordered} orders"),
        )
        return tuple(line for failed, line in wrong if failed)


def problem(folder: Path, program: Path) -> str | None:
    """Return why ``folder`` cannot be replayed and what to do, in one line; None when it can."""
    if not folder.is_dir():
        return "no such folder; give the folder that holds MANIFEST.csv and the recorded replies"
    if not (folder / "MANIFEST.csv").is_file():
        return "holds no MANIFEST.csv; give the folder of recorded replies, or leave CAPTURES out"
    return checks.refusal(program, ["replay", str(folder), "--check"])


def devices_of(document: Mapping[str, Any]) -> tuple[Recorded, ...]:
    """Return the devices in a replay's answer to ``GET /devices``."""
    return tuple(Recorded(row["miner_id"], row["case"], row["lacks"], int(row["asked"])) for row in document["devices"])


def weigh(devices: Sequence[Recorded], kept: Mapping[str, Kept], ordered: int) -> Captured:
    """Return the figures of ``devices`` against what is stored of each, by miner id."""
    read = {device.miner_id for device in devices if device.asked and device.miner_id in _read(kept)}
    readable = [device for device in devices if not device.lacks]
    silent = [device for device in devices if device.miner_id not in kept or not device.asked]
    return Captured(
        devices=len(devices),
        readable=len(readable),
        read=len(read),
        missed=sum(1 for device in readable if device.miner_id not in read),
        silent=len(silent),
        ordered=ordered,
    )


def _read(kept: Mapping[str, Kept]) -> Collection[str]:
    return {miner_id for miner_id, found in kept.items() if found.known > 0}


def waiting(devices: Sequence[Recorded], known: Collection[str]) -> int:
    """Return how many readable devices are not among the ``known``."""
    return sum(1 for device in devices if not device.lacks and device.miner_id not in known)


def describe(devices: Sequence[Recorded], known: Collection[str], reasons: Mapping[str, str]) -> str:
    """Return how many devices are read, of how many, and which are not and why; ``reasons`` are the agent's."""
    unread: dict[str, list[str]] = {}
    for device in devices:
        if device.miner_id not in known:
            lack = f"no {device.lacks} recorded" if device.lacks else reasons.get(device.miner_id, "not polled yet")
            unread.setdefault(lack.replace("_", " "), []).append(device.case)
    read = len(devices) - sum(map(len, unread.values()))
    counted = f"{read} of {len(devices)} recorded real devices read"
    if not unread:
        return counted
    return f"{counted}; not " + "; not ".join(f"{', '.join(cases)} ({lack})" for lack, cases in unread.items())
