"""Errors as answers: the one table from the cloud's errors to HTTP, as a page or as JSON.

Invariant: every problem says what is the case, what that means, what to do next, and an id to quote, which the log
carries too. What went wrong inside is logged and never shown.
"""

import logging
import secrets
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from cloud.api.render import page
from cloud.api.session import PasswordDue, SignedOut
from cloud.core.errors import CloudError, Conflict, Forbidden, NotFound, Permanent, Refused, Transient

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """What a person is told: fact, consequence, next step."""

    status: int
    code: str
    fact: str
    consequence: str
    next_step: str


_HOLDS: Final = "Sites keep following the plan they hold."
_TABLE: Final[tuple[tuple[type[CloudError], Problem], ...]] = (
    (SignedOut, Problem(401, "signed_out", "You are not signed in.", "Nothing is shown.", "Sign in and repeat.")),
    (
        PasswordDue,
        Problem(403, "password_due", "The one-time password is still set.", "Nothing is shown.", "Change it."),
    ),
    (
        NotFound,
        Problem(404, "not_found", "There is nothing here.", "It may be outside your scope.", "Check the address."),
    ),
    (Forbidden, Problem(403, "forbidden", "Your role does not allow this.", "Nothing changed.", "Ask the owner.")),
    (Conflict, Problem(409, "conflict", "Somebody else was first.", "Nothing changed.", "Reload and look again.")),
    (Refused, Problem(422, "refused", "A rule refuses this.", "Nothing changed.", "Correct it and repeat.")),
    (Transient, Problem(503, "unavailable", "The database cannot be reached.", _HOLDS, "Try again in a moment.")),
    (Permanent, Problem(500, "broken", "This page cannot be made.", _HOLDS, "Quote the id below to support.")),
)
_INTERNAL: Final = Problem(500, "internal", "This page cannot be made.", _HOLDS, "Quote the id below to support.")
_UNREADABLE: Final = Problem(
    422, "bad_request", "The address or form has a wrong value.", "Nothing changed.", "Go back."
)


def problem_of(error: Exception) -> Problem:
    """Return what to say about ``error``."""
    if isinstance(error, RequestValidationError):
        return _UNREADABLE
    if isinstance(error, HTTPException):
        return _TABLE[2][1] if error.status_code == 404 else _http_problem(error)
    known = next((problem for kind, problem in _TABLE if isinstance(error, kind)), _INTERNAL)
    if isinstance(error, Refused):
        return Problem(known.status, error.code, str(error), known.consequence, known.next_step)
    return known


def _http_problem(error: HTTPException) -> Problem:
    return Problem(error.status_code, "http", str(error.detail), "Nothing changed.", "Go back and try another way.")


def install_problems(app: FastAPI) -> None:
    """Let ``app`` answer every expected error from the table; ``Guard`` sends the others to ``answer``."""
    for kind in (CloudError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)


async def answer(request: Request, error: Exception) -> Response:
    """Return the page or the JSON for ``error``; the login page where nobody is signed in."""
    machine = request.url.path.startswith(("/api/", "/live/"))
    if isinstance(error, SignedOut) and not machine:
        return RedirectResponse("/login", 303)
    if isinstance(error, PasswordDue) and not machine:
        return RedirectResponse("/password", 303)
    problem = problem_of(error)
    quote = secrets.token_hex(4)
    if problem.status >= 500:
        unexpected = problem is _INTERNAL
        _LOG.error("request failed id=%s path=%s: %s", quote, request.url.path, error, exc_info=unexpected)
    if machine:
        body = {
            "code": problem.code,
            "fact": problem.fact,
            "consequence": problem.consequence,
            "next_step": problem.next_step,
            "id": quote,
        }
        return JSONResponse(body, problem.status)
    return page(request, "problem.html", status=problem.status, problem=problem, quote=quote)
