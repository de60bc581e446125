"""What of the samples that the agents numbered is stored, still buffered, or lost. Pure.

    numbered by an agent = stored + undelivered (its buffer still waits) + lost (its buffer is empty)

Invariant: nothing counts as lost while the agent's buffer may still hold it, nothing as delivered unless it is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloud.hosting.model import StoredCounts


@dataclass(frozen=True, slots=True)
class Delivery:
    """Counts of numbered samples that are not stored; ``undelivered`` None: the store or an agent did not tell."""

    lost: int
    undelivered: int | None


def lacking(counts: StoredCounts | None, site_id: str, epoch: str | None, next_seq: int) -> int:
    """Return how many numbers below ``next_seq`` of a site's epoch the store lacks; all while it does not answer."""
    for found in () if counts is None else counts.epochs:
        if (found.site_id, found.epoch) == (site_id, epoch):
            return max(0, next_seq - 1 - found.last_seq) + found.missing
    return next_seq


def tally(counts: StoredCounts | None, agents: Mapping[str, Mapping[str, Any] | None]) -> Delivery:
    """Return what is not stored, by what each site's agent says of its buffer; ``counts`` are read after ``agents``."""
    lost, undelivered, told = 0, 0, counts is not None
    for site_id, status in agents.items():
        if counts is None or status is None:
            told = False
            continue
        epoch = status["numbering"]["epoch"]
        earlier = sum(item.missing for item in counts.epochs if item.site_id == site_id and item.epoch != epoch)
        lacks = earlier + lacking(counts, site_id, epoch, int(status["numbering"]["next_seq"]))
        if status["backlog"]["batches"] > 0:
            undelivered += lacks
        else:
            lost += lacks
    return Delivery(lost, undelivered if told else None)
