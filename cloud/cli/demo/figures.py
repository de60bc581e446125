"""The demo's verdict: what truly happened against what Ballast says happened. Pure.

simulator's truth  --+
cloud's records    --+--> Figures --> one JSON line, and whether every step held
agents' counters   --+
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from cloud.cli.demo.captures import Captured

_CAPTURED: Final = "captured"
_CLOUDED_SHARE: Final = 0.15
"""More honest miners than this left open beside a liar: the evidence no longer tells much."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one demo run; units in the names, counts otherwise. ``captured`` None: nothing was replayed.

    ``liars_named_by_feeder`` are those that only the feeder's meter gives away: the feeder is named, not the miner.
    ``honest_clouded`` read off beside one of them, and are credited to nobody.
    ``samples_undelivered`` still stand in the agents' buffers when a story breaks off; None is not known.
    """

    miners: int
    samples_stored: int
    samples_lost: int
    samples_duplicated: int
    curtailed_miners: int
    verified: int
    liars: int
    liars_named: int
    liars_named_by_feeder: int
    liars_counted_as_shed: int
    signal_to_confirmed_s: float | None
    start_to_confirmed_s: float | None
    restored_during_cut: int
    left_off: int
    backlog_drained_s: float | None
    verified_mwh: float
    invoice_total_cents: int
    gap: float | None
    live_to_restore: int
    honest_clouded: int
    honest_unverified: int
    honest_named: int
    kills: int
    samples_undelivered: int | None = 0
    captured: Captured | None = None

    def failures(self) -> tuple[str, ...]:
        """Return what did not hold, one plain line each; empty when the whole story held."""
        unnamed = self.liars - self.liars_named - self.liars_named_by_feeder
        unrestored = self.live_to_restore - self.restored_during_cut
        wrong = (
            (self.samples_stored <= 0, "no sample was stored"),
            (self.samples_lost > 0, f"{self.samples_lost} samples were lost"),
            (self.samples_undelivered is None, "how many samples are not delivered is not known"),
            (bool(self.samples_undelivered), f"{self.samples_undelivered} samples are not delivered, but buffered"),
            (self.samples_duplicated > 0, f"{self.samples_duplicated} samples were stored twice"),
            (self.curtailed_miners <= 0, "no miner was curtailed"),
            (self.honest_unverified > 0, f"{self.honest_unverified} honest live miners were not verified as stopped"),
            (
                self.honest_clouded > self.curtailed_miners * _CLOUDED_SHARE,
                f"{self.honest_clouded} honest miners cannot be told from a liar on their feeder",
            ),
            (unnamed > 0, f"{unnamed} of {self.liars} liars were named neither by themselves nor by their feeder"),
            (self.honest_named > 0, f"{self.honest_named} honest miners were named as liars"),
            (self.liars_counted_as_shed > 0, f"{self.liars_counted_as_shed} liars were counted as shed"),
            (unrestored > 0, f"{unrestored} of {self.live_to_restore} live miners were not restored during the cut"),
            (self.left_off > 0, f"{self.left_off} miners were left off"),
            (self.backlog_drained_s is None, "the backlog was not delivered"),
            (self.verified_mwh <= 0, "no curtailed energy was verified"),
            (self.invoice_total_cents <= 0, "no invoice was issued"),
        )
        recorded = self.captured.failures() if self.captured is not None else ()
        return (*(line for failed, line in wrong if failed), *recorded)


def json_line(figures: Figures, seed: int, machine: Mapping[str, Any]) -> str:
    """Return the run as the one JSON line that benchmarks print; ``captured_*`` only where devices were replayed."""
    named = {name: getattr(figures, name) for name in Figures.__slots__ if name != _CAPTURED}
    if figures.captured is not None:
        named |= {f"{_CAPTURED}_{name}": value for name, value in asdict(figures.captured).items()}
    return json.dumps({"bench": "demo", "figures": named, "peers": {}, "machine": dict(machine), "seed": seed})


def machine(cores: int) -> dict[str, Any]:
    """Return what the run ran on."""
    return {"cores": cores, "machine": platform.machine(), "python": platform.python_version()}
