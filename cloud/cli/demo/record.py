"""What the story writes down for the judge."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cloud.cli.demo.watch import TrueMiner

_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Event:
    """The curtailment under way at one site: the plan revision the site holds, and who is to stop until when."""

    revision: int
    curtailment_ids: tuple[str, ...]
    miner_ids: frozenset[str]
    signal_at: datetime
    start: datetime
    release: datetime


@dataclass(slots=True)
class Record:
    """What the story measured; times in seconds. ``all_stored``: the last step saw every number stored."""

    events: dict[str, Event] = field(default_factory=dict)
    all_stored: bool = False
    metered_from: datetime = _NEVER
    restored_during_cut: int = 0
    left_off: int = 0
    live_to_restore: int = 0
    drained_s: float | None = None
    gap: float | None = None
    truth: dict[str, dict[str, TrueMiner]] = field(default_factory=dict)
    verified_mwh: float = 0.0
    invoice_cents: int = 0
