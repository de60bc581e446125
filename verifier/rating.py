"""How an invoice is computed from its evidence. Standard library only; the biller and the customer run this same code.

Invariants:

* Exact arithmetic: ``Decimal`` and ``Fraction``, never float. Energy is kept to 1e-6 kWh.
* Each line is rounded once, half away from zero, to the currency's cent; percent lines start from rounded base lines;
  totals are sums of rounded lines.
* The evidence of a line covers its period without gap or overlap; where a meter was silent the row says ``estimated``.

      evidence rows (kWh a meter and interval)  --sum-->  quantity  --x rate, rounded once-->  amount  --sum-->  total
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation, localcontext
from fractions import Fraction
from typing import Any, Final

FORM: Final = "ballast-invoice/1"
ENERGY: Final = "energy"
CENT: Final = Decimal("0.01")
MICRO_KWH: Final = Decimal("0.000001")


class BadBundle(Exception):
    """The bundle is not of the form of this version; the message names the field."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Energy of one meter in one interval."""

    meter_id: str
    start: datetime
    end: datetime
    kwh: Decimal
    estimated: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One recomputed line."""

    place: int
    code: str
    description: str
    quantity_kwh: Decimal
    rate: Decimal
    stated: Decimal
    computed: Decimal
    intervals: int
    estimated: int


@dataclass(frozen=True, slots=True)
class Result:
    """What recomputing a bundle gave; it holds when ``differences`` is empty."""

    number: str
    currency: str
    lines: tuple[Line, ...]
    stated_total: Decimal
    computed_total: Decimal
    differences: tuple[str, ...]


def round_half_away(amount: Fraction, unit: Decimal = CENT) -> Decimal:
    """Return ``amount`` rounded to ``unit``, half away from zero."""
    units = abs(amount) / Fraction(unit)
    whole = units.numerator // units.denominator
    if (units - whole) * 2 >= 1:
        whole += 1
    with localcontext() as context:
        context.prec = 60
        return (whole if amount >= 0 else -whole) * unit


def rate_line(quantity: Decimal, rate: Decimal) -> Decimal:
    """Return quantity x rate, rounded once."""
    return round_half_away(Fraction(quantity) * Fraction(rate))


def rate_percent(base: Decimal, percent: Decimal) -> Decimal:
    """Return ``percent`` of an already rounded ``base``, rounded once."""
    return round_half_away(Fraction(base) * Fraction(percent) / 100)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum of rounded amounts."""
    with localcontext() as context:
        context.prec = 60
        return sum(amounts, Decimal("0.00"))


def sum_kwh(readings: Iterable[Reading]) -> Decimal:
    """Return the exact sum of the rows' energy."""
    with localcontext() as context:
        context.prec = 60
        return sum((item.kwh for item in readings), Decimal("0.000000"))


def cover_faults(readings: Sequence[Reading], start: datetime, end: datetime) -> list[str]:
    """Return where the rows of each meter leave a gap in ``[start, end)``, overlap, or stand outside it."""
    faults = []
    for meter_id in sorted({item.meter_id for item in readings}):
        reached = start
        for item in sorted((item for item in readings if item.meter_id == meter_id), key=lambda item: item.start):
            if item.start != reached:
                what = "a gap" if item.start > reached else "an overlap"
                faults.append(f"meter {meter_id}: {what} at {min(item.start, reached).isoformat()}")
            reached = max(reached, item.end)
        if reached != end:
            faults.append(f"meter {meter_id}: evidence ends {reached.isoformat()}, the line's period {end.isoformat()}")
    if not readings:
        faults.append(f"no evidence for {start.isoformat()} to {end.isoformat()}")
    return faults


