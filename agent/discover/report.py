"""What a sweep found, for a person and for a program. Pure."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from agent.discover.standing import Sighting, Standing, plain
from sitelink.inventory import MinerEntry
from sitelink.types import MinerState, Reason

_HEADER: Final = ("address", "name", "model", "firmware", "dialect", "state", "standing")
_NAMED: Final = 8
_TOGETHER: Final = 3


def as_table(sightings: Sequence[Sighting], absent: Sequence[MinerEntry]) -> str:
    """Return the sightings as lines for a terminal: miners first, then what needs a person's eye."""
    shown = [each for each in sightings if each.standing is not Standing.STRANGER]
    rows = [_HEADER, *(_row(each) for each in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines = lines if shown else []
    lines += _notes(sightings)
    counts = Counter(each.standing for each in shown)
    kinds = ", ".join(f"{counts[kind]} {kind.value}" for kind in Standing if counts[kind])
    lines.append(f"{len(shown)} {'miner' if len(shown) == 1 else 'miners'}" + (f": {kinds}" if kinds else ""))
    lost = sum(1 for each in sightings if not each.look.asked)
    if lost:
        lines.append(
            f"{lost} {'address was' if lost == 1 else 'addresses were'} not asked, so who is there is not known"
        )
    if absent:
        more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
        names = ", ".join(f"{entry.miner_id} ({entry.host})" for entry in absent[:_NAMED])
        lines.append(f"{len(absent)} of the inventory did not answer: {names}{more}")
    return "\n".join(lines)


def as_json(sightings: Sequence[Sighting], absent: Sequence[MinerEntry], hosts: int) -> str:
    """Return the sightings as one JSON object; unknown figures are null."""
    document = {
        "hosts": hosts,
        "found": [_document(each) for each in sightings if each.look.asked],
        "not_asked": [each.look.host for each in sightings if not each.look.asked],
        "absent": [{"miner_id": entry.miner_id, "host": entry.host} for entry in absent],
    }
    return json.dumps(document, indent=1)


def _notes(sightings: Sequence[Sighting]) -> list[str]:
    """Return what is noted of each host, once for all hosts of which the same is noted."""
    hosts: dict[str, list[str]] = {}
    for each in sightings:
        for note in (*each.notes, *each.look.notes):
            hosts.setdefault(note.removeprefix(f"{each.look.host}:").strip(), []).append(each.look.host)
    return [
        f"{', '.join(of[:_TOGETHER])}{f' and {len(of) - _TOGETHER} more' if len(of) > _TOGETHER else ''}: {note}"
        for note, of in hosts.items()
    ]


def _row(sighting: Sighting) -> tuple[str, ...]:
    look, seen = sighting.look, sighting.look.observation
    assert seen is not None
    return (
        f"{look.host}:{look.port}",
        plain(look.names[0]) if look.names else "?",
        plain(seen.model) or "?",
        plain(seen.firmware, 24) or "?",
        seen.dialect,
        seen.state.value if seen.reason is Reason.NONE else f"{seen.state.value} ({seen.reason.value})",
        sighting.standing.value,
    )


def _document(sighting: Sighting) -> dict[str, Any]:
    look, seen = sighting.look, sighting.look.observation
    found: dict[str, Any] = {
        "host": look.host,
        "port": look.port,
        "standing": sighting.standing.name.lower(),
        "miner_id": None if sighting.entry is None else sighting.entry.miner_id,
        "notes": [*sighting.notes, *look.notes],
    }
    if seen is not None:
        found |= {
            "dialect": seen.dialect,
            "model": seen.model,
            "firmware": seen.firmware,
            "mac": seen.mac,
            "serial": seen.serial,
            "hostname": seen.hostname,
            "hashing": None if seen.state is MinerState.UNKNOWN else seen.state is MinerState.HASHING,
            "state": seen.state.value,
            "reason": seen.reason.value,
            "hashrate_ths": seen.hashrate_ths,
            "power_w": seen.power_w,
        }
    return found
