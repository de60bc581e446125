"""The console's HTTP side: makes the application and hands each part what it needs.

Invariants: every route but the ones in ``OPEN_PATHS`` needs a signed-in visitor (a test lists them); every answer
carries the security headers; liveness says only that the process answers, readiness that the database does too.

Plain HTTP is for loopback and for a proxy that terminates TLS and speaks HTTP/2; browsers open at most six streams
to one HTTP/1.1 address, so a seventh visible live page waits until one is closed or hidden.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio.to_thread
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud.api import json_v1, pages, signin
from cloud.api.accounts import DatabaseAccounts
from cloud.api.live import LiveHub
from cloud.api.problems import answer, install_problems
from cloud.api.reads import DatabaseReads
from cloud.api.render import STATIC
from cloud.api.screens import Console
from cloud.api.security import Guard
from cloud.api.session import GuessLimit
from cloud.core.errors import CloudError, NotFound
from cloud.infra.db import Database
from cloud.settings import Settings
from sitelink.units import UsdPerPetahashDay

OPEN_PATHS: Final = frozenset({"/login", "/healthz", "/readyz", "/static"})


def create_http_app(database: Database, settings: Settings) -> FastAPI:
    """Return the console over ``database``; the server that runs it owns the address and TLS."""
    console = Console(
        reads=DatabaseReads(database, settings),
        accounts=DatabaseAccounts(database),
        hub=LiveHub(),
        clock=database.clock,
        hashprice=UsdPerPetahashDay(settings.hashprice_usd_per_ph_day),
    )
    return build_app(console)


def build_app(console: Console) -> FastAPI:
    """Return the application around ``console``."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with console.hub.running():
            yield

    app = FastAPI(title="Ballast", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.console = console
    app.state.guesses = GuessLimit(console.clock)
    app.add_middleware(_Nameable)
    app.add_middleware(Guard, on_error=answer)
    install_problems(app)
    app.include_router(signin.ROUTER)
    app.include_router(pages.ROUTER)
    app.include_router(json_v1.ROUTER)
    app.add_api_route("/healthz", _alive, include_in_schema=False)
    app.add_api_route("/readyz", _ready, include_in_schema=False)
    app.mount("/static", _HashedFiles(directory=STATIC, check_dir=False), name="static")
    return app


def _alive() -> Response:
    return PlainTextResponse("alive\n")


async def _ready(request: Request) -> Response:
    console: Console = request.app.state.console
    try:
        await anyio.to_thread.run_sync(console.reads.ready)
    except CloudError as error:
        return PlainTextResponse(f"not ready: {type(error).__name__}\n", 503)
    return PlainTextResponse("ready\n")


class _Nameable:
    """ASGI middleware: nothing has a name with NUL in it, which neither database nor file system can look up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serve = self._app
        if scope["type"] == "http" and "\0" in scope["path"]:
            serve = await answer(Request(scope, receive), NotFound("an address with NUL in it"))
        await serve(scope, receive, send)


class _HashedFiles(StaticFiles):
    """Bundles under names that carry their hash: they never change, so browsers keep them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code == 200:
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response
