"""The same screens as JSON under /api/v1/, for the same sessions. Read only.

Invariant: figures are those of the pages: each document is made from the screen that stands behind the page.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from cloud.api.pages import Window
from cloud.api.screens import Console
from cloud.api.session import SignedVisitor
from cloud.api.source import InvoiceRead, InvoiceSummary
from cloud.api.views.wording import Alert, Tile, Verdict, text_of
from cloud.core.money import Money
from cloud.hosting.model import SiteSummary
from sitelink.types import Interval

ROUTER: Final = APIRouter(prefix="/api/v1")


def _console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


@ROUTER.get("/overview")
def overview(request: Request, visitor: SignedVisitor) -> JSONResponse:
    """Return every site in scope."""
    screen = _console(request).fleet(visitor.account.principal)
    sites = [
        _summary(line.summary) | {"level": line.verdict.level.value, "state": text_of(line.verdict.headline)}
        for line in screen.sites
    ]
    return _answer(_head(screen.as_of, screen.verdict, screen.tiles) | {"sites": sites})


@ROUTER.get("/sites/{site_id}")
def site(request: Request, visitor: SignedVisitor, site_id: str, window: Window = None) -> JSONResponse:
    """Return one site."""
    screen = _console(request).site(visitor.account.principal, site_id, window)
    census = screen.census
    body = _head(screen.as_of, screen.verdict, screen.tiles) | {
        "site": _summary(screen.summary),
        "window": screen.window,
        "alerts": [_alert(alert) for alert in screen.alerts],
        "miners": {
            "total": census.total,
            "running": census.running,
            "stopped_by_plan": census.stopped,
            "should_be_off": census.mismatch,
            "should_run": census.off,
            "unknown": census.unknown,
            "liars": census.liars,
        },
        "chart": screen.chart.document(),
        "events": [
            {"at": n.at.isoformat(), "code": n.code.value, "subject": n.subject, "detail": n.detail}
            for n in screen.events
        ],
    }
    return _answer(body)


@ROUTER.get("/sites/{site_id}/racks/{digest}")
def layout(request: Request, visitor: SignedVisitor, site_id: str, digest: str) -> JSONResponse:
    """Return which miner each cell of the rack map is; fetched once a layout, since ``digest`` names it."""
    racks = _console(request).site(visitor.account.principal, site_id, "15m").racks
    answer = _answer({"layout": racks.layout.digest, "miner_ids": racks.layout.miner_ids})
    if digest == racks.layout.digest:
        answer.headers["Cache-Control"] = "private, max-age=86400, immutable"
    return answer


@ROUTER.get("/sites/{site_id}/plan")
def plan(request: Request, visitor: SignedVisitor, site_id: str, window: Window = None) -> JSONResponse:
    """Return one site's plan with its verified curtailments."""
    screen = _console(request).plan(visitor.account.principal, site_id, window)
    stops = [
        {
            "curtailment_id": line.stop.curtailment_id,
            "cause": line.stop.cause.value,
            **_interval(line.stop.interval),
            "miners": len(line.stop.miner_ids),
            "expected_w": line.stop.expected_w,
            "target_power_w": line.stop.target_power_w,
            "phase": line.phase,
        }
        for line in screen.stops
    ]
    checks = [_check(asdict(line.check)) for line in screen.checks]
    facts = screen.plan
    body = _head(screen.as_of, screen.verdict, screen.tiles) | {
        "site": _summary(screen.summary),
        "revision": None if facts is None else facts.revision,
        "gap": None if facts is None else facts.gap,
        "objective_usd": None if facts is None else facts.objective_usd,
        "bound_usd": None if facts is None else facts.bound_usd,
        "curtailments": stops,
        "verifications": checks,
        "chart": screen.chart.document(),
    }
    return _answer(body)


@ROUTER.get("/sites/{site_id}/miners/{miner_id}")
def miner(request: Request, visitor: SignedVisitor, site_id: str, miner_id: str, window: Window = None) -> JSONResponse:
    """Return one miner."""
    screen = _console(request).miner(visitor.account.principal, site_id, miner_id, window)
    body = _head(screen.as_of, screen.verdict, screen.tiles) | {
        "miner": _plain(asdict(screen.miner)),
        "acks": [_plain(asdict(line.ack)) for line in screen.acks],
        "chart": screen.chart.document(),
    }
    return _answer(body)


@ROUTER.get("/invoices")
def invoices(request: Request, visitor: SignedVisitor) -> JSONResponse:
    """Return the invoices in scope."""
    read = _console(request).invoices(visitor.account.principal)
    return _answer({"as_of": read.read_at.isoformat(), "invoices": [_invoice(summary) for summary in read.invoices]})


@ROUTER.get("/invoices/{invoice_id}")
def invoice(request: Request, visitor: SignedVisitor, invoice_id: str) -> JSONResponse:
    """Return one invoice with the first page of its evidence."""
    read: InvoiceRead = _console(request).invoice(visitor.account.principal, invoice_id)
    body = _invoice(read.summary) | {
        "as_of": read.read_at.isoformat(),
        "lines": [
            {"description": line.description, "quantity": line.quantity, "unit_price": line.unit_price}
            | {"amount": _money(line.amount)}
            for line in read.lines
        ],
        "evidence_count": read.evidence_count,
        "curtailment_credit_provisional": _money(read.credit),
        "recomputed": _money(read.recomputed),
        "agrees": read.agrees,
    }
    return _answer(body)


def _answer(body: Mapping[str, Any]) -> JSONResponse:
    return JSONResponse(body)


def _head(as_of: datetime, verdict: Verdict, tiles: tuple[Tile, ...]) -> dict[str, Any]:
    return {
        "as_of": as_of.isoformat(),
        "verdict": {
            "level": verdict.level.value,
            "headline": text_of(verdict.headline),
            "detail": text_of(verdict.detail),
        },
        "tiles": [
            {"label": tile.label, "value": tile.figure.text, "unit": tile.figure.unit, "level": tile.level.value}
            | {"against": text_of(tile.against), "source": tile.source}
            for tile in tiles
        ],
    }


def _summary(summary: SiteSummary) -> dict[str, Any]:
    return _plain(asdict(summary))


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "level": alert.level.value,
        "title": text_of(alert.title),
        "consequence": text_of(alert.consequence),
        "action": alert.action,
        "since": None if alert.since is None else alert.since.isoformat(),
        "miners": alert.subjects,
    }


def _check(fields: dict[str, Any]) -> dict[str, Any]:
    interval = fields.pop("interval")
    return _plain(fields | {"start": interval["start"], "end": interval["end"]})


def _interval(interval: Interval) -> dict[str, str]:
    return {"start": interval.start.isoformat(), "end": interval.end.isoformat()}


def _invoice(summary: InvoiceSummary) -> dict[str, Any]:
    return {
        "invoice_id": summary.invoice_id,
        "number": summary.number,
        "site_id": summary.site_id,
        **_interval(summary.period),
        "total": _money(summary.total),
        "status": summary.status,
        "issued_at": summary.issued_at.isoformat(),
    }


def _money(amount: Money | None) -> dict[str, str] | None:
    return None if amount is None else {"amount": str(amount.amount), "currency": amount.currency}


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in fields.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return _plain(value) if isinstance(value, Mapping) else value
