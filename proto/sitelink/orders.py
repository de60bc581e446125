"""Orders as canonical bytes: plans, commands and signed time, to bytes and back. Standard library only.

Invariant: ``read_x(write_x(value)) == value``; reading refuses unknown, missing and ill-typed fields by name, so a
plan that a newer cloud extended is refused rather than half understood.
"""

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from sitelink.signing import canonical
from sitelink.types import (
    Command,
    Curtailment,
    CurtailmentCause,
    Fallback,
    Interval,
    Ramp,
    SignedTime,
    SitePlan,
    Verb,
)
from sitelink.units import Watts

_Choice = TypeVar("_Choice", bound=StrEnum)


class MalformedOrder(Exception):
    """The bytes are not an order of the expected form; the message names the field."""


def write_plan(plan: SitePlan) -> bytes:
    """Return the canonical bytes of ``plan``."""
    return canonical(
        {
            "agent_id": plan.agent_id,
            "curtailments": [_curtailment_document(item) for item in plan.curtailments],
            "fallback": plan.fallback.value,
            "issued_at": _time_text(plan.issued_at),
            "plan_id": plan.plan_id,
            "revision": plan.revision,
            "sequence": plan.sequence,
            "signing_epoch": plan.signing_epoch,
            "site_id": plan.site_id,
            "valid_from": _time_text(plan.valid.start),
            "valid_until": _time_text(plan.valid.end),
        }
    )


def read_plan(payload: bytes) -> SitePlan:
    """Return the plan in ``payload``.

    Raises:
        MalformedOrder: a field is unknown, missing, or of the wrong form.
    """
    fields = _Fields(payload, "plan")
    plan = SitePlan(
        plan_id=fields.text("plan_id"),
        site_id=fields.text("site_id"),
        agent_id=fields.text("agent_id"),
        signing_epoch=fields.whole("signing_epoch"),
        sequence=fields.whole("sequence"),
        revision=fields.whole("revision"),
        issued_at=fields.time("issued_at"),
        valid=fields.interval("valid_from", "valid_until"),
        fallback=fields.one_of("fallback", Fallback),
        curtailments=tuple(_curtailment(item) for item in fields.objects("curtailments")),
    )
    fields.nothing_left()
    return plan


def write_command(command: Command) -> bytes:
    """Return the canonical bytes of ``command``; what it has none of, parameters or approvals, is left out."""
    more: dict[str, Any] = {}
    if command.parameters:
        more["parameters"] = [list(pair) for pair in command.parameters]
    if command.approved_by:
        more["approved_by"] = list(command.approved_by)
    return canonical(
        {
            **more,
            "agent_id": command.agent_id,
            "command_id": command.command_id,
            "expires_at": _time_text(command.expires_at),
            "miner_ids": list(command.miner_ids),
            "not_before": _time_text(command.not_before),
            "reason": command.reason,
            "sequence": command.sequence,
            "signing_epoch": command.signing_epoch,
            "site_id": command.site_id,
            "verb": command.verb.value,
        }
    )


def read_command(payload: bytes) -> Command:
    """Return the command in ``payload``.

    Raises:
        MalformedOrder: a field is unknown, missing, or of the wrong form.
    """
    fields = _Fields(payload, "command")
    valid = fields.interval("not_before", "expires_at")
    command = Command(
        command_id=fields.text("command_id"),
        site_id=fields.text("site_id"),
        agent_id=fields.text("agent_id"),
        signing_epoch=fields.whole("signing_epoch"),
        sequence=fields.whole("sequence"),
        not_before=valid.start,
        expires_at=valid.end,
        verb=fields.one_of("verb", Verb),
        miner_ids=fields.texts("miner_ids"),
        reason=fields.text("reason"),
        parameters=fields.pairs("parameters") if fields.has("parameters") else (),
        approved_by=fields.texts("approved_by") if fields.has("approved_by") else (),
    )
    fields.nothing_left()
    return command


def write_time(signed: SignedTime) -> bytes:
    """Return the canonical bytes of ``signed``."""
    return canonical(
        {
            "cloud_time": _time_text(signed.cloud_time),
            "nonce": signed.nonce,
            "site_id": signed.site_id,
        }
    )


def read_time(payload: bytes) -> SignedTime:
    """Return the signed time in ``payload``.

    Raises:
        MalformedOrder: a field is unknown, missing, or of the wrong form.
    """
    fields = _Fields(payload, "signed time")
    signed = SignedTime(fields.text("site_id"), fields.text("nonce"), fields.time("cloud_time"))
    fields.nothing_left()
    return signed


