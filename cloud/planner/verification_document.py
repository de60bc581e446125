"""A verdict as the JSON kept in ``curtailment_verifications.body`` and back. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cloud.planner.verification import Compliance, Delivered, FeederDifference, Status, Verification
from sitelink.types import Evidence, Interval
from sitelink.units import MegawattHours, Watts


def write_verification(verdict: Verification) -> dict[str, Any]:
    """Return the document of ``verdict``."""
    times = verdict.compliance
    return {
        "status": verdict.status.value,
        "reason": verdict.reason,
        "method": verdict.method,
        "verified_mwh": verdict.verified_mwh,
        "expected_mwh": verdict.expected_mwh,
        "baseline_w": verdict.baseline_w,
        "claimed_w": verdict.claimed_w,
        "outcomes": dict(verdict.outcomes),
        "evidence": {grade.value: count for grade, count in verdict.evidence.items()},
        "liars": list(verdict.liars),
        "intervals": [
            [item.interval.start.isoformat(), item.interval.end.isoformat(), item.meter_w, item.delivered_w]
            for item in verdict.intervals
        ],
        "feeders": [[item.feeder_id, item.claimed_w, item.drop_w] for item in verdict.feeders],
        "compliance": {
            "signal_at": _write_time(times.signal_at),
            "accepted_at": _write_time(times.accepted_at),
            "first_action_at": _write_time(times.first_action_at),
            "confirmed_at": _write_time(times.confirmed_at),
        },
    }


def read_verification(document: Mapping[str, Any]) -> Verification:
    """Return the verdict in ``document``."""
    times = document["compliance"]
    return Verification(
        status=Status(document["status"]),
        reason=document["reason"],
        method=document["method"],
        verified_mwh=None if document["verified_mwh"] is None else MegawattHours(document["verified_mwh"]),
        expected_mwh=MegawattHours(document["expected_mwh"]),
        baseline_w=_watts(document["baseline_w"]),
        claimed_w=Watts(document["claimed_w"]),
        outcomes=document["outcomes"],
        evidence={grade: document["evidence"][grade] for grade in Evidence if grade in document.get("evidence", {})},
        liars=tuple(document["liars"]),
        intervals=tuple(
            Delivered(
                Interval(datetime.fromisoformat(start), datetime.fromisoformat(end)), _watts(meter), _watts(delivered)
            )
            for start, end, meter, delivered in document["intervals"]
        ),
        feeders=tuple(
            FeederDifference(feeder_id, Watts(claimed), _watts(drop))
            for feeder_id, claimed, drop in document["feeders"]
        ),
        compliance=Compliance(
            signal_at=datetime.fromisoformat(times["signal_at"]),
            accepted_at=_read_time(times["accepted_at"]),
            first_action_at=_read_time(times["first_action_at"]),
            confirmed_at=_read_time(times["confirmed_at"]),
        ),
    )


def _write_time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _read_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _watts(value: float | None) -> Watts | None:
    return None if value is None else Watts(value)
