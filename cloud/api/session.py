"""Sessions at the HTTP edge: the cookie, the form token, the way in for every route, and the limit on guesses.

Invariants: the cookie is opaque, HttpOnly and SameSite=Lax; over HTTPS its name is ``__Host-ballast`` (Secure, no
domain, path /), on plain-HTTP loopback, where browsers refuse that prefix, ``ballast``; a form token is derived from
the session's token, so it ends with it; while a password must be changed, nothing but that page is open.
"""

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Form, Request
from starlette.responses import Response

from cloud.api.source import Accounts, SignedIn
from cloud.core.errors import CloudError, Refused
from cloud.identity.model import SESSION_LENGTH
from sitelink.clock import Clock

_SECURE_NAME: Final = "__Host-ballast"
_PLAIN_NAME: Final = "ballast"


class SignedOut(CloudError):
    """Nobody is signed in: a page leads to the login, JSON and streams answer 401."""


class PasswordDue(CloudError):
    """The account's one-time password must be changed first."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who makes this request, with the token of their session."""

    account: SignedIn
    token: str

    @property
    def form_token(self) -> str:
        """Return what every form of this session carries."""
        return form_token(self.token)


def form_token(secret: str) -> str:
    """Return the form token that belongs to ``secret``; it does not reveal it."""
    return hmac.new(secret.encode(), b"ballast form", hashlib.sha256).hexdigest()


def is_form_token(given: str, secret: str) -> bool:
    """Return whether ``given``, whatever it holds, is the form token of ``secret``; it takes the same time for all."""
    return hmac.compare_digest(given.encode(errors="replace"), form_token(secret).encode())


def cookie_name(request: Request) -> str:
    """Return the session cookie's name on this connection."""
    return _SECURE_NAME if request.url.scheme == "https" else _PLAIN_NAME


def set_cookie(request: Request, response: Response, token: str) -> None:
    """Put the session's token into the browser, which keeps it as long as a session may last: the server ends it."""
    _write_cookie(request, response, token, int(SESSION_LENGTH.total_seconds()))


def clear_cookie(request: Request, response: Response) -> None:
    """Take the session's token out of the browser."""
    _write_cookie(request, response, "", 0)


def _write_cookie(request: Request, response: Response, value: str, max_age_s: int) -> None:
    secure = request.url.scheme == "https"
    name = cookie_name(request)
    response.set_cookie(name, value, max_age=max_age_s, path="/", secure=secure, httponly=True, samesite="lax")


def any_visitor(request: Request) -> Visitor:
    """Return who is signed in, also while their password must be changed.

    Raises:
        SignedOut: no cookie, or its session has ended.
    """
    token = request.cookies.get(cookie_name(request), "")
    accounts: Accounts = request.app.state.console.accounts
    account = accounts.session(token) if token else None
    if account is None:
        raise SignedOut("no session")
    return Visitor(account, token)


def visitor(request: Request) -> Visitor:
    """Return who is signed in.

    Raises:
        SignedOut: no cookie, or its session has ended.
        PasswordDue: the one-time password has not been changed.
    """
    found = any_visitor(request)
    if found.account.must_change_password:
        raise PasswordDue("change the one-time password first")
    return found


AnyVisitor = Annotated[Visitor, Depends(any_visitor)]
SignedVisitor = Annotated[Visitor, Depends(visitor)]


def check_form(found: AnyVisitor, csrf: Annotated[str, Form()] = "") -> None:
    """Refuse a form that does not carry its session's token."""
    if not is_form_token(csrf, found.token):
        raise Refused("form_token", "This form is from an earlier session; open the page again and repeat.")


CheckedForm = Depends(check_form)


class GuessLimit:
    """At most ``tries`` failed logins a key in ``window_s``, counted in this process alone; keys are bounded."""

    def __init__(self, clock: Clock, tries: int = 8, window_s: float = 300, keys: int = 4096) -> None:
        self._clock = clock
        self._tries = tries
        self._window_s = window_s
        self._keys = keys
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, key: str) -> int:
        """Return how many seconds ``key`` must wait; 0 when it may try."""
        recent = self._recent(key)
        if len(recent) < self._tries:
            return 0
        return max(1, round(recent[0] + self._window_s - self._clock.monotonic()))

    def failed(self, key: str) -> None:
        """Count one failure of ``key``."""
        self._failures[key] = [*self._recent(key), self._clock.monotonic()]
        self._failures.move_to_end(key)
        while len(self._failures) > self._keys:
            self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget the failures of ``key``."""
        self._failures.pop(key, None)

    def _recent(self, key: str) -> list[float]:
        oldest = self._clock.monotonic() - self._window_s
        return [moment for moment in self._failures.get(key, []) if moment > oldest]
