"""The way in: login, forced change of a one-time password, sign-out.

Invariants: an unknown account and a wrong password get the same answer after the same work; guesses are limited per
address and per account before the password is looked at; a login form carries a token bound to a cookie of its own.
"""

import secrets
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from cloud.api.render import page
from cloud.api.screens import Console
from cloud.api.session import (
    AnyVisitor,
    CheckedForm,
    GuessLimit,
    clear_cookie,
    cookie_name,
    form_token,
    is_form_token,
    set_cookie,
)
from cloud.core.errors import Refused

ROUTER: Final = APIRouter()
_WRONG: Final = "Email or password is not right. Nothing else was checked; try again."
_STALE: Final = "This form is too old. Enter email and password again."
_FORM_COOKIE: Final = "ballast-form"


@ROUTER.get("/login")
def login_form(request: Request) -> Response:
    """Show the login; who is signed in already goes on."""
    token = request.cookies.get(cookie_name(request), "")
    if token and _console(request).accounts.session(token) is not None:
        return RedirectResponse("/", 303)
    return _login_page(request)


@ROUTER.post("/login")
def login(
    request: Request,
    email: Annotated[str, Form(max_length=254)],
    password: Annotated[str, Form(max_length=1024)],
    csrf: Annotated[str, Form()] = "",
) -> Response:
    """Start a session, or say once more the same of every failure."""
    secret = request.cookies.get(_FORM_COOKIE, "")
    if not secret or not is_form_token(csrf, secret):
        return _login_page(request, _STALE, email, 403)
    limit: GuessLimit = request.app.state.guesses
    address = request.client.host if request.client else "unknown"
    keys = (f"address {address}", f"account {email.strip().lower()}")
    wait_s = max(limit.wait_s(key) for key in keys)
    if wait_s:
        return _login_page(request, f"Too many attempts. Try again in {wait_s} s.", email, 429)
    token = _console(request).accounts.sign_in(email.replace("\0", "\ufffd"), password)  # no store can look NUL up
    if token is None:
        for key in keys:
            limit.failed(key)
        return _login_page(request, _WRONG, email, 401)
    limit.succeeded(keys[1])
    answer = RedirectResponse("/", 303)
    set_cookie(request, answer, token)
    answer.delete_cookie(_FORM_COOKIE, path="/login")
    return answer


@ROUTER.get("/password")
def password_form(request: Request, found: AnyVisitor) -> Response:
    """Show the form that changes one's own password."""
    return page(request, "password.html", visitor=found, trouble="")


@ROUTER.post("/password", dependencies=[CheckedForm])
def change_password(
    request: Request,
    found: AnyVisitor,
    old: Annotated[str, Form(max_length=1024)],
    new: Annotated[str, Form(max_length=1024)],
    again: Annotated[str, Form(max_length=1024)],
) -> Response:
    """Change one's own password; every other session of the account ends."""
    limit: GuessLimit = request.app.state.guesses
    key = f"password {found.account.email}"
    trouble = ""
    token = None
    if new != again:
        trouble = "The two new passwords differ. Nothing changed; enter both again."
    elif limit.wait_s(key):
        trouble = f"Too many attempts. Try again in {limit.wait_s(key)} s."
    else:
        try:
            token = _console(request).accounts.change_password(found.token, old, new)
        except Refused as refusal:
            trouble = f"{refusal} Nothing changed."
        else:
            if token is None:
                limit.failed(key)
                trouble = "The present password is not right. Nothing changed."
    if token is None:
        return page(request, "password.html", status=422, visitor=found, trouble=trouble)
    answer = RedirectResponse("/", 303)
    set_cookie(request, answer, token)
    return answer


@ROUTER.post("/logout", dependencies=[CheckedForm])
def logout(request: Request, found: AnyVisitor) -> Response:
    """End the session."""
    _console(request).accounts.sign_out(found.token)
    answer = RedirectResponse("/login", 303)
    clear_cookie(request, answer)
    return answer


def _login_page(request: Request, trouble: str = "", email: str = "", status: int = 200) -> Response:
    secret = request.cookies.get(_FORM_COOKIE) or secrets.token_urlsafe(24)
    answer = page(
        request, "login.html", status=status, trouble=trouble, email=email[:254], form_token=form_token(secret)
    )
    secure = request.url.scheme == "https"
    answer.set_cookie(_FORM_COOKIE, secret, path="/login", secure=secure, httponly=True, samesite="strict")
    return answer


def _console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console
