"""What every answer and every form carries: security headers, one-time nonces, origin check. Framework edge.

Invariants: each response has the headers below, error pages and streams included; a nonce is used for one response; a
request that changes something is refused unless its Origin (or, without one, its Sec-Fetch-Site) is this site's.
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FIXED: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_ONE_YEAR: Final = "max-age=31536000"

OnError = Callable[[Request, Exception], Awaitable[Response]]


def content_policy(nonce: str) -> str:
    """Return the Content-Security-Policy that allows this origin's own files and scripts that carry ``nonce``."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types htmx"
    )


class Guard:
    """ASGI middleware: puts ``nonce`` into the request's state and the headers onto its answer."""

    def __init__(
        self, app: ASGIApp, on_error: OnError, make_nonce: Callable[[], str] = lambda: secrets.token_urlsafe(18)
    ) -> None:
        self._app = app
        self._on_error = on_error
        self._make_nonce = make_nonce

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        nonce = self._make_nonce()
        scope.setdefault("state", {})["nonce"] = nonce
        started = False
        static = scope["path"].startswith("/static/")

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _FIXED.items():
                    headers[name] = value
                headers["Content-Security-Policy"] = content_policy(nonce)
                if scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = _ONE_YEAR
                if not static:
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if scope["method"] not in _SAFE_METHODS and not same_origin(scope):
            refusal = PlainTextResponse("This form was sent from another site; open the page here and try again.", 403)
            await refusal(scope, receive, guarded)
            return
        try:
            await self._app(scope, receive, guarded)
        except Exception as error:
            # Outside this class nothing would add the headers; a broken stream can only be cut.
            if started:
                raise
            answer = await self._on_error(Request(scope, receive), error)
            await answer(scope, receive, guarded)


def same_origin(scope: Scope) -> bool:
    """Return whether the request comes from this site's own pages.

    Browsers send ``Origin`` with every form and script that changes something; a request with neither header comes
    from a program, which holds no cookie it did not fetch itself.
    """
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host", "")
    return headers.get("sec-fetch-site", "none") in {"none", "same-origin"}