def _curtailment_document(item: Curtailment) -> dict[str, Any]:
    return {
        "cause": item.cause.value,
        "curtailment_id": item.curtailment_id,
        "end": _time_text(item.interval.end),
        "miner_ids": list(item.miner_ids),
        "ramp_down_step_s": float(item.ramp_down.step_s),
        "ramp_down_step_w": float(item.ramp_down.step_w),
        "ramp_up_step_s": float(item.ramp_up.step_s),
        "ramp_up_step_w": float(item.ramp_up.step_w),
        "start": _time_text(item.interval.start),
        "target_power_w": None if item.target_power_w is None else float(item.target_power_w),
    }


def _curtailment(fields: "_Fields") -> Curtailment:
    target = fields.number_or_none("target_power_w")
    item = Curtailment(
        curtailment_id=fields.text("curtailment_id"),
        cause=fields.one_of("cause", CurtailmentCause),
        interval=fields.interval("start", "end"),
        miner_ids=fields.texts("miner_ids"),
        ramp_down=Ramp(Watts(fields.number("ramp_down_step_w")), fields.number("ramp_down_step_s")),
        ramp_up=Ramp(Watts(fields.number("ramp_up_step_w")), fields.number("ramp_up_step_s")),
        target_power_w=None if target is None else Watts(target),
    )
    fields.nothing_left()
    return item


def _time_text(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError("an order needs aware times")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


class _Fields:
    """The fields of one JSON object, each taken once and checked."""

    def __init__(self, source: bytes | Mapping[str, Any], what: str) -> None:
        self._what = what
        document: Any = source
        if isinstance(source, bytes):
            try:
                document = json.loads(source)
            except ValueError as error:
                raise MalformedOrder(f"{what}: not JSON: {error}") from None
            except RecursionError:
                raise MalformedOrder(f"{what}: nested too deep") from None
        if not isinstance(document, Mapping):
            raise MalformedOrder(f"{what}: expected an object, got {type(document).__name__}")
        self._left: dict[str, Any] = dict(document)

    def text(self, name: str) -> str:
        return str(self._take(name, lambda value: isinstance(value, str), "text"))

    def whole(self, name: str) -> int:
        return int(
            self._take(
                name,
                lambda v: isinstance(v, int) and not isinstance(v, bool),
                "a whole number",
            )
        )

    def number(self, name: str) -> float:
        return float(self._take(name, _is_number, "a number"))

    def number_or_none(self, name: str) -> float | None:
        value = self._take(name, lambda v: v is None or _is_number(v), "a number or null")
        return None if value is None else float(value)

    def time(self, name: str) -> datetime:
        text = self.text(name)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise MalformedOrder(f"{self._what}: {name}: not a time: {text!r}") from None
        if moment.tzinfo is None:
            raise MalformedOrder(f"{self._what}: {name}: the time has no zone: {text!r}")
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            raise MalformedOrder(f"{self._what}: {name}: the time is out of range: {text!r}") from None

    def interval(self, start: str, end: str) -> Interval:
        first, last = self.time(start), self.time(end)
        try:
            return Interval(first, last)
        except ValueError as error:
            raise MalformedOrder(f"{self._what}: {start}, {end}: {error}") from None

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._take(
            name,
            lambda v: isinstance(v, list) and all(isinstance(i, str) for i in v),
            "a text list",
        )
        return tuple(values)

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        values = self._take(name, _are_pairs, "a list of pairs of texts, no name twice")
        return tuple((key, value) for key, value in values)

    def has(self, name: str) -> bool:
        return name in self._left

    def objects(self, name: str) -> tuple["_Fields", ...]:
        values = self._take(name, lambda v: isinstance(v, list), "a list")
        return tuple(_Fields(value, f"{self._what}: {name}[{place}]") for place, value in enumerate(values))

    def one_of(self, name: str, kind: type[_Choice]) -> _Choice:
        text = self.text(name)
        try:
            return kind(text)
        except ValueError:
            known = ", ".join(choice.value for choice in kind)
            raise MalformedOrder(f"{self._what}: {name}: {text!r} is not one of {known}") from None

    def nothing_left(self) -> None:
        if self._left:
            raise MalformedOrder(f"{self._what}: unknown field {min(self._left)!r}")

    def _take(self, name: str, fits: Callable[[Any], bool], form: str) -> Any:
        if name not in self._left:
            raise MalformedOrder(f"{self._what}: field {name!r} is missing")
        value = self._left.pop(name)
        if not fits(value):
            raise MalformedOrder(f"{self._what}: {name}: expected {form}, got {value!r}")
        return value


def _are_pairs(value: Any) -> bool:
    fits = isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in value
    )
    return fits and len({key for key, _ in value}) == len(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
