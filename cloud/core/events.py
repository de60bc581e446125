"""The catalogue of events that packages tell each other through the outbox.

Invariants: an event is written in the transaction that made it true; it may be delivered twice, late or out of
order; ``from_json(event.name, event.to_json()) == event``.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Final

from cloud.core.errors import Permanent


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; ``name`` is stable and stored."""

    name: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PlanActivated(Event):
    """A site's plan ``revision`` is now the one to follow."""

    name: ClassVar[str] = "plan_activated"
    site_id: str
    revision: int
    plan_id: str


@dataclass(frozen=True, slots=True)
class CurtailmentFinished(Event):
    """A curtailment's interval has passed and its evidence can be weighed."""

    name: ClassVar[str] = "curtailment_finished"
    site_id: str
    curtailment_id: str


@dataclass(frozen=True, slots=True)
class CurtailmentVerified(Event):
    """A curtailment was measured against its baseline: ``verified_mwh`` were shed."""

    name: ClassVar[str] = "curtailment_verified"
    site_id: str
    curtailment_id: str
    verified_mwh: float


@dataclass(frozen=True, slots=True)
class InvoiceIssued(Event):
    """An invoice is final."""

    name: ClassVar[str] = "invoice_issued"
    invoice_id: str


@dataclass(frozen=True, slots=True)
class SiteLinkChanged(Event):
    """A site's link came up or went down."""

    name: ClassVar[str] = "site_link_changed"
    site_id: str
    up: bool


CATALOGUE: Final[dict[str, type[Event]]] = {
    kind.name: kind
    for kind in (PlanActivated, CurtailmentFinished, CurtailmentVerified, InvoiceIssued, SiteLinkChanged)
}


def from_json(name: str, document: Mapping[str, Any]) -> Event:
    """Return the event called ``name`` with the fields of ``document``.

    Raises:
        Permanent: the name or a field is not of this version.
    """
    kind = CATALOGUE.get(name)
    if kind is None:
        raise Permanent(f"event {name!r} is not in the catalogue; deploy the version that knows it")
    expected = {field.name for field in fields(kind)}
    if set(document) != expected:
        raise Permanent(f"event {name}: fields {sorted(document)} are not {sorted(expected)}")
    return kind(**document)
