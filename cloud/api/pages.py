"""The console's pages and their live streams; each needs a signed-in visitor, whose principal scopes every read."""

from collections.abc import Callable, Hashable
from typing import Annotated, Final, Literal

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from cloud.api import streams
from cloud.api.render import page
from cloud.api.screens import Console
from cloud.api.session import SignedVisitor, Visitor
from cloud.api.views.listing import PAGE_SIZE, Show, list_miners
from cloud.api.views.site import WINDOWS
from cloud.core.access import Principal

ROUTER: Final = APIRouter()
Window = Annotated[Literal["5m", "15m", "1h", "6h", "24h"] | None, Query()]


def _console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


@ROUTER.get("/")
def overview(request: Request, visitor: SignedVisitor) -> Response:
    """Show every site in scope."""
    screen = _console(request).fleet(visitor.account.principal)
    return page(request, "overview.html", visitor=visitor, screen=screen, stream="/live/overview")


@ROUTER.get("/sites/{site_id}")
def site(request: Request, visitor: SignedVisitor, site_id: str, window: Window = None) -> Response:
    """Show one site."""
    screen = _console(request).site(visitor.account.principal, site_id, window)
    stream = f"/live/sites/{site_id}?window={screen.window}"
    racks = streams.racks_document(screen.racks)
    return page(
        request, "site.html", visitor=visitor, screen=screen, stream=stream, windows=tuple(WINDOWS), racks=racks
    )


@ROUTER.get("/sites/{site_id}/plan")
def plan(request: Request, visitor: SignedVisitor, site_id: str, window: Window = None) -> Response:
    """Show one site's plan."""
    screen = _console(request).plan(visitor.account.principal, site_id, window)
    stream = f"/live/sites/{site_id}/plan?window={screen.window}"
    return page(request, "plan.html", visitor=visitor, screen=screen, stream=stream, windows=tuple(WINDOWS))


@ROUTER.get("/sites/{site_id}/miners")
def miners(
    request: Request,
    visitor: SignedVisitor,
    site_id: str,
    show: Show = Show.ALL,
    number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1,
) -> Response:
    """List one site's miners: what the rack map shows, as a table."""
    read = _console(request).site_read(visitor.account.principal, site_id, "15m")
    listing = list_miners(read, show, number)
    return page(request, "miners.html", visitor=visitor, listing=listing, page_size=PAGE_SIZE)


@ROUTER.get("/sites/{site_id}/miners/{miner_id}")
def miner(request: Request, visitor: SignedVisitor, site_id: str, miner_id: str, window: Window = None) -> Response:
    """Show one miner."""
    screen = _console(request).miner(visitor.account.principal, site_id, miner_id, window)
    stream = f"/live/sites/{site_id}/miners/{miner_id}?window={screen.window}"
    return page(request, "miner.html", visitor=visitor, screen=screen, stream=stream, windows=tuple(WINDOWS))


@ROUTER.get("/invoices")
def invoices(request: Request, visitor: SignedVisitor) -> Response:
    """List invoices."""
    read = _console(request).invoices(visitor.account.principal)
    return page(request, "invoices.html", visitor=visitor, read=read)


@ROUTER.get("/invoices/{invoice_id}")
def invoice(request: Request, visitor: SignedVisitor, invoice_id: str) -> Response:
    """Show one invoice with its evidence."""
    read = _console(request).invoice(visitor.account.principal, invoice_id)
    return page(request, "invoice.html", visitor=visitor, read=read)


@ROUTER.get("/account")
def account(request: Request, visitor: SignedVisitor) -> Response:
    """Show who is signed in, and what they may do."""
    return page(request, "account.html", visitor=visitor)


@ROUTER.get("/live/overview")
async def live_overview(request: Request, visitor: SignedVisitor) -> Response:
    """Stream the overview."""
    console, principal = _console(request), visitor.account.principal
    return await _stream(console, visitor, ("overview",), lambda: streams.fleet_parts(console.fleet(principal)))


@ROUTER.get("/live/sites/{site_id}")
async def live_site(request: Request, visitor: SignedVisitor, site_id: str, window: Window = None) -> Response:
    """Stream one site."""
    console, principal = _console(request), visitor.account.principal
    key = ("site", site_id, window)
    return await _stream(console, visitor, key, lambda: streams.site_parts(console.site(principal, site_id, window)))


@ROUTER.get("/live/sites/{site_id}/plan")
async def live_plan(request: Request, visitor: SignedVisitor, site_id: str, window: Window = None) -> Response:
    """Stream one site's plan."""
    console, principal = _console(request), visitor.account.principal
    key = ("plan", site_id, window)
    return await _stream(console, visitor, key, lambda: streams.plan_parts(console.plan(principal, site_id, window)))


@ROUTER.get("/live/sites/{site_id}/miners/{miner_id}")
async def live_miner(
    request: Request, visitor: SignedVisitor, site_id: str, miner_id: str, window: Window = None
) -> Response:
    """Stream one miner."""
    console, principal = _console(request), visitor.account.principal
    key = ("miner", site_id, miner_id, window)
    make = lambda: streams.miner_parts(console.miner(principal, site_id, miner_id, window))  # noqa: E731 - one use, typed by its parameter below
    return await _stream(console, visitor, key, make)


async def _stream(console: Console, visitor: Visitor, key: Hashable, make: Callable[[], streams.Parts]) -> Response:
    async def still_welcome() -> bool:
        account = await anyio.to_thread.run_sync(console.accounts.session, visitor.token)
        return account is not None and account.principal == visitor.account.principal

    scoped = (_scope(visitor.account.principal), key)
    feed = streams.PageFeed(make)
    first = await console.hub.first_frame(scoped, feed)
    messages = console.hub.stream(scoped, feed, still_welcome, first)
    return StreamingResponse(messages, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _scope(principal: Principal) -> Hashable:
    """Return what two viewers must share to be shown the same frames."""
    return (principal.tenant_id, principal.role, principal.sites)