def evidence_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the SHA-256 over the canonical JSON of evidence rows."""
    return hashlib.sha256(canonical(list(rows))).hexdigest()


def canonical(document: Any) -> bytes:
    """Return canonical JSON: sorted keys, no white space, UTF-8, no floats."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def check_bundle(bundle: Mapping[str, Any]) -> Result:
    """Return the recomputation of ``bundle``.

    Raises:
        BadBundle: a field is missing or of another form.
    """
    if bundle.get("form") != FORM:
        raise BadBundle(f"form is {bundle.get('form')!r}, not {FORM!r}; use the verifier of that version")
    invoice = _part(bundle, "invoice", Mapping)
    period = (_time(invoice, "period_start"), _time(invoice, "period_end"))
    differences: list[str] = []
    lines = [_check_line(item, place, differences) for place, item in enumerate(_part(invoice, "lines", list), start=1)]
    differences += _line_gaps(_part(invoice, "lines", list), *period)
    computed, stated = total(line.computed for line in lines), _decimal(invoice, "total")
    if computed != stated:
        differences.append(f"total: stated {stated}, recomputed {computed}")
    return Result(
        number=str(invoice.get("number")),
        currency=str(invoice.get("currency")),
        lines=tuple(lines),
        stated_total=stated,
        computed_total=computed,
        differences=tuple(differences),
    )


def _check_line(item: Any, place: int, differences: list[str]) -> Line:
    where = f"line {place}"
    if not isinstance(item, Mapping) or item.get("code") != ENERGY:
        raise BadBundle(f"{where}: only {ENERGY} lines are known to this version")
    rows = _part(item, "evidence", list)
    readings = [_reading(row, f"{where} evidence {number}") for number, row in enumerate(rows, start=1)]
    quantity, rate, stated = sum_kwh(readings), _decimal(item, "rate"), _decimal(item, "amount")
    computed = rate_line(quantity, rate)
    if evidence_digest(rows) != item.get("evidence_sha256"):
        differences.append(f"{where}: the evidence is not what was billed: its SHA-256 differs")
    if quantity != _decimal(item, "quantity_kwh"):
        differences.append(f"{where}: quantity stated {item.get('quantity_kwh')} kWh, recomputed {quantity} kWh")
    if computed != stated:
        differences.append(f"{where}: amount stated {stated}, recomputed {computed}")
    differences += [f"{where}: {fault}" for fault in cover_faults(readings, _time(item, "start"), _time(item, "end"))]
    return Line(
        place=place,
        code=ENERGY,
        description=str(item.get("description", "")),
        quantity_kwh=quantity,
        rate=rate,
        stated=stated,
        computed=computed,
        intervals=len(readings),
        estimated=sum(reading.estimated for reading in readings),
    )


def _line_gaps(lines: Sequence[Any], start: datetime, end: datetime) -> list[str]:
    """Return where the energy lines together miss or double part of the invoice's period."""
    reached, faults = start, []
    for item in sorted(lines, key=lambda item: _time(item, "start")):
        if _time(item, "start") != reached:
            faults.append(f"the lines leave a gap or overlap at {reached.isoformat()}")
        reached = _time(item, "end")
    if reached != end:
        faults.append(f"the lines end {reached.isoformat()}, the invoice {end.isoformat()}")
    return faults


def _reading(row: Any, where: str) -> Reading:
    if not isinstance(row, Mapping):
        raise BadBundle(f"{where} is not an object")
    start, end = _time(row, "start"), _time(row, "end")
    if end <= start or not isinstance(row.get("estimated"), bool) or not isinstance(row.get("meter_id"), str):
        raise BadBundle(f"{where}: needs meter_id, start before end, and estimated true or false")
    return Reading(row["meter_id"], start, end, _decimal(row, "kwh"), row["estimated"])


def _part(document: Mapping[str, Any], name: str, kind: type) -> Any:
    value = document.get(name)
    if not isinstance(value, kind):
        raise BadBundle(f"{name} is missing or of another form")
    return value


def _decimal(document: Mapping[str, Any], name: str) -> Decimal:
    value = document.get(name)
    try:
        if isinstance(value, str) and (number := Decimal(value)).is_finite():
            return number
    except InvalidOperation:
        pass
    raise BadBundle(f"{name} is {value!r}, not a decimal number in quotes")


def _time(document: Mapping[str, Any], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(str(document.get(name)))
    except ValueError:
        raise BadBundle(f"{name} is {document.get(name)!r}, not a time") from None
    if moment.tzinfo is None:
        raise BadBundle(f"{name} {document.get(name)!r} has no time zone")
    return moment
