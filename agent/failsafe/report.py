"""What the technician is shown at the end, whoever did the work."""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from agent.findings import Finding, Proof, table, verdict
from sitelink.types import Verb

if TYPE_CHECKING:
    from agent.local_curtail.overrides import StoredOverride

WANTED: Final = {Verb.STOP: "proven off", Verb.START: "proven running"}
_NAMED: Final = 3
_DOUBTED: Final = 8


def report(findings: Sequence[Finding], lines: Iterable[str], wanted: str, say: Callable[[str], None]) -> int:
    """Say the table of ``findings``, ``lines`` about feeders, and the verdict; return the exit code."""
    for line in (*table(findings), *lines, *verdict(findings, wanted)):
        say(line)
    return 0 if all(finding.proof is Proof.YES for finding in findings) else 1


def progress_line(ids: Sequence[str], done: Container[str]) -> str:
    """Return how many of ``ids`` are done, and the first few that are not."""
    waiting = [name for name in ids if name not in done]
    rest = f"; waiting for {_first(waiting, _NAMED)}" if waiting else ""
    return f"  {len(ids) - len(waiting)} of {len(ids)} miners done{rest}"


def settling_line(feeders: Sequence[str], left_s: float) -> str:
    """Return whose meters are waited for, and for how long at most."""
    return f"  waiting for the meter of {_first(feeders, _NAMED)} to show the fall, {left_s:.0f} s at most"


def doubted(findings: Iterable[Finding]) -> list[str]:
    """Return a line for each feeder whose meter does not bear out what its miners say: whom to measure."""
    by_feeder: defaultdict[str, list[str]] = defaultdict(list)
    for finding in findings:
        if finding.proof is Proof.OPEN:
            by_feeder[finding.entry.feeder_id].append(finding.entry.miner_id)
    return [
        f"feeder {feeder}: its meter does not prove {_first(names, _DOUBTED)} off: "
        f"measure those marked {Proof.OPEN} at the rack"
        for feeder, names in sorted(by_feeder.items())
    ]


def override_lines(stored: "Sequence[StoredOverride]") -> list[str]:
    """Return one line for each override in force, or that there is none."""
    return [f"override: {item.words()}" for item in stored] or ["no override in force"]


def _first(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
